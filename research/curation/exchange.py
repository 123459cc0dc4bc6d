"""Records that tasks hand to other tasks, each by the number of the one that it is for.

They lie in a folder that all workers see, a file of each task that gives: in it the records in order of whom they are for, and before them where
those of each begin. One that takes reads its own range of every file: so no task has more in memory than it gives or takes, and nothing goes through Beam.
"""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np


def partitions(shards: int) -> int:
    """How many there are of hashes, a power of two: about as many as there are shards, so that none is larger than what a shard has; 64 to 1,024."""
    return 1 << min(10, max(6, (shards - 1).bit_length()))


def partition_of(hashes: np.ndarray, count: int) -> np.ndarray:
    """That of each uint64 hash, by its first bits: so what is sorted in each is sorted in all, one after another."""
    return hashes >> np.uint64(65 - count.bit_length())


def give(path: pathlib.Path, records: np.ndarray, takers: np.ndarray, count: int):
    """Writes the records to `path`, each for a taker in [0, count)."""
    order = np.argsort(takers, kind="stable")
    starts = np.searchsorted(takers[order], np.arange(count + 1, dtype=takers.dtype)).astype(np.int64)
    with _whole(path) as file:
        starts.tofile(file)
        records[order].tofile(file)


def take(folder: pathlib.Path, taker: int, count: int, dtype: np.dtype) -> np.ndarray:
    """The records for one of `count` takers in all files of a folder, in the order of their names; they cannot be changed."""
    found = []
    for path in sorted(map(str, folder.glob("*.records"))):
        with open(path, "rb") as file:
            file.seek(8 * taker)
            start, stop = np.frombuffer(file.read(16), np.int64).tolist()
            file.seek(8 * (count + 1) + start * dtype.itemsize)
            found.append(file.read((stop - start) * dtype.itemsize))
    return np.frombuffer(b"".join(found), dtype)


def join(paths: list[pathlib.Path], dtype: np.dtype, path: pathlib.Path):
    """Writes the arrays of files, one after another as one, with one of them in memory at a time."""
    with _whole(path) as file:
        length = sum(len(np.load(part, mmap_mode="r")) for part in paths)
        whole = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (length,)}
        np.lib.format.write_array_header_1_0(file, whole)
        for part in paths:
            file.write(np.load(part).tobytes())


def save(path: pathlib.Path, array: np.ndarray):
    """Writes an array, which is there whole or not at all."""
    with _whole(path) as file:
        np.save(file, array)


@contextlib.contextmanager
def _whole(path: pathlib.Path) -> Iterator[BinaryIO]:
    """A file to write, which is at `path` once all is in it."""
    draft = path.with_suffix(".draft")
    with open(draft, "wb") as file:
        yield file
    draft.replace(path)
