"""Matches between players, and what they say of their strength.

G games at once.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.core.sharding import constrain
from research.rl.games import Game, reward_of
from research.rl.search import Player


class Score(NamedTuple):
    """Games by how they ended for the first of two players."""

    won: int
    drawn: int
    lost: int

    def __add__(self, other: tuple) -> "Score":
        return Score(*(a + b for a, b in zip(self, other)))

    @property
    def games(self) -> int:
        return sum(self)

    @property
    def points(self) -> float:
        """The share of the points: a game won is one, a draw half of one."""
        return (self.won + self.drawn / 2) / self.games

    @property
    def interval(self) -> tuple[float, float]:
        """Of the points, 95 %: Wilson's (1927), a draw taken for half a game won and half one lost."""
        z, n, p = 1.96, self.games, self.points
        centre, reach = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
        return (centre - reach) / (1 + z**2 / n), (centre + reach) / (1 + z**2 / n)


def outcomes(game: Game, first: Player, second: Player, games: int, opening: int, opening_key, key):
    """(games,) float32: how each of so many games ended for `first`, who begins: 1 won, 0 drawn, -1 lost. `opening` moves before are drawn at random."""
    start_key, opening_key = jax.random.split(opening_key)
    state = game.start(jax.random.split(start_key, games))
    state = game.opened(state, jnp.full(games, opening), opening, opening_key)
    me_G = state.current_player

    def turn(carry):
        state, total_G, key = carry
        for player in (first, second):
            key, now = jax.random.split(key)
            state = game.step(state, player(now, state).action_G)
            total_G += reward_of(state, me_G)
        return state, total_G, key

    return jax.lax.while_loop(lambda carry: ~carry[0].terminated.all(), turn, (state, jnp.zeros(games), key))[1]


def score(results) -> Score:
    results = np.asarray(results)
    return Score(int((results > 0).sum()), int((results == 0).sum()), int((results < 0).sum()))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _both_ways(game: Game, player: Callable, opponent: Callable, games: int, opening: int, mine, theirs, key):
    one, other = player(mine), opponent(theirs)
    opening_key, first_key, second_key = jax.random.split(key, 3)
    began = outcomes(game, one, other, games // 2, opening, opening_key, first_key)
    did_not = -outcomes(game, other, one, games // 2, opening, opening_key, second_key)
    return constrain(began, None), constrain(did_not, None)


def match(game: Game, player: Callable, opponent: Callable, games: int, opening: int, mine, theirs, key) -> tuple[Score, Score]:
    """The scores of `player` beginning, and not, half of the `games` each. Both are functions of parameters -> Player, compiled once for all of these."""
    began, did_not = jax.device_get(_both_ways(game, player, opponent, games, opening, mine, theirs, key))
    return score(began), score(did_not)
