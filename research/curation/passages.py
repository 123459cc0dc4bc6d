"""Runs of words that came before: cut out of later documents."""

import dataclasses
import functools
import pathlib
import shutil

import numpy as np

from research.core.errors import UserError
from research.core.files import write_atomically
from research.curation import ngrams
from research.curation.documents import Document, Dropped
from research.curation.engine import Engine, done, reporting
from research.curation.exchange import give, join, partition_of, partitions, save, take
from research.curation.passes import Effect
from research.curation.shards import Place, Shards
from research.data.text import sentences

ENTRY = np.dtype([("hash", np.uint64), ("place", np.uint64), ("word", np.uint64)])  # of one size: else a search in one field would copy it
MOST = 8  # places that have the same window which are tried
REMEMBERED = 1024  # earlier documents whose words a worker keeps
INDEX = "index.npy"


@dataclasses.dataclass(frozen=True)
class RepeatedPassages:
    """Cuts out of a document what an earlier one, or an earlier place of it, has in a run of at least `words` words (arXiv 2107.06499, section 4.1).

    In place of a suffix array there is an index of windows of half that length, one after another: a run of `words` words contains one whole, wherever it
    begins. Every window of a document is looked up there, and what is found is compared word by word as far as it goes, with the first MOST places.
    With `whole_sentences` only sentences that are all in such a run are cut, so that none is left in part.
    """

    needs = "text"

    words: int
    whole_sentences: bool

    def __post_init__(self):
        if self.words < 2:
            raise UserError(f"repeated_passages.words is {self.words}: it must be at least 2.")

    @property
    def window(self) -> int:
        return (self.words + 1) // 2

    def compare(self, engine: Engine, before: pathlib.Path, shards: int, folder: pathlib.Path) -> dict:
        """Leaves in `folder` the index of the shards of the folder `before`, sorted."""
        windows, in_order, count = folder / "windows", folder / "sorted", partitions(shards)
        engine.each(functools.partial(_entries, self.window, before, windows, count), windows, shards, "reading passages")
        engine.each(functools.partial(_sorted, windows, in_order, count), in_order, count, "indexing passages")
        join([_partition(in_order, partition) for partition in range(count)], ENTRY, folder / INDEX)
        shutil.rmtree(windows)
        shutil.rmtree(in_order)
        return {}

    def effect(self, before: pathlib.Path, folder: pathlib.Path, shard: int) -> Effect:
        index, documents = np.load(folder / INDEX, mmap_mode="r"), Shards(before)
        hashes = index["hash"]
        words_of = functools.lru_cache(maxsize=REMEMBERED)(lambda place: ngrams.word_hashes(documents[Place.of(place)]["text"]))

        def effect(place: Place, document: Document) -> Document | Dropped:
            own, repeated = ngrams.word_hashes(document["text"]), list[tuple[int, int]]()
            windows = ngrams.windows(own, self.window)
            first, last = np.searchsorted(hashes, windows), np.searchsorted(hashes, windows, "right")
            there = np.flatnonzero(last > first)
            earliest = index[first[there]]  # sorted by place too: as a rule the document itself, and nothing to compare
            before_it = (earliest["place"] < int(place)) | (earliest["place"] == int(place)) & (earliest["word"] < there)
            for at in there[before_it]:
                if repeated and at < repeated[-1][1] - self.window:
                    continue  # inside what was found already
                for entry in index[first[at] : min(last[at], first[at] + MOST)]:
                    where = (int(entry["place"]), int(entry["word"]))
                    if where < (int(place), int(at)):
                        start, stop = extent(own, int(at), words_of(where[0]), where[1])
                        if stop - start >= self.words:
                            repeated.append((start, stop))
                            break
            if self.whole_sentences and repeated:
                repeated = [run for run in sentence_runs(document["text"]) if any(start <= run[0] and run[1] <= stop for start, stop in repeated)]
            return cut(document, repeated) if repeated else document

        return effect


def extent(a: np.ndarray, i: int, b: np.ndarray, j: int) -> tuple[int, int]:
    """[start, stop) of the longest run of `a` around i that is the run of `b` around j."""
    left = _shared(a[:i][::-1], b[:j][::-1])
    return i - left, i + _shared(a[i:], b[j:])


def _shared(a: np.ndarray, b: np.ndarray) -> int:
    """How many words two runs begin with alike, read no further than twice as far."""
    length, alike, size = min(len(a), len(b)), 0, 64
    while alike < length:
        stop = min(alike + size, length)
        different = np.flatnonzero(a[alike:stop] != b[alike:stop])
        if len(different):
            return alike + int(different[0])
        alike, size = stop, 2 * size
    return length


def sentence_runs(text: str) -> list[tuple[int, int]]:
    """[start, stop) of the words of each sentence of a text that has any."""
    stops = np.cumsum([0] + [len(ngrams.WORD.findall(sentence)) for sentence in sentences(text)])
    return [(int(start), int(stop)) for start, stop in zip(stops, stops[1:]) if stop > start]


def cut(document: Document, runs: list[tuple[int, int]]) -> Document | Dropped:
    """The document without these runs of its words, [start, stop) in order, and the punctuation and white space after each."""
    text = document["text"]
    spans = [match.span() for match in ngrams.WORD.finditer(text)]
    kept, at = [], 0
    for start, stop in runs:
        kept.append(text[at : max(at, spans[start][0])])
        at = max(at, spans[stop][0] if stop < len(spans) else len(text))
    left = "".join([*kept, text[at:]]).strip()
    return document | {"text": left} if ngrams.WORD.search(left) else Dropped("all of it came before")


def _entries(window: int, before: pathlib.Path, folder: pathlib.Path, count: int, shard: int):
    """Leaves ENTRY records of the documents of a shard, for `count` partitions."""
    with reporting(folder):
        rows = [np.zeros(0, ENTRY)]
        for index, document in enumerate(Shards(before).read(shard)):
            hashes = ngrams.windows(ngrams.word_hashes(document["text"]), window)[::window]
            row = np.empty(len(hashes), ENTRY)
            row["hash"], row["place"], row["word"] = hashes, int(Place(shard, index)), np.arange(len(hashes)) * window
            rows.append(row)
        records = np.concatenate(rows)
        give(folder / f"{shard:05}.records", records, partition_of(records["hash"], count), count)
        write_atomically(done(folder, shard), "{}")


def _sorted(windows: pathlib.Path, folder: pathlib.Path, count: int, partition: int):
    with reporting(folder):
        save(_partition(folder, partition), np.sort(take(windows, partition, count, ENTRY)))
        write_atomically(done(folder, partition), "{}")


def _partition(folder: pathlib.Path, partition: int) -> pathlib.Path:
    return folder / f"{partition:05}.npy"
