"""Documents that an earlier one is like: exact, near by MinHash and locality-sensitive hashing, images by perceptual hash.

Whatever their kind they are found in one way. Each document has some hashes, of which documents that are alike share at least one, with the probability that the
kind states; those that share one are compared, and a document goes if an earlier one is like it, in the order of the input. So of each group of copies the first
stays, whoever computes, and no two documents that stay are known to be alike.
"""

import abc
import dataclasses
import functools
import io
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import imagehash
import numpy as np
from datasketch import MinHash
from PIL import Image

from research.core.errors import UserError
from research.core.files import write_atomically
from research.curation import ngrams
from research.curation.documents import Document, Dropped
from research.curation.engine import Engine, done, reporting
from research.curation.exchange import give, partition_of, partitions, save, take
from research.curation.passes import Effect
from research.curation.shards import Place, Shards

REMEMBERED = 4096  # what earlier documents are compared by, kept by a worker
SHINGLES = 4096  # of a long document that are hashed at a time

HASHED = np.dtype([("hash", np.uint64), ("place", np.uint64)])
PAIR = np.dtype([("later", np.uint64), ("earlier", np.uint64)])


class Duplicates(abc.ABC):
    """A stage of a preparation, whose kinds say what documents are compared by, when two are alike, and which hashes they have."""

    most = 16  # earlier documents of those that share a hash with a document which it is compared with: the first ones, and the one just before it

    @abc.abstractmethod
    def sketch(self, document: Document) -> Any:
        """What a document is compared by."""

    @abc.abstractmethod
    def alike(self, a, b) -> bool:
        """Whether documents of these two sketches are."""

    @abc.abstractmethod
    def hashes(self, sketches: Iterable) -> Iterator[np.ndarray]:
        """(bands,) uint64 of each."""

    def compare(self, engine: Engine, before: pathlib.Path, shards: int, folder: pathlib.Path) -> dict:
        """Finds the duplicates among the shards of the folder `before`, and leaves in `folder` a file for each shard."""
        hashes, pairs, count = folder / "hashes", folder / "pairs", partitions(shards)
        engine.each(functools.partial(_hashed, self, before, hashes, count), hashes, shards, "hashing documents")
        engine.each(functools.partial(_candidates, self.most, hashes, pairs, count, shards), pairs, count, "looking for candidates")
        engine.each(functools.partial(_compared, self, before, pairs, folder, shards), folder, shards, "comparing")
        shutil.rmtree(hashes)
        shutil.rmtree(pairs)
        return {}

    def effect(self, before: pathlib.Path, folder: pathlib.Path, shard: int) -> Effect:
        return drop_later(found(folder, shard), Shards(before), lambda like: "an earlier document is like it")


def found(folder: pathlib.Path, shard: int) -> pathlib.Path:
    """The file of the PAIR records of a shard."""
    return folder / f"{shard:05}.npy"


def drop_later(pairs: pathlib.Path, earlier: Shards, why: Callable[[Place], str]) -> Effect:
    """Drops the documents that a file of PAIR records has as later ones, each with the earlier one and what `why` says of its place."""
    like = {later: Place.of(place) for later, place in np.load(pairs).tolist()}

    def effect(place: Place, document: Document) -> Document | Dropped:
        return Dropped(why(like[int(place)]), earlier[like[int(place)]]) if int(place) in like else document

    return effect


def _hashed(kind: Duplicates, before: pathlib.Path, folder: pathlib.Path, count: int, shard: int):
    """Leaves HASHED records of the documents of a shard, for `count` partitions."""
    with reporting(folder):
        rows = [np.zeros(0, HASHED)]
        for index, hashes in enumerate(kind.hashes(map(kind.sketch, Shards(before).read(shard)))):
            rows.append(hashed(hashes, Place(shard, index)))
        records = np.concatenate(rows)
        give(folder / f"{shard:05}.records", records, partition_of(records["hash"], count), count)
        write_atomically(done(folder, shard), "{}")


def hashed(hashes_N: np.ndarray, place: Place) -> np.ndarray:
    """(N,) HASHED records: the hashes of what is there."""
    records_N = np.empty(len(hashes_N), HASHED)
    records_N["hash"], records_N["place"] = hashes_N, int(place)
    return records_N


def _candidates(most: int, hashes: pathlib.Path, folder: pathlib.Path, count: int, shards: int, partition: int):
    """Leaves PAIR records of the documents that share a hash of a partition, for the shards of the later ones."""
    with reporting(folder):
        pairs = candidates(take(hashes, partition, count, HASHED), most)
        give(folder / f"{partition:05}.records", pairs, pairs["later"] >> np.uint64(40), shards)
        write_atomically(done(folder, partition), "{}")


