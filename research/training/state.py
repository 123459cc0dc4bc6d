"""The one pytree that training carries, and its sharded birth."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import NamedSharding, PartitionSpec

from research.core.sharding import param_shardings
from research.core.streams import stream
from research.core.types import Params


class TrainState(NamedTuple):
    step: Any  # int32 scalar: updates made
    params: Params
    opt_state: Any
    ema: Params | None = None  # the moving average of params, where one is kept


def split(params, names) -> tuple[Params, Params]:
    """A nested dict in two: without the leaves that `names` has by path, and those alone."""
    flat = flatten_dict(params, keep_empty_nodes=True, sep="/")
    return tuple(unflatten_dict({name: x for name, x in flat.items() if (name in names) == listed}, sep="/") for listed in (False, True))


def join(one, other) -> Params:
    """What `split` took apart."""
    flat = [flatten_dict(part, keep_empty_nodes=True, sep="/") for part in (one, other)]
    return unflatten_dict(flat[0] | flat[1], sep="/")


def initial_state(objective, optimizer, seed: int, keep_ema: bool, frozen=frozenset()):
    """A function () -> TrainState. Pure, so that it can be traced for shapes or compiled with output shardings.

    The parameters whose path is in `frozen` have no optimizer state.
    """

    def init():
        params = objective.init(stream(seed, 0, "init"))
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(split(params, frozen)[0]), params if keep_ema else None)

    return init


def state_shardings(shapes: TrainState, logical_axes, mesh, rules) -> TrainState:
    """A NamedSharding for each leaf of the state: optimizer moments lie as their parameters do."""
    params = param_shardings(mesh, rules, logical_axes, shapes.params)
    whole = NamedSharding(mesh, PartitionSpec())
    return TrainState(whole, params, _like_params(shapes.opt_state, shapes.params, params, whole), params if shapes.ema is not None else None)


def _like_params(opt_state, params, shardings, whole):
    """Each leaf of `opt_state` whose path ends in a parameter's path is split as that parameter is; the others are whole.

    A leaf that has lost one dimension of its parameter (Adafactor's row and column statistics) keeps the rest of the spec.
    """
    flat = {tuple(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    placed = {tuple(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(shardings)}

    def place(path, leaf):
        owner = next((tuple(path[i:]) for i in range(len(path)) if tuple(path[i:]) in flat), None)
        if owner is None:
            return whole
        shape, spec = flat[owner].shape, placed[owner].spec
        spec = (*spec, *(None,) * (len(shape) - len(spec)))
        if leaf.shape == shape:
            return placed[owner]
        for lost in range(len(shape)):
            if leaf.shape == shape[:lost] + shape[lost + 1 :]:
                return NamedSharding(whole.mesh, PartitionSpec(*spec[:lost], *spec[lost + 1 :]))
        return whole

    return jax.tree_util.tree_map_with_path(place, opt_state)
