"""Linen modules seen as pure functions over plain trees: no Flax types pass this line."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn


class Call(NamedTuple):
    """A module, and what it or its `method` is called with to make its parameters."""

    module: nn.Module
    args: tuple
    method: str | None = None


def init(module: nn.Module, rng: jax.Array, *args, method: str | None = None):
    """The initial parameters of `module`, called with `args` or at its `method`: a plain nested dict of arrays. What the call does not use has none."""
    return nn.unbox(module.init(rng, *args, method=method)).get("params", {})


def logical_axes(module: nn.Module, *args, method: str | None = None):
    """The tree of `init` with a tuple of logical axis names, one for each dimension, at each leaf."""
    boxed = jax.eval_shape(lambda rng: module.init(rng, *args, method=method), jax.random.key(0)).get("params", {})
    named = nn.get_partition_spec(boxed)
    return jax.tree.map(tuple, named, is_leaf=lambda leaf: isinstance(leaf, jax.sharding.PartitionSpec))


def init_all(calls: dict[str, Call], rng: jax.Array):
    """The parameters of several modules: each one's under its name, and beside them, of the one named "", its own as they are."""
    keys = jax.random.split(rng, len(calls))
    params = {name: init(call.module, key, *call.args, method=call.method) for (name, call), key in zip(calls.items(), keys)}
    return params.pop("", {}) | params


def all_logical_axes(calls: dict[str, Call]):
    """The tree of `init_all` with the logical axes at each leaf."""
    axes = {name: logical_axes(call.module, *call.args, method=call.method) for name, call in calls.items()}
    return axes.pop("", {}) | axes


def zeros(specs: dict[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    """Arrays to make parameters with, of these shapes and dtypes."""
    return {name: jnp.zeros(x.shape, x.dtype) for name, x in specs.items()}


def apply(module: nn.Module, params, rng: jax.Array | None, *args, method: str | None = None):
    """What `module` with `params` makes of `args`: with dropout of the key `rng`, or deterministic where it is None. Surplus parameters are let be."""
    rngs = {} if rng is None else {"dropout": rng, "stochastic_rounding": rng}
    return module.clone(deterministic=rng is None).apply({"params": params}, *args, method=method, rngs=rngs)
