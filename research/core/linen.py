"""Linen modules seen as pure functions over plain trees: no Flax types pass this line."""

import jax
from flax import linen as nn


def init(module: nn.Module, rng: jax.Array, *args, method: str | None = None):
    """The initial parameters of `module`, called with `args` or at its `method`: a plain nested dict of arrays. What the call does not use has none."""
    return nn.unbox(module.init(rng, *args, method=method)).get("params", {})


def logical_axes(module: nn.Module, *args, method: str | None = None):
    """The tree of `init` with a tuple of logical axis names, one for each dimension, at each leaf."""
    boxed = jax.eval_shape(lambda rng: module.init(rng, *args, method=method), jax.random.key(0)).get("params", {})
    named = nn.get_partition_spec(boxed)
    return jax.tree.map(tuple, named, is_leaf=lambda leaf: isinstance(leaf, jax.sharding.PartitionSpec))


def apply(module: nn.Module, params, rng: jax.Array | None, *args, method: str | None = None):
    """What `module` with `params` makes of `args`: with dropout of the key `rng`, or deterministic where it is None. Surplus parameters are let be."""
    rngs = {} if rng is None else {"dropout": rng}
    return module.clone(deterministic=rng is None).apply({"params": params}, *args, method=method, rngs=rngs)
