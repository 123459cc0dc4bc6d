import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research import build
from research.core.types import Mean
from research.training.evaluate import evaluate, to_host
from research.training.state import TrainState, initial_state, join, split
from research.training.step import make_eval_step, make_train_step
from tests.objectives.test_masked_lm import V, make_batch
from tests.tiny import tiny_config

RATE = optax.linear_schedule(0.0, 1.0, 10)


@pytest.fixture(scope="module")
def objective():
    return dataclasses.replace(build.objective(tiny_config()), vocabulary=V)


@pytest.fixture(scope="module")
def state(objective):
    params = jax.jit(objective.init)(jax.random.key(0))
    optimizer = optax.sgd(1.0)
    return TrainState(jnp.int32(0), params, optimizer.init(params))


def ragged_batch():
    """Twelve pairs whose masked counts differ widely, and one of which is filler."""
    batch = make_batch(12)
    batch["tokens"][::2, 9:], batch["token_types"][::2, 9:] = 0, 0
    return batch


@pytest.fixture(scope="module")
def fixed(objective):
    """The loss with the same masks however the batch is split."""
    return jax.jit(lambda params, batch, rng: objective.loss_fn(params, batch, None))


@pytest.fixture(scope="module")
def full_batch(fixed, state):
    return jax.jit(make_train_step(fixed, optax.sgd(1.0), RATE, 0))(state, ragged_batch())


@pytest.mark.short
@pytest.mark.parametrize("k", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_accumulated_equals_full_batch(fixed, state, full_batch, k):
    (full, means), batch = full_batch, ragged_batch()
    terms, _ = fixed(state.params, batch, None)
    counts = [fixed(state.params, {n: x[i::k] for n, x in batch.items()}, None)[0]["masked_lm_loss"].count for i in range(k)]
    assert len(set(map(float, counts))) > 1, "the case must be ragged"
    split, split_means = jax.jit(make_train_step(fixed, optax.sgd(1.0), RATE, 0, accumulate=k))(state, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), full.params, split.params)
    for name, value in to_host(means).items():
        assert to_host(split_means)[name] == pytest.approx(value, rel=1e-4), name
    assert to_host(means)["masked_lm_loss"] == pytest.approx(float(terms["masked_lm_loss"].value), rel=1e-5)


def test_microbatches_draw_apart(state):
    """Dropout must not repeat from one microbatch to the next."""

    def loss_fn(params, batch, rng):
        drawn = jax.random.uniform(rng, (2,))
        return {"loss": Mean(params["w"] * drawn.sum(), jnp.float32(2))}, {
            "first": Mean(drawn[0], jnp.float32(1)),
            "square": Mean(drawn[0] ** 2, jnp.float32(1)),
        }

    start = TrainState(jnp.int32(0), {"w": jnp.float32(1)}, optax.sgd(1.0).init({"w": jnp.float32(1)}))
    _, means = make_train_step(loss_fn, optax.sgd(1.0), RATE, 0, accumulate=4)(start, {"x": jnp.zeros(8)})
    assert float(means["square"].value - means["first"].value ** 2) > 1e-4, "the four draws are one"


def test_each_step_has_a_key_of_its_own_and_the_seed_decides(state):
    loss_fn = lambda params, batch, rng: ({"loss": Mean(params["w"] * 0 + jax.random.uniform(rng), jnp.float32(1))}, {})

    def losses(seed):
        step = make_train_step(loss_fn, optax.sgd(1.0), RATE, seed)
        now, found = TrainState(jnp.int32(0), {"w": jnp.float32(1)}, optax.sgd(1.0).init({"w": jnp.float32(1)})), []
        for _ in range(3):
            now, means = step(now, {"x": jnp.zeros(1)})
            found.append(to_host(means)["loss"])
        return found

    assert losses(0) == losses(0) and len(set(losses(0) + losses(1))) == 6


