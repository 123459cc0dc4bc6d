"""Where a network is measured: matches against players that stay what they are, and against what it was before."""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from research.core.errors import UserError
from research.core.sharding import constrain, split_rows
from research.core.streams import stream
from research.rl.games import Game
from research.rl.matches import Score, match
from research.rl.search import Player, network, random_player, searching, uct
from research.rl.solver import Solved

SOLVABLE = ("tic_tac_toe",)
EVERY = ("perfect", "any")  # opponents with whom all the games that there are are played
POSITIONS = 256  # that a perfect opponent has a network look at, at a time


@dataclasses.dataclass(frozen=True)
class Arena:
    """How a network plays when it matters: its search draws no lots, but for ties.

    opponents: random; mcts:N, plain Monte Carlo tree search with N simulations; perfect, who never errs, where the game is small enough to be solved; any, who
    makes every move there is. The last two play all the games that there are, the others `games` of them, the network beginning half.
    """

    game: Game
    predict: Callable  # of the objective
    search: str
    simulations: int
    opponents: tuple[str, ...]
    games: int
    opening: int

    def __post_init__(self):
        for name in self.opponents:
            if not re.fullmatch(r"random|perfect|any|mcts:[1-9]\d*", name):
                raise UserError(f"rl.opponents has {name!r}: they are random, mcts:N for N simulations, perfect, any.")
        if set(EVERY) & set(self.opponents) and self.game.name not in SOLVABLE:
            raise UserError(f"rl.opponents perfect and any play all games there are, which of {self.game.name} are too many: they are for {', '.join(SOLVABLE)}.")
        if self.games < 2 or self.games % 2:
            raise UserError(f"rl.eval_games is {self.games}: it is even, since who begins half of them does not the other half.")

    @property
    def figures(self) -> list[str]:
        """What `evaluate` measures: of the points of all games with an opponent the share, or of all games that there are the number lost."""
        return [f"lost_to_{name}" if name in EVERY else f"score_against_{name.replace(':', '_')}" for name in self.opponents]

    def evaluate(self, params) -> dict[str, float]:
        found = {}
        for name, figure in zip(self.opponents, self.figures):
            beginning, second = self.scores(params, name)
            score = beginning + second
            found[figure] = float(score.lost) if figure.startswith("lost") else score.points
        return found

    def scores(self, params, opponent: str) -> tuple[Score, Score]:
        """How it went against one of the `opponents`: of the games that the network began, and of the others."""
        if opponent in EVERY:
            play = lambda state: self._act(params, state)
            one, other = (self._solved.every_game(play, begins, perfect=opponent == "perfect") for begins in (True, False))
            return one, other
        return match(self.game, self._player, self._named(opponent), self.games, 0, params, None, stream(0, 0, "match"))

    def against(self, params, others) -> tuple[Score, Score]:
        """Likewise against other parameters of the same network. Search draws no lots: `opening` moves at random make games differ, and each pair of games begins
        with the same ones."""
        return match(self.game, self._player, self._player, self.games, self.opening, params, others, stream(0, 0, "match"))

    @functools.cached_property
    def _player(self) -> Callable[[Any], Player]:
        return self.player

    def player(self, params, explore: bool = False) -> Player:
        """The network with its search."""
        return searching(self.game, network(self.predict, params), self.search, self.simulations, explore)

    def _named(self, opponent: str) -> Callable[[Any], Player]:
        if opponent not in self._named_players:
            name, _, simulations = opponent.partition(":")
            found = random_player(self.game) if name == "random" else uct(self.game, int(simulations))
            self._named_players[opponent] = lambda _: found
        return self._named_players[opponent]

    @functools.cached_property
    def _named_players(self) -> dict[str, Callable]:
        return {}  # so that each is compiled once

    @functools.cached_property
    def _solved(self) -> Solved:
        return Solved(self.game)

    @functools.cached_property
    def _choose(self):
        act = lambda params, state: self.player(params)(stream(0, 0, "match"), split_rows(state)).action_G
        return jax.jit(lambda params, state: constrain(act(params, state), None))

    def _act(self, params, state):
        """The moves of the network at any number of positions."""
        count = len(state.terminated)
        chosen = []
        for begin in range(0, count, POSITIONS):
            rows = np.resize(np.arange(begin, min(begin + POSITIONS, count)), POSITIONS)
            chosen.append(np.asarray(self._choose(params, jax.tree.map(lambda x: x[rows], state)))[: count - begin])
        return np.concatenate(chosen)
