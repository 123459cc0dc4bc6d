"""Batches that the policy makes for itself: the one source of all reinforcement learning."""

import itertools
from collections.abc import Callable
from typing import Any, Protocol

import jax

from research.core.streams import stream
from research.core.types import Batch, BatchSpec, Params


class Experience(Protocol):
    """What a policy goes through, and what is kept of it: a tree of arrays on the devices, the store.

    All of it but `evaluate` follows from the arguments: the same parameters, store and key give the same.
    """

    spec: BatchSpec  # of the global batch
    figures: list[str]  # what `evaluate` measures, by name
    rows: dict[str, int]  # what is done side by side, and so split over the devices as a batch is: how many, under the name of the field that says it
    manifest: dict  # what it is made of: kept with the run, and the same when it goes on

    def start(self, key) -> Any:
        """The store before anything has been lived through."""

    def collect(self, params: Params, store, key) -> Any:
        """The store after some more of it under the policy of `params`."""

    def ready(self, store) -> bool:
        """Whether there is something to learn from; asked at the first step alone, before which so much is collected as it takes."""

    def sample(self, store, turn: int, key) -> Batch:
        """A batch of what is in the store, of which `turn` have been taken since something was last collected."""

    def evaluate(self, params: Params) -> dict[str, float]: ...


def rows_by_part(moves, index_PR):
    """Of arrays (G, M, ...) of moves, P parts of the games, each with moves 0 to G M / P: rows R of each part -> arrays (P R, ...). None leaves its devices."""
    P, R = index_PR.shape
    take = lambda x: jax.vmap(lambda x_N, index_R: x_N[index_R])(x.reshape(P, -1, *x.shape[2:]), index_PR).reshape(P * R, *x.shape[2:])
    return jax.tree.map(take, moves)


class ExperienceSource:
    """A Source: every `updates` steps new experience is collected with the parameters of that step, and every step takes a batch of what there is.

    Its state is the next step and the store, which lies in the checkpoint: what was collected under earlier parameters cannot be made again, so a
    run that goes on finds it as it was, bit for bit.
    """

    def __init__(self, experience: Experience, seed: int, updates: int, merged: Callable[[Params], Params] = lambda params: params):
        self._experience, self._seed, self._updates, self._merged = experience, seed, updates, merged
        self.spec = experience.spec
        self._next, self._store = 0, experience.start(stream(seed, 0, "collect"))

    def next(self, params: Params) -> Batch:
        if self._next % self._updates == 0:
            params, key = self._merged(params), stream(self._seed, self._next + 1, "collect")
            self._store = self._experience.collect(params, self._store, key)
            rounds = itertools.count(1)
            while self._next == 0 and not self._experience.ready(self._store):
                self._store = self._experience.collect(params, self._store, jax.random.fold_in(key, next(rounds)))
        batch = self._experience.sample(self._store, self._next % self._updates, stream(self._seed, self._next, "sample"))
        self._next += 1
        return batch

    def state(self) -> dict:
        return {"next": self._next, "arrays": self._store}

    def restore(self, state: dict):
        self._next, self._store = state["next"], state["arrays"]
