import bz2
import contextlib
import gzip
import json
import lzma
import os
import shutil
import tracemalloc

import msgpack
import pytest
import zstandard
from apache_beam.io.filesystem import FileMetadata, MatchResult
from apache_beam.io.localfilesystem import LocalFileSystem
from PIL import Image

from research.core.errors import UserError
from research.curation import inputs
from research.curation.inputs import PIECE, Csv, Images, JsonLines, Lines, Text, matched

COMPRESS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": lambda data: zstandard.ZstdCompressor().compress(data)}


def json_lines(files, part_size=1000, text_field="text", key_field=None, encoding="utf-8"):
    return JsonLines(files=str(files), encoding=encoding, part_size=part_size, text_field=text_field, key_field=key_field)


def all_of(format):
    return [document for part in format.parts() for document in format.read(part)]


def written(folder, records, name="a.jsonl"):
    (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return json_lines(folder / name)


@pytest.mark.parametrize("size", [1, 2, 7, 11, 12, 13, 24, 1000])
def test_whatever_the_size_of_parts_each_line_is_in_one(tmp_path, size):
    lines = ["one", "", "zwei für", "  ", "three", "四", "last"]
    (tmp_path / "a.txt").write_bytes("\n".join(lines).encode())
    (tmp_path / "b.txt").write_bytes(b"x\r\ny\r\n")
    (tmp_path / "empty.txt").touch()
    format = Lines(files=str(tmp_path / "*.txt"), encoding="utf-8", part_size=size)
    found = all_of(format)
    assert [document["text"] for document in found] == ["one", "zwei für", "three", "四", "last", "x", "y"]
    assert [document["key"] for document in found] == ["a.txt:0", "a.txt:5", "a.txt:18", "a.txt:24", "a.txt:28", "b.txt:0", "b.txt:3"]
    assert {part.name for part in format.parts()} == {"a.txt", "b.txt", "empty.txt"}
    assert max(part.stop - part.start for part in format.parts()) <= size


@pytest.mark.parametrize("extension", COMPRESS)
def test_compressed_files_are_read_whole_in_any_number_of_pieces(tmp_path, extension):
    compress = COMPRESS[extension]
    (tmp_path / f"a.jsonl{extension}").write_bytes(compress(b'{"text": "a"}\n') + compress('{"text": "ö"}\n'.encode()))
    format = json_lines(tmp_path / "*", part_size=3)
    assert len(format.parts()) == 1
    assert [(document["key"], document["text"]) for document in all_of(format)] == [(f"a.jsonl{extension}:0", "a"), (f"a.jsonl{extension}:14", "ö")]


@pytest.mark.parametrize("extension", COMPRESS)
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"no such archive" + data])
def test_a_damaged_archive_is_named(tmp_path, extension, damage):
    (tmp_path / f"a.txt{extension}").write_bytes(damage(COMPRESS[extension](os.urandom(3000).hex().encode())))
    with pytest.raises(UserError, match=rf"a\.txt{extension} cannot be read .*damaged"):
        all_of(Lines(files=str(tmp_path / "*"), encoding="latin-1", part_size=1000))


