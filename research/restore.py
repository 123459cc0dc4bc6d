"""Where parameters come from: a run's own checkpoint, another run's (`init.from`), or nothing but a seed."""

import pathlib

import jax
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict, FrozenConfigDict

from research import tables
from research.build import Experiment
from research.core import config as config_lib
from research.core import sharding
from research.core.errors import UserError
from research.core.types import Source
from research.models import lora
from research.training import state
from research.training.checkpoint import Checkpoints, existing


def starting_state(e: Experiment, checkpoints: Checkpoints, source: Source) -> state.TrainState:
    """The state a run begins or goes on from, by the resume policy of research/training/checkpoint.py; puts `source` in its place."""
    if checkpoints.latest is not None:
        found, position = checkpoints.restore(e.shapes, e.shardings)
        source.restore(position)
        return found
    fresh = jax.jit(e.init, out_shardings=e.shardings)()  # made where it will live: no device and no host holds it whole
    if e.config.init["from"] is None:
        return fresh
    params = jax.tree.map(lambda new, old: new if old is None else old, e.own(fresh.params), pretrained(e))
    params = params if e.trained is e.objective else fresh.params | {"base": params}
    return fresh._replace(params=params, ema=None if fresh.ema is None else jax.tree.map(jax.numpy.copy, params))


def pretrained(e: Experiment):
    """The objective's parameters in the run that `init.from` names, its low-rank updates merged; None for one that `init.allow_new` lets be new."""
    there, shapes, shardings = existing(e.config.init["from"]), e.own(e.shapes.params), e.own(e.shardings.params)
    adapter = getattr(tables.model(e.config.model), "adapter", lambda name, shape: None)
    how = {"allow_new": e.config.init.allow_new, "adapter": adapter}
    stored = there.stored_params()
    if stored.keys() != {"base", "lora"}:
        return there.restore_params(shapes, shardings, **how)
    base = there.restore_params(shapes, shardings, under="base", **how)
    whole = jax.sharding.NamedSharding(e.mesh, jax.sharding.PartitionSpec())
    pairs = there.restore_params(stored["lora"], jax.tree.map(lambda _: whole, stored["lora"]), under="lora")
    without = {name for name in flatten_dict(pairs, sep="/") if flatten_dict(base, sep="/").get(name.rpartition("/")[0]) is None}
    alpha = config_lib.read(there.directory.parent / "config.json", ConfigDict(e.config)).lora.alpha
    return jax.jit(lora.merge, static_argnums=2, donate_argnums=0)(base, state.split(pairs, without)[0], alpha)


def fitting(config, argv: list[str]):
    """The config of a run for reading it here: where its mesh is not for the devices at hand, and the command line names no other, all of them."""
    if not any(arg.startswith("--config.mesh.") for arg in argv):
        try:
            sharding.make_mesh(config.mesh)
        except UserError:
            config = ConfigDict(config)
            config.mesh.update(data=1, fsdp=-1, context=1, tensor=1)
    return FrozenConfigDict(config)


def trained_params(e: Experiment, workdir: pathlib.Path, at_step: int | None = None):
    """(step, parameters) of a run: its latest checkpoint, or the one asked for; the moving average where it kept one."""
    checkpoints = existing(workdir)
    found = checkpoints.find(at_step)
    return found, e.merged(checkpoints.restore_params(e.shapes.params, e.shardings.params, found))
