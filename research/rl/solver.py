"""A game small enough is solved: every position that can come up, and what it is worth when nobody errs.

G positions at once, A actions, E moves from one position to the next.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from research.core.errors import UserError
from research.rl.games import Game, reward_of
from research.rl.matches import Score

MOST = 200_000  # positions


class Moves(NamedTuple):
    """Moves from G positions: which of these each leaves, where among `after`, in which each position stands once, it leads, and what it brings who makes it."""

    parent_E: np.ndarray
    action_E: np.ndarray
    child_E: np.ndarray
    reward_E: np.ndarray
    after: Any


class Solved:
    """The worth of each position of `game` for whoever is to move: 1 won, 0 drawn, -1 lost. Raises UserError where there are too many of them."""

    def __init__(self, game: Game):
        self._step = jax.jit(game.step)
        self._start = jax.device_get(jax.jit(game.start)(jax.random.split(jax.random.key(0), 1)))
        layers, moves, count = [self._start], list[Moves](), 1
        while len(layers[-1].terminated):
            moves.append(self._moves(layers[-1], layers[-1].legal_action_mask))
            layers.append(moves[-1].after)
            count += len(layers[-1].terminated)
            if count > MOST:
                raise UserError(f"{game.name} has more than {MOST:,} positions, too many for a perfect player: tic_tac_toe has few enough.")
        self._worth: dict[bytes, float] = {}
        worth_G = np.zeros(0)
        for layer, made in zip(reversed(layers[:-1]), reversed(moves)):
            worth_G = np.where(layer.terminated, 0.0, best_of(made, made.reward_E - worth_G[made.child_E], len(layer.terminated)))
            self._worth |= dict(zip(places(layer), worth_G))

    def worth(self, state) -> np.ndarray:
        """(G,) float32."""
        return np.array([self._worth[place] for place in places(state)], np.float32)

    def best_moves(self, state) -> np.ndarray:
        """(G, A) bool: the moves that give nothing away."""
        made = self._moves(state, state.legal_action_mask)
        worth_E = made.reward_E - self.worth(made.after)[made.child_E]
        best_E = worth_E == best_of(made, worth_E, len(state.terminated))[made.parent_E]
        found = np.zeros(state.legal_action_mask.shape, bool)
        found[made.parent_E[best_E], made.action_E[best_E]] = True
        return found

    def every_game(self, player: Callable, begins: bool, perfect: bool) -> Score:
        """How all games end that there can be of `player`, a function state -> action_G that draws no lots, with an opponent who may make any move, or any that a
        `perfect` player may."""
        state, games_G, score, mine = self._start, np.ones(1, int), np.zeros(3, int), begins
        while len(games_G):
            if mine:
                allowed = np.zeros(state.legal_action_mask.shape, bool)
                allowed[np.arange(len(games_G)), player(state)] = True
            else:
                allowed = self.best_moves(state) if perfect else state.legal_action_mask
            made = self._moves(state, allowed)
            games_E, over_E = games_G[made.parent_E], made.after.terminated[made.child_E]
            for i, sign in enumerate((1, 0, -1)):
                score[i] += games_E[over_E & (made.reward_E == (sign if mine else -sign))].sum()
            games_G = np.bincount(made.child_E, games_E * ~over_E, len(made.after.terminated)).astype(int)
            state, games_G, mine = jax.tree.map(lambda x: x[games_G > 0], made.after), games_G[games_G > 0], not mine
        return Score(*map(int, score))

    def _moves(self, state, allowed) -> Moves:
        parent_E, action_E = np.nonzero(allowed & ~state.terminated[:, None])
        filled = lambda x_E: np.resize(x_E, power_of_two(len(x_E)))  # few sizes are compiled
        before = jax.tree.map(lambda x: x[filled(parent_E)], state)
        after = jax.tree.map(lambda x: x[: len(parent_E)], jax.device_get(self._step(before, filled(action_E).astype(np.int32))))
        reward_E = np.asarray(reward_of(after, before.current_player[: len(parent_E)]))
        known: dict[bytes, int] = {}
        child_E = np.array([known.setdefault(place, len(known)) for place in places(after)], int)
        first = np.unique(child_E, return_index=True)[1]
        return Moves(parent_E, action_E, child_E, reward_E, jax.tree.map(lambda x: x[first], after))


def best_of(made: Moves, worth_E, positions: int):
    """The most of worth_E over the moves that leave each position."""
    best_G = np.full(positions, -np.inf)
    np.maximum.at(best_G, made.parent_E, worth_E)
    return best_G


def power_of_two(n: int) -> int:
    """The least that is no less than n; 0 for none."""
    return 1 << (n - 1).bit_length() if n else 0


def places(state) -> list[bytes]:
    """What tells one position from another: the board as its player sees it, and whether the game is over."""
    return [board.tobytes() + over.tobytes() for board, over in zip(np.asarray(state.observation), np.asarray(state.terminated))]
