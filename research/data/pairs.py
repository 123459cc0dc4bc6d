"""Sentence pairs for next-sentence prediction (arXiv 1810.04805, section 3.1 and appendix A.2)."""

from typing import NamedTuple

import numpy as np

from research.core.errors import UserError
from research.core.types import Vocabulary
from research.data.text import TokenStore


class Pair(NamedTuple):
    """Where the tokens of a and b begin in the store, and how many there are."""

    a_begin: int
    a_length: int
    b_begin: int
    b_length: int
    is_next: bool

    @property
    def size(self) -> int:
        """Of its tokens, [CLS] and twice [SEP] among them."""
        return self.a_length + self.b_length + 3


class SentencePairs:
    """Documents cut into stretches of whole sentences, each of about `length` tokens and at least two sentences; a pair comes from one.

    A pair splits its stretch at a random sentence boundary: a ends there, with at most half the room, and b begins. Half the time b is
    taken from another document instead, from the beginning of a sentence that is not its first. b is as long as the room that a leaves,
    wherever that cuts it, so that neither its length, nor how it begins, nor how it ends tells which it is: whole sentences, as the
    paper's b is, would end with a full stop just when they are the true ones.
    A pair in 1 / short_rate is cut short at random, as in the paper.
    """

    def __init__(self, store: TokenStore, length: int, vocabulary: Vocabulary, short_rate: float):
        vocabulary.require("sentence_pairs", "pad", "cls", "sep")
        self._store, self._length, self._vocabulary, self.short_rate = store, length, vocabulary, short_rate
        document = np.repeat(np.arange(len(store.documents) - 1), np.diff(store.documents))  # of each sentence
        offset = store.sentences[:-1] - store.sentences[store.documents[document]]  # of each sentence in its document
        stretch = offset // (length - 3)
        begins = np.flatnonzero(np.diff(document, prepend=-1) | np.diff(stretch, prepend=-1))
        ends = np.append(begins[1:], len(document))
        enough = ends - begins >= 2
        self._begins, self._ends, self._document = begins[enough], ends[enough], document[begins[enough]]
        if len(np.unique(self._document)) < 2:
            raise UserError(f"{store.manifest['documents']} has fewer than two documents of two sentences: no pairs can be made.")

        self.manifest = store.manifest | {"number_of_pairs": len(self)}  # what the examples were made from

    def __len__(self):
        return len(self._begins)

    def example(self, i: int, rng: np.random.Generator) -> dict[str, np.ndarray | np.int32]:
        """tokens and token_types (length,) int32, is_next int32: [CLS] a [SEP] b [SEP], then padding."""
        pair = self.draw(i, rng)
        tokens, types = np.full(self._length, self.pad, np.int32), np.zeros(self._length, np.int32)
        tokens[: pair.size], types[: pair.size] = self.lay_out(pair)
        return {"tokens": tokens, "token_types": types, "is_next": np.int32(pair.is_next)}

    @property
    def pad(self) -> int:
        assert self._vocabulary.pad is not None  # as required
        return self._vocabulary.pad

    def draw(self, i: int, rng: np.random.Generator) -> Pair:
        """A pair of stretch i."""
        boundaries = self._store.sentences
        split = rng.integers(self._begins[i] + 1, self._ends[i])
        begin, middle = int(boundaries[self._begins[i]]), int(boundaries[split])
        room = self._length - 3
        if rng.random() < self.short_rate:
            room = int(rng.integers(2, room + 1))
        a_length = min(middle - begin, room // 2)
        b_length = self._cut(middle, room - a_length, self._document[i], rng)
        is_next = rng.random() < 0.5
        b_begin, b_length = (middle, b_length) if is_next else self._elsewhere(i, b_length, rng)
        # a keeps its end and b its beginning: the question is whether they meet.
        return Pair(middle - a_length, a_length, b_begin, b_length, is_next)

    def lay_out(self, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        """tokens and token_types (size,)."""
        v, take = self._vocabulary, lambda begin, length: self._store.tokens[begin : begin + length]
        a, b = take(pair.a_begin, pair.a_length), take(pair.b_begin, pair.b_length)
        return np.concatenate([[v.cls], a, [v.sep], b, [v.sep]]), np.repeat([0, 1], [len(a) + 2, len(b) + 1])

    def _cut(self, start: int, wanted: int, document: int, rng) -> int:
        """How many tokens b takes: those wanted, or, where the document ends before, so many that it does not end with it."""
        left = int(self._store.sentences[self._store.documents[document + 1]]) - start
        return wanted if wanted < left else int(rng.integers(1, max(left, 2)))

    def _elsewhere(self, i: int, length: int, rng) -> tuple[int, int]:
        """(where a sentence of another document begins, `length`): a place with more than `length` tokens to come.

        Where ten draws find none the length is cut, as it is where the true document ends.
        """
        first, last = np.searchsorted(self._document, self._document[i] + np.array([0, 1]))
        for _ in range(10):
            j = int(rng.integers(len(self) - (last - first)))
            j += (last - first) * (j >= first)
            start = int(self._store.sentences[rng.integers(self._begins[j] + 1, self._ends[j])])
            fitting = self._cut(start, length, self._document[j], rng)
            if fitting == length:
                break
        return start, fitting