def test_a_file_of_text_is_one_document_named_after_it(tmp_path):
    for name, text in (("b/deep/two.txt", "zwei\n\nparagraphs"), ("a.txt", "\ufeffone"), ("b/empty.txt", "")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert all_of(Text(files=str(tmp_path / "**/*.txt"), encoding="utf-8")) == [
        {"key": "a.txt", "text": "one"},
        {"key": "b/deep/two.txt", "text": "zwei\n\nparagraphs"},
        {"key": "b/empty.txt", "text": ""},
    ]


def test_text_in_another_encoding_is_read_as_it_says(tmp_path):
    (tmp_path / "a.txt").write_bytes("日本".encode("utf-16"))
    (tmp_path / "b.txt").write_bytes("日本\n語".encode("shift_jis"))
    assert all_of(Text(files=str(tmp_path / "a.txt"), encoding="utf-16"))[0]["text"] == "日本"
    found = all_of(Lines(files=str(tmp_path / "b.txt"), encoding="shift_jis", part_size=2))
    assert [document["text"] for document in found] == ["日本", "語"]


def test_the_byte_that_is_not_of_the_encoding_is_told(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"good\nb\xe4d\n")
    for format in (Text(files=str(tmp_path / "a.txt"), encoding="utf-8"), Lines(files=str(tmp_path / "a.txt"), encoding="utf-8", part_size=5)):
        with pytest.raises(UserError, match=r"a\.txt is not utf-8: the byte at 6 does not fit"):
            all_of(format)


@pytest.mark.parametrize("encoding", ["utf-9", "base64", "undefined"])
def test_an_unknown_encoding_is_refused(tmp_path, encoding):
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(UserError, match=f"input.encoding is '{encoding}', which Python does not know"):
        Text(files=str(tmp_path / "a.txt"), encoding=encoding)
    with pytest.raises(UserError, match=f"input.encoding is '{encoding}', which Python does not know"):
        Lines(files=str(tmp_path / "a.txt"), encoding=encoding, part_size=10).parts()


def test_what_cannot_be_cut_into_parts_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(UserError, match="input.encoding is 'utf-16', in which the end of a line is no single byte"):
        Lines(files=str(tmp_path / "a.txt"), encoding="utf-16", part_size=10).parts()
    with pytest.raises(UserError, match="input.part_size is 0"):
        Lines(files=str(tmp_path / "a.txt"), encoding="utf-8", part_size=0).parts()


def test_a_json_line_comes_with_all_its_fields(tmp_path):
    record = {"text": "ä", "id": 7, "n": 1.5, "list": [None, True, {"a": []}]}
    assert all_of(written(tmp_path, [record])) == [{"key": "a.jsonl:0"} | record]


def test_the_text_and_the_key_may_have_other_names(tmp_path):
    written(tmp_path, [{"content": "a", "text": "not this", "key": "nor this", "id": 7}, {"text": "b", "id": 8}])
    named = json_lines(tmp_path / "a.jsonl", text_field="content", key_field="id")
    assert all_of(named) == [{"key": "7", "text": "a", "id": 7}, {"key": "8", "id": 8}]


def test_lines_that_are_no_documents_come_without_text_and_with_the_reason(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '\ufeff{"text": "good", "id": 1}\n{"text": \n[1]\n{"text": 5, "id": 2}\n{"text": "b"}\n{"id": 4, "text": null}\n' + "[" * 99999
    )
    found = all_of(json_lines(tmp_path / "a.jsonl", key_field="id"))
    assert found[0]["text"] == "good" and not any("text" in document for document in found[1:])
    reasons = ["no JSON", "no JSON object", "a text that is no string", "no id", None, "no JSON"]
    assert [document.get("malformed") for document in found[1:]] == reasons
    assert len({document["key"] for document in found}) == 7


def test_all_that_json_can_say_is_what_msgpack_can_hold(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        r'{"text": "a\ud800b \ud83d\ude00", "\udc00": 1e999, "big": 123456789012345678901234567890, "low": -9223372036854775808}'
    )
    (document,) = all_of(json_lines(tmp_path / "a.jsonl"))
    assert document["text"] == "a\ufffdb 😀" and document["big"] == "123456789012345678901234567890" and document["low"] == -(2**63)
    assert msgpack.unpackb(msgpack.packb(document)) == document


def test_a_text_field_that_no_line_has_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(UserError, match=r"no line at the beginning of .*a\.jsonl has a text in 'text', but: body, id"):
        written(tmp_path, [{"id": 1, "body": "a"}, {"id": 2}]).parts()
    (tmp_path / "a.jsonl").write_text("this is\nno JSON")
    with pytest.raises(UserError, match="but: lines with no JSON"):
        json_lines(tmp_path / "a.jsonl").parts()
    assert len(written(tmp_path, [{"id": 1, "body": "a"}, {"id": 2, "text": "late"}]).parts()) == 1


def test_parts_and_keys_are_the_same_wherever_the_files_lie(tmp_path, monkeypatch):
    for folder in ("here", "there/below"):
        for name in ("x/2/b.txt", "x/10/a.txt", "x/.hidden/a.txt", "y.txt"):
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).write_text("some text")
    names = ["x/10/a.txt", "x/2/b.txt", "y.txt"]
    monkeypatch.chdir(tmp_path / "here")
    for pattern in (tmp_path / "here/**/*.txt", tmp_path / "there/below/**/*", tmp_path / "there/below", "**/*.txt", "."):
        assert [part.name.removeprefix("./") for part in matched(str(pattern))] == names
    assert [part.name for part in matched(str(tmp_path / "here/x/*/a.txt"))] == ["10/a.txt"]
    assert [part.name for part in matched("y.txt")] == ["y.txt"]


