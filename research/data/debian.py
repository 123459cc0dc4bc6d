"""What every package of Debian is, in its maintainer's words and in German and French translations: short texts, well written and much alike.

They come with the index of packages that apt-get fetches wherever it installs from, and are under the licences of their packages.
"""

import json
import pathlib
import re
import tempfile
from collections.abc import Iterable, Iterator

from research.core.errors import UserError
from research.data.fetch import cache_dir, cache_lock, failure

LANGUAGES = ("en", "de", "fr")


def fetch() -> pathlib.Path:
    """The folder with debian-en.jsonl, debian-de.jsonl and debian-fr.jsonl in the cache, made where it is not there yet.

    A line is a description: `key`, `package`, `source` (the package that it is built from), `section`, `language`, `summary` (one line), and `text`,
    all of it as it stands in the index: `paragraphs` makes plain text of that. In order of package and MD5 of the English text, each once.

    The index is that of the release which this machine installs from, as it is on that day. It changes: what data was made from is told by the
    hashes of these files, which belong in its manifest. Raises UserError where there is no apt-get, or it reaches no such index.
    """
    folder = cache_dir() / "debian"
    with cache_lock("debian"):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=cache_dir(), prefix="debian-") as temporary:
                lists, made = pathlib.Path(temporary, "lists"), pathlib.Path(temporary, "made")
                _update(temporary, lists)
                _write(lists, made)
                made.replace(folder)
    return folder


def _update(folder: str, lists: pathlib.Path):
    """Fetches the index into `lists`, whoever asks for it, and leaves what the machine has for itself as it is."""
    (lists / "partial").mkdir(parents=True)
    options = {
        "Dir::State::lists": lists,
        "Dir::Cache": f"{folder}/cache",
        "Acquire::Languages": ",".join(LANGUAGES),
        "Acquire::GzipIndexes": "false",
        "APT::Sandbox::User": "root",  # else another user fetches, who may not write here
        "APT::Update::Error-Mode": "any",  # else what cannot be fetched is left out
    }
    if failed := failure(["apt-get", "update", *(f"-o={name}={value}" for name, value in options.items())], folder):
        raise UserError(
            f"the index of Debian's packages could not be fetched with apt-get ({failed}). Give this machine a package index, "
            f"or copy {cache_dir() / 'debian'} from one that has it."
        )


def _write(lists: pathlib.Path, made: pathlib.Path):
    made.mkdir()
    sources: dict[str, tuple[str, str]] = {}
    for path in sorted(lists.glob("*_Packages")):
        sources |= package_sources(path.read_text("utf-8"))
    for language in LANGUAGES:
        translations = [path.read_text("utf-8") for path in sorted(lists.glob(f"*_Translation-{language}"))]
        if not translations:
            raise UserError(f"apt-get finds no descriptions of packages in the language {language!r}: look at its sources in /etc/apt.")
        lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in descriptions(translations, language, sources))
        (made / f"debian-{language}.jsonl").write_text("".join(lines), "utf-8")


def stanzas(index: str) -> Iterator[dict[str, str]]:
    """Each stanza of a control file as {field: value} (Debian Policy, section 5.1); lines of continuation come as they stand."""
    for stanza in re.split(r"\n{2,}", index):
        if fields := dict(re.findall(r"^([^\s:]+):[ \t]*(.*(?:\n[ \t].*)*)", stanza, re.MULTILINE)):
            yield fields


def package_sources(packages: str) -> dict[str, tuple[str, str]]:
    """{package: (the source package it is built from, its section)} of an index of packages."""
    return {fields["Package"]: (fields.get("Source", fields["Package"]).partition(" ")[0], fields.get("Section", "")) for fields in stanzas(packages)}


def descriptions(translations: Iterable[str], language: str, sources: dict[str, tuple[str, str]]) -> list[dict[str, str]]:
    """What `fetch` writes of one language, from its lists of descriptions; a package that is in no index is its own source, of section ""."""
    found: dict[tuple[str, str], str] = {}
    for index in translations:
        for fields in stanzas(index):
            found.setdefault((fields["Package"], fields["Description-md5"]), fields[f"Description-{language}"])
    return [
        {
            "key": f"{language}/{package}/{md5[:8]}",
            "package": package,
            "source": sources.get(package, (package, ""))[0],
            "section": sources.get(package, (package, ""))[1],
            "language": language,
            "summary": text.partition("\n")[0],
            "text": text,
        }
        for (package, md5), text in sorted(found.items())
    ]


def paragraphs(description: str) -> str:
    """A description as plain text (Debian Policy, section 5.6.13): its first line, an empty one, then each paragraph on one line.

    A line that begins with one blank goes on with the paragraph before it; one with more, of a list as a rule, stays a line, without the first
    blank; " ." is an empty line.
    """
    summary, _, rest = description.partition("\n")
    rest = re.sub(r"(?m)^[ \t]|[ \t]+$", "", rest)
    rest = re.sub(r"(?m)^\.$", "", rest)
    rest = re.sub(r"(?m)^(\S.*)\n(?=\S)", r"\1 ", rest)
    return re.sub(r"\n{3,}", "\n\n", f"{summary.strip()}\n\n{rest}").rstrip()
