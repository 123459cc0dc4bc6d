"""Runs of agents that nobody trained: enough to play and to be measured."""

import jax
import jax.numpy as jnp
import pytest
from ml_collections import FrozenConfigDict

from research import build
from research.training import run_directory
from research.training.checkpoint import Checkpoints
from tests.rl import tiny
from tests.tiny import tiny_config


def made(workdir, config, steps):
    """A run whose checkpoints have the parameters it starts with, times the step."""
    workdir.mkdir()
    run_directory.write(workdir, config, None, None, [], {})
    if steps:
        e = build.experiment(config)
        state, checkpoints = jax.jit(e.init, out_shardings=e.shardings)(), Checkpoints(workdir, len(steps), "validation/loss")
        for step in steps:
            checkpoints.save(state._replace(step=jnp.int32(step), params=jax.tree.map(lambda x: step * x, state.params)), {"next": step}, None)
        checkpoints.close()
    return workdir


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """(game or none, steps of its checkpoints) -> the directory of such a run."""
    folder, known = tmp_path_factory.mktemp("runs"), {}

    def of(name, *steps):
        if (name, steps) not in known:
            config = tiny_config() if name is None else FrozenConfigDict(tiny.get_config(name))
            known[name, steps] = made(folder / f"{name}_{len(steps)}", config, steps)
        return known[name, steps]

    return of
