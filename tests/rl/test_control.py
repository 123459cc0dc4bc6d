"""Environments of gymnax, their rounds, and PPO upon them."""

import dataclasses
import functools
import re
import sys

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from ml_collections import ConfigDict, FrozenConfigDict

from configs.rl import cartpole, minatar
from research import build, tables, train
from research.core.streams import stream
from research.objectives.actor_critic import ActorCritic
from research.rl.control import KNOWN, Control, Environment
from tests.test_train import assert_same_run, call, error

G, M, B, U = 8, 16, 32, 8  # two passes over a round of 128 moves
CARTPOLE = Environment("CartPole-v1")


def config_of(**changes):
    c = ConfigDict(cartpole.get_config())
    c.model.update(width=16)
    c.data.update(batch_size=B)
    c.rl.update(games=G, moves=M, updates=U, eval_games=8, reward_scale=1.0)
    c.mesh.update(data=1, fsdp=1)
    c.run.update(steps=20, log_every=1, eval_every=8, save_every=8)
    c.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return FrozenConfigDict(c)


def control_of(environment=CARTPOLE, **changes):
    c = config_of(**changes)
    return Control(environment, build.objective(c), c.rl.games, c.rl.moves, c.rl.updates, c.rl.eval_games, c.rl.reward_scale)


@functools.cache
def begun():
    """The parameters of a policy that has learned nothing."""
    return jax.jit(control_of().objective.init)(jax.random.key(0))


@dataclasses.dataclass(frozen=True)
class Short(Environment):
    """The same with so short a time limit that it is met as often as the pole falls."""

    @functools.cached_property
    def _made(self):
        return *super()._made[:2], 18


def step_by_hand(observation, action):
    """What gymnax makes of a pole seen so: what is seen next, and whether it has fallen."""
    env, parameters = gymnax.make("CartPole-v1")
    state = gymnax.environments.classic_control.cartpole.EnvState(time=0, **dict(zip(("x", "x_dot", "theta", "theta_dot"), observation)))
    after, _, _, done, _ = env.step_env(jax.random.key(0), state, action, parameters)
    return after, done


@functools.cache
def lived(rounds: int = 3):
    """Of the last of some rounds under the time limit of `Short`: the store before, the moves and what is known of each move by hand."""
    control = control_of(Short("CartPole-v1"), objective__discount=0.9, objective__gae_decay=0.8)
    store = control.start(jax.random.key(0))
    for seed in range(rounds):
        time = np.array(store["game"]["state"].time)  # a copy: the store is given away
        store = control.collect(begun(), store, jax.random.key(seed))
    moves = jax.device_get(store["moves"])
    after, fallen = jax.device_get(jax.jit(jax.vmap(jax.vmap(step_by_hand)))(moves["observation"], moves["action"]))
    over = np.zeros((G, M), bool)
    for m in range(M):
        time = time + 1
        over[:, m] = fallen[:, m] | (time >= 18)
        time = np.where(over[:, m], 0, time)
    return control, store, moves, after, fallen, over


def test_moves_follow_from_each_other_and_where_an_episode_is_over_another_begins():
    _, store, moves, after, fallen, over = lived()
    seen = np.concatenate([moves["observation"], np.asarray(store["game"]["observation"])[:, None]], 1)
    np.testing.assert_allclose(seen[:, 1:][~over], after[~over], rtol=1e-4, atol=1e-5)
    assert (abs(seen[:, 1:][over]) <= 0.05).all(), "where poles begin"
    assert (over & fallen).sum() > 2 and (over & ~fallen).sum() > 2, "some fall and some are cut off"
    assert len(np.unique(seen[:, 1:][over], axis=0)) == over.sum(), "no two begin alike"


