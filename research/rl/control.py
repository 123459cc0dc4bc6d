"""Control and small arcade games by a policy that acts in many environments at once: the rounds of PPO (Schulman et al., arXiv 1707.06347, algorithm 1).

G environments side by side, M moves of each in a round, U updates between two rounds, P parts of the environments, B rows of a batch.
"""

import dataclasses
import functools
import importlib.metadata
import math
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from research.core.errors import UserError
from research.core.sharding import constrain, split_rows
from research.core.streams import stream
from research.objectives.actor_critic import ActorCritic
from research.objectives.losses import cross_entropy
from research.rl.experience import rows_by_part
from research.rl.games import board_fields, where

# Of gymnax's environments those with actions to choose among, in which a few numbers or a board are seen: the shape of that, and how many actions there are.
# Written down here, since a config is read before JAX may be used, and gymnax uses it.
KNOWN = {
    "CartPole-v1": ((4,), 2),
    "Acrobot-v1": ((6,), 3),
    "MountainCar-v0": ((2,), 3),
    "Asterix-MinAtar": ((10, 10, 4), 5),
    "Breakout-MinAtar": ((10, 10, 4), 3),
    "Freeway-MinAtar": ((10, 10, 7), 3),
    "SpaceInvaders-MinAtar": ((10, 10, 6), 4),
}
quiet = functools.partial(warnings.catch_warnings, action="ignore")  # gymnax mixes dtypes, of which JAX warns, and whoever trains can do nothing


class Moved(NamedTuple):
    """G environments after an action in each. Where one has ended, or its time is up, the episode is over: a new one is for the caller to begin."""

    after: dict
    reward_G: jax.Array
    ended_G: jax.Array  # bool: nothing is to come any more
    over_G: jax.Array  # bool: ended, or cut off by the time limit, after which it would go on


@dataclasses.dataclass(frozen=True)
class Environment:
    """An environment by its name in gymnax (Lange, 2022). One under way is a dict: gymnax's `state`, and what is seen, as a model takes it: `image` (H, W, C)
    uint8 of zeros and ones, or `observation` (N,) float32; G of them stacked. Raises UserError for a name that is none and, as soon as one begins, where
    gymnax is missing."""

    name: str

    def __post_init__(self):
        if self.name not in KNOWN:
            raise UserError(f"rl.environment is {self.name!r}: choose one of {', '.join(KNOWN)}.")

    @functools.cached_property
    def _made(self):
        """gymnax's environment, and its parameters without a time limit: it makes no difference between an end and the limit, so that is held here."""
        with jax.ensure_compile_time_eval():  # constants of the environment, which a function being traced must not keep
            try:
                import gymnax
            except ImportError as e:
                raise UserError(f"rl.environment={self.name} is gymnax's, which is missing ({e}): pip install 'lodestar-research[control]'.") from e
            env, parameters = gymnax.make(self.name)
        return env, parameters.replace(max_steps_in_episode=math.inf), parameters.max_steps_in_episode

    @property
    def manifest(self) -> dict:
        """What it is made of."""
        self._made  # which says so where it is missing
        return {"environment": self.name, "gymnax": importlib.metadata.version("gymnax")}

    @property
    def actions(self) -> int:
        return KNOWN[self.name][1]

    @property
    def seen(self) -> tuple[str, tuple[int, ...]]:
        """Under which name, and in which shape, one environment is seen."""
        shape = KNOWN[self.name][0]
        return "image" if len(shape) == 3 else "observation", shape

    def model_fields(self) -> dict[str, Any]:
        """Of a config's `model` group those that what is seen asks for."""
        kind, shape = self.seen
        return board_fields(shape) if kind == "image" else dict(name="mlp", observation_size=shape[0])

    def check(self, observation: dict, actions: int):
        """Raises UserError where a model that takes `observation`, {name: (B, ...)}, and chooses among so many actions does not fit the environment."""
        (kind, shape), found = self.seen, {name: x.shape[1:] for name, x in observation.items()}
        if found == {kind: shape} and actions == self.actions:
            return
        if kind == "observation":
            raise UserError(
                f"{self.name} shows {shape[0]} numbers and has {self.actions} actions: set model.name=mlp, model.observation_size={shape[0]} and "
                f"objective.actions={self.actions}."
            )
        H, W, C = shape
        raise UserError(
            f"{self.name} shows a board of {H} x {W} cells with {C} planes and has {self.actions} actions: set model.name=resnet, model.image_size={H}, "
            f"model.image_width={W}, model.channels={C}, model.patch_size=1 and objective.actions={self.actions}."
        )

    def _begin(self, key):
        env, parameters, _ = self._made
        with quiet():
            return self._shown(*env.reset_env(key, parameters))

    def _shown(self, numbers, state):
        settled = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), state)  # no weak types, which a checkpoint would not keep
        return {"state": settled} | ({"image": numbers.astype(jnp.uint8)} if numbers.ndim == 3 else {"observation": numbers.astype(jnp.float32)})

    def start(self, keys_G):
        """G new episodes."""
        return split_rows(jax.vmap(self._begin)(keys_G))

    def step(self, keys_G, game, action_G) -> Moved:
        env, parameters, limit = self._made

        def one(key, game, action):
            with quiet():
                numbers, state, reward, ended, _ = env.step_env(key, game["state"], action, parameters)
            return Moved(self._shown(numbers, state), reward.astype(jnp.float32), ended, ended | (state.time >= limit))

        return jax.vmap(one)(keys_G, game, action_G)


