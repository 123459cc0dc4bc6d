"""An objective trained by low-rank updates (arXiv 2106.09685) of parameters that stay as they are."""

import dataclasses
import functools
import re

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from research.core.errors import UserError
from research.core.types import Batch, BatchSpec, Means, Objective, Params
from research.models import lora


@dataclasses.dataclass(frozen=True)
class Adapted:
    """`inner`, minimised over params = {"base": those of inner, "lora": pairs}, of which only the pairs are trained, and what `trained` matches.

    The loss is that of `inner` on the merged parameters. Fields: see the config's `lora` group. A pattern
    that matches nothing raises UserError as soon as parameters or their axes are asked for.
    """

    inner: Objective
    rank: int
    alpha: float
    pattern: str
    trained: str | None

    @property
    def separable(self) -> bool:
        return self.inner.separable

    @property
    def example_batch(self) -> BatchSpec:
        return self.inner.example_batch

    @functools.cached_property
    def logical_axes(self):
        return {"base": self.inner.logical_axes, "lora": lora.axes(self._adaptable, self.pattern)}

    @property
    def _adaptable(self):
        """The logical axes of all parameters that are not frozen in `inner` already, such as those of a reference."""
        flat, frozen = flatten_dict(self.inner.logical_axes, sep="/"), getattr(self.inner, "frozen", frozenset())
        return unflatten_dict({name: axes for name, axes in flat.items() if name not in frozen}, sep="/")

    @property
    def frozen(self) -> frozenset[str]:
        base = flatten_dict(self.logical_axes["base"], sep="/")
        trained = {name for name in flatten_dict(self._adaptable, sep="/") if self.trained and re.search(self.trained, name)}
        if self.trained and not trained:
            raise UserError(f"lora.trained {self.trained!r} matches no parameter: they are {', '.join(list(base)[:3])}, ... ({len(base)} in all).")
        return frozenset(f"base/{name}" for name in base.keys() - trained)

    def init(self, rng: jax.Array) -> Params:
        base = self.inner.init(rng)
        return {"base": base, "lora": lora.init(jax.random.fold_in(rng, 1), base, self._adaptable, self.pattern, self.rank)}

    def merge(self, params: Params) -> Params:
        """Parameters of `inner` that do the same."""
        return lora.merge(params["base"], params["lora"], self.alpha)

    def loss_fn(self, params: Params, batch: Batch, rng: jax.Array | None) -> tuple[Means, Means]:
        return self.inner.loss_fn(self.merge(params), batch, rng)
