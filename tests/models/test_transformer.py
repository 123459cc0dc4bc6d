import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.core.errors import UserError
from research.core.linen import init, logical_axes
from research.models.attention import padding_mask
from research.models.layers import ACTIVATIONS, Dropout
from research.models.transformer import Block, Transformer
from tests.tiny import transformer_config

CONFIG = transformer_config()


@pytest.fixture(scope="module")
def inputs():
    x_BTD = jax.random.normal(jax.random.key(1), (2, 7, 12))
    return x_BTD, padding_mask(jnp.arange(7) < jnp.array([[7], [4]]))


def value_and_grad(config, params, inputs):
    loss = lambda params: (Transformer(config, True).apply({"params": params}, *inputs)[0] ** 2 * jnp.arange(12)).mean()
    return jax.value_and_grad(loss)(params)


def same(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def block_by_hand(params, x, mask, norm_placement):
    """The block in NumPy, float64, from the papers' formulas."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    erf = np.vectorize(__import__("math").erf)

    def norm(x, p):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12) * p["scale"] + p["bias"]

    def attend(x):
        q, k, v = (np.einsum("btd,dhk->bthk", x, p["attention"][n]["kernel"]) + p["attention"][n]["bias"] for n in ("query", "key", "value"))
        scores = np.where(mask[:, None], np.einsum("bthk,bshk->bhts", q, k) / 2.0, -1e30)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        out = np.einsum("bhts,bshk->bthk", weights / weights.sum(-1, keepdims=True), v)
        return np.einsum("bthk,hkd->btd", out, p["attention"]["out"]["kernel"]) + p["attention"]["out"]["bias"]

    def mlp(x):
        h = x @ p["mlp"]["up"]["kernel"] + p["mlp"]["up"]["bias"]
        return (h * 0.5 * (1 + erf(h / np.sqrt(2)))) @ p["mlp"]["down"]["kernel"] + p["mlp"]["down"]["bias"]

    for branch, name in ((attend, "attention_norm"), (mlp, "mlp_norm")):
        x = norm(x + branch(x), p[name]) if norm_placement == "post" else x + branch(norm(x, p[name]))
    return x


@pytest.mark.parametrize("placement", ["post", "pre"])
def test_a_block_against_numpy(inputs, placement):
    block = Block(dataclasses.replace(CONFIG, norm=placement), True)
    alone = (*inputs, None, {})
    params = init(block, jax.random.key(0), *alone)
    params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), params)  # biases and scales of their own
    found, _ = block.apply({"params": params}, *alone)
    np.testing.assert_allclose(found, block_by_hand(params, np.asarray(inputs[0]), np.asarray(inputs[1].allowed(7, 7)), placement), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("placement", ["post", "pre"])
@pytest.mark.parametrize("scan_layers, unroll", [(True, 1), (True, 2), (False, 1)])
def test_the_stack_is_its_blocks_one_after_another(inputs, placement, scan_layers, unroll):
    config = dataclasses.replace(CONFIG, norm=placement, scan_layers=scan_layers, scan_unroll=unroll)
    params = init(Transformer(config, True), jax.random.key(0), *inputs)
    x, mask = inputs
    for layer in range(config.layers):
        x, _ = Block(config, True).apply({"params": jax.tree.map(lambda p: p[layer], params["blocks"])}, x, mask, None, {})
    if placement == "pre":
        x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-12)
    np.testing.assert_allclose(Transformer(config, True).apply({"params": params}, *inputs)[0], x, rtol=1e-5, atol=1e-5)
    first, second = params["blocks"]["mlp"]["up"]["kernel"][:2]
    assert not np.array_equal(first, second), "layers must be drawn apart"


def recomputed(config, params, inputs) -> int:
    """How many matrix products and activations the gradient takes, forward and backward."""
    text = str(jax.make_jaxpr(lambda params: value_and_grad(config, params, inputs))(params))
    return text.count("dot_general"), text.count("erf")


# How many of the 8 matrix products of a block's forward pass are computed again: weights of attention need the scores, whatever else is kept.
REMAT = {"full": 8, "dots": 2, "attention": 7, "projections": 2, "matmuls": 1, "offload": 2}


@pytest.fixture(scope="module")
def plain(inputs):
    """Parameters, and what the plain stack makes of them."""
    config = dataclasses.replace(CONFIG, scan_layers=False)
    params = init(Transformer(config, True), jax.random.key(0), *inputs)
    return params, value_and_grad(config, params, inputs)


@pytest.mark.parametrize("remat", REMAT)
@pytest.mark.parametrize("scan_layers", [True, False])
def test_remat_and_scan_equal_plain(inputs, plain, remat, scan_layers):
    changed, (params, expected) = dataclasses.replace(CONFIG, scan_layers=scan_layers, remat=remat), plain
    same(expected, value_and_grad(changed, params, inputs), rtol=1e-4, atol=1e-6)
    without, with_it = (recomputed(dataclasses.replace(changed, remat=name), params, inputs) for name in ("none", remat))
    assert with_it[1] > without[1] and with_it[0] - without[0] == REMAT[remat]


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout(rate):
    x = jnp.ones((4, 300, 101))  # an odd size: two elements share a draw
    y = Dropout(rate, False).apply({}, x, rngs={"dropout": jax.random.key(0)})
    kept = np.asarray(y != 0)
    four_sigma = 4 * (rate * (1 - rate) / 4 / 300) ** 0.5  # of the share kept in a column
    np.testing.assert_allclose(kept.mean((0, 1)), 1 - rate, atol=four_sigma)
    np.testing.assert_allclose(np.asarray(y)[kept], 1 / (1 - rate), rtol=1e-4)
    columns = np.corrcoef(kept.reshape(-1, 101).T) - np.eye(101)
    assert abs(columns).max() < 5 / 1200**0.5  # no two of them decided together
    np.testing.assert_array_equal(Dropout(rate, True).apply({}, x), x)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_keep_their_input_alone(name):
    x = jnp.linspace(-4, 4, 11, dtype=jnp.bfloat16)
    kept = [leaf for leaf in jax.tree.leaves(jax.vjp(ACTIVATIONS[name], x)[1]) if leaf.size > 1]
    assert [(leaf.shape, leaf.dtype) for leaf in kept] == [(x.shape, x.dtype)]
    exact = ACTIVATIONS[name](x.astype(jnp.float32))
    np.testing.assert_array_equal(ACTIVATIONS[name](x), exact.astype(jnp.bfloat16))


def test_dropout_differs_by_key_and_layer(inputs):
    config = dataclasses.replace(CONFIG, dropout=0.5)
    params = init(Transformer(config, True), jax.random.key(0), *inputs)
    run = lambda key: Transformer(config, False).apply({"params": params}, *inputs, rngs={"dropout": jax.random.key(key)})[0]
    assert np.array_equal(run(1), run(1)) and not np.array_equal(run(1), run(2))
    assert not np.array_equal(run(1), Transformer(config, True).apply({"params": params}, *inputs)[0])


def test_bfloat16_computes_low_and_keeps_float32_parameters(inputs):
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    params = init(Transformer(config, True), jax.random.key(0), *inputs)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    low, _ = Transformer(config, True).apply({"params": params}, *inputs)
    assert low.dtype == jnp.bfloat16
    np.testing.assert_allclose(low.astype("float32"), Transformer(CONFIG, True).apply({"params": params}, *inputs)[0], atol=0.15)


def test_every_parameter_names_its_axes(inputs):
    module = Transformer(CONFIG, True)
    axes, shapes = logical_axes(module, *inputs), jax.eval_shape(lambda: init(module, jax.random.key(0), *inputs))
    jax.tree.map(lambda shape, names: len(names) == shape.ndim or pytest.fail(f"{names} {shape}"), shapes, axes)
    assert axes["blocks"]["attention"]["query"]["kernel"] == ("layers", "embed", "heads", "head_dim")


@pytest.mark.parametrize("field, value", [("heads", 5), ("norm", "side"), ("activation", "sine"), ("remat", "some"), ("dtype", "int8")])
def test_a_wrong_field_is_refused(field, value):
    with pytest.raises(UserError, match=f"model.{field}"):
        dataclasses.replace(CONFIG, **{field: value})