def test_a_pattern_that_matches_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no file matches .*\*\.txt"):
        matched(str(tmp_path / "*.txt"))
    with pytest.raises(UserError, match="input.files is not set"):
        matched(None)
    with pytest.raises(UserError, match="the files that no-such-scheme://a/b matches cannot be listed"):
        matched("no-such-scheme://a/b")


def test_a_file_whose_name_is_not_utf_8_is_refused_with_its_bytes(tmp_path):
    (tmp_path / "é.txt").write_text("a")
    assert [part.name for part in matched(str(tmp_path))] == ["é.txt"]
    with open(os.fsencode(tmp_path) + b"/caf\xe9.txt", "w"):
        pass
    with pytest.raises(UserError, match=r"/caf\\xe9\.txt is not UTF-8.*: rename it"):
        matched(str(tmp_path))


class Remote(LocalFileSystem):
    """Files of this machine as another file system has them, whose scheme is remote://."""

    @classmethod
    def scheme(cls):
        return "remote"

    def match(self, patterns, limits=None):
        (found,) = super().match([pattern.removeprefix("remote://") for pattern in patterns])
        return [MatchResult(patterns[0], [FileMetadata(f"remote://{file.path}", file.size_in_bytes) for file in found.metadata_list])]

    def open(self, path, *how):
        return super().open(path.removeprefix("remote://"), *how)


def test_files_elsewhere_are_read_through_beam(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below/a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    (tmp_path / "below/b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "three"}'))
    found = all_of(json_lines(f"remote://{tmp_path}/**.jsonl*", part_size=16))
    assert [(document["key"], document["text"]) for document in found] == [
        ("below/a.jsonl:0", "one"),
        ("below/a.jsonl:16", "two"),
        ("below/b.jsonl.gz:0", "three"),
    ]


@pytest.fixture
def photos(tmp_path):
    """Three images in two folders, and what is none."""
    for name, kind in (("cat/1.png", "PNG"), ("cat/2.JPG", "JPEG"), ("dog/1.webp", "WEBP")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), (200, 10, 10)).save(tmp_path / name, kind)
    (tmp_path / "cat/notes.txt").write_text("no image")
    Image.new("L", (1, 1)).save(tmp_path / "top.png")
    return tmp_path


def test_an_image_is_labelled_with_its_folder_and_kept_as_it_is(photos):
    found = all_of(Images(files=f"{photos}/"))
    assert [(document["key"], document["label"]) for document in found] == [("cat/1.png", "cat"), ("cat/2.JPG", "cat"), ("dog/1.webp", "dog")]
    assert [document["image"] for document in found] == [(photos / document["key"]).read_bytes() for document in found]


def test_images_of_several_splits_are_found_by_a_pattern(photos, tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"all/{split}/cat").mkdir(parents=True)
        shutil.copy(photos / "cat/1.png", tmp_path / f"all/{split}/cat")
    found = all_of(Images(files=str(tmp_path / "all/*")))
    assert [(document["key"], document["label"]) for document in found] == [("test/cat/1.png", "cat"), ("train/cat/1.png", "cat")]


def test_an_image_that_cannot_be_decoded_comes_as_malformed_and_the_others_as_they_are(photos):
    whole = (photos / "cat/2.JPG").read_bytes()
    for damaged in (whole[:-20], b"", b"no image"):
        (photos / "cat/2.JPG").write_bytes(damaged)
        first, second, third = all_of(Images(files=str(photos)))
        assert second == {"key": "cat/2.JPG", "malformed": "an image that cannot be decoded to 8 bits a channel"}
        assert first["image"] and third["image"]


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "cat").mkdir()
    with pytest.raises(UserError, match="no file matches"):
        Images(files=str(tmp_path)).parts()
    (tmp_path / "cat/a.txt").touch()
    with pytest.raises(UserError, match="no file in the folders of .* is an image"):
        Images(files=str(tmp_path)).parts()
    with pytest.raises(UserError, match="input.files is not set"):
        Images(files=None).parts()


