"""Packed text for causal language modelling: documents one after another, cut into rows of equal length."""

import numpy as np

from research.core.errors import UserError
from research.core.types import Vocabulary
from research.data.text import TokenStore


class PackedText:
    """The stream of all documents, each with the token that ends a text after it, in rows of `length` tokens.

    A row begins where the one before it ends, in the middle of a document as a rule, and only the last has padding: nothing is lost, nothing
    comes twice (as GPT-2 and GPT-3 were trained: arXiv 2005.14165, appendix B). Segments tell the documents of a row apart.
    Row i is found by two binary searches among the documents and is one slice of the store.
    """

    def __init__(self, store: TokenStore, length: int, vocabulary: Vocabulary):
        vocabulary.require("packed_text", "end")
        self._tokens, self._length, self._end = store.tokens, length, vocabulary.end
        bounds = np.asarray(store.sentences)[store.documents]  # where documents begin and end in the store
        ends = bounds[1:][np.diff(bounds) > 0]
        if not len(ends):
            raise UserError(f"{store.manifest['documents']} has no text: no rows can be made.")
        self._ends = ends + np.arange(len(ends))  # where in the stream the token that ends each document stands
        self.manifest = store.manifest | {"number_of_rows": len(self)}

    def __len__(self):
        return -(-int(self._ends[-1] + 1) // self._length)

    def example(self, i: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """tokens (length,) int32; segments (length,) int32: 1, 2, ... by document, its end included, and 0 at padding. Draws nothing."""
        start = i * self._length
        stop = min(start + self._length, int(self._ends[-1]) + 1)
        before, upto = np.searchsorted(self._ends, (start, stop))  # documents that end before the row, and before its end
        is_end = np.zeros(stop - start, bool)
        is_end[self._ends[before:upto] - start] = True
        tokens, segments = np.full(self._length, self._end, np.int32), np.zeros(self._length, np.int32)
        tokens[: stop - start][~is_end] = self._tokens[start - before : stop - upto]
        segments[: stop - start] = 1 + np.cumsum(is_end) - is_end
        return {"tokens": tokens, "segments": segments}
