"""Tic-tac-toe as it is: positions, what each is worth, and an evaluation that knows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from research.rl.games import Game, reward_of
from research.rl.search import Choice
from research.rl.solver import Solved

GAME = Game("tic_tac_toe")


@functools.cache
def solved() -> Solved:
    with jax.ensure_compile_time_eval():  # whoever asks first may be being traced
        return Solved(GAME)


@functools.cache
def worth_table() -> np.ndarray:
    """float32, by the number that the cells make in base three: 1 for a stone of who is to move, 2 for one of the other."""
    table = np.zeros(3**9, np.float32)
    for place, worth in solved()._worth.items():
        table[code(np.frombuffer(place[:-1], bool).reshape(3, 3, 2))] = worth
    return table


def code(board):
    cells = board.reshape(*board.shape[:-3], 9, 2)
    return ((cells[..., 0] + 2 * cells[..., 1]) * 3 ** np.arange(9)).sum(-1)


def predict(sign, inputs):
    """As of an objective whose one parameter is `sign`: any move is as good, and the worth of the position, or its contrary."""
    worth_G = jnp.asarray(worth_table())[code(inputs["image"])]
    return {"policy": jnp.zeros((len(worth_G), 9)), "value": sign * worth_G}


def player(sign):
    """Makes a move that gives nothing away; with a sign of -1 one that gives away most."""

    def play(key, state):
        mover_G, worth = state.current_player, jnp.asarray(worth_table())
        values = []
        for action in range(9):
            after = GAME.step(state, jnp.full(mover_G.shape, action))
            values.append(reward_of(after, mover_G) - jnp.where(after.terminated, 0, worth[code(after.observation)]))
        value_GA = jnp.where(state.legal_action_mask, sign * jnp.stack(values, 1), -9)
        return Choice(value_GA.argmax(1), value_GA, value_GA.max(1), jnp.zeros(value_GA.shape, int))

    return play


@functools.cache
def _compiled():
    return jax.jit(GAME.start), jax.jit(GAME.step), jax.jit(GAME.opened, static_argnums=2)


def after(*lines: str):
    """The positions after moves given as digits, the cells row by row: "04" is a corner, then the centre. Either player began."""
    start, step, _ = _compiled()
    state = start(jax.random.split(jax.random.key(0), len(lines)))
    for made in zip(*lines, strict=True):
        state = step(state, np.array([int(action) for action in made], np.int32))
    return jax.device_get(state)


def positions(games: int, seed: int = 0):
    """After none to seven moves at random."""
    start, _, opened = _compiled()
    moves_G = np.arange(games) % 8
    return jax.device_get(opened(start(jax.random.split(jax.random.key(seed), games)), moves_G, 7, jax.random.key(seed)))
