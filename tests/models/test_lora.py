import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import build
from research.core import linen
from research.core.errors import UserError
from research.models import lora
from research.models.attention import Mask
from research.models.transformer import Attention
from tests.tiny import tiny_config, transformer_config

L, D, H, K, F, R = 2, 4, 3, 5, 6, 2
AXES = {
    "blocks": {
        "query": {"kernel": ("layers", "embed", "heads", "head_dim"), "bias": ("layers", "heads", "head_dim")},
        "out": {"kernel": ("layers", "heads", "head_dim", "embed")},
        "down": {"kernel": ("layers", "mlp", "embed")},
    },
    "head": {"kernel": ("embed", None)},
}
SHAPES = {
    "blocks": {"query": {"kernel": (L, D, H, K), "bias": (L, H, K)}, "out": {"kernel": (L, H, K, D)}, "down": {"kernel": (L, F, D)}},
    "head": {"kernel": (D, 7)},
}
KERNELS = "kernel$"


def drawn(shapes, seed=0):
    leaves, structure = jax.tree.flatten(shapes, is_leaf=lambda x: isinstance(x, tuple))
    return structure.unflatten([jax.random.normal(jax.random.key(seed + i), shape) for i, shape in enumerate(leaves)])


BASE = drawn(SHAPES)
PAIRS = drawn(jax.tree.map(jnp.shape, lora.init(jax.random.key(0), BASE, AXES, KERNELS, R)), seed=9)


def test_a_pair_splits_a_kernel_between_inputs_and_outputs():
    shapes = jax.tree.map(jnp.shape, lora.init(jax.random.key(0), BASE, AXES, KERNELS, R), is_leaf=lambda x: hasattr(x, "shape"))
    assert shapes == {
        "blocks": {
            "query": {"kernel": {"a": (L, D, R), "b": (L, R, H, K)}},
            "out": {"kernel": {"a": (L, H, K, R), "b": (L, R, D)}},
            "down": {"kernel": {"a": (L, F, R), "b": (L, R, D)}},
        },
        "head": {"kernel": {"a": (D, R), "b": (R, 7)}},
    }
    axes = lora.axes(AXES, KERNELS)
    assert axes["blocks"]["query"]["kernel"] == {"a": ("layers", "embed", "rank"), "b": ("layers", "rank", "heads", "head_dim")}
    assert axes["blocks"]["out"]["kernel"] == {"a": ("layers", "heads", "head_dim", "rank"), "b": ("layers", "rank", "embed")}
    assert axes["head"]["kernel"] == {"a": ("embed", "rank"), "b": ("rank", None)}


def test_merging_against_loops():
    """W + (alpha / rank) A B, equation 3 of the paper."""
    merged = lora.merge(BASE, PAIRS, alpha=3.0)
    for names, inputs in ((("blocks", "query"), 1), (("blocks", "out"), 2), (("blocks", "down"), 1)):
        kernel, pair = BASE[names[0]][names[1]]["kernel"], PAIRS[names[0]][names[1]]["kernel"]
        for layer in range(L):
            a, b = np.asarray(pair["a"][layer], np.float64), np.asarray(pair["b"][layer], np.float64)
            product = sum(np.multiply.outer(a[..., r], b[r]) for r in range(R))
            assert a.ndim == inputs + 1
            np.testing.assert_allclose(merged[names[0]][names[1]]["kernel"][layer], kernel[layer] + 1.5 * product, rtol=1e-5, atol=1e-6)
    head = BASE["head"]["kernel"] + 1.5 * PAIRS["head"]["kernel"]["a"] @ PAIRS["head"]["kernel"]["b"]
    np.testing.assert_allclose(merged["head"]["kernel"], head, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(merged["blocks"]["query"]["bias"], BASE["blocks"]["query"]["bias"])


def test_at_the_start_the_merged_parameters_are_the_base():
    pairs = lora.init(jax.random.key(0), BASE, AXES, KERNELS, R)
    jax.tree.map(np.testing.assert_array_equal, lora.merge(BASE, pairs, 16.0), BASE)
    wide = lora.init(jax.random.key(0), {"w": jnp.zeros((2, 20, 20, 100))}, {"w": ("layers", "heads", "head_dim", "embed")}, "w", 16)["w"]
    assert float(wide["a"].std()) == pytest.approx(1 / 20, rel=0.05) and abs(float(wide["a"].mean())) < 0.002


def test_merged_does_what_unmerged_does():
    """A layer with merged kernels against x W + (alpha / rank) (x A) B, worked out beside it."""
    c = transformer_config(width=12, heads=3, use_bias=False)
    layer, x_BTD = Attention(c, True), jax.random.normal(jax.random.key(1), (2, 7, 12))
    args = (x_BTD, Mask(), jnp.broadcast_to(jnp.arange(7), (2, 7)))
    base, axes = linen.init(layer, jax.random.key(0), *args), linen.logical_axes(layer, *args)
    pairs = drawn(jax.tree.map(jnp.shape, lora.init(jax.random.key(0), base, axes, "(query|value|out)/kernel$", R)))
    merged, _ = layer.apply({"params": lora.merge(base, pairs, 4.0)}, *args)

    def project(name, x, inputs):
        y = jnp.tensordot(x, base[name]["kernel"], inputs)
        if name not in pairs:
            return y
        return y + 4.0 / R * jnp.tensordot(jnp.tensordot(x, pairs[name]["kernel"]["a"], inputs), pairs[name]["kernel"]["b"], 1)

    q, k, v = (project(name, x_BTD, 1) for name in ("query", "key", "value"))
    weights = jax.nn.softmax(jnp.einsum("BTHK,BSHK->BHTS", q, k) / 2)
    apart = project("out", jnp.einsum("BHTS,BSHK->BTHK", weights, v), 2)
    np.testing.assert_allclose(merged, apart, rtol=1e-4, atol=1e-5)
    plain, _ = layer.apply({"params": base}, *args)
    assert not np.allclose(plain, apart, rtol=0.1)


@pytest.mark.parametrize(
    "changes, kernels",
    [
        ({}, 2),
        ({"model__name": "gpt", "objective__name": "causal_lm", "model__norm": "pre"}, 2),
        ({"model__name": "vit", "objective__name": "image_classification", "model__norm": "pre", "model__image_size": 32}, 2),
        ({"lora__pattern": r"/kernel$"}, None),
        ({"lora__pattern": r"embedding$"}, 3),
    ],
)
def test_every_model_can_be_adapted(changes, kernels):
    config = tiny_config(**changes)
    objective = build.objective(config)
    shapes, axes = jax.eval_shape(objective.init, jax.random.key(0)), objective.logical_axes
    pairs = jax.eval_shape(lambda rng: lora.init(rng, shapes, axes, config.lora.pattern, R), jax.random.key(0))
    found = lora.adapted(axes, config.lora.pattern)
    assert kernels is None and len(found) > 6 or len(found) == kernels
    assert jax.tree.map(jnp.shape, jax.eval_shape(lora.merge, shapes, pairs, 1.0)) == jax.tree.map(jnp.shape, shapes)


@pytest.mark.parametrize(
    "pattern, message",
    [("attn/", "'attn/' matches no parameter: there are blocks/query/kernel"), ("query/", "matches blocks/query/bias, which is no kernel")],
)
def test_a_pattern_that_fits_nothing_is_refused(pattern, message):
    with pytest.raises(UserError, match=message):
        lora.axes(AXES, pattern)