def test_what_was_said_of_moves_is_what_the_network_says():
    control, _, moves, *_ = lived()
    found = jax.jit(control.objective.predict)(begun(), {"observation": moves["observation"].reshape(-1, 4)})
    log_p = np.asarray(jax.nn.log_softmax(found["policy"])).reshape(G, M, -1)
    np.testing.assert_allclose(moves["log_prob"], np.take_along_axis(log_p, moves["action"][..., None], 2)[..., 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(moves["value"], np.asarray(found["value"]).reshape(G, M), rtol=1e-4, atol=1e-5)
    assert 0.3 < moves["action"].mean() < 0.7


def test_advantages_are_those_of_the_definition():
    """arXiv 1506.02438, eq. 16, as the sum that it is: up to where an episode is over, counting what comes after a cut but not after a fall."""
    control, _, moves, after, fallen, over = lived()
    next_values = np.asarray(jax.jit(control.objective.predict)(begun(), {"observation": after.reshape(-1, 4)})["value"]).reshape(G, M)
    delta = 1 + 0.9 * np.where(fallen, 0, next_values) - moves["value"]
    advantage = np.zeros((G, M))
    for g in range(G):
        for m in range(M):
            for k in range(m, M):
                advantage[g, m] += (0.9 * 0.8) ** (k - m) * delta[g, k]
                if over[g, k]:
                    break
    np.testing.assert_allclose(moves["return"], advantage + moves["value"], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(moves["advantage"], (advantage - advantage.mean()) / advantage.std(), rtol=1e-2, atol=1e-3)


def test_nothing_leaks_from_an_episode_into_the_one_before():
    """A network that says 0 of all: with no discount a return is how many moves are still to come in the episode, or the round."""
    control = control_of(Short("CartPole-v1"), objective__discount=1.0, objective__gae_decay=1.0)
    store = control.collect(jax.tree.map(jnp.zeros_like, begun()), control.start(jax.random.key(0)), jax.random.key(1))
    moves = jax.device_get(store["moves"])
    _, fallen = jax.device_get(jax.jit(jax.vmap(jax.vmap(step_by_hand)))(moves["observation"], moves["action"]))
    wanted, to_come = np.zeros((G, M)), np.zeros(G)
    for m in reversed(range(M)):
        to_come = 1 + np.where(fallen[:, m], 0, to_come)
        wanted[:, m] = to_come
    assert fallen.sum() > 2 and not fallen.all()
    np.testing.assert_array_equal(moves["return"], wanted)


def test_rewards_are_scaled_and_what_is_measured_is_not():
    params = jax.tree.map(jnp.zeros_like, begun())
    one, other = (control_of(rl__reward_scale=scale, objective__gae_decay=1.0) for scale in (1.0, 0.5))
    returns = [control.collect(params, control.start(jax.random.key(0)), jax.random.key(1))["moves"]["return"] for control in (one, other)]
    np.testing.assert_allclose(returns[1], returns[0] / 2, rtol=1e-5)
    assert one.evaluate(params) == other.evaluate(params)


@pytest.mark.parametrize("batch, updates, times", [(32, 8, 2), (32, 4, 1), (48, 8, 3), (128, 2, 2)])
def test_each_move_is_learned_from_as_often_as_said(batch, updates, times):
    """And its arrays stay together; no pass has the order of the one before."""
    control = control_of(data__batch_size=batch, rl__updates=updates)
    store = control.collect(begun(), control.start(jax.random.key(0)), jax.random.key(1))
    number = np.arange(G * M).reshape(G, M)
    store["moves"] |= {name: jnp.asarray(number, jnp.float32) for name in ("value", "return")} | {"action": jnp.asarray(number, jnp.int32)}
    batches = [jax.device_get(control.sample(store, turn, jax.random.key(9))) for turn in range(updates)]
    for given in batches:
        assert {name: x.dtype for name, x in given.items()} == {name: x.dtype for name, x in control.spec.items()}
        np.testing.assert_array_equal(given["value"], given["return"])
        np.testing.assert_array_equal(given["value"], given["action"])
    assert all(given["valid"].all() for given in batches)
    drawn = np.concatenate([given["action"] for given in batches])
    assert (np.bincount(drawn, minlength=G * M) == times).all()
    if (G * M) % batch == 0:
        passes = drawn.reshape(times, G * M)
        assert (np.sort(passes, axis=1) == np.arange(G * M)).all() and len(np.unique(passes, axis=0)) == times
        assert (passes != np.arange(G * M)).mean() > 0.5


def test_a_round_follows_from_its_key_and_its_parameters():
    control = control_of()
    collect = lambda seed: jax.device_get(control.collect(begun(), control.start(jax.random.key(0)), jax.random.key(seed)))
    one, same, other = collect(1), collect(1), collect(2)
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert (one["moves"]["action"] != other["moves"]["action"]).mean() > 0.2 and (one["order"] != other["order"]).mean() > 0.5
    actions = one["moves"]["action"]
    assert len(np.unique(actions, axis=0)) == G, "each environment has lots of its own"


def test_an_evaluation_goes_to_the_end_of_each_episode():
    """Of a policy that always pushes one way, as by hand."""
    control, params = control_of(rl__eval_games=16), jax.tree.map(jnp.zeros_like, begun())
    params["policy"]["out"]["bias"] = jnp.array([99.0, 0.0])
    start_key, _ = jax.random.split(stream(0, 0, "match"))
    observation = jax.jit(CARTPOLE.start)(jax.random.split(start_key, 16))["observation"]
    step, length, fallen = jax.jit(jax.vmap(lambda x: step_by_hand(x, 0))), np.zeros(16), np.zeros(16, bool)
    while not fallen.all():
        observation, now = step(observation)
        length += ~fallen
        fallen |= np.asarray(now)
    np.testing.assert_array_equal(control.returns(params), length)
    assert len(set(length)) > 1 and control.evaluate(params) == {"mean_return": pytest.approx(length.mean())}
    params["policy"]["out"]["bias"] = jnp.zeros(2)
    assert control.evaluate(params)["mean_return"] > 1.5 * length.mean(), "actions are drawn"


@dataclasses.dataclass(frozen=True)
class OneByOne(Environment):
    """Each move brings 1, even of an episode that is over; the first is over after one, the second after two, ..."""

    def step(self, keys_G, game, action_G):
        moved = super().step(keys_G, game, action_G)
        time_G = moved.after["state"].time
        return moved._replace(reward_G=jnp.ones(len(time_G)), over_G=time_G > jnp.arange(len(time_G)))


def test_what_comes_after_an_episode_does_not_count_in_an_evaluation():
    returns = control_of(OneByOne("CartPole-v1"), rl__eval_games=16).returns(begun())
    np.testing.assert_array_equal(returns, np.arange(1, 17))


@pytest.mark.parametrize("name", KNOWN)
def test_every_environment_is_what_a_model_is_told(name):
    environment = Environment(name)
    config = ConfigDict((minatar if "MinAtar" in name else cartpole).get_config(name.removesuffix("-MinAtar")))
    control = tables.control(config, build.objective(config), None, None)
    keys = jax.random.split(jax.random.key(0), 4)
    game = jax.jit(environment.start)(keys)
    moved = jax.jit(environment.step)(keys, game, jnp.arange(4) % environment.actions)
    described = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), jax.eval_shape(lambda: tree))
    assert described(moved.after) == described(game), "else no loop takes both"
    kind, shape = environment.seen
    assert game[kind].shape[1:] == shape and control.spec[kind].dtype == game[kind].dtype
    assert kind == "observation" or set(np.unique(game[kind])) == {0, 1}
    assert not moved.over_G.any() and moved.reward_G.dtype == jnp.float32


@pytest.mark.parametrize("name", KNOWN)
def test_the_time_limit_cuts_off_and_ends_nothing(name):
    environment = Environment(name)
    *_, limit = environment._made
    keys = jax.random.split(jax.random.key(0), 4)
    game = jax.jit(environment.start)(keys)
    late = {**game, "state": game["state"].replace(time=jnp.array([0, limit - 2, limit - 1, limit - 1]))}
    moved = jax.jit(environment.step)(keys, late, jnp.zeros(4, int))
    assert not moved.ended_G.any() and moved.over_G.tolist() == [False, False, True, True]


def test_an_end_at_the_time_limit_is_an_end():
    game = jax.device_get(CARTPOLE.start(jax.random.split(jax.random.key(0), 1)))
    state = game["state"].replace(time=np.array([499]), theta=np.array([0.3], np.float32))
    moved = CARTPOLE.step(jax.random.split(jax.random.key(0), 1), game | {"state": state}, np.zeros(1, int))
    assert moved.ended_G.all() and moved.over_G.all()


def steps(config, devices, count: int):
    """The store, a batch and the parameters after so many steps, and what an evaluation says."""
    e = build.experiment(config, devices=devices)
    state = jax.jit(e.init, out_shardings=e.shardings)()
    with e.in_force():
        control = tables.control(config, e.objective, None, None)
        source = build.ExperienceSource(control, config.seed, config.rl.updates)
        for _ in range(count):
            batch = source.next(state.params)
            state, _ = e.train_step(state, e.place(batch, config.data.batch_size))
        return source.state()["arrays"], batch, state.params, np.asarray(control.returns(state.params))


@pytest.mark.parametrize("mesh", [{"data": 2, "fsdp": 4}, pytest.param({"fsdp": 8}, marks=pytest.mark.slow)])
def test_one_device_equals_eight(mesh):
    one = steps(config_of(), jax.devices()[:1], U + 2)
    eight = steps(config_of(**{f"mesh__{axis}": size for axis, size in mesh.items()}), None, U + 2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=5e-3, atol=5e-4), jax.device_get(one), jax.device_get(eight))
    assert len(eight[0]["moves"]["value"].sharding.device_set) == 8 and eight[1]["value"].addressable_shards[0].data.shape == (B // 8,)
    assert eight[0]["moves"]["value"].addressable_shards[0].data.shape == (G // 8, M)


SMALL = ["--config=configs/rl/cartpole.py", "--config.model.width=16", "--config.data.batch_size=32", "--config.mesh.fsdp=8"]
SMALL += ["--config.rl.games=8", "--config.rl.moves=16", "--config.rl.updates=8", "--config.rl.eval_games=6"]
SMALL += ["--config.run.steps=20", "--config.run.log_every=1", "--config.run.eval_every=1", "--config.run.save_every=10"]


@pytest.mark.slow
def test_a_run_stopped_within_a_round_is_the_run_never_stopped(tmp_path):
    """Bit for bit, the environments under way and the round among it."""
    call(train, *SMALL, f"--workdir={tmp_path}/whole")
    call(train, *SMALL, f"--workdir={tmp_path}/parts", "--until=5")
    call(train, f"--workdir={tmp_path}/parts", "--until=13")
    call(train, f"--workdir={tmp_path}/parts")
    assert_same_run(tmp_path / "whole", tmp_path / "parts", 20)
    read = lambda name: ocp.StandardCheckpointer().restore(tmp_path / name / "checkpoints/20/source_arrays")
    jax.tree.map(np.testing.assert_array_equal, read("whole"), read("parts"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class WrongWay(ActorCritic):
    """With the sign of the advantage turned."""

    def credit(self, *args):
        found = super().credit(*args)
        return found | {"advantage": -found["advantage"]}


@pytest.mark.parametrize("name, learns", [("actor_critic", True), ("tests.rl.test_control:WrongWay", False)])
def test_poles_stay_up_longer_only_with_the_right_sign(name, learns):
    size = {"rl__games": 16, "rl__moves": 64, "rl__updates": 32, "data__batch_size": 128, "rl__eval_games": 16}
    config = config_of(objective__name=name, model__width=64, rl__reward_scale=0.01, run__steps=1000, **size)
    _, _, _, returns = steps(config, jax.devices()[:1], 10 * 32)
    assert (returns.mean() > 100) if learns else (returns.mean() < 20)


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            ["--config.rl.updates=7"],
            "rl.updates=7 batches of data.batch_size=32 are 1.75 times the 128 moves of a round.*set rl.updates to a multiple of 4",
        ),
        (["--config.model.observation_size=5"], "CartPole-v1 shows 4 numbers and has 2 actions: set model.name=mlp, model.observation_size=4"),
        (["--config.objective.actions=3"], "has 2 actions"),
        (
            ["--config.rl.environment=Breakout-MinAtar"],
            "a board of 10 x 10 cells with 4 planes and has 3 actions: set model.name=resnet, model.image_size=10",
        ),
        (["--config.rl.environment=CartPole-v2"], "rl.environment is 'CartPole-v2': choose one of CartPole-v1, Acrobot-v1"),
        (["--config.rl.environment=Pendulum-v1"], "rl.environment is 'Pendulum-v1'"),
        (["--config.model.name=gpt"], "choose model.name vit or resnet or mlp"),
        (["--config.objective.name=alpha_zero"], "AlphaZero reads images, not text"),
        (["--config.objective.name=alpha_zero", "--config.model.name=resnet"], "rl.experience=control is what an actor_critic learns from"),
        (["--config.rl.reward_scale=0.0"], "rl.reward_scale is 0.0: it must be more than 0"),
        (["--config.model.observation_size=0"], "model.observation_size is 0: it must be at least 1"),
        (["--config.rl.games=4"], "rl.games 4 does not divide over the 8 shards"),
        (["--config.run.best_metric=validation/loss"], "choose one of validation/mean_return"),
    ],
)
def test_mistakes_are_one_line(changes, message, tmp_path):
    assert re.search(message, error(train, *SMALL, f"--workdir={tmp_path}/run", *changes))


def test_without_gymnax_it_is_said_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gymnax", None)
    assert "pip install 'lodestar-research[control]'" in error(train, *SMALL, f"--workdir={tmp_path}/run")
