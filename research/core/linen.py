"""Linen modules seen as pure functions over plain trees: no Flax types pass this line."""

import jax
from flax import linen as nn


def init(module: nn.Module, rng: jax.Array, *args):
    """The initial parameters of `module` called with `args`: a plain nested dict of arrays."""
    return nn.unbox(module.init(rng, *args))["params"]


def logical_axes(module: nn.Module, *args):
    """The tree of `init` with a tuple of logical axis names, one for each dimension, at each leaf."""
    boxed = jax.eval_shape(module.init, jax.random.key(0), *args)["params"]
    named = nn.get_partition_spec(boxed)
    return jax.tree.map(tuple, named, is_leaf=lambda leaf: isinstance(leaf, jax.sharding.PartitionSpec))


def stochastic(rng: jax.Array | None) -> dict:
    """The keyword arguments of `module.apply` for training (a dropout key) or evaluation (none)."""
    return {} if rng is None else {"rngs": {"dropout": rng}}
