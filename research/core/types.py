"""The contracts that hold the house together: Mean, Objective, Source, Vocabulary."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from research.core.errors import UserError

Params = Any  # a plain nested dict of arrays
Batch = dict[str, jax.Array]
BatchSpec = dict[str, jax.ShapeDtypeStruct]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean not yet divided: merged by `+` over microbatches, hosts and evaluation batches.

    The mean of means is wrong as soon as counts differ; totals and counts add.
    """

    total: jax.Array  # float32 scalar
    count: jax.Array  # float32 scalar

    @classmethod
    def of(cls, values, weights) -> "Mean":
        """The mean of `values` where `weights` (same shape, bool or float) says they count."""
        weights = weights.astype(jnp.float32)
        return cls(jnp.sum(values.astype(jnp.float32) * weights), jnp.sum(weights))

    def __add__(self, other: "Mean") -> "Mean":
        return Mean(self.total + other.total, self.count + other.count)

    @property
    def value(self):
        """total / count; 0 where nothing was counted."""
        return self.total / (self.count + (self.count == 0))


Means = dict[str, Mean]


def loss_value(terms: Means):
    """The scalar loss that the terms of an objective stand for: the sum of their means."""
    return sum(term.value for term in terms.values())


class Objective(Protocol):
    """What is minimised. Frozen dataclasses under `research/objectives/` implement it.

    A field has the value of the config's `objective` group under its name; four are given by build.py: `model`, `vocabulary`, `batch_size` and
    `length`. One with a field `vocabulary` is of text: it gets a tokenizer, trained if there is none.

    One with a method `begin(params) -> params` holds, as params["reference"], a copy of what training began with, which that makes of the others: it is never
    loaded from elsewhere. One with a property `frozen`, a set of paths, keeps those parameters as they are: a teacher, a reference, what low-rank updates adapt.

    The loss is the sum of the means of `terms`: an objective with one loss returns one term, BERT returns two
    (its two means have different counts, so no single (total, count) pair could be accumulated exactly).
    """

    @property
    def separable(self) -> bool:
        """False: the loss couples the examples of a batch, so that no accumulation can be exact."""

    def init(self, rng: jax.Array) -> Params: ...

    def loss_fn(self, params: Params, batch: Batch, rng: jax.Array | None) -> tuple[Means, Means]:
        """(terms, metrics). Pure. rng None means evaluation: deterministic and, where separable, a function of each example alone.

        The counts of the terms depend on the batch and the key but never on `params`: accumulation adds them up first.
        """

    @property
    def example_batch(self) -> BatchSpec: ...

    @property
    def logical_axes(self) -> Any:
        """The tree of `params` with a tuple of logical axis names at each leaf."""


class Examples(Protocol):
    """What a source takes its batches from: `len()` of them, each a pure function of its index and a generator of its own."""

    manifest: dict  # what they were made from, in words and numbers: kept with the run, and the same when it goes on

    def __len__(self) -> int: ...

    def example(self, i: int, rng: np.random.Generator) -> Mapping[str, np.ndarray | np.generic]: ...


class Source(Protocol):
    """Where batches come from. `next` gives this process its rows of the global batch as NumPy arrays, or all of it as arrays on the devices.

    `state` is what JSON can hold, and under "arrays", if it needs any, a tree of arrays on the devices: all of it goes into each checkpoint.

    Every batch has `valid` (B,) bool: False marks the filler rows that complete the last batch of an evaluation.
    """

    @property
    def spec(self) -> BatchSpec:
        """Of the global batch that comes next."""

    def next(self, params: Params) -> Batch: ...

    def state(self) -> dict: ...

    def restore(self, state: dict) -> None: ...


class Vocabulary(NamedTuple):
    """What an objective must know of a tokenizer. The ids of tokens that it lacks are None."""

    size: int
    continues: tuple[bool, ...]  # by token id: whether the token goes on with the word before it
    pad: int | None = None
    cls: int | None = None
    sep: int | None = None
    mask: int | None = None
    end: int | None = None  # of a text: <|endoftext|>, or [SEP] where there is none
    separators: int = 1  # between the two texts of a pair: RoBERTa has two

    def require(self, who: str, *names: str):
        """Raises UserError, in the name of `who`, where one of the tokens `names` is missing."""
        if missing := [f"[{name.upper()}]" for name in names if getattr(self, name) is None]:
            raise UserError(f"the tokenizer has no {', '.join(missing)} token, which {who} needs: BERT's has (data.tokenizer_type=wordpiece).")


def view(batch, name: str):
    """Of a batch of several views, the arrays of one: those named "first/tokens", ... as "tokens", ... for view(batch, "first")."""
    return {key.removeprefix(f"{name}/"): x for key, x in batch.items() if key.startswith(f"{name}/")}
