import json
import pathlib
import shutil
import subprocess

import pytest

from research.core.errors import UserError
from research.data import debian, fetch
from research.data.debian import descriptions, package_sources, paragraphs, stanzas

PACKAGES = """Package: libfoo1
Source: foo (1.2-3)
Section: libs
Depends: libc6,
 libbar
Description: library of foo
Description-md5: aaaaaaaa11111111

Package: foo
Section: games
Description: foo itself
Description-md5: bbbbbbbb22222222
"""
ENGLISH = """Package: libfoo1
Description-md5: aaaaaaaa11111111
Description-en: library of foo
 Foo is a library: it has
 two lines.
 .
 And a second paragraph.

Package: foo
Description-md5: bbbbbbbb22222222
Description-en: foo itself

Package: gone
Description-md5: cccccccc33333333
Description-en: in no index
 Really.
"""
GERMAN = "Package: foo\nDescription-md5: bbbbbbbb22222222\nDescription-de: Foo für alle\n Ein Spiel.\n"


def test_a_stanza_has_its_fields_with_lines_of_continuation_as_they_stand():
    first, second = stanzas(PACKAGES)
    assert first["Depends"] == "libc6,\n libbar" and first["Description"] == "library of foo"
    assert list(second) == ["Package", "Section", "Description", "Description-md5"]
    assert list(stanzas("")) == [] and list(stanzas("\n\n")) == []


def test_a_package_is_built_from_its_source_or_from_itself():
    assert package_sources(PACKAGES) == {"libfoo1": ("foo", "libs"), "foo": ("foo", "games")}


def test_a_description_comes_once_raw_and_in_order():
    found = descriptions([ENGLISH, ENGLISH + ENGLISH.replace("bbbbbbbb", "00000000")], "en", package_sources(PACKAGES))
    assert [record["key"] for record in found] == ["en/foo/00000000", "en/foo/bbbbbbbb", "en/gone/cccccccc", "en/libfoo1/aaaaaaaa"]
    assert found[3] == {
        "key": "en/libfoo1/aaaaaaaa",
        "package": "libfoo1",
        "source": "foo",
        "section": "libs",
        "language": "en",
        "summary": "library of foo",
        "text": "library of foo\n Foo is a library: it has\n two lines.\n .\n And a second paragraph.",
    }
    assert (found[2]["source"], found[2]["section"]) == ("gone", "")


@pytest.mark.parametrize(
    "description, text",
    [
        ("a summary", "a summary"),
        ("a summary\n one\n two\n three", "a summary\n\none two three"),
        ("summary\n one\n two\n .\n three\n four", "summary\n\none two\n\nthree four"),
        (
            "summary\n It has:\n  * an item\n    that goes on\n  * für\n and more\n text",
            "summary\n\nIt has:\n * an item\n   that goes on\n * für\nand more text",
        ),
        ("summary\n .\n .\n one\n .\n .\n two\n .", "summary\n\none\n\ntwo"),
        ("summary\n one \n\ttwo", "summary\n\none two"),
        ("summary\n see ...\n ... and .net\n .net too", "summary\n\nsee ... ... and .net .net too"),
        ("summary\n  verbatim\n  lines\n .\n  more", "summary\n\n verbatim\n lines\n\n more"),
        ("", ""),
    ],
)
def test_a_description_becomes_plain_text(description, text):
    assert paragraphs(description) == text


@pytest.fixture
def apt(tmp_path, monkeypatch):
    """A stand-in for apt-get: `apt.lists` is what it fetches, {name: text}; `apt.error` what it says, or raises, instead."""
    monkeypatch.setenv("LODESTAR_CACHE", str(tmp_path / "cache"))

    class Apt:
        lists = {"d_Packages": PACKAGES, "d_Translation-en": ENGLISH, "d_Translation-de": GERMAN, "d_Translation-fr": GERMAN.replace("-de", "-fr")}
        asked, error = 0, None

    def run(command, **_):
        Apt.asked += 1
        if isinstance(Apt.error, Exception):
            raise Apt.error
        folder = next(pathlib.Path(option.rpartition("=")[2]) for option in command if "Dir::State::lists" in option)
        assert command[:2] == ["apt-get", "update"] and (folder / "partial").is_dir()
        for name, text in Apt.lists.items():
            (folder / name).write_text(text, "utf-8")
        return subprocess.CompletedProcess(command, 100 if Apt.error else 0, "", Apt.error or "")

    monkeypatch.setattr(fetch.subprocess, "run", run)
    return Apt


def left():
    return [path.name for path in fetch.cache_dir().rglob("*") if path.name != "debian.lock"]


def test_the_index_is_fetched_once_and_its_three_files_are_kept(apt):
    folder = debian.fetch()
    assert debian.fetch() == folder and apt.asked == 1
    assert sorted(path.name for path in folder.iterdir()) == ["debian-de.jsonl", "debian-en.jsonl", "debian-fr.jsonl"]
    records = [json.loads(line) for line in (folder / "debian-de.jsonl").read_text("utf-8").splitlines()]
    assert [(record["key"], record["source"], record["text"]) for record in records] == [("de/foo/bbbbbbbb", "foo", "Foo für alle\n Ein Spiel.")]
    assert sorted(left()) == ["debian", "debian-de.jsonl", "debian-en.jsonl", "debian-fr.jsonl", "locks"]


@pytest.mark.parametrize(
    "error, told",
    [(FileNotFoundError(2, "No such file"), "there is no apt-get here"), ("W: slow\nE: Failed to fetch http://a/b  404\n", "E: Failed to fetch")],
)
def test_a_machine_that_reaches_no_index_is_told_so_and_nothing_is_left(apt, error, told):
    apt.error = error
    with pytest.raises(UserError, match=f"Debian.*could not be fetched with apt-get .{told}.*or copy"):
        debian.fetch()
    assert left() == ["locks"]


def test_an_index_without_one_of_the_languages_is_refused(apt, monkeypatch):
    monkeypatch.delitem(apt.lists, "d_Translation-de")
    with pytest.raises(UserError, match="no descriptions of packages in the language 'de'"):
        debian.fetch()
    assert left() == ["locks"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("apt-get") is None, reason="no apt-get")
def test_the_index_of_this_machine_has_tens_of_thousands_of_descriptions(tmp_path, monkeypatch):
    monkeypatch.setenv("LODESTAR_CACHE", str(tmp_path))
    folder = debian.fetch()
    for language, least in (("en", 50_000), ("de", 8_000), ("fr", 12_000)):
        records = [json.loads(line) for line in (folder / f"debian-{language}.jsonl").read_text("utf-8").splitlines()]
        assert len(records) == len({record["key"] for record in records}) > least
        assert sum(record["section"] != "" for record in records) > 0.9 * len(records)
        assert all(paragraphs(record["text"]).partition("\n")[0] == record["summary"].strip() for record in records)
