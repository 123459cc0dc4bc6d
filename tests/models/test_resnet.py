import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from research.core import linen
from research.models.resnet import Convolution, ResNet
from research.models.vit import Vit
from tests.tiny import vit_config

BOARD = dict(image_size=5, image_width=7, channels=2, patch_size=1, class_token=False, pool="mean", pixel_mean=(0.0,), pixel_stddev=(1 / 255,))


@functools.partial(jax.jit, static_argnums=(0, 3))
def applied(model, params, images, method="encode"):
    return linen.apply(model, params, None, {"image": images}, method=method)


def built(cls=ResNet, **changes):
    """A model with parameters none of which is zero."""
    model = cls(vit_config(**(BOARD | dict(layers=2, width=8, heads=2, activation="relu") | changes)))
    shapes = jax.eval_shape(lambda inputs: linen.init(model, jax.random.key(0), inputs, method="embed"), model.inputs(1, 0))
    rng = np.random.default_rng(0)
    return model, jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes)


def convolved(x_HWC, kernel, bias):
    """In NumPy, one cell after another; beyond the edge are zeros."""
    H, W, _ = x_HWC.shape
    padded, y_HWD = np.pad(x_HWC, ((1, 1), (1, 1), (0, 0))), np.zeros((H, W, len(bias)))
    for i in range(H):
        for j in range(W):
            y_HWD[i, j] = np.einsum("abc,abcd->d", padded[i : i + 3, j : j + 3], kernel) + bias
    return y_HWD


def normalised(x, p, epsilon):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon) * p["scale"] + p["bias"]
    return np.maximum(x, 0)


def test_a_convolution_looks_at_nine_cells():
    rng, config = np.random.default_rng(0), vit_config(**BOARD, width=4, heads=2)
    x, params = rng.normal(size=(2, 5, 7, 3)), {"kernel": rng.normal(size=(3, 3, 3, 4)), "bias": rng.normal(size=4)}
    found = jax.jit(lambda params, x: Convolution(config).apply({"params": params}, x))(params, jnp.float32(x))
    np.testing.assert_allclose(found, [convolved(x_HWC, **params) for x_HWC in x], rtol=1e-4, atol=1e-4)


def test_blocks_add_to_what_they_are_given():
    """The whole network in NumPy: norms first, two convolutions a block, planes of zeros and ones as they are."""
    model, params = built()
    image = np.random.default_rng(1).integers(0, 2, (1, 5, 7, 2)).astype(np.uint8)
    p, epsilon = jax.tree.map(lambda x: np.asarray(x, np.float64), params), model.config.norm_epsilon
    x = convolved(image[0].astype(np.float64), **p["stem"])
    for i in range(2):
        y = convolved(normalised(x, p[f"block_{i}_first_norm"], epsilon), **p[f"block_{i}_first"])
        x = x + convolved(normalised(y, p[f"block_{i}_second_norm"], epsilon), **p[f"block_{i}_second"])
    expected = normalised(x, p["norm"], epsilon).reshape(35, 8)
    found = applied(model, params, image)
    assert found.shape == (1, 35, 8)
    np.testing.assert_allclose(found[0], expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(applied(model, params, image, "embed")[0], expected.mean(0), rtol=1e-3, atol=1e-3)


def test_a_stone_moved_moves_what_is_made_of_it():
    """Away from the edges, which three convolutions see as far as three cells off."""
    model, params = built(layers=1, image_size=13, image_width=13)
    image = np.zeros((2, 13, 13, 2), np.uint8)
    image[0, 4, 4, 0] = image[1, 5, 6, 0] = 1
    one, other = np.asarray(applied(model, params, image)).reshape(2, 13, 13, 8)
    np.testing.assert_allclose(one[3:8, 3:8], other[4:9, 5:10], rtol=1e-4, atol=1e-5)
    assert not np.allclose(one[3:8, 3:8], other[3:8, 3:8], atol=0.1)
    np.testing.assert_allclose(
        one[8:10, 3:10], other[9:10, 3:10].repeat(2, 0), rtol=1e-4, atol=1e-5, err_msg="past three cells nothing is seen of it"
    )


def test_kernels_begin_by_the_number_of_their_inputs():
    """sqrt(2 / (9 C)), of a normal cut off at two standard deviations, which leaves 0.88 of it."""
    params = jax.jit(Convolution(vit_config(**BOARD, width=64, heads=2)).init)(jax.random.key(0), jnp.ones((1, 5, 7, 32)))
    kernel, bias = (nn.unbox(params)["params"][name] for name in ("kernel", "bias"))
    assert kernel.shape == (3, 3, 32, 64) and float(kernel.std()) == pytest.approx(0.88 * (2 / (9 * 32)) ** 0.5, rel=0.02) and not bias.any()


@pytest.mark.parametrize("cls", [ResNet, Vit])
def test_axes_are_named_and_a_cell_is_a_token(cls):
    model, params = built(cls)
    axes = linen.logical_axes(model, {"image": jnp.zeros((1, 5, 7, 2), jnp.uint8)}, method="embed")
    assert jax.tree.map(len, axes, is_leaf=lambda x: isinstance(x, tuple)) == jax.tree.map(jnp.ndim, params)
    assert all("embed" in names for names in jax.tree.leaves(axes, is_leaf=lambda x: isinstance(x, tuple)) if len(names) == 4 and cls is ResNet)
    assert applied(model, params, np.zeros((3, 5, 7, 2), np.uint8)).shape == (3, 35, 8) and model.width == 8
    assert applied(model, params, np.zeros((3, 5, 7, 2), bool), "embed").shape == (3, 8)
