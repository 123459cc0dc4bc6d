"""Supervised sources: the global batch at step s is a pure function of (seed, s), and a process takes its rows of it."""

from collections.abc import Iterator

import grain
import jax
import numpy as np

from research.core.types import Batch, BatchSpec, Params


class Rows(grain.MapDataset):
    """Of each `batch_size` examples of the parent, those at `rows`: what one process needs, in order."""

    def __init__(self, parent: grain.MapDataset, batch_size: int, rows: list[int]):
        super().__init__(parent)
        self._size, self._rows = batch_size, rows

    def __len__(self):
        return len(self._parent) // self._size * len(self._rows)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.slice(index)
        batch, row = divmod(index, len(self._rows))
        return self._parent[batch * self._size + self._rows[row]]


class GrainSource:
    """Batches of a random-access data set without end. Its state is one integer, the next batch.

    Args:
      examples: `examples[i]` is the i-th example of the whole run, a dict of arrays: shuffled and repeated already.
      batch_size: examples in the global batch.
      rows: the rows of each batch that this process holds.
      threads, buffer: how many threads read ahead, and how many examples.
    """

    def __init__(self, examples: grain.MapDataset, batch_size: int, rows: list[int], threads: int, buffer: int):
        self._batches = Rows(examples, batch_size, rows).batch(len(rows))
        self._options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(1, buffer // len(rows)))  # in batches
        self.spec = batch_spec(examples[0], batch_size)
        self.restore({"next": 0})

    def next(self, params: Params) -> Batch:
        del params  # supervised: the data does not depend on what was learned
        self._next += 1
        batch = next(self._iterator)
        return batch | {"valid": np.ones(len(next(iter(batch.values()))), bool)}

    def state(self) -> dict:
        return {"next": self._next}

    def restore(self, state: dict):
        self._next = state["next"]
        self._iterator = iter(self._batches.to_iter_dataset(self._options))
        self._iterator.set_state({"next_index": self._next})


class Phases:
    """One source after another: [(steps, source), ...], the last without end. Its state is one integer."""

    def __init__(self, phases):
        self._phases, self._next = phases, 0

    @property
    def spec(self) -> BatchSpec:
        return self._current()[0].spec

    def next(self, params: Params) -> Batch:
        source, position = self._current()
        if source.state()["next"] != position:
            source.restore({"next": position})
        self._next += 1
        return source.next(params)

    def state(self) -> dict:
        return {"next": self._next}

    def restore(self, state: dict):
        self._next = state["next"]

    def _current(self):
        position = self._next
        for steps, source in self._phases[:-1]:
            if position < steps:
                return source, position
            position -= steps
        return self._phases[-1][1], position


def batches_of(examples, batch_size: int, rows: list[int], limit: int | None) -> Iterator[Batch]:
    """One pass over `examples` for an evaluation, at most `limit` batches; filler completes the last, marked not `valid`."""
    count = -(-len(examples) // batch_size)
    for batch in range(count if limit is None else min(count, limit)):
        indices = [batch * batch_size + row for row in rows]
        chosen = [examples[min(i, len(examples) - 1)] for i in indices]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *chosen)
        yield stacked | {"valid": np.array([i < len(examples) for i in indices])}


def batch_spec(example, batch_size: int) -> BatchSpec:
    spec = {name: jax.ShapeDtypeStruct((batch_size, *np.shape(x)), np.asarray(x).dtype) for name, x in example.items()}
    return spec | {"valid": jax.ShapeDtypeStruct((batch_size,), bool)}
