"""Rules that drop documents of poor text, by the published heuristics of Gopher and C4 and by lists of words.

Words are what white space separates. Lines are those that have more than white space, without that at their ends.
"""

import collections
import dataclasses
import functools
import pathlib
import re
import string
from collections.abc import Iterable, Sequence

from research.core.errors import UserError
from research.curation.documents import Document, Dropped
from research.data.text import sentences

BULLET = re.compile(r"[•‣⁃▪▫●○◦■□►]|[*-]\s")
ELLIPSES = ("...", "…")
LETTER = re.compile(r"[^\W\d_]")
TERMINAL_PUNCTUATION = (".", "!", "?", '"', "'", "”", "’", "»")
CITATION = re.compile(r" ?\[(?:\d*|edit|citation needed)\]")
POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
TOKEN = re.compile(r"\w+|[^\w\s]")


def lines_of(text: str) -> list[str]:
    return [line for line in map(str.strip, text.splitlines()) if line]


@dataclasses.dataclass(frozen=True)
class GopherQuality:
    """Drops documents that are no prose, by the quality filter of MassiveText (arXiv 2112.11446, appendix A.1.1). Stop words count in any case of letters
    and with punctuation around them."""

    needs = "text"

    min_words: int
    max_words: int
    min_mean_word_length: float
    max_mean_word_length: float
    max_symbol_ratio: float
    max_bullet_lines: float
    max_ellipsis_lines: float
    min_alphabetic_words: float
    min_stop_words: int
    stop_words: tuple[str, ...]

    def __call__(self, document: Document) -> Document | Dropped:
        text = document["text"]
        words, lines = text.split(), lines_of(text)
        if len(words) < max(self.min_words, 1):
            return Dropped("fewer words than min_words")
        if len(words) > self.max_words:
            return Dropped("more words than max_words")
        mean_word_length = sum(map(len, words)) / len(words)
        if mean_word_length < self.min_mean_word_length:
            return Dropped("words shorter than min_mean_word_length")
        if mean_word_length > self.max_mean_word_length:
            return Dropped("words longer than max_mean_word_length")
        if text.count("#") / len(words) > self.max_symbol_ratio:
            return Dropped("more hashes than max_symbol_ratio")
        if sum(map(text.count, ELLIPSES)) / len(words) > self.max_symbol_ratio:
            return Dropped("more ellipses than max_symbol_ratio")
        if sum(BULLET.match(line) is not None for line in lines) / len(lines) > self.max_bullet_lines:
            return Dropped("more lines with a bullet than max_bullet_lines")
        if sum(line.endswith(ELLIPSES) for line in lines) / len(lines) > self.max_ellipsis_lines:
            return Dropped("more lines with an ellipsis than max_ellipsis_lines")
        if sum(LETTER.search(word) is not None for word in words) / len(words) < self.min_alphabetic_words:
            return Dropped("fewer words with a letter than min_alphabetic_words")
        if len({word.strip(string.punctuation).lower() for word in words}.intersection(self.stop_words)) < self.min_stop_words:
            return Dropped("fewer stop words than min_stop_words")
        return document


@dataclasses.dataclass(frozen=True)
class GopherRepetition:
    """Drops documents that repeat themselves, by the repetition filter of MassiveText (arXiv 2112.11446, appendix A.1.1 and table A1).

    A line, a paragraph or an n-gram of words is a duplicate where it came before in the document. Shares of characters are of the whole text; those in
    n-grams reach from the first character of an n-gram to its last, and each counts once, however many n-grams it is in. Of several n-grams that are the
    most frequent, the first counts; one that occurs once is none. Raises UserError for what is no length with a share.
    """

    needs = "text"

    duplicate_lines: float
    duplicate_paragraphs: float
    duplicate_line_characters: float
    duplicate_paragraph_characters: float
    top_ngrams: tuple[tuple[int, float], ...]
    duplicate_ngrams: tuple[tuple[int, float], ...]

    def __post_init__(self):
        for name, pairs in (("top_ngrams", self.top_ngrams), ("duplicate_ngrams", self.duplicate_ngrams)):
            for pair in pairs:
                if not isinstance(pair, tuple) or [type(item) for item in pair] not in ([int, float], [int, int]) or pair[0] < 1:
                    raise UserError(f"gopher_repetition.{name} has {pair!r}: it must be a number of words and a share, as ((2, 0.2),).")

    def __call__(self, document: Document) -> Document | Dropped:
        text = document["text"]
        spans = [word.span() for word in re.finditer(r"\S+", text)]
        if not spans:
            return document
        lines, paragraphs = lines_of(text), [paragraph for paragraph in map(str.strip, re.split(r"\n\s*\n", text)) if paragraph]
        for name, parts, most, most_characters in (
            ("line", lines, self.duplicate_lines, self.duplicate_line_characters),
            ("paragraph", paragraphs, self.duplicate_paragraphs, self.duplicate_paragraph_characters),
        ):
            duplicates = _duplicates(parts)
            if len(duplicates) / len(parts) > most:
                return Dropped(f"more duplicates than duplicate_{name}s")
            if sum(len(parts[i]) for i in duplicates) / len(text) > most_characters:
                return Dropped(f"more characters in duplicates than duplicate_{name}_characters")
        words = [text[start:stop] for start, stop in spans]
        for n, most in self.top_ngrams:
            if _characters(spans, _most_frequent(_ngrams(words, n)), n) / len(text) > most:
                return Dropped(f"more characters in one {n}-gram than top_ngrams")
        for n, most in self.duplicate_ngrams:
            if _characters(spans, _duplicates(_ngrams(words, n)), n) / len(text) > most:
                return Dropped(f"more characters in duplicate {n}-grams than duplicate_ngrams")
        return document


