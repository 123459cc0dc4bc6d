import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.core.errors import UserError
from research.core.types import loss_value
from research.models.bert import Bert
from research.models.mlp import Perceptron, PerceptronConfig
from research.models.resnet import ResNet
from research.objectives.actor_critic import ActorCritic
from research.objectives.alpha_zero import AlphaZero
from tests.tiny import transformer_config, vit_config

B, A = 8, 3
VALID = np.arange(B) != 5
NUMBERS = Perceptron(transformer_config(PerceptronConfig, observation_size=4, activation="tanh"))
BOARDS = ResNet(vit_config(layers=1, patch_size=1, pool="mean", class_token=False))


def objective_of(model=NUMBERS, **fields):
    return ActorCritic(model=model, batch_size=B, actions=A, **(dict(clip=0.2, value_weight=0.7, entropy_weight=0.3) | fields))


def params_of(what, seed=1):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32), jax.eval_shape(what.init, jax.random.key(0)))


def batch_of(what, params, stale=0.4, seed=0):
    """What a policy that differs by `stale` from that of `params` has lived through."""
    rng = np.random.default_rng(seed)
    boards = {"image": rng.integers(0, 2, (B, 8, 8, 1)).astype(np.uint8)}
    batch = boards if "image" in what.observation else {"observation": rng.normal(size=(B, 4)).astype(np.float32)}
    found = jax.jit(what.predict)(params, batch)
    action = rng.integers(0, A, B).astype(np.int32)
    log_prob = np.asarray(jax.nn.log_softmax(found["policy"]))[np.arange(B), action] + stale * rng.normal(size=B)
    given = {
        "log_prob": log_prob,
        "value": found["value"] + stale * rng.normal(size=B),
        "advantage": rng.normal(size=B),
        "return": rng.normal(size=B),
    }
    return batch | {"action": action, "valid": VALID} | {name: np.asarray(x, np.float32) for name, x in given.items()}


@pytest.mark.parametrize("model", [NUMBERS, BOARDS], ids=["numbers", "boards"])
@pytest.mark.parametrize("value_clip", [None, 0.1])
def test_the_loss_is_that_of_the_paper(model, value_clip):
    """In NumPy, row by row, from what the network says."""
    what = objective_of(model, value_clip=value_clip)
    params = params_of(what)
    batch = batch_of(what, params)
    terms, metrics = jax.jit(what.loss_fn)(params, batch, None)
    found = jax.device_get(jax.jit(what.predict)(params, batch))
    wanted, held = {"policy_loss": 0, "value_loss": 0, "entropy_loss": 0}, 0
    for b in np.flatnonzero(VALID):
        p = np.exp(found["policy"][b] - found["policy"][b].max())
        p /= p.sum()
        advantage, r = batch["advantage"][b], p[batch["action"][b]] / np.exp(batch["log_prob"][b])
        gain, held_gain = r * advantage, min(max(r, 0.8), 1.2) * advantage
        wanted["policy_loss"] -= min(gain, held_gain) / VALID.sum()
        held += (held_gain < gain) / VALID.sum()
        v, old, target = found["value"][b], batch["value"][b], batch["return"][b]
        errors = [(v - target) ** 2] + ([(old + np.clip(v - old, -value_clip, value_clip) - target) ** 2] if value_clip else [])
        wanted["value_loss"] += 0.7 * max(errors) / VALID.sum()
        wanted["entropy_loss"] += 0.3 * (p * np.log(p)).sum() / VALID.sum()
    assert {name: float(term.value) for name, term in terms.items()} == pytest.approx(wanted, rel=1e-4)
    assert 0 < held < 1 and float(metrics["clip_fraction"].value) == pytest.approx(held)
    assert float(metrics["entropy"].value) == pytest.approx(-wanted["entropy_loss"] / 0.3, rel=1e-4)
    assert terms["policy_loss"].count == VALID.sum()