def test_memory_does_not_grow_with_the_file(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress((b"x" * 1023 + b"\n") * (32 << 10), compresslevel=1))  # of 32 MiB
    (part,) = matched(str(path))
    tracemalloc.start()
    assert sum(1 for _ in Lines(files=str(path), encoding="utf-8", part_size=1000).read(part)) == 32 << 10
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1 << 20


def test_a_long_line_is_read_only_by_the_part_in_which_it_begins(tmp_path, monkeypatch):
    size, ends = PIECE, []

    @contextlib.contextmanager
    def opened(path):
        with open(path, "rb") as file:
            yield file
            ends.append(file.tell())

    monkeypatch.setattr(inputs, "opened", opened)
    (tmp_path / "a.txt").write_bytes(b"a" * (size - 1) + b"\n" + b"b" * (20 * size) + b"\nlast")
    format = Lines(files=str(tmp_path / "a.txt"), encoding="utf-8", part_size=size)
    parts = format.parts()
    assert [len(list(format.read(part))) for part in parts] == [1, 1, *[0] * 19, 1]
    ends[1] -= 20 * size  # which has the line
    assert all(end <= part.stop + PIECE for part, end in zip(parts, ends, strict=True))


def table(path, text, **fields):
    path.write_text(text, encoding="utf-8")
    return Csv(**dict(files=str(path), encoding="utf-8", text_field="text", key_field=None) | fields)


def test_rows_of_a_table_are_documents_with_their_cells(tmp_path):
    long = "x" * 200_000
    format = table(tmp_path / "a.csv", f'id,text,label\n1,"Two lines,\nand a comma: é",positive\n2,{long},\n3\n')
    assert all_of(format) == [
        {"key": "a.csv:0", "id": "1", "text": "Two lines,\nand a comma: é", "label": "positive"},
        {"key": "a.csv:1", "id": "2", "text": long, "label": ""},
        {"key": "a.csv:2", "malformed": "more cells than columns, or fewer"},
    ]
    assert [document["key"] for document in all_of(table(tmp_path / "b.csv", "id,text\n7,one\n8,two\n", key_field="id"))] == ["7", "8"]


def test_a_table_without_the_column_says_which_it_has(tmp_path):
    with pytest.raises(UserError, match="b.csv has no column text: it has id, review. Set input.text_field"):
        all_of(table(tmp_path / "b.csv", "id,review\n1,good\n"))
    with pytest.raises(UserError, match="no column number: it has id, text"):
        all_of(table(tmp_path / "c.csv", "id,text\n1,good\n", key_field="number"))


def test_a_table_of_excel_and_a_folder_with_brackets_are_read(tmp_path):
    (tmp_path / "a.csv").write_bytes("text,label\ngood,1\n".encode("utf-8-sig"))
    assert [document["text"] for document in all_of(Csv(files=str(tmp_path / "a.csv"), encoding="utf-8", text_field="text", key_field=None))] == ["good"]
    (tmp_path / "my [corpus]").mkdir()
    (tmp_path / "my [corpus]" / "a.txt").write_text("one\n")
    assert [part.name for part in matched(str(tmp_path / "my [corpus]"))]


def test_fields_that_documents_have_a_meaning_for_are_not_taken_from_records(tmp_path):
    (found,) = all_of(written(tmp_path, [{"text": "a", "malformed": False, "image": "http://a.b/c.png", "key": 3, "url": "u"}]))
    assert found == {"key": "a.jsonl:0", "text": "a", "url": "u"}
