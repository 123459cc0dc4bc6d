import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.core import linen
from research.core.errors import UserError
from research.core.types import view
from research.models.bert import Bert
from research.models.gpt import Gpt
from research.models.two_tower import TwoTower
from research.models.vit import Vit, VitConfig
from tests.tiny import transformer_config

TEXT = transformer_config(dropout=0.5, pool="mean")
IMAGE = transformer_config(VitConfig, image_size=8, channels=1, patch_size=4, pool="mean", width=24)
MODEL = TwoTower(Vit(IMAGE), Bert(TEXT), 5)


def inputs_of(model, rows=3, seed=0):
    rng = np.random.default_rng(seed)
    made = {name: rng.integers(0, 2, x.shape).astype(x.dtype) for name, x in model.inputs(rows, 7).items()}
    return {name: np.ones_like(x) if name.endswith("mask") else x for name, x in made.items()}


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda: linen.init(MODEL, jax.random.key(0), inputs_of(MODEL), method="towers"))()


def test_towers_are_those_models_under_a_linear_map_and_of_length_one(params):
    inputs = inputs_of(MODEL)
    first, second, log_scale = linen.apply(MODEL, params, None, inputs, method="towers")
    for name, tower, found in (("first", Vit(IMAGE), first), ("second", Bert(TEXT), second)):
        alone = linen.apply(tower, params[name], None, view(inputs, name), method="embed")
        mapped = np.asarray(alone @ params[f"{name}_projection"]["kernel"], np.float64)
        np.testing.assert_allclose(found, mapped / np.sqrt((mapped**2).sum(-1, keepdims=True)), rtol=1e-4, atol=1e-6)
        assert params[f"{name}_projection"].keys() == {"kernel"} and found.shape == (3, 5) and found.dtype == jnp.float32
    np.testing.assert_allclose(np.exp(log_scale), 1 / 0.07, rtol=1e-6)


def test_one_of_the_towers_embeds_what_it_takes(params):
    inputs = inputs_of(MODEL)
    first, second, _ = linen.apply(MODEL, params, None, inputs, method="towers")
    np.testing.assert_array_equal(linen.apply(MODEL, params, None, view(inputs, "first"), method="embed"), first)
    np.testing.assert_array_equal(linen.apply(MODEL, params, None, view(inputs, "second"), method="embed"), second)
    with pytest.raises(UserError, match="no tower takes sound: the first takes image, the second tokens, token_types, mask"):
        linen.apply(MODEL, params, None, {"sound": np.zeros(3)}, method="embed")


def test_dropout_is_for_training_only(params):
    embed = lambda rng: linen.apply(MODEL, params, rng, inputs_of(MODEL), method="towers")
    once, again, plain = embed(jax.random.key(1)), embed(jax.random.key(2)), embed(None)
    np.testing.assert_array_equal(once[0], plain[0])  # of an image tower without dropout
    assert abs(once[1] - again[1]).max() > 1e-2 and abs(once[1] - plain[1]).max() > 1e-2


@pytest.mark.parametrize(
    "towers, kinds",
    [
        ((Vit(IMAGE), Vit(IMAGE)), ("first", "second")),
        ((Bert(TEXT), Gpt(TEXT)), ("first", "second")),
        ((Gpt(TEXT), Vit(IMAGE)), ("text", "image")),
    ],
)
def test_any_two_models_make_a_pair(towers, kinds):
    model = TwoTower(*towers, 5)
    axes = linen.logical_axes(model, inputs_of(model), method="towers")
    shapes = jax.eval_shape(lambda: linen.init(model, jax.random.key(0), inputs_of(model), method="towers"))
    assert model.kinds == kinds and shapes.keys() == {"first", "second", "first_projection", "second_projection", "log_scale"}
    jax.tree.map(lambda x, names: x.ndim == len(names) or pytest.fail(f"{x} {names}"), shapes, axes)
