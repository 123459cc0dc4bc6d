import contextlib
import http.client
import json
import pathlib
import threading

import pytest

from research.core.errors import UserError
from research.labelling import table
from research.labelling.server import Server, Sheet

CLASSES = ("good", "bad <b>")


@pytest.fixture
def path(tmp_path, cache):
    table.write(tmp_path / "to label & keep.csv", [table.row("a", "First."), table.row("b", "Second <script>."), table.row("c", "Third: 映画.")])
    return tmp_path / "to label & keep.csv"


@contextlib.contextmanager
def served(path, annotator="ann"):
    """ask(method, path, what to send, more headers) -> (status, what came), of a server that runs."""
    with Server(Sheet(path, CLASSES, annotator), 0) as server:
        address, port = server.server_address
        assert address == "127.0.0.1"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def ask(method, where, what=None, **headers):
            connection = http.client.HTTPConnection(address, port, timeout=10)
            body = None if what is None else what if isinstance(what, str) else json.dumps(what)
            connection.request(
                method, where, body, {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
            )
            answer = connection.getresponse()
            found = answer.read().decode()
            connection.close()
            return answer.status, json.loads(found) if answer.headers["Content-Type"] == "application/json" else found

        ask.port = port
        try:
            yield ask
        finally:
            server.shutdown()
            thread.join()


def labels(path):
    return {row["key"]: (row["label"], row["annotator"]) for row in table.read(path)}


@pytest.mark.short
def test_each_label_is_in_the_file_at_once_and_may_be_changed_or_taken_away(path):
    with served(path) as ask:
        assert ask("GET", "/example") == (200, {"place": 0, "total": 3, "labelled": 0, "key": "a", "text": "First.", "label": ""})
        assert ask("POST", "/label", {"key": "a", "label": "good"}) == (200, {}) and labels(path)["a"] == ("good", "ann")
        assert ask("GET", "/example?place=0")[1]["label"] == "good"
        assert ask("POST", "/label", {"key": "a", "label": "bad <b>"})[0] == 200 and labels(path)["a"] == ("bad <b>", "ann")
        assert ask("POST", "/label", {"key": "a", "label": ""})[0] == 200 and labels(path)["a"] == ("", "")
        assert ask("GET", "/example?place=9")[1] == {"place": 3, "total": 3, "labelled": 0}


def test_a_path_may_be_longer_than_a_name_and_paths_that_look_alike_are_locked_apart(path, tmp_path):
    long = tmp_path.joinpath(*["folder" * 20] * 3, "a.csv")
    for one in (long, tmp_path / "a" / "b.csv", tmp_path / "a-b.csv"):
        table.write(one, [table.row("a", "First.")])
        Sheet(one, CLASSES, "").label("a", "good")
        assert labels(one) == {"a": ("good", "")}
    first, second = (Sheet(tmp_path / name, CLASSES, "")._between for name in ("a/b.csv", "a-b.csv"))
    assert first.lock_file != second.lock_file


def test_it_resumes_where_it_stopped(path):
    with served(path) as ask:
        ask("POST", "/label", {"key": "a", "label": "good"})
        ask("POST", "/label", {"key": "b", "label": "good"})
    with served(path, "someone else") as ask:
        here = ask("GET", "/example")[1]
        assert (here["place"], here["labelled"], here["text"]) == (2, 2, "Third: 映画.")
        ask("POST", "/label", {"key": "c", "label": "good"})
        assert ask("GET", "/example")[1] == {"place": 3, "total": 3, "labelled": 3}
    assert labels(path) == {"a": ("good", "ann"), "b": ("good", "ann"), "c": ("good", "someone else")}


def test_what_others_write_between_two_labels_stays(path):
    with served(path) as ask:
        rows = table.read(path)
        table.write(path, [rows[1] | {"label": "good", "note": "mine"}, rows[0], table.row("d", "New.")])
        ask("POST", "/label", {"key": "a", "label": "good"})
        assert [(row["key"], row["label"], row["note"]) for row in table.read(path)] == [("b", "good", "mine"), ("a", "good", ""), ("d", "", "")]
        status, found = ask("POST", "/label", {"key": "c", "label": "good"})
        assert status == 409 and "no text with the key 'c' any more" in found["error"]


def test_many_labels_at_once_are_all_kept(path):
    table.write(path, [table.row(str(i), f"Text {i}.") for i in range(24)])
    with served(path) as one, served(path) as other:
        asked = [threading.Thread(target=(one, other)[i % 2], args=("POST", "/label", {"key": str(i), "label": "good"})) for i in range(24)]
        for thread in asked:
            thread.start()
        for thread in asked:
            thread.join()
    assert set(labels(path).values()) == {("good", "ann")}


def test_the_page_has_a_key_for_each_class_and_loads_nothing(path):
    with served(path) as ask:
        status, page = ask("GET", "/")
    assert status == 200 and "{{" not in page
    assert '<button class="class" data-label="good" aria-pressed="false" aria-keyshortcuts=1><kbd>1</kbd>good</button>' in page
    assert "aria-keyshortcuts=2><kbd>2</kbd>bad &lt;b&gt;</button>" in page and "<h1>to label &amp; keep.csv</h1>" in page
    assert "http://" not in page and "https://" not in page and "src=" not in page


@pytest.mark.parametrize(
    "method, where, what, headers, status",
    [
        ("GET", "/other", None, {}, 404),
        ("GET", "/../etc/passwd", None, {}, 404),
        ("GET", "/example?place=-1", None, {}, 404),
        ("GET", "/", None, {"Host": "evil.example:80"}, 403),
        ("GET", "/example", None, {"Host": "evil.example:80"}, 403),
        ("POST", "/label", {"key": "a", "label": "good"}, {"Origin": "http://evil.example"}, 403),
        ("POST", "/label", {"key": "a", "label": "good"}, {"Content_Type": "text/plain"}, 403),
        ("POST", "/", {"key": "a", "label": "good"}, {}, 404),
        ("POST", "/label", {"key": "a", "label": "ugly"}, {}, 409),
        ("POST", "/label", {"key": "z", "label": "good"}, {}, 409),
        ("POST", "/label", {"label": "good"}, {}, 409),
        ("POST", "/label", "no JSON", {}, 409),
        ("POST", "/label", [1], {}, 409),
        ("POST", "/label", {"key": ["a"], "label": ["good"]}, {}, 409),
        *(("POST", "/label", {"key": "a", "label": nothing}, {}, 409) for nothing in (0, False, None, [], {})),
    ],
)
def test_what_is_not_asked_by_the_page_is_refused_and_changes_nothing(path, method, where, what, headers, status):
    before = path.read_bytes()
    with served(path) as ask:
        found, answer = ask(method, where, what, **headers)
    assert found == status and answer["error"] and path.read_bytes() == before


def test_the_page_itself_is_let_in(path):
    with served(path) as ask:
        assert ask("POST", "/label", {"key": "a", "label": "good"}, Host=f"localhost:{ask.port}", Origin=f"http://localhost:{ask.port}")[0] == 200


def test_a_full_disk_is_told_and_the_file_stays(path, monkeypatch):
    with served(path) as ask:
        monkeypatch.setattr(pathlib.Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        status, answer = ask("POST", "/label", {"key": "a", "label": "good"})
    assert status == 409 and "cannot be written (No space left on device)" in answer["error"] and labels(path)["a"] == ("", "")


def test_a_file_that_cannot_be_locked_is_told(path, monkeypatch):
    def acquire(*_, **__):
        raise OSError(28, "No space left on device")

    with served(path) as ask:
        monkeypatch.setattr("filelock.FileLock.acquire", acquire)
        status, answer = ask("POST", "/label", {"key": "a", "label": "good"})
    assert status == 507 and "cannot be locked" in answer["error"] and labels(path)["a"] == ("", "")


def test_a_file_broken_meanwhile_is_told(path):
    with served(path) as ask:
        path.write_text("no table")
        assert "no column" in ask("GET", "/example")[1]["error"]


def test_what_cannot_be_served_is_one_line(path, tmp_path, cache):
    table.write(tmp_path / "empty.csv", [])
    with pytest.raises(UserError, match="empty.csv has no text"):
        Sheet(tmp_path / "empty.csv", CLASSES, "")
    table.write(tmp_path / "other.csv", [table.row("a", "A", "ugly")])
    with pytest.raises(UserError, match="'ugly' is none of good"):
        Sheet(tmp_path / "other.csv", CLASSES, "")
    with served(path) as ask, pytest.raises(UserError, match=f"port {ask.port} cannot be had.*--port"):
        Server(Sheet(path, CLASSES, ""), ask.port)
