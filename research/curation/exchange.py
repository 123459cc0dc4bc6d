"""Records that tasks hand to each other, sorted by a key.

They lie in files that all workers see, and what goes through Beam is where they lie: so its memory does not grow with them.
"""

import pathlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np


class Slice(NamedTuple):
    path: str
    start: int
    stop: int


def give(path: pathlib.Path, records: np.ndarray, keys: np.ndarray) -> Iterator[tuple[int, Slice]]:
    """Writes the records to `path`, and yields (key, where those with it are) for each key that there is."""
    order = np.argsort(keys, kind="stable")
    save(path, records[order])
    there_are, starts = np.unique(keys[order], return_index=True)
    for key, start, stop in zip(there_are.tolist(), starts.tolist(), [*starts[1:].tolist(), len(records)]):
        yield key, Slice(str(path), start, stop)


def take(slices: Iterable[Slice]) -> np.ndarray:
    """The records of some slices, in the order of their files."""
    return np.concatenate([np.load(path, mmap_mode="r")[start:stop] for path, start, stop in sorted(slices)])


def join(parts: list[np.ndarray], dtype: np.dtype, path: pathlib.Path):
    """Writes arrays, which may be on disk, one after another as one."""
    draft = path.with_suffix(".draft")
    with open(draft, "wb") as file:
        whole = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (sum(map(len, parts)),)}
        np.lib.format.write_array_header_1_0(file, whole)
        for part in parts:
            file.write(part.tobytes())
    draft.replace(path)


def save(path: pathlib.Path, array: np.ndarray):
    """Writes an array, which is there whole or not at all."""
    draft = path.with_suffix(".draft")
    with open(draft, "wb") as file:
        np.save(file, array)
    draft.replace(path)
