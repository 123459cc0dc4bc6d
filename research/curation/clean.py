"""Rules that mend a document: its fields, its Unicode, the text of a web page, the language it is in."""

import dataclasses
import difflib
import functools
import math
import re
from typing import Any

import ftfy
import trafilatura
from py3langid.langid import MODEL_FILE, LanguageIdentifier
from trafilatura.metadata import extract_title
from trafilatura.utils import load_html

from research.core.errors import UserError
from research.curation.documents import Document, Dropped

NUMBER = re.compile(r"[+-]?(?=\.?\d)(?:\d{1,3}(?:,\d{3})+|\d*)(?:\.\d*)?(?:[eE][+-]?\d+)?")  # thousands may be set apart by commas

# What is broken is mended; quotation marks, ligatures and wide letters stay as their author set them, as in FineWeb. NFKC folds the last two.
FTFY = ftfy.TextFixerConfig(uncurl_quotes=False, fix_latin_ligatures=False, fix_character_width=False, explain=False)


@dataclasses.dataclass(frozen=True)
class Fields:
    """Gives what is missing its default, then drops documents that lack a required field, have no finite number where one is due, or a text that is
    malformed or too long. Missing is what is absent, None, or holds nothing but blanks.

    Raises UserError for a default that is no field with a value.
    """

    required: tuple[str, ...]
    numbers: tuple[str, ...]
    defaults: tuple[tuple[str, Any], ...]
    max_characters: int | None

    def __post_init__(self):
        for default in self.defaults:
            if not isinstance(default, tuple) or len(default) != 2 or not isinstance(default[0], str):
                raise UserError(f'fields.defaults has {default!r}: it must be a field and its value, as (("title", "untitled"),).')

    def __call__(self, document: Document) -> Document | Dropped:
        if "malformed" in document:
            return Dropped(f"malformed: {document['malformed']}")
        filled = {field: value for field, value in self.defaults if _is_missing(document.get(field))}
        whole = document | filled
        for field in self.required:
            if _is_missing(whole.get(field)):
                return Dropped(f"{field} is missing")
        if not isinstance(text := whole.get("text", ""), str):
            return Dropped("text is no string")
        if self.max_characters is not None and len(text) > self.max_characters:
            return Dropped("more characters than max_characters")
        numbers = {field: _as_number(whole.get(field)) for field in self.numbers}
        for field, number in numbers.items():
            if number is None:
                return Dropped(f"{field} is no number")
        mended = filled | {field: number for field, number in numbers.items() if number is not whole[field]}
        return document | mended if mended else document


def _is_missing(value) -> bool:
    return value is None or isinstance(value, str | bytes) and not value.strip()


def _as_number(value) -> float | None:
    """A finite number, as it is or out of a string."""
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        value = float(value.replace(",", ""))
    return value if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None


@dataclasses.dataclass(frozen=True)
class Unicode:
    """The text as it was meant: decoded anew where it was decoded wrongly, without control characters, byte order marks and terminal escapes, with
    "\\n" for all line breaks, by ftfy; in a normal form of Unicode (UAX 15); without blanks at the ends of lines and more than one empty line in a row.

    What comes out stays as it is when it goes in again. Raises UserError for a normal form other than NFC and NFKC.
    """

    needs = "text"

    normalization: str

    def __post_init__(self):
        if self.normalization not in ("NFC", "NFKC"):
            raise UserError(f"unicode.normalization is {self.normalization!r}: give NFC, or NFKC, which folds compatible characters too.")

    def __call__(self, document: Document) -> Document:
        text = document["text"]
        while (mended := self._mended(text)) != text:  # ftfy works line by line, and may itself have made the lines
            text = mended
        return document if text == document["text"] else document | {"text": text}

    def _mended(self, text: str) -> str:
        lines = ftfy.fix_text(text, FTFY, normalization=self.normalization).split("\n")
        return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in lines))


@dataclasses.dataclass(frozen=True)
class Html:
    """The main text of a web page, of which `text` is the HTML, without what stands around it and without comments, and its `title` where it has one,
    by trafilatura (Barbaresi, ACL 2021, https://aclanthology.org/2021.acl-demo.15)."""

    needs = "text"

    precision: bool
    tables: bool

    def __call__(self, document: Document) -> Document | Dropped:
        page = load_html(document["text"])
        if page is None:
            return Dropped("no HTML")
        text = trafilatura.extract(page, include_comments=False, favor_precision=self.precision, include_tables=self.tables)
        if not text:
            return Dropped("no main text")
        title = extract_title(page)
        return document | {"text": text} | ({"title": title} if title else {})


@dataclasses.dataclass(frozen=True)
class Language:
    """Adds `language`, the most probable one of the text by py3langid (Lui and Baldwin, ACL 2012, https://aclanthology.org/P12-3005), as its ISO 639
    code. Drops documents in a language that is not in `keep`, and those whose language has a probability below `least`.

    Raises UserError for a code of `keep` that py3langid does not know.
    """

    needs = "text"

    keep: tuple[str, ...]
    least: float

    def __post_init__(self):
        known = _identifier().labels
        for code in self.keep:
            if code not in known:
                near = ", ".join(difflib.get_close_matches(code, known, cutoff=0))
                raise UserError(
                    f"language.keep has {code!r}, which is no language that py3langid tells: give ISO 639-1 codes; the nearest are {near}."
                )

    def __call__(self, document: Document) -> Document | Dropped:
        text = document["text"]
        shouted = sum(map(str.isupper, text)) > len(text) / 2  # of such it has learned little
        language, probability = _identifier().classify(text.lower() if shouted else text)
        if language not in self.keep:
            return Dropped("language not in keep")
        if probability < self.least:
            return Dropped("language less probable than least")
        return document if document.get("language") == language else document | {"language": language}


@functools.cache
def _identifier() -> LanguageIdentifier:
    """One for each process: it takes most of a second to load, and does not travel with the rule."""
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