def test_the_policy_that_acted_has_the_gradient_of_reinforce():
    """Where the ratio is one the clipped loss is, to first order, -A log p; and there is nothing to clip and no divergence."""
    what = objective_of(entropy_weight=0.0, value_weight=0.0)
    params = params_of(what)
    batch = batch_of(what, params, stale=0.0)

    def plain(params):
        log_p_B = jax.nn.log_softmax(what.predict(params, batch)["policy"])[jnp.arange(B), batch["action"]]
        return -(batch["advantage"] * log_p_B * VALID).sum() / VALID.sum()

    found = jax.jit(jax.grad(lambda params: loss_value(what.loss_fn(params, batch, None)[0])))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), found, jax.jit(jax.grad(plain))(params))
    metrics = jax.jit(what.loss_fn)(params, batch, None)[1]
    assert float(metrics["clip_fraction"].value) == 0 and float(metrics["rollout_kl"].value) == pytest.approx(0, abs=1e-5)


def test_the_loss_draws_nothing():
    """Not even with a key, and dropout in the model: else the policy that is trained would not be the one that acted."""
    what = objective_of()
    params = params_of(what)
    batch, loss = batch_of(what, params), jax.jit(lambda *args: loss_value(what.loss_fn(*args)[0]))
    assert loss(params, batch, jax.random.key(0)) == loss(params, batch, None)


def test_filler_rows_weigh_nothing():
    what = objective_of()
    params = params_of(what)
    batch, loss = batch_of(what, params), jax.jit(lambda batch: loss_value(what.loss_fn(params, batch, None)[0]))
    other = {name: np.where(VALID.reshape(-1, *[1] * (x.ndim - 1)), x, x.dtype.type(1)) for name, x in batch.items() if name != "valid"}
    assert loss(batch) == loss(other | {"valid": VALID})


def test_advantages_are_normal_and_returns_are_not():
    rng = np.random.default_rng(0)
    rewards, values, after = rng.normal(3, 5, (3, 4, 6)).astype(np.float32)
    continues = rng.random((4, 6)) < 0.8
    found = jax.jit(objective_of(discount=0.9, gae_decay=0.8).credit)(rewards, values, after, continues)
    assert float(found["advantage"].mean()) == pytest.approx(0, abs=1e-5) and float(found["advantage"].std()) == pytest.approx(1, rel=1e-4)
    advantage = np.asarray(found["return"]) - values
    np.testing.assert_allclose(found["advantage"], (advantage - advantage.mean()) / advantage.std(), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(advantage[:, -1], (rewards + 0.9 * after - values)[:, -1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", [NUMBERS, BOARDS], ids=["numbers", "boards"])
def test_every_parameter_is_trained_and_named(model):
    what = objective_of(model)
    params = jax.jit(what.init)(jax.random.key(0))
    grads = jax.jit(jax.grad(lambda params, batch: loss_value(what.loss_fn(params, batch, None)[0])))(params, batch_of(what, params))
    assert [jax.tree_util.keystr(path) for path, x in jax.tree_util.tree_leaves_with_path(grads) if not (abs(x) > 0).any()] == []
    named = jax.tree.map(len, what.logical_axes, is_leaf=lambda x: isinstance(x, tuple))
    assert named == jax.tree.map(jnp.ndim, params)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: objective_of(Bert(transformer_config())), "reads images or observations, not text: choose model.name vit or resnet or mlp"),
        (lambda: AlphaZero(model=NUMBERS, batch_size=B), "AlphaZero reads images, not text: choose model.name vit or resnet"),
        (lambda: objective_of(clip=0.0), "objective.clip is 0.0"),
        (lambda: objective_of(value_clip=0.0), "objective.value_clip is 0.0"),
        (lambda: objective_of(discount=1.1), "objective.discount is 1.1"),
        (lambda: dataclasses.replace(objective_of(), gae_decay=-0.1), "objective.gae_decay is -0.1"),
        (lambda: objective_of(entropy_weight=-1.0), "objective.entropy_weight is -1.0"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
