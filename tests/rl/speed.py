"""How fast a config's agent plays against itself here: python -m tests.rl.speed --config=configs/rl/go_9x9.py [--config.FIELD=VALUE ...]

Medians of some rounds, compilation not counted: moves, games that ended, and evaluations by the network in a second, and what a training step takes.
"""

import pathlib
import sys
import time

import jax
import numpy as np

from research import build
from research.core import config as config_lib
from research.core.streams import stream

ROUNDS = 5


def main(argv):
    _, config = config_lib.parse(argv)
    e = build.experiment(config)
    source = build.training_source(e, build.make_corpus(config, pathlib.Path("nowhere")))
    lived, r = source._experience, config.rl
    with e.in_force():
        state = jax.jit(e.init, out_shardings=e.shardings)()
        store, seconds, ended = lived.start(stream(0, 0, "collect")), [], []
        for i in range(ROUNDS + 1):
            begin = time.perf_counter()
            store = jax.block_until_ready(lived.collect(state.params, store, stream(0, i, "collect")))
            seconds.append(time.perf_counter() - begin)
            at = np.arange(i * r.moves, (i + 1) * r.moves) % r.kept
            ended.append(int(np.asarray(store["ring"]["over"])[:, at].sum()))
        steps = []
        for i in range(ROUNDS + 1):
            batch = lived.sample(store, i, stream(0, i, "sample"))
            begin = time.perf_counter()
            state, _ = jax.block_until_ready(e.train_step(state, batch))
            steps.append(time.perf_counter() - begin)
    round_seconds, moves = float(np.median(seconds[1:])), r.games * r.moves
    print(
        f"{r.environment}, {config.model.name}, {r.games} games, {r.simulations} simulations, {len(jax.devices())} x {jax.devices()[0].device_kind}"
    )
    print(
        f"moves/s {moves / round_seconds:,.0f}   games/s {np.mean(ended[1:]) / round_seconds:,.1f}   evaluations/s {moves * (r.simulations + 1) / round_seconds:,.0f}"
    )
    print(f"a round of collecting {round_seconds:.2f} s, a training step of {config.data.batch_size} positions {np.median(steps[1:]):.3f} s")


if __name__ == "__main__":
    main(sys.argv)