def _ngrams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(n))))


def _duplicates(items: Sequence) -> list[int]:
    """Where an item is that came before."""
    first: dict = {}
    return [i for i, item in enumerate(items) if first.setdefault(item, i) < i]


def _most_frequent(items: Sequence) -> list[int]:
    """Where the most frequent item is, if it occurs more than once."""
    [(top, count)] = collections.Counter(items).most_common(1) or [(None, 0)]
    return [i for i, item in enumerate(items) if item == top] if count > 1 else []


def _characters(spans: list[tuple[int, int]], places: Iterable[int], n: int) -> int:
    """How many characters of the text are in the n-grams that begin with the words of these places, in order."""
    characters = end = 0
    for i in places:
        start, stop = spans[i][0], spans[i + n - 1][1]
        characters += stop - max(start, end)
        end = stop
    return characters


@dataclasses.dataclass(frozen=True)
class C4:
    """Keeps the lines of a page that are sentences, and drops pages of which too little or no prose is left (arXiv 1910.10683, section 2.2).

    First the markers of citations go, then lines, then what is left is judged as a page. C4's choice of language and of pages without bad words are
    the rules `Language` and `WordList`; what it does about spans of three sentences that came before is left to `RepeatedPassages`.
    """

    needs = "text"

    terminal_punctuation: bool
    min_line_words: int
    min_sentences: int
    javascript_lines: bool
    policy_lines: bool
    citations: bool
    lorem_ipsum: bool
    curly_brackets: bool

    def __call__(self, document: Document) -> Document | Dropped:
        lines = document["text"] if self.citations else CITATION.sub("", document["text"])
        text = "\n".join(line for line in map(str.strip, lines.splitlines()) if self._stays(line))
        if not text.strip():
            return Dropped("no line is left")
        if not self.lorem_ipsum and "lorem ipsum" in text.lower():
            return Dropped("lorem ipsum")
        if not self.curly_brackets and "{" in text:
            return Dropped("a curly bracket")
        if len(sentences(text)) < self.min_sentences:
            return Dropped("fewer sentences than min_sentences")
        return document if text == document["text"] else document | {"text": text}

    def _stays(self, line: str) -> bool:
        if self.terminal_punctuation and not line.endswith(TERMINAL_PUNCTUATION) or len(line.split()) < self.min_line_words:
            return False
        lower = line.lower()
        return (self.javascript_lines or "javascript" not in lower) and (self.policy_lines or not any(policy in lower for policy in POLICIES))


@dataclasses.dataclass(frozen=True)
class WordList:
    """Drops documents with more of a list's words and phrases than `max_share` of their words, as C4 does with one word (arXiv 1910.10683, section 2.2).

    They are found in any case of letters, and as whole words: "ass" is not in "assess". Raises UserError where there is no list.
    """

    needs = "text"

    file: str | None
    max_share: float

    def __post_init__(self):
        self._phrases  # read where the rule is made: workers get it with the rule, and need no file

    @functools.cached_property
    def _phrases(self) -> dict[str, list[list[str]]]:
        """The words and signs of each phrase, by the first of them."""
        if self.file is None:
            raise UserError("the rule word_list needs a list: set word_list.file to a file of words and phrases, one a line.")
        try:
            lines = pathlib.Path(self.file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as e:
            raise UserError(f"word_list.file is {self.file}, which cannot be read ({e}): give a UTF-8 file of words and phrases, one a line.") from e
        phrases = collections.defaultdict(list)
        for line in lines:
            if phrase := TOKEN.findall(line.casefold()):
                phrases[phrase[0]].append(phrase)
        if not phrases:
            raise UserError(f"word_list.file is {self.file}, which has no words: give a file of words and phrases, one a line.")
        return dict(phrases)

    def __call__(self, document: Document) -> Document | Dropped:
        words = document["text"].casefold().split()
        places, tokens = [], []
        for i, word in enumerate(words):
            found = TOKEN.findall(word)
            places += [i] * len(found)
            tokens += found
        listed = set()  # words
        for i, token in enumerate(tokens):
            for phrase in self._phrases.get(token, ()):
                if tokens[i : i + len(phrase)] == phrase:
                    listed.update(places[i : i + len(phrase)])
        return Dropped("more listed words than max_share") if listed and len(listed) / len(words) > self.max_share else document