@dataclasses.dataclass(frozen=True, eq=False)
class Control:
    """An Experience. Its store is a dict:

    game: the environments, which the next `collect` goes on with; moves: the round's, arrays (G, M, ...) as in a batch of ActorCritic; order: (U, P, B / P)
    int32, which of a part's moves each of the U batches has. All moves of a round are in equally many of them, and only they: what earlier parameters did
    is not learned from.

    Where the time limit cuts an episode off, what would have come is taken to be worth what the value says, as at the end of a round: the limit is not part of
    what is seen, and a value cannot know of it.
    """

    environment: Environment
    objective: ActorCritic
    games: int
    moves: int
    updates: int
    eval_games: int
    reward_scale: float

    def __post_init__(self):
        self.environment.check(self.objective.observation, self.objective.actions)
        rows, B = self.games * self.moves, self.objective.batch_size
        if self.updates * B % rows:
            raise UserError(
                f"rl.updates={self.updates} batches of data.batch_size={B} are {self.updates * B / rows:.3g} times the {rows} moves of a round (rl.games times "
                f"rl.moves), each of which is learned from equally often: set rl.updates to a multiple of {rows // math.gcd(rows, B)}."
            )

    @property
    def spec(self):
        return self.objective.example_batch

    @property
    def figures(self) -> list[str]:
        return ["mean_return"]

    @property
    def rows(self) -> dict[str, int]:
        return {"rl.games": self.games}

    @property
    def manifest(self) -> dict:
        return self.environment.manifest

    @property
    def parts(self) -> int:
        """Each gives as many rows of a batch, so that no move has to leave its devices."""
        return math.gcd(self.games, self.objective.batch_size)

    @functools.partial(jax.jit, static_argnums=0)
    def start(self, key):
        G, M, P, B = self.games, self.moves, self.parts, self.objective.batch_size
        moves = {name: jnp.zeros((G, M, *x.shape[1:]), x.dtype) for name, x in self.spec.items() if name != "valid"}
        game = self.environment.start(jax.random.split(key, G))
        return split_rows({"game": game, "moves": moves}) | {"order": jnp.zeros((self.updates, P, B // P), jnp.int32)}

    @functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
    def collect(self, params, store, key):
        moves_key, order_key = jax.random.split(key)
        kind, _ = self.environment.seen

        def move(game, key):
            action_key, step_key, new_key = jax.random.split(key, 3)
            found = self.objective.predict(params, game)
            action_G = jax.random.categorical(action_key, found["policy"])
            moved = self.environment.step(jax.random.split(step_key, self.games), game, action_G)
            made = {
                kind: game[kind],
                "action": action_G.astype(jnp.int32),
                "log_prob": -cross_entropy(found["policy"], action_G),
                "value": found["value"],
                "reward": self.reward_scale * moved.reward_G,
                "next_value": jnp.where(moved.ended_G, 0, self.objective.predict(params, moved.after)["value"]),
                "continues": ~moved.over_G,
            }
            return where(moved.over_G, self.environment.start(jax.random.split(new_key, self.games)), moved.after), made

        game, made = jax.lax.scan(move, store["game"], jax.random.split(moves_key, self.moves))
        made = {name: x.swapaxes(0, 1) for name, x in made.items()}
        credit = self.objective.credit(made.pop("reward"), made["value"], made.pop("next_value"), made.pop("continues"))
        return split_rows({"game": game, "moves": made | credit}) | {"order": self._order(order_key)}

    def _order(self, key):
        """The moves of each part over and over, in an order of its own each time."""
        rows, P = self.games * self.moves // self.parts, self.parts
        times = self.updates * self.objective.batch_size // (self.games * self.moves)
        order_EPN = jax.random.permutation(key, jnp.tile(jnp.arange(rows, dtype=jnp.int32), (times, P, 1)), axis=-1, independent=True)
        return order_EPN.swapaxes(0, 1).reshape(P, self.updates, -1).swapaxes(0, 1)

    def ready(self, store) -> bool:
        return True

    @functools.partial(jax.jit, static_argnums=0)
    def sample(self, store, turn, key):
        """The round's batch number `turn`."""
        valid_B = jnp.ones(self.spec["valid"].shape, bool)
        return split_rows(rows_by_part(store["moves"], store["order"][turn]) | {"valid": valid_B})

    def evaluate(self, params):
        return {"mean_return": float(jnp.mean(self.returns(params)))}

    @functools.partial(jax.jit, static_argnums=0)
    def returns(self, params):
        """(eval_games,) float32: what episodes bring, undiscounted. Actions are drawn, as in training: where the environment draws nothing, the likeliest ones
        would make episodes that are all alike. The time limit bounds them."""
        games = self.eval_games
        start_key, key = jax.random.split(stream(0, 0, "match"))

        def move(carry):
            game, total_G, over_G, key = carry
            key, action_key, step_key = jax.random.split(key, 3)
            action_G = jax.random.categorical(action_key, self.objective.predict(params, game)["policy"])
            moved = self.environment.step(jax.random.split(step_key, games), game, action_G)
            return moved.after, total_G + jnp.where(over_G, 0, moved.reward_G), over_G | moved.over_G, key

        begun = self.environment.start(jax.random.split(start_key, games)), jnp.zeros(games), jnp.zeros(games, bool), key
        return constrain(jax.lax.while_loop(lambda carry: ~carry[2].all(), move, begun)[1], None)
