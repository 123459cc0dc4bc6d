"""Augmentation of texts on the host: pure functions of a text, or of its tokens, and the generator of its example. No label is touched."""

import dataclasses
import itertools
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tokenizers

from research.core.errors import UserError
from research.data.text_inputs import encode

Words = list[tuple[str, str]]  # each with the punctuation at it, and the white space after it


@dataclasses.dataclass(frozen=True)
class TextAugmentation:
    """What happens to a text in training, in order: operations (text, generator) -> text, then, on its tokens, (ids, generator) -> ids."""

    tokenizer: tokenizers.Tokenizer
    of_words: tuple[Callable[[str, np.random.Generator], str], ...]
    of_tokens: tuple[Callable[[np.ndarray, np.random.Generator], np.ndarray], ...]

    def __call__(self, text: str, rng: np.random.Generator) -> np.ndarray:
        """The ids (tokens,) int32 of the text as it has become."""
        for operation in self.of_words:
            text = operation(text, rng)
        return self._changed(encode(self.tokenizer, text), rng)

    def of_ids(self, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The same of a text that is kept as its ids: where words are to change, the text is what its tokens say."""
        return self(self.tokenizer.decode(ids.tolist(), skip_special_tokens=False), rng) if self.of_words else self._changed(ids, rng)

    def _changed(self, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for operation in self.of_tokens if len(ids) else ():
            ids = operation(ids, rng)
        return ids


@dataclasses.dataclass(frozen=True)
class BackTranslation:
    """With probability `rate` a text becomes what `translate(text, generator)` makes of it: as a rule its translation into another language and
    back, which says the same in other words (arXiv 1804.09541, section 3)."""

    rate: float
    translate: Callable[[str, np.random.Generator], str]

    def __call__(self, text: str, rng: np.random.Generator) -> str:
        return self.translate(text, rng) if rng.random() < self.rate else text


@dataclasses.dataclass(frozen=True)
class Eda:
    """Easy data augmentation (arXiv 1901.11196, section 2): one of four operations, each as likely, on n = `alpha` * words, at least 1.

    Stop words have no synonyms. Synonyms keep a capital and the punctuation of the word in whose place they come.
    """

    alpha: float
    synonyms: Callable[[str], Sequence[str]]

    def __call__(self, text: str, rng: np.random.Generator) -> str:
        words = words_of(text)
        operation = (self.replaced, self.inserted, self.swapped, self.deleted)[rng.integers(4)]
        return joined(operation(words, rng)) if words else text

    def replaced(self, words: Words, rng: np.random.Generator) -> Words:
        """Synonym replacement: n words, or as many as have synonyms, give way to one of these."""
        words = list(words)
        for i, known in itertools.islice(self._known(words, rng), self._count(words)):
            word, space = words[i]
            words[i] = in_place_of(word, str(rng.choice(known))), space
        return words

    def inserted(self, words: Words, rng: np.random.Generator) -> Words:
        """Random insertion, n times: a synonym of any of the words comes to any place."""
        found = list(words)
        for _ in range(self._count(words)):
            if chosen := next(self._known(words, rng), None):
                found.insert(int(rng.integers(len(found) + 1)), (str(rng.choice(chosen[1])), " "))
        return found

    def swapped(self, words: Words, rng: np.random.Generator) -> Words:
        """Random swap, n times: two words change places."""
        words = list(words)
        for _ in range(self._count(words) if len(words) > 1 else 0):
            i, j = rng.choice(len(words), 2, replace=False)
            (first, after_first), (second, after_second) = words[i], words[j]
            words[i], words[j] = (second, after_first), (first, after_second)
        return words

    def deleted(self, words: Words, rng: np.random.Generator) -> Words:
        """Random deletion: each word goes with probability `alpha`; where all would, one stays."""
        stays = rng.random(len(words)) >= self.alpha
        return [word for word, kept in zip(words, stays) if kept] or [words[rng.integers(len(words))]]

    def _count(self, words: Words) -> int:
        return max(1, round(self.alpha * len(words)))

    def _known(self, words: Words, rng: np.random.Generator) -> Iterator[tuple[int, Sequence[str]]]:
        """(place, synonyms) of the words that have any, in random order."""
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS  # which takes a second to import

        for i in rng.permutation(len(words)):
            word = bare(words[i][0]).lower()
            if word not in ENGLISH_STOP_WORDS and (known := self.synonyms(word)):
                yield i, known


@dataclasses.dataclass(frozen=True)
class CodeSwitch:
    """Code switching (CoSDA-ML, arXiv 2006.06402, section 3): of the words in `translations` (lower case) `rate` give way to one of theirs."""

    rate: float
    translations: Mapping[str, Sequence[str]]

    def __call__(self, text: str, rng: np.random.Generator) -> str:
        return joined([(self._switched(word, rng), space) for word, space in words_of(text)])

    def _switched(self, word: str, rng: np.random.Generator) -> str:
        known = self.translations.get(bare(word).lower(), ())
        return in_place_of(word, str(rng.choice(known))) if known and rng.random() < self.rate else word


@dataclasses.dataclass(frozen=True)
class SpanCorruption:
    """Hides spans of a text, each behind one [MASK], of `rate` of its tokens and of `mean_span` tokens in the mean.

    Spans as T5 draws them (arXiv 1910.10683, section 3.3.4: so many tokens in so many spans), a single token in the place of each as in BART's
    text infilling (arXiv 1910.13461, section 2.2). It is noise in the input of a text whose label, or other view, stays; nothing here is trained
    to say what was hidden. All ways to lay the spans apart from each other are as likely. A text of one token stays as it is.
    """

    rate: float
    mean_span: float
    mask: int  # the id of [MASK]

    def __call__(self, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if len(ids) < 2:
            return ids
        hidden = min(max(1, round(self.rate * len(ids))), len(ids) - 1)
        kept = len(ids) - hidden
        spans = min(max(1, round(hidden / self.mean_span)), kept + 1)
        places = np.sort(rng.choice(kept + 1, spans, replace=False))  # before which of the tokens that are kept, or at the end
        cuts = 1 + np.sort(rng.choice(hidden - 1, spans - 1, replace=False))  # where one span ends and the next begins
        lengths = np.empty(2 * spans + 1, np.int64)  # of what is kept and what is hidden, in turn
        lengths[0::2], lengths[1::2] = np.diff(places, prepend=0, append=kept), np.diff(cuts, prepend=0, append=hidden)
        part_T = np.repeat(np.arange(len(lengths)), lengths)
        hidden_T, begins_T = part_T % 2 == 1, np.diff(part_T, prepend=0) > 0
        return np.where(hidden_T, self.mask, ids)[~hidden_T | begins_T]


def words_of(text: str) -> Words:
    return re.findall(r"(\S+)(\s*)", text)


def joined(words: Words) -> str:
    return "".join(word + (space or " ") for word, space in words).rstrip()


def bare(word: str) -> str:
    """A word without the punctuation at its ends."""
    return re.sub(r"^\W+|\W+$", "", word)


def in_place_of(word: str, other: str) -> str:
    """`other` with the punctuation at the ends of `word`, and a capital where that has one."""
    inside = bare(word)
    return word.replace(inside, other[:1].upper() + other[1:] if inside[:1].isupper() else other, 1)


def read_translations(path: pathlib.Path) -> dict[str, tuple[str, ...]]:
    """{word in lower case: its translations} of a UTF-8 file of lines word<TAB>translation; a word may have several lines, of several languages too,
    and a translation several words.

    Raises UserError if it cannot be read or has another line, such as one of several words, which would never be met: texts are read word by word.
    """
    found: dict[str, tuple[str, ...]] = {}
    try:
        lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"config.data.code_switch_words is {path}, which cannot be read ({e}).") from e
    for number, line in enumerate(lines, 1):
        word, _, translation = (part.strip() for part in line.partition("\t"))
        if not word or not translation or "\t" in translation:
            raise UserError(f"line {number} of {path} is {line!r}: make it a word, a tabulator and one translation.")
        if len(word.split()) > 1:
            raise UserError(f"line {number} of {path} translates {word!r}, of which only the words are looked for, each alone: leave that line out.")
        found[word.lower()] = (*found.get(word.lower(), ()), translation)
    return found
