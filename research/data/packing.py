"""Rows with no room wasted: documents one after another for causal language modelling, several sentence pairs together for BERT."""

import collections
import hashlib
import json

import numpy as np
from tqdm import tqdm

from research.core.errors import UserError
from research.core.types import Vocabulary
from research.data.fetch import cache_dir, cache_lock
from research.data.pairs import SentencePairs
from research.data.text import TokenStore

VERSION = 1  # of how pairs are drawn and put together: to be raised with either, so that an index made before is not used


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
        self.manifest = store.manifest | {"number_of_rows": len(self), "packing_efficiency": efficiency(self._ends[-1] + 1, len(self), length)}

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


class PackedPairs:
    """Sentence pairs, up to `most` to a row of `length` tokens (arXiv 2107.02027): best fit, longest first.

    Which pairs there are (where each is split, what its second segment is, how long it is) is drawn once, by `seed`, as the paper's were (arXiv
    1810.04805, appendix A.2), and with it which share a row: every pair is in one. The index, made on first use with a progress bar, is kept in the cache.
    """

    def __init__(self, pairs: SentencePairs, length: int, most: int, seed: int):
        self._pairs, self._length, self._most, self._seed = pairs, length, most, seed
        key = hashlib.sha256(json.dumps([VERSION, pairs.manifest, pairs.short_rate, length, most, seed]).encode()).hexdigest()[:16]
        path = cache_dir() / "packs" / f"{key}.npz"
        with cache_lock(path.name):
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                lengths = [pairs.draw(i, self._rng(i)).size for i in tqdm(range(len(pairs)), desc="packing pairs", unit=" pairs")]
                order, ends = pack(np.array(lengths), length, most)
                with open(path.with_suffix(".draft"), "wb") as file:
                    np.savez(file, order=order, ends=ends, tokens=np.sum(lengths))
                path.with_suffix(".draft").replace(path)
            index = np.load(path)
        self._order, self._ends = index["order"], index["ends"]
        self.manifest = pairs.manifest | {"number_of_rows": len(self), "packing_efficiency": efficiency(index["tokens"], len(self), length)}

    def __len__(self):
        return len(self._ends)

    def _rng(self, i: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, i])

    def example(self, i: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """tokens, token_types, segments (length,) int32: [CLS] a [SEP] b [SEP] of each pair in turn, segments 1, 2, ... and 0 at padding; is_next (most,)
        int32 of each segment, -1 where there is none. Draws nothing."""
        chosen = [self._pairs.draw(pair, self._rng(pair)) for pair in self._order[self._ends[i - 1] if i else 0 : self._ends[i]]]
        row = [np.concatenate(parts) for parts in zip(*(self._pairs.lay_out(pair) for pair in chosen))]
        row.append(np.repeat(np.arange(1, len(chosen) + 1), [pair.size for pair in chosen]))
        fills = {"tokens": self._pairs.pad, "token_types": 0, "segments": 0}
        padded = {name: np.pad(x, (0, self._length - len(x)), constant_values=fill).astype(np.int32) for x, (name, fill) in zip(row, fills.items())}
        return padded | {"is_next": np.array([pair.is_next for pair in chosen] + [-1] * (self._most - len(chosen)), np.int32)}


def efficiency(tokens, rows: int, length: int) -> float:
    """The share of the rows that is not padding."""
    return round(float(tokens) / (rows * length), 4)


def pack(lengths_N: np.ndarray, room: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """What lies together in rows of `room` tokens, `most` at most: (order_N, ends_R), row r being order_N[ends_R[r - 1]:ends_R[r]].

    Best fit, longest first, on the histogram of lengths (arXiv 2107.02027, algorithm 1): the time goes with the number of lengths, not of what is packed.
    """
    counts = np.bincount(lengths_N, minlength=room + 1)
    # By the room left in them: the lengths that rows hold -> how many hold these.
    waiting = [collections.Counter[tuple[int, ...]]() for _ in range(room + 1)]
    full = collections.Counter[tuple[int, ...]]()
    for n in range(room, 0, -1):
        while counts[n]:
            left = next((r for r in range(n, room) if waiting[r]), room)
            if left == room:
                waiting[room][()] = -(-counts[n] // min(most, room // n))
            held, there = waiting[left].popitem()
            many = min(there, counts[n])
            counts[n] -= many
            if there > many:
                waiting[left][held] = there - many
            (full if len(held) + 1 == most else waiting[left - n])[*held, n] += many
    rows = [held for table in (full, *waiting) for held, many in sorted(table.items()) for _ in range(many)]
    order_N = np.empty(len(lengths_N), np.int64)
    order_N[np.argsort(np.concatenate(rows), kind="stable")] = np.argsort(lengths_N, kind="stable")
    return order_N, np.cumsum([len(held) for held in rows])
