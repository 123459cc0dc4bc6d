"""Games that a network plays against itself, and the last of its moves to learn from.

G games side by side, M moves of each that are kept, A actions, H rows and W columns of the board, C planes, B rows of a batch.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp

from research.core.errors import UserError
from research.core.sharding import split_rows
from research.core.types import BatchSpec
from research.rl.arena import Arena
from research.rl.experience import rows_by_part
from research.rl.games import Game, where


@dataclasses.dataclass(frozen=True, eq=False)
class SelfPlay:
    """An Experience. Its store is a dict:

    state: the games under way, which the next `collect` goes on with; moves: how many have been made in each, int32;
    ring: the last M moves of each game as arrays (G, M, ...): image, policy and legal as in a batch of AlphaZero, player int32 (who moved), rewards (2,) float32
    (what the move brought each player), over bool (the game ended with it), and, once that is known, value float32, how the game ended for who moved, with
    known bool. Where a game ends the next begins.

    A move is learned from once its game has ended, and all moves of all games for the same number of rounds. Were they learned from for as long as they are kept,
    the ends of games would be seen more often than how they begin.
    """

    arena: Arena
    spec: BatchSpec
    games: int
    moves: int  # of each game in a `collect`
    kept: int  # M

    def __post_init__(self):
        if self.kept % self.moves:
            raise UserError(f"rl.kept {self.kept} is not a multiple of rl.moves={self.moves}, by which it is renewed.")
        if self.kept < (least := self.game.kept(self.moves)):
            most = f"a game of {self.game.name} may have {self.game.longest} moves"
            raise UserError(f"rl.kept {self.kept}: {most}, which it must hold and be learned from for as many; set it to {least} or more.")

    @property
    def game(self) -> Game:
        return self.arena.game

    @property
    def learned(self) -> int:
        """For how many moves after its end a game is learned from: as many whole rounds as let the longest stay whole. No game lasts longer, so that of each
        there is one, from its first end on."""
        return (self.kept - self.game.longest + 1) // self.moves * self.moves

    @property
    def figures(self) -> list[str]:
        return self.arena.figures

    @property
    def rows(self) -> dict[str, int]:
        return {"rl.games": self.games}

    @property
    def manifest(self) -> dict:
        return {"environment": self.game.name, "version": self.game.env.version}

    def evaluate(self, params):
        return self.arena.evaluate(params)

    @functools.partial(jax.jit, static_argnums=0)
    def start(self, key):
        state, (G, M, A) = self._new_games(key), (self.games, self.kept, self.game.actions)
        ring = {
            "image": jnp.zeros((G, M, *state.observation.shape[1:]), state.observation.dtype),
            "policy": jnp.zeros((G, M, A)),
            "legal": jnp.ones((G, M, A), bool),
            "player": jnp.zeros((G, M), jnp.int32),
            "rewards": jnp.zeros((G, M, 2)),
            "over": jnp.zeros((G, M), bool),
            "value": jnp.zeros((G, M)),
            "known": jnp.zeros((G, M), bool),
        }
        return split_rows({"state": state, "ring": ring}) | {"moves": jnp.zeros((), jnp.int32)}

    def _new_games(self, key):
        """Each begins with some moves at random, none to all of the arena's `opening`, so that positions come up which good players avoid."""
        start_key, number_key, opening_key = jax.random.split(key, 3)
        state, most = self.game.start(jax.random.split(start_key, self.games)), self.arena.opening
        return self.game.opened(state, jax.random.randint(number_key, (self.games,), 0, most + 1), most, opening_key)

    @functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
    def collect(self, params, store, key):
        player = self.arena.player(params, explore=True)

        def move(state, key):
            search_key, new_key = jax.random.split(key)
            choice = player(search_key, state)
            after = self.game.step(state, choice.action_G)
            made = {
                "image": state.observation,
                "policy": choice.policy_GA,
                "legal": state.legal_action_mask,
                "player": state.current_player,
                "rewards": after.rewards,
                "over": after.terminated,
            }
            return where(after.terminated, self._new_games(new_key), after), made

        state, made = jax.lax.scan(move, store["state"], jax.random.split(key, self.moves))
        moves = store["moves"] + self.moves
        put = lambda ring_GM, made: jax.lax.dynamic_update_slice_in_dim(ring_GM, made.swapaxes(0, 1), store["moves"] % self.kept, axis=1)
        ring = {name: put(store["ring"][name], x) for name, x in made.items()}
        ring |= outcomes(ring, (moves - 1 - jnp.arange(self.kept)) % self.kept, moves, self.learned)
        return split_rows({"state": state, "ring": ring}) | {"moves": moves}

    def ready(self, store) -> bool:
        return bool(self._all_rows(store))

    @functools.partial(jax.jit, static_argnums=0)
    def _all_rows(self, store):
        """Whether a game has ended in each part of them, so that a batch has no empty row."""
        return store["ring"]["known"].reshape(self._parts, -1).any(1).all()

    @property
    def _parts(self) -> int:
        """Of the games: each gives as many rows of a batch, so that no move has to leave its devices."""
        return math.gcd(self.games, *self.spec["valid"].shape)

    @functools.partial(jax.jit, static_argnums=0)
    def sample(self, store, turn, key):
        """A batch drawn evenly, in each part of the games, from the moves whose games have ended; rows of a part in which none has are not valid."""
        (B,) = self.spec["valid"].shape
        parts = self._parts
        known_PN = store["ring"]["known"].reshape(parts, -1)

        def draw(key, known_N):
            upto_N = jnp.cumsum(known_N)
            nth_R = jax.random.randint(key, (B // parts,), 0, jnp.maximum(upto_N[-1], 1)) + 1
            return jnp.minimum(jnp.searchsorted(upto_N, nth_R), len(known_N) - 1)

        batch = rows_by_part(store["ring"], jax.vmap(draw)(jax.random.split(key, parts), known_PN))
        return split_rows({name: batch[name] for name in ("image", "policy", "legal", "value")} | {"valid": batch["known"]})


def outcomes(ring, age_M, moves, learned: int):
    """value and known of each move of the ring: how its game ended for who made it, where it has, among the last `learned` moves.

    `age_M`: 0 for the newest of the ring's places, of which only the first `moves` have been filled.
    """
    newest_first = jnp.argsort(age_M)

    def back(carry, made):
        total_G2, known_G = carry  # of what follows in the same game
        total_G2 = made["rewards"] + jnp.where(made["over"][:, None], 0, total_G2)
        known_G = jnp.where(made["over"], made["age"] < learned, known_G)
        value_G = jnp.take_along_axis(total_G2, made["player"][:, None], axis=1)[:, 0]
        return (total_G2, known_G), (value_G, known_G)

    made = {name: jnp.moveaxis(ring[name][:, newest_first], 1, 0) for name in ("rewards", "over", "player")} | {"age": age_M[newest_first]}
    nothing = jnp.zeros_like(made["rewards"][0]), jnp.zeros_like(made["over"][0])
    _, (value_MG, known_MG) = jax.lax.scan(back, nothing, made)
    return {"value": value_MG[age_M].T, "known": (known_MG[age_M] & (age_M < moves)[:, None]).T}
