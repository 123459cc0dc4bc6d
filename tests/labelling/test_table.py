import pytest

from research.core.errors import UserError
from research.labelling import table

TEXTS = ["Plain.", 'A "quoted", one;\nof two lines', "old\rmac", "windows\r\nline", "映画 😀", " blanks ", "=SUM(A1)", "x" * 200_000]


@pytest.mark.short
def test_what_is_written_is_read_again(tmp_path):
    rows = [table.row(f"k{i}", text, "good" if i % 2 else "", i / 8 if i % 2 else None, "me" if i % 2 else "") for i, text in enumerate(TEXTS)]
    table.write(tmp_path / "new" / "labels.csv", rows)
    found = table.read(tmp_path / "new" / "labels.csv", ["good", "bad"])
    assert found == rows and found[1]["confidence"] == "0.1250" and list(found[0]) == list(table.COLUMNS)


def test_other_columns_stay_and_those_not_needed_may_be_missing(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("\ufeffnote,key,label,text\nof mine,1,good,A text\n,2,,Another\n", encoding="utf-8")
    rows = table.read(path)
    assert rows[0] == {"key": "1", "text": "A text", "label": "good", "confidence": "", "annotator": "", "note": "of mine"}
    table.write(path, [*rows, table.row("3", "More")])
    assert [row["note"] for row in table.read(path)] == ["of mine", "", ""]


def test_a_file_of_its_header_alone_has_no_rows(tmp_path):
    table.write(tmp_path / "empty.csv", [])
    assert table.read(tmp_path / "empty.csv") == []


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "no column key, text, label"),
        ("key,text\n1,A\n", "no column label: its first line must name key, text, label, confidence, annotator"),
        ("key,text,label\n1,A,good\n2,B,ugly\n", "row 2 below its header: the label 'ugly' is none of good, bad"),
        ("key,text,label\n1,A,good\n1,B,bad\n", "row 2 below its header: the key '1' came before"),
        ("key,text,label\n1,A, comma,good\n", "row 1 below its header: it has more cells"),
        ("key,text,label\n1,A\n", "row 1 below its header: it has more cells than the header, or fewer"),
        ("key,text,label\n,A,good\n", "no key, or no text"),
        ("key,text,label\n1, ,good\n", "no key, or no text"),
        ("key,text,label,confidence\n1,A,good,sure\n", "the confidence 'sure' is no number between 0 and 1"),
        ("key,text,label,confidence\n1,A,good,1.5\n", "the confidence '1.5' is no number"),
        ("key,text,label,confidence\n1,A,good,nan\n", "the confidence 'nan' is no number"),
    ],
)
def test_what_is_no_table_of_labels_is_one_line(tmp_path, text, says):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(UserError, match=says) as refused:
        table.read(tmp_path / "labels.csv", ["good", "bad"])
    assert "labels.csv" in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [None, b"key,text,label\n1,\xff,good\n"])
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, content):
    if content:
        (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(UserError, match="labels.csv cannot be read as a CSV file in UTF-8"):
        table.read(tmp_path / "labels.csv")


def test_a_key_that_comes_twice_is_not_written(tmp_path):
    path = tmp_path / "labels.csv"
    table.write(path, [table.row("1", "A", "good")])
    with pytest.raises(UserError, match="the key '2' comes twice"):
        table.write(path, [table.row("2", "A"), table.row("1", "B"), table.row("2", "C")])
    assert table.read(path) == [table.row("1", "A", "good")]


def test_a_place_where_nothing_can_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.csv").mkdir()
    for path, why in ((tmp_path / "file" / "labels.csv", "Not a directory|File exists"), (tmp_path / "folder.csv", "Is a directory")):
        with pytest.raises(UserError, match=rf"{path} cannot be written \(({why})\)"):
            table.write(path, [])
    with pytest.raises(UserError, match="file/labels.csv cannot be written"):
        table.make_place(tmp_path / "file" / "labels.csv")
    table.make_place(tmp_path / "new" / "labels.csv")
    assert not [*(tmp_path / "new").iterdir()], "nothing is left by the trial"


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "labels.csv"
    table.write(path, [table.row("1", "A", "good")])
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(UserError, match=r"labels.csv cannot be written \(full\)"):
        table.write(path, [table.row("1", "A", "bad")])
    assert table.read(path)[0]["label"] == "good"
