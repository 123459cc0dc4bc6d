"""The command, on runs whose parameters are as random as they began: what is told is nonsense, but of the right kind and on the right texts."""

import contextlib
import io
import re
import threading

import numpy as np
import pytest

from configs import base
from research import label, restore
from research.core import config as config_lib
from research.core.errors import UserError, run_command
from research.labelling import pseudo_labels, table
from research.labelling.server import Server
from tests.test_predict import make, results
from tests.tiny import tiny_config
from tests.tiny_text import TOPICS, document

TOPIC = dict(data__name="tests.tiny_text:TinyTopics", data__source="labelled_text", data__length=32)
RUNS = {
    "class": TOPIC | dict(objective__name="sequence_classification"),
    "mask": dict(data__name="tests.tiny_text:TinyTopics", model__pool="mean"),
    "pair": TOPIC | dict(objective__name="sequence_classification", data__second_text_field="other"),
    "words": TOPIC | dict(objective__name="token_classification"),
    "image": dict(
        model__name="vit",
        model__image_size=8,
        model__patch_size=4,
        model__norm="pre",
        model__pool="mean",
        model__class_token=False,
        objective__name="image_classification",
    ),
}
UNREADABLE = ("image", "pair")  # which are refused before there is anything to read but their config
DATA = "--data=tests.tiny_text:TinyTopics"
FUNCTIONS = """
def lf_low(text):
    return "low" if text[0].lower() in "abcd" else None
def lf_high(text):
    return "high" if text[0].lower() in "hijkl" else None
def lf_often_wrong(text):
    return "low" if len(text) % 2 else "high"
"""


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, cache):
    made = {}

    def of(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            if name in UNREADABLE:
                (made[name] / "config.json").write_text(config_lib.to_json(tiny_config(**RUNS[name])))
            else:
                make(made[name], RUNS[name], ["low", "high"] if name == "class" else None)
        return made[name]

    return of


@pytest.fixture
def rules(tmp_path):
    (tmp_path / "rules.py").write_text(FUNCTIONS)
    return tmp_path / "rules.py"


def call(*arguments):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        label.main(["label", *map(str, arguments)])
    return out.getvalue()


def error(*arguments):
    with pytest.raises(SystemExit) as stopped, contextlib.redirect_stdout(io.StringIO()):
        run_command(label.main, ["label", *map(str, arguments)])
    assert isinstance(stopped.value.code, str) and "\n" not in stopped.value.code
    return stopped.value.code


def is_high(text):
    return text[0].lower() >= chr(97 + TOPICS // 2)


def new_texts(path, count=24, seed=5, labels=False):
    """A CSV file of texts that no run has seen."""
    texts = [document(i, seed).split("\n")[0] for i in range(count)]
    table.write(path, [table.row(f"n{i}", text, ("high" if is_high(text) else "low") if labels else "") for i, text in enumerate(texts)])
    return path


@pytest.mark.short
def test_functions_label_what_they_vote_on(cache, rules, tmp_path):
    said = call(f"--weak={rules}", DATA, f"--out={tmp_path}/weak.csv")
    rows = table.read(tmp_path / "weak.csv", ["low", "high"])
    assert len(rows) == 40 and np.mean([row["label"] == ("high" if is_high(row["text"]) else "low") for row in rows]) >= 0.9
    assert all(0.5 < float(row["confidence"]) <= 1 and row["annotator"] == "rules" for row in rows)
    assert re.search(r"\| lf_low \| 0\.\d+ \| .* 1\.000 \|", said) and "| majority vote |" in said and "| label model |" in said
    assert re.search(r"\| independent votes, each right \d\d\.\d% \|", said)
    assert rows[0]["key"] == "tiny_topics/1.0.0:train:0"


def test_a_text_on_which_votes_balance_gets_no_label(tmp_path):
    table.write(tmp_path / "new.csv", [table.row(text, text) for text in ("a", "b", "ab", "c")])
    (tmp_path / "rules.py").write_text("def lf_a(text): return 'x' if 'a' in text else None\ndef lf_b(text): return 'y' if 'b' in text else None")
    call(f"--weak={tmp_path}/rules.py", f"--data={tmp_path}/new.csv", "--classes=x,y", f"--out={tmp_path}/weak.csv")
    assert {row["key"]: row["label"] for row in table.read(tmp_path / "weak.csv")} == {"a": "x", "b": "y"}


def test_functions_label_texts_of_a_file_without_labels(rules, tmp_path):
    new = new_texts(tmp_path / "new.csv")
    assert "name them, --classes" in error(f"--weak={rules}", f"--data={new}", f"--out={tmp_path}/weak.csv")
    said = call(f"--weak={rules}", f"--data={new}", "--classes=low,high", "--balance=0.4,0.6", f"--out={tmp_path}/weak.csv")
    assert "majority" not in said and "low 40.0%, high 60.0%" in said
    assert [row["key"] for row in table.read(tmp_path / "weak.csv")] == [f"n{i}" for i in range(24)]


def test_what_a_run_is_sure_of_is_labelled(workdir, tmp_path):
    run, new, out = workdir("class"), new_texts(tmp_path / "new.csv"), tmp_path / "pseudo.csv"
    everything = call("--pseudo", f"--workdir={run}", f"--data={new}", "--threshold=0", f"--out={out}")
    rows = table.read(out, ["low", "high"])
    assert len(rows) == 24 and "On 6 texts of validation" in everything and out.with_suffix(".png").is_file()
    temperature = float(re.search(r"temperature ([\d.]+)", everything)[1])
    told = results(run, *(f"--text={row['text']}" for row in rows), "--truncate")
    for row, of_predict in zip(rows, told):
        first, second = of_predict["labels"]
        wanted = pseudo_labels.tempered(np.array([[first["probability"], second["probability"]]]), temperature)[0, 0]
        assert row["label"] == first["label"] and float(row["confidence"]) == pytest.approx(wanted, abs=0.01)
    out.unlink()
    assert "as sure as --threshold=1 of none of 24 texts, at most 0." in error(
        "--pseudo", f"--workdir={run}", f"--data={new}", "--threshold=1", f"--out={out}"
    )
    assert not out.exists()
    sure = sorted(float(row["confidence"]) for row in rows)[12]
    call("--pseudo", f"--workdir={run}", f"--data={new}", f"--threshold={sure}", f"--out={out}")
    assert {row["key"] for row in table.read(out)} == {row["key"] for row in rows if float(row["confidence"]) >= sure}


def test_what_is_held_out_is_of_the_data_that_validates(workdir, tmp_path):
    new, reviews = new_texts(tmp_path / "new.csv"), "--config.data.name=tests.tiny_labelled_text:Reviews"
    arguments = ["--pseudo", f"--workdir={workdir('class')}", f"--data={new}", f"--out={tmp_path}/out.csv", "--threshold=0.5", reviews]
    assert "On 6 texts of validation" in call(*arguments, "--config.data.validation_name=tests.tiny_text:TinyTopics")
    assert "tells low, high apart, --held_out has neg, pos" in error(*arguments, "--held_out=train")


def test_calibration_is_not_judged_on_what_the_run_was_trained_on(workdir, tmp_path):
    run, out = workdir("class"), f"--out={tmp_path}/out.csv"
    arguments = ["--pseudo", f"--workdir={run}", f"--data={new_texts(tmp_path / 'new.csv')}", "--threshold=0", out]
    assert "was trained on the labels of all texts of --held_out=train:" in error(*arguments, "--held_out=train")
    said = call(*arguments, "--held_out=train[:5]+validation[:6]", "--config.data.train_split=train[39:]")
    assert "5 of 11 texts of --held_out=train[:5]+validation[:6] are left out" in said and "On 3 texts of train[:5]+validation[:6]" in said, (
        "whatever the command line says of the split"
    )


@pytest.mark.slow
def test_texts_that_a_run_was_trained_on_are_left_out(workdir, tmp_path):
    run, out = workdir("class"), f"--out={tmp_path}/out.csv"
    assert f"was trained on the labels of all texts of {DATA}" in error("--pseudo", f"--workdir={run}", DATA, out)
    assert f"was trained on the labels of all texts of {DATA}" in error("--errors", f"--workdir={run}", DATA, out)
    assert "all 40 texts have a label already" in error("--choose=entropy", f"--workdir={run}", DATA, out)
    new = table.read(new_texts(tmp_path / "new.csv"))
    table.write(tmp_path / "both.csv", [*new, table.row("old", document(3, 0).split("\n")[0])])
    assert "1 of 25 texts of" in call("--pseudo", f"--workdir={run}", f"--data={tmp_path}/both.csv", "--threshold=0", out)
    assert len(table.read(tmp_path / "out.csv")) == 24
    assert len(call("--choose=k_center", f"--workdir={workdir('mask')}", DATA, out)) and len(table.read(tmp_path / "out.csv")) == 40, (
        "it saw no labels"
    )


@pytest.fixture
def begun_from_another(workdir, tmp_path):
    """What is read of a run that was begun from one of another split."""
    (tmp_path / "second").mkdir()
    config = tiny_config(**RUNS["class"] | dict(data__train_split="validation", init__from=str(workdir("class"))))
    (tmp_path / "second" / "config.json").write_text(config_lib.to_json(config))
    return tmp_path / "second"


def test_the_share_of_a_class_that_has_no_vote_is_not_learned():
    votes_NM = np.array([[0, -1], [0, 1], [-1, 1]])
    assert label.balance([], "ab", votes_NM) is None
    with pytest.raises(UserError, match="no function votes for c, so how frequent that is cannot be learned"):
        label.balance([], "abc", votes_NM)
    np.testing.assert_allclose(label.balance(["0.5", ".25", "0.25"], "abc", votes_NM), [0.5, 0.25, 0.25])


def test_what_those_were_trained_on_that_a_run_was_begun_from_counts_too(workdir, begun_from_another, tmp_path):
    old, new = (frozenset(document(i, seed).split("\n")[0] for i in range(count)) for seed, count in ((0, 40), (1, 12)))
    assert label.trained_on(workdir("class"), None) == old
    assert label.trained_on(begun_from_another, None) == old | new
    assert label.trained_on(workdir("mask"), None) == frozenset()


def test_a_run_is_followed_to_where_it_was_begun_and_no_further(begun_from_another, workdir, tmp_path, capsys):
    assert [*restore.lineage(begun_from_another, base.get_config())] == [begun_from_another, workdir("class")]
    kept = begun_from_another / "config.json"
    of = lambda where: kept.write_text(config_lib.to_json(tiny_config(**RUNS["class"] | dict(init__from=str(where)))))
    of(begun_from_another)
    assert [*restore.lineage(begun_from_another, base.get_config())] == [begun_from_another], "not without end"
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    of(tmp_path / "bert")
    assert [*restore.lineage(begun_from_another, base.get_config())] == [begun_from_another] and not capsys.readouterr().out
    of(tmp_path / "gone")
    restore.lineage(begun_from_another, base.get_config())
    assert f"was begun from {tmp_path}/gone, which is not here" in capsys.readouterr().out


def test_a_run_whose_data_is_not_here_says_what_is_missing_and_where_to_say_it(begun_from_another, tmp_path):
    kept = begun_from_another / "config.json"
    kept.write_text(config_lib.to_json(tiny_config(**RUNS["class"] | dict(data__name="of_another_machine"))))
    with pytest.raises(UserError, match="was trained on 'train' of of_another_machine, which is not to be read here, .*--config.data.dir"):
        label.trained_on(begun_from_another, None)


def test_a_text_is_asked_for_once(tmp_path):
    table.write(tmp_path / "new.csv", [table.row(key, text) for key, text in (("a", "One."), ("b", "Two."), ("c", "One."), ("d", "Two."))])
    said = call("--choose=random", f"--data={tmp_path}/new.csv", f"--out={tmp_path}/out.csv")
    assert sorted(row["key"] for row in table.read(tmp_path / "out.csv")) == ["a", "b"] and "2 of 2 texts" in said


def test_the_least_sure_are_asked_for_first_and_what_has_a_label_not_at_all(workdir, tmp_path):
    run, out = workdir("class"), tmp_path / "out.csv"
    call("--choose=entropy", f"--workdir={run}", DATA, "--split=validation", "--count=5", f"--out={out}")
    rows = table.read(out)
    everything = [document(i, 1).split("\n")[0] for i in range(12)]
    sure = {x["text"]: x["labels"][0]["probability"] for x in results(run, *(f"--text={text}" for text in everything), "--truncate", "--top=1")}
    assert [row["text"] for row in rows] == sorted(everything, key=sure.get)[:5] and not any(row["label"] for row in rows)
    table.write(tmp_path / "labelled.csv", [rows[0] | {"label": "low"}, rows[1]])
    call("--choose=margin", f"--workdir={run}", DATA, "--split=validation", "--count=99", f"--labelled={tmp_path}/labelled.csv", f"--out={out}")
    assert {row["text"] for row in table.read(out)} == {*everything} - {rows[0]["text"]}


def test_k_center_keeps_away_from_what_has_a_label(workdir, tmp_path):
    run, new, out = workdir("mask"), new_texts(tmp_path / "new.csv", 12), tmp_path / "out.csv"
    rows = table.read(new)
    table.write(tmp_path / "labelled.csv", [row | {"label": "low"} for row in rows[:6]])
    call("--choose=k_center", f"--workdir={run}", f"--data={new}", "--count=1", f"--labelled={tmp_path}/labelled.csv", f"--out={out}")
    (chosen,) = table.read(out)
    x_ND = np.array([x["embedding"] for x in results(run, "--embed", *(f"--text={row['text']}" for row in rows), "--truncate")])
    away = np.linalg.norm(x_ND[6:, None] - x_ND[None, :6], axis=2).min(1)
    assert chosen["key"] == rows[6 + away.argmax()]["key"]
    table.write(tmp_path / "pool.csv", rows[6:])  # where what has a label is not
    call("--choose=k_center", f"--workdir={run}", f"--data={tmp_path}/pool.csv", "--count=1", f"--labelled={tmp_path}/labelled.csv", f"--out={out}")
    assert table.read(out) == [chosen]


def test_rows_of_a_file_that_have_a_label_are_not_chosen(workdir, tmp_path):
    rows, out = table.read(new_texts(tmp_path / "new.csv", 12, labels=True)), tmp_path / "out.csv"
    assert "all 12 texts have a label already" in error("--choose=random", f"--data={tmp_path}/new.csv", f"--out={out}")
    table.write(tmp_path / "half.csv", rows[:6] + [row | {"label": ""} for row in rows[6:]])
    call("--choose=random", f"--data={tmp_path}/half.csv", f"--out={out}")
    assert {row["key"] for row in table.read(out)} == {row["key"] for row in rows[6:]}
    call("--choose=k_center", f"--workdir={workdir('mask')}", f"--data={tmp_path}/half.csv", "--count=1", f"--out={out}")
    table.write(tmp_path / "pool.csv", [row | {"label": ""} for row in rows[6:]])
    with_file = ["--choose=k_center", f"--workdir={workdir('mask')}", f"--data={tmp_path}/pool.csv", "--count=1", f"--labelled={tmp_path}/half.csv"]
    call(*with_file, f"--out={tmp_path}/again.csv")
    assert table.read(out) == table.read(tmp_path / "again.csv"), "they are centers"


def test_random_needs_no_run(cache, tmp_path):
    for seed in (0, 0, 1):
        call("--choose=random", DATA, "--count=7", f"--seed={seed}", f"--out={tmp_path}/{seed}.csv")
    first, other = (table.read(tmp_path / f"{seed}.csv") for seed in (0, 1))
    assert len(first) == 7 and first != other


def test_wrong_labels_come_first(workdir, tmp_path):
    new = new_texts(tmp_path / "new.csv", 96, labels=True)
    rows = table.read(new)
    for row in rows[::24]:
        row["label"] = {"low": "high", "high": "low"}[row["label"]]
    table.write(new, rows)
    said = call("--errors", f"--workdir={workdir('mask')}", f"--data={new}", f"--out={tmp_path}/errors.csv")
    found = table.read(tmp_path / "errors.csv", ["low", "high"])
    label_of = {row["key"]: row["label"] for row in rows}
    assert all(row["given"] == label_of[row["key"]] and row["label"] == ("" if row["wrong"] == "1" else row["given"]) for row in found)
    assert len(found) == 96 and len({row["key"] for row in found[:6]} & {row["key"] for row in rows[::24]}) >= 3
    wrong = [row["wrong"] for row in found]
    assert (
        wrong == sorted(wrong, reverse=True) and f"{wrong.count('1')} of 96 labels look wrong" in said and found[0]["suggested"] != found[0]["given"]
    )


def test_agreement_of_three_and_what_they_dispute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, told in {"a": "xxyyxy", "b": "xxyyxx", "c": "xxyyx "}.items():
        table.write(f"{name}.csv", [table.row(str(i), f"Text {i}", one.strip()) for i, one in enumerate(told)])
    said = call("--agreement=a.csv,b.csv,c.csv", "--out=differ.csv")
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in said.splitlines() if "kappa" in line or "alpha" in line]
    assert [row[:5] for row in cells] == [
        ["Cohen's kappa", "a.csv, b.csv", "6", "0.833", "0.667"],
        ["Cohen's kappa", "a.csv, c.csv", "5", "1.000", "1.000"],
        ["Cohen's kappa", "b.csv, c.csv", "5", "1.000", "1.000"],
        ["Fleiss' kappa", "a.csv, b.csv, c.csv", "5", "1.000", "1.000"],
        ["Krippendorff's alpha", "a.csv, b.csv, c.csv", "6", "0.938", "0.771"],
    ]
    table.write("x.csv", [table.row("0", "Text 0", "x"), table.row("1", "Text 1", "x")])
    assert re.search(r"\| Cohen's kappa \| a.csv, x.csv \| 2 \| 1\.000 \|  \|  \|", call("--agreement=a.csv,x.csv")), "there is no kappa of one class"
    (row,) = table.read("differ.csv")
    assert row == table.row("5", "Text 5") | {"a.csv": "y", "b.csv": "x", "c.csv": ""}


def test_a_page_is_served_until_it_is_stopped(cache, tmp_path, monkeypatch):
    asked = threading.Event()
    monkeypatch.setattr(Server, "serve_forever", lambda self: asked.set())
    said = call(f"--serve={new_texts(tmp_path / 'new.csv')}", "--classes=low,high", "--port=0", "--annotator=me")
    assert asked.is_set() and re.match(r"http://127\.0\.0\.1:\d+/ labels .*new.csv", said)


@pytest.mark.parametrize(
    "arguments, says",
    [
        ([], "say one thing to do: --weak"),
        (["--weak=a.py", "--errors"], "say one thing to do"),
        (["--weak=a.py", "--out=o.csv"], "--weak needs --data as well"),
        (["--weak=a.py", "--data=d", "--out=o.csv", "--port=1"], "--port has nothing to do with --weak"),
        (["--weak=a.py", "--data=d", "--out=o.csv", "--config.seed=1"], "--config has nothing to do with --weak"),
        (["--serve=a.csv", "--classes=a,b", "--threshold=1"], "--threshold has nothing to do with --serve"),
        (["--serve=missing.csv", "--classes=a,b"], "missing.csv cannot be read"),
        (["--agreement=a.csv"], "--agreement is of several files"),
        (["--agreement=a.csv,./a.csv"], "names a file twice"),
        (["--pseudo", "--noerrors", "--data=d", "--out=o.csv"], "--pseudo needs --workdir as well"),
        (["--nopseudo"], "say one thing to do"),
        (["--weak=", "--data=d", "--out=o.csv"], "--weak says nothing"),
        (["--serve=a.csv", "--classes="], "--classes says nothing"),
        (["--serve=a.csv", "--classes=a,b,a"], "--classes=a,b,a: each class needs a name, and its own"),
        (["--serve=a.csv", "--classes=a,,b"], "--classes=a,,b: each class needs a name"),
        (["--weak=a.py", "--data=d", "--out=o.txt"], "--out=o.txt: it is written as a CSV file"),
        (["--choose=random", "--data=d", "--out=o.csv", "--step=3"], "--step has nothing to do with --choose=random"),
        (["--choose=random", "--data=d", "--out=o.csv", "--config.seed=3"], "--config has nothing to do with --choose=random"),
        (["--choose=margin", "--data=d", "--out=o.csv", "--seed=3"], "--seed has nothing to do with --choose=margin"),
        (["--agreement=a.csv,b.csv", "--count=3"], "--count has nothing to do with --agreement"),
        (["--pseudo", "--data=d", "--out=o.csv"], "--pseudo needs --workdir as well"),
        (["--choose=best", "--data=d", "--out=o.csv"], "entropy|margin|k_center|random"),
        (["--choose=margin", "--data=d", "--out=o.csv"], "--choose=margin needs --workdir as well"),
        (["--weak=missing.py", "--data=d", "--out=o.csv"], "no file missing.py"),
        (["--errors", "--workdir=missing", "--data=d", "--out=o.csv"], "missing holds no run"),
        (["--choose=random", "--data=missing.csv", "--out=o.csv"], "missing.csv cannot be read"),
        (["--choose=random", "--data=missing.csv", "--split=train", "--out=o.csv"], "--split is of data sets"),
        (["--choose=random", DATA, "--text_field=words", "--out=o.csv"], "data.text_field is 'words'"),
        (["--choose=random", DATA, "--split=none", "--out=o.csv"], "no split 'none'"),
        (["--unknown"], "unknown"),
    ],
)
def test_what_cannot_be_done_is_one_line(cache, arguments, says):
    assert says in error(*arguments)


@pytest.mark.parametrize(
    "name, arguments, says",
    [
        ("image", ["--choose=margin"], "reads no text"),
        ("pair", ["--choose=margin"], "reads pairs of texts"),
        ("mask", ["--choose=margin"], "was trained for masked_lm, which gives texts no label"),
        ("words", ["--choose=k_center"], "trained no pooler to embed with"),
        ("class", ["--choose=random"], "--workdir has nothing to do with --choose=random"),
        ("class", ["--choose=margin", "--step=7"], "step 7"),
        ("class", ["--pseudo", "--held_out=none"], "no split 'none'"),
    ],
)
def test_a_run_of_another_kind_is_refused(workdir, tmp_path, name, arguments, says):
    assert says in error(*arguments, f"--workdir={workdir(name)}", DATA, "--split=validation", f"--out={tmp_path}/o.csv")


def test_what_the_data_lacks_is_one_line(workdir, rules, tmp_path):
    new, out = new_texts(tmp_path / "new.csv"), f"--out={tmp_path}/o.csv"
    assert "has no labels of classes that could be wrong" in error("--errors", f"--workdir={workdir('mask')}", f"--data={new}", out)
    assert "has the classes low, high" in error(f"--weak={rules}", DATA, "--classes=a,b", out)
    assert "--balance=0.5: give a share" in error(f"--weak={rules}", DATA, "--balance=0.5", out)
    assert "no function votes for middle" in error(f"--weak={rules}", f"--data={new}", "--classes=low,high,middle", out)
    assert "--balance=x,y: give a share" in error(f"--weak={rules}", DATA, "--balance=x,y", out)
    rules.write_text("def lf_never(text): return None")
    (tmp_path / "file").write_text("")
    unread = ["--pseudo", f"--workdir={workdir('image')}", f"--data={new}", f"--out={tmp_path}/file/o.csv"]
    assert "file/o.csv cannot be written" in error(*unread), "before the run is found to be of another kind"
    assert "votes on any of 40 texts" in error(f"--weak={rules}", DATA, out)
    table.write(tmp_path / "a.csv", [table.row("a", "A", "x")])
    table.write(tmp_path / "b.csv", [table.row("b", "B", "x")])
    assert "no text has a label in two of" in error(f"--agreement={tmp_path}/a.csv,{tmp_path}/b.csv")