def test_the_moving_average_follows():
    step = make_train_step(lambda params, *_: ({"loss": Mean(jnp.sum(params["w"] ** 2), jnp.float32(1))}, {}), optax.sgd(0.1), RATE, 0, ema_decay=0.9)
    params = {"w": jnp.array([1.0, -2.0])}
    after, _ = step(TrainState(jnp.int32(0), params, optax.sgd(0.1).init(params), params), {})
    np.testing.assert_allclose(after.params["w"], [0.8, -1.6], rtol=1e-6)
    np.testing.assert_allclose(after.ema["w"], [0.98, -1.96], rtol=1e-6)
    assert int(after.step) == 1


def test_evaluation_merges_batches_by_count(objective, state):
    batch = ragged_batch()
    step = jax.jit(make_eval_step(objective.loss_fn))
    whole = evaluate(step, state.params, [batch])
    parts = evaluate(step, state.params, [{n: x[a:b] for n, x in batch.items()} for a, b in ((0, 3), (3, 12))])
    assert whole == pytest.approx(parts, rel=1e-5)
    assert set(whole) == {"loss", "masked_lm_loss", "next_sentence_loss", "masked_accuracy", "next_sentence_accuracy"}
    assert whole["loss"] == pytest.approx(whole["masked_lm_loss"] + whole["next_sentence_loss"], rel=1e-6)


def test_the_learning_rate_is_that_of_the_update():
    step = make_train_step(lambda params, *_: ({"x": Mean(params["w"] ** 2, jnp.float32(1))}, {}), optax.sgd(RATE), RATE, 0)
    params = {"w": jnp.float32(1)}
    state = TrainState(jnp.int32(0), params, optax.sgd(RATE).init(params))
    for expected in (0.0, 0.1, 0.2):
        after, means = step(state, {})
        assert to_host(means)["learning_rate"] == pytest.approx(expected)
        assert float(state.params["w"] - after.params["w"]) == pytest.approx(expected * 2 * float(state.params["w"]))
        state = after


def test_a_metric_may_not_take_the_name_of_the_loss():
    with pytest.raises(ValueError, match="name of the loss.*: x"):
        make_eval_step(lambda *_: ({"x": Mean(1, 1)}, {"x": Mean(1, 1)}))({}, {})


@pytest.mark.parametrize("k", [1, 2])
def test_a_frozen_parameter_keeps_its_bits_and_has_neither_gradient_nor_state(k):
    """Weight decay, the moving average and an infinite gradient, that of sqrt at 0, pass it by; so does -0, which 0 + -0 would lose."""

    class Roots:
        def init(self, rng):
            return {"base": {"w": jnp.array([0.0, -0.0, 0.1])}, "head": jnp.ones(3)}

        def loss_fn(self, params, batch, rng):
            return {"loss": Mean(jnp.sum(jnp.sqrt(abs(params["base"]["w"])) + 2 * params["head"]) * jnp.sum(batch["x"]), jnp.sum(batch["x"]))}, {}

    optimizer, frozen = optax.adamw(0.1, weight_decay=0.5), frozenset({"base/w"})
    start = initial_state(Roots(), optimizer, 0, keep_ema=True, frozen=frozen)()
    assert [x.shape for x in jax.tree.leaves(start.opt_state)] == [(), (3,), (3,)], "the count, and two moments of the head"
    step = jax.jit(make_train_step(Roots().loss_fn, optimizer, RATE, 0, accumulate=k, ema_decay=0.9, frozen=frozen))
    after, means = step(start, {"x": jnp.ones(4)})
    after, means = step(after, {"x": jnp.ones(4)})
    for params in (after.params, after.ema):
        assert np.asarray(params["base"]["w"]).tobytes() == np.asarray(start.params["base"]["w"]).tobytes()
        assert (params["head"] < 1).all()
    assert float(means["gradient_norm"].value) == pytest.approx(2 * 3**0.5)


def test_a_tree_is_split_and_joined():
    tree = {"a": {"b": 1, "c": 2}, "d": {}, "e": {"f": 3}}
    kept, listed = split(tree, {"a/c", "e/f"})
    assert kept == {"a": {"b": 1}, "d": {}} and listed == {"a": {"c": 2}, "e": {"f": 3}}
    assert join(kept, listed) == tree
