import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.core import linen
from research.core.errors import UserError
from research.models.mlp import Perceptron, PerceptronConfig
from tests.tiny import transformer_config

OBSERVED = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)


def perceptron(**changes):
    return Perceptron(transformer_config(PerceptronConfig, **(dict(observation_size=5, activation="tanh") | changes)))


def test_it_is_maps_and_activations_in_turn():
    model = perceptron()
    given = {"observation": OBSERVED}
    params = jax.jit(lambda rng: linen.init(model, rng, given, method="encode"))(jax.random.key(0))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32), params)
    x = OBSERVED
    for i in range(3):
        x = np.tanh(x @ params[f"layer_{i}"]["kernel"] + params[f"layer_{i}"]["bias"])
    found = jax.jit(lambda params: linen.apply(model, params, None, given, method="encode"))(params)
    assert found.shape == (4, 1, 12) and found.dtype == jnp.float32
    np.testing.assert_allclose(found[:, 0], x, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(jax.jit(lambda params: linen.apply(model, params, None, given, method="embed"))(params), found[:, 0])


def test_what_it_takes_is_what_it_says():
    assert perceptron(observation_size=7).inputs(2, 9) == {"observation": jax.ShapeDtypeStruct((2, 7), jnp.float32)}


def test_units_begin_neither_still_nor_saturated():
    """However wide a layer is, what it is given of the size of one it passes on so."""
    model = perceptron(width=240, layers=4, activation="relu")
    given = {"observation": np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)}
    found = jax.jit(lambda rng: linen.apply(model, linen.init(model, rng, given, method="encode"), None, given, method="encode"))(jax.random.key(0))
    assert 0.05 < float((found**2).mean()) ** 0.5 < 2


def test_every_parameter_is_named():
    given = linen.zeros(perceptron().inputs(1, 0))
    params = jax.eval_shape(lambda rng: linen.init(perceptron(), rng, given, method="encode"), jax.random.key(0))
    named = jax.tree.map(len, linen.logical_axes(perceptron(), given, method="encode"), is_leaf=lambda x: isinstance(x, tuple))
    assert named == jax.tree.map(lambda x: x.ndim, params)


def test_an_activation_that_is_none_is_refused():
    with pytest.raises(UserError, match="model.activation is 'tan'"):
        perceptron(activation="tan")
