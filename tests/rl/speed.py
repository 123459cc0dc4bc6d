"""How fast a config's agent plays against itself here: python -m tests.rl.speed --config=configs/rl/go_9x9.py [--config.FIELD=VALUE ...]

Medians of some rounds, compilation not counted: moves, games, and evaluations by the network in a second, and what a training step takes. How many moves a game
has, in the mean, is counted beforehand of the first of each, played with one simulation by the network that nobody trained.
"""

import dataclasses
import pathlib
import sys
import time

import jax
import numpy as np

from research import build
from research.core import config as config_lib
from research.core.streams import stream

ROUNDS = 5


def moves_of_a_game(lived, params) -> float:
    hasty = dataclasses.replace(lived, arena=dataclasses.replace(lived.arena, simulations=1))
    store, rounds = hasty.start(stream(0, 0, "collect")), -(-lived.game.longest // lived.moves)
    for i in range(rounds):
        store = hasty.collect(params, store, stream(0, i, "collect"))
    return float(1 + np.argmax(np.asarray(store["ring"]["over"]), axis=1).mean())


def main(argv):
    _, config = config_lib.parse(argv)
    e, r = build.experiment(config), config.rl
    lived = build.experience(e, build.make_corpus(config, pathlib.Path()))
    with e.in_force():
        state = jax.jit(e.init, out_shardings=e.shardings)()
        length = moves_of_a_game(lived, state.params)
        store, rounds, steps = lived.start(stream(0, 0, "collect")), [], []
        for i in range(ROUNDS + 1):
            begin = time.perf_counter()
            store = jax.block_until_ready(lived.collect(state.params, store, stream(0, i, "collect")))
            rounds.append(time.perf_counter() - begin)
        for i in range(ROUNDS + 1):
            batch = lived.sample(store, i, stream(0, i, "sample"))
            begin = time.perf_counter()
            state, _ = jax.block_until_ready(e.train_step(state, batch))
            steps.append(time.perf_counter() - begin)
    round_seconds, step_seconds = (float(np.median(seconds[1:])) for seconds in (rounds, steps))
    moves = r.games * r.moves / round_seconds
    print(
        f"{r.environment}, {config.model.name}, {r.games} games, {r.simulations} simulations, {len(jax.devices())} x {jax.devices()[0].device_kind}"
    )
    print(f"moves/s {moves:,.0f}   games/s {moves / length:,.1f}, {length:.0f} moves each   evaluations/s {moves * (r.simulations + 1):,.0f}")
    print(f"a round of collecting {round_seconds:.2f} s, a training step of {config.data.batch_size} positions {step_seconds:.3f} s")


if __name__ == "__main__":
    main(sys.argv)
