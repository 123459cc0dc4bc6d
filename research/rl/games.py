"""Board games on the device, from pgx (Koyamada et al., arXiv 2303.17503): two players, nothing hidden, no dice, moves in turn.

G games at once, A actions.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from research.core.errors import UserError
from research.core.sharding import split_rows

# Of pgx's environments those in which a search that looks ahead with the true rules knows no more than a player does: what one sees, (H, W, C), how many actions
# there are, and the most moves of a game. Written down here, since a config is read before JAX may be used, and importing pgx uses it.
KNOWN = {
    "tic_tac_toe": ((3, 3, 2), 9, 9),
    "connect_four": ((6, 7, 2), 7, 42),
    "othello": ((8, 8, 2), 65, 120),
    "hex": ((11, 11, 4), 122, 122),
    "go_9x9": ((9, 9, 17), 82, 162),
    "go_19x19": ((19, 19, 17), 362, 722),
    "animal_shogi": ((4, 3, 194), 132, 256),
    "gardner_chess": ((5, 5, 115), 1225, 256),
    "chess": ((8, 8, 119), 4672, 512),
    "shogi": ((9, 9, 119), 2187, 512),
}
SYMMETRY = {  # rows of SYMMETRIES in research/objectives/symmetry.py; none of the others has one
    "tic_tac_toe": "dihedral",
    "connect_four": "reflection",
    "othello": "dihedral",
    "hex": "half_turn",
    "go_9x9": "dihedral",
    "go_19x19": "dihedral",
}


@dataclasses.dataclass(frozen=True)
class Game:
    """A game by its name in pgx. States are pgx's, G of them stacked. Raises UserError for a name that is none, or a game of another kind."""

    name: str

    def __post_init__(self):
        if self.name not in KNOWN:
            raise UserError(
                f"rl.environment is {self.name!r}: choose one of {', '.join(KNOWN)}. Others of pgx have dice, hidden cards or one player, which no search here "
                "looks through."
            )

    @functools.cached_property
    def env(self):
        """pgx's."""
        with jax.ensure_compile_time_eval():  # modules of pgx make constants, which a function being traced must not keep
            import pgx

            return pgx.make(self.name)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of what a player sees."""
        return KNOWN[self.name][0]

    @property
    def actions(self) -> int:
        return KNOWN[self.name][1]

    @property
    def longest(self) -> int:
        return KNOWN[self.name][2]

    def kept(self, moves: int) -> int:
        """The least that SelfPlay may keep of each game's moves, in rounds of `moves`: a game as long as one may be, and that it is learned from as long."""
        return rounded_up(self.longest - 1 + rounded_up(self.longest, moves), moves)

    @property
    def symmetry(self) -> str:
        return SYMMETRY.get(self.name, "none")

    def model_fields(self) -> dict[str, Any]:
        """Of a config's `model` group those that a board of this game asks for."""
        return board_fields(self.shape)

    def check(self, observation, actions: int):
        """Raises UserError where a model that takes `observation` (G, H, W, C) and chooses among so many actions does not fit the game."""
        (H, W, C), found = self.shape, observation.shape[1:]
        if (H, W, C) != found or actions != self.actions:
            raise UserError(
                f"{self.name} has a board of {H} x {W} cells with {C} planes and {self.actions} moves: set model.image_size={H}, model.image_width={W}, "
                f"model.channels={C}, model.patch_size=1 and objective.actions={self.actions}."
            )

    def start(self, keys_G):
        """G new games; the keys say which player, 0 or 1, begins."""
        return split_rows(jax.vmap(self.env.init)(keys_G))

    def opened(self, state, moves_G, most: int, key):
        """New games after `moves_G` moves at random in each, which are `most` at most; one that these would end stays new."""
        after = state
        for i, now in enumerate(jax.random.split(key, most)):
            action_G = jax.random.categorical(now, jnp.where(after.legal_action_mask, 0.0, -jnp.inf))
            after = where(i < moves_G, self.step(after, action_G), after)
        return where(after.terminated, state, after)

    def step(self, state, action_G):
        """The games after a move of whoever is to move; one that is over stays as it is, with rewards of 0."""
        return jax.vmap(self.env.step)(state, action_G)


def rounded_up(n: int, step: int) -> int:
    return -(-n // step) * step


def board_fields(shape) -> dict[str, Any]:
    """Of a config's `model` group those that a board (H, W, C) asks for: one cell a patch, planes of zeros and ones as they are."""
    H, W, C = shape
    board = dict(image_size=H, image_width=W, channels=C, patch_size=1, class_token=False, pool="mean")
    return board | dict(pixel_mean=(0.0,), pixel_stddev=(1 / 255,), dropout=0.0)


def reward_of(state, player_G):
    """What the last move brought `player_G`: at the end 1 won, 0 drawn, -1 lost; before it 0."""
    return jnp.take_along_axis(state.rewards, player_G[:, None], axis=1)[:, 0]


def where(condition_G, one, other):
    """Of two trees of arrays (G, ...) the games of `one` where the condition holds, of `other` elsewhere."""
    return jax.tree.map(lambda a, b: jnp.where(condition_G.reshape(-1, *[1] * (a.ndim - 1)), a, b), one, other)
