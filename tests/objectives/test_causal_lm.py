import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.core.errors import UserError
from research.core.types import Vocabulary, loss_value
from research.models.attention import Mask
from research.models.gpt import Gpt
from research.objectives.causal_lm import CausalLM
from tests.tiny import transformer_config

SEGMENTS = np.array([[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 1, 1], [1, 1, 2, 2, 2, 2]], np.int32)
TOKENS = np.random.default_rng(0).integers(1, 11, SEGMENTS.shape).astype(np.int32)
BATCH = {"tokens": TOKENS, "segments": SEGMENTS, "valid": np.array([True, True, False])}


@pytest.fixture(scope="module")
def objective():
    vocabulary = Vocabulary(size=11, pad=0, cls=None, sep=None, mask=None, continues=(), end=0)
    return CausalLM(Gpt(transformer_config(norm="pre")), vocabulary, batch_size=3, length=6)


@pytest.fixture(scope="module")
def params(objective):
    return jax.jit(objective.init)(jax.random.key(0))


@functools.partial(jax.jit, static_argnums=0)
def logits_of(objective, params, tokens, positions):
    return objective.model.apply({"params": params}, tokens, positions, Mask(causal=True))[0]


def log_probabilities(objective, params, tokens):
    """log p(.) after each token of one document alone, in NumPy from the model's logits."""
    T = len(tokens)
    logits = logits_of(objective, params, tokens[None], np.arange(T)[None])
    logits = np.asarray(logits[0], np.float64)
    return logits, logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def by_hand(objective, params, smoothing=0.0):
    """(-log p smoothed, log Z squared, -log p) of each predicted token, document by document."""
    smoothed, log_z, plain = [], [], []
    for row in (0, 1):  # the third is not valid
        for segment in (1, 2):
            tokens = TOKENS[row][SEGMENTS[row] == segment]
            if len(tokens) < 2:
                continue
            logits, logp = log_probabilities(objective, params, tokens)
            for t in range(len(tokens) - 1):
                plain.append(-logp[t, tokens[t + 1]])
                target = np.full(11, smoothing / 11)
                target[tokens[t + 1]] += 1 - smoothing
                smoothed.append(-(target * logp[t]).sum())
                log_z.append(np.log(np.exp(logits[t]).sum()) ** 2)
    return np.array(smoothed), np.array(log_z), np.array(plain)


@pytest.mark.parametrize("smoothing, z_loss", [(0.0, 0.0), (0.1, 0.0), (0.0, 1e-2)])
def test_the_loss_is_that_of_each_document_alone(objective, params, smoothing, z_loss):
    what = dataclasses.replace(objective, label_smoothing=smoothing, z_loss=z_loss)
    terms, metrics = jax.jit(lambda params, batch: what.loss_fn(params, batch, None))(params, BATCH)
    smoothed, log_z, plain = by_hand(objective, params, smoothing)
    assert terms["causal_lm_loss"].count == len(plain) == 8
    np.testing.assert_allclose(loss_value(terms), smoothed.mean() + z_loss * log_z.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["log_perplexity"].value, plain.mean(), rtol=1e-5)


@pytest.mark.parametrize("chunks", [pytest.param(2, marks=pytest.mark.slow), 3, pytest.param(6, marks=pytest.mark.slow)])
def test_chunks_change_nothing_but_what_is_in_memory(objective, params, chunks):
    whole, split = (dataclasses.replace(objective, z_loss=1e-2, label_smoothing=0.1, loss_chunks=n) for n in (1, chunks))

    def loss(what, params):
        terms, metrics = what.loss_fn(params, BATCH, None)
        return loss_value(terms), metrics

    value = lambda what: jax.jit(jax.value_and_grad(functools.partial(loss, what), has_aux=True))
    ((a, metrics), grads), ((b, same_metrics), same) = value(whole)(params), value(split)(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), (a, grads), (b, same))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), metrics, same_metrics)
    all_logits = "f32[3,6,11]"
    assert all_logits in str(value(whole).trace(params).jaxpr) and all_logits not in str(value(split).trace(params).jaxpr)


def test_a_length_that_does_not_divide_into_chunks_is_refused(objective):
    with pytest.raises(UserError, match="length 6.*loss_chunks=4"):
        dataclasses.replace(objective, loss_chunks=4)


def test_padding_and_invalid_rows_weigh_nothing(objective, params):
    other = {**BATCH, "tokens": np.where((SEGMENTS == 0) | ~BATCH["valid"][:, None], 7, TOKENS)}
    grad = jax.jit(jax.grad(lambda params, batch: loss_value(objective.loss_fn(params, batch, None)[0])))
    grads, same = (grad(params, batch) for batch in (BATCH, other))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), grads, same)


def test_a_batch_without_a_token_to_predict_has_no_loss(objective, params):
    terms, _ = jax.jit(objective.loss_fn)(params, BATCH | {"segments": np.zeros_like(SEGMENTS)}, None)
    assert terms["causal_lm_loss"].count == 0 and jnp.isfinite(loss_value(terms))