def candidates(records: np.ndarray, most: int) -> np.ndarray:
    """PAIR records, sorted: of each place in HASHED records the first `most` - 1 before it that have its hash, and the one just before it."""
    records = np.sort(records, order=("hash", "place"))
    new = np.r_[True, records["hash"][1:] != records["hash"][:-1]]
    first = np.maximum.accumulate(np.where(new, np.arange(len(records)), 0))  # where the group of each begins
    rank, place = np.arange(len(records)) - first, records["place"]
    found = [np.zeros(0, PAIR)]
    for nth in range(min(most, int(rank.max(initial=0)) + 1)):
        later = np.flatnonzero(rank > nth)
        earlier = first[later] + nth if nth < most - 1 else later - 1
        pairs = np.empty(len(later), PAIR)
        pairs["later"], pairs["earlier"] = place[later], place[earlier]
        found.append(pairs)
    return np.unique(np.concatenate(found))


def _compared(kind: Duplicates, before: pathlib.Path, given: pathlib.Path, folder: pathlib.Path, shards: int, shard: int):
    """Leaves (later, earlier) of the documents of a shard that an earlier one is like: of these the first that was found."""
    with reporting(folder):
        pairs = np.unique(take(given, shard, shards, PAIR))
        documents = Shards(before)
        sketch = functools.lru_cache(maxsize=REMEMBERED)(lambda place: kind.sketch(documents[Place.of(place)]))
        like: dict[int, int] = {}
        for later, earlier in pairs.tolist():
            if later not in like and later != earlier and kind.alike(sketch(later), sketch(earlier)):
                like[later] = earlier
        save(found(folder, shard), np.array(list(like.items()), PAIR))
        write_atomically(done(folder, shard), "{}")


@dataclasses.dataclass(frozen=True)
class ExactDuplicates(Duplicates):
    """The same words in the same order, whatever their case, punctuation and white space."""

    needs = "text"

    def sketch(self, document: Document) -> str:
        return " ".join(ngrams.words(document["text"]))

    def alike(self, a: str, b: str) -> bool:
        return a == b

    def hashes(self, sketches):
        for sketch in sketches:
            yield np.array([ngrams.digest(sketch.encode("utf-8", "surrogatepass"))], np.uint64)


@dataclasses.dataclass(frozen=True)
class NearDuplicates(Duplicates):
    """Jaccard similarity of the sets of word n-grams of at least `threshold` (Broder, 1997), candidates found by MinHash and locality-sensitive hashing.

    Two documents of similarity s share one of `bands` hashes, each of `rows` minima, with probability 1 - (1 - s^rows)^bands (arXiv 2107.06499, appendix A).
    """

    needs = "text"

    ngram: int
    threshold: float
    bands: int
    rows: int
    seed: int

    def __post_init__(self):
        if not 0 < self.threshold <= 1 or min(self.ngram, self.bands, self.rows) < 1:
            raise UserError("near_duplicates: threshold must lie above 0 and up to 1, and ngram, bands and rows be at least 1.")

    def probability(self, similarity):
        """That two documents of this similarity are compared."""
        return 1 - (1 - similarity**self.rows) ** self.bands

    def sketch(self, document: Document) -> np.ndarray:
        return ngrams.shingles(document["text"], self.ngram)

    def alike(self, a: np.ndarray, b: np.ndarray) -> bool:
        smaller, larger = sorted((len(a), len(b)))
        return smaller >= self.threshold * larger and ngrams.jaccard(a, b) >= self.threshold

    def hashes(self, sketches):
        empty = MinHash(num_perm=self.bands * self.rows, seed=self.seed, hashfunc=int, scheme="affine64")
        for shingles in sketches:
            minima = empty.copy()
            for start in range(0, len(shingles), SHINGLES):
                minima.update_batch(shingles[start : start + SHINGLES].tolist())
            bands = minima.hashvalues.astype("<u8").reshape(self.bands, self.rows)
            yield np.array([ngrams.digest(bytes([band % 256, band // 256]) + row.tobytes()) for band, row in enumerate(bands)], np.uint64)


@dataclasses.dataclass(frozen=True)
class NearImages(Duplicates):
    """Perceptual hashes of 64 bits, of which no more than `distance` differ.

    Of so many parts and one more at least one is the same then (Manku, Jain and Das Sarma, 2007): those are the hashes.
    """

    distance: int

    needs = "image"
    most = 256

    def __post_init__(self):
        if not 0 <= self.distance <= 7:
            raise UserError(f"near_images.distance is {self.distance}: it must lie between 0 and 7, of 64 bits.")

    def sketch(self, document: Document) -> np.ndarray:
        with Image.open(io.BytesIO(document["image"])) as image:
            return imagehash.phash(image).hash.ravel()

    def alike(self, a: np.ndarray, b: np.ndarray) -> bool:
        return bool(np.count_nonzero(a != b) <= self.distance)

    def hashes(self, sketches):
        for bits in sketches:
            parts = np.array_split(bits, self.distance + 1)
            yield np.array([ngrams.digest(bytes([i]) + np.packbits(part).tobytes()) for i, part in enumerate(parts)], np.uint64)
