"""What a token of GPT depends on, shown by gradients, and that packing and padding change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.core import linen
from research.models.attention import causal_mask, positions_in_segments
from research.models.gpt import Gpt
from tests.tiny import transformer_config

VARIANTS = {
    "dense": {},
    "banded": {"attention_pattern": ("dense", "local"), "attention_window": 2},
    "rotary": {"positions": "rotary", "kv_heads": 1, "norm_type": "rms", "gated_mlp": True, "activation": "silu", "use_bias": False, "tied_head": False},
}
GPT2 = {"norm": "pre", "norm_epsilon": 1e-5, "activation": "gelu_tanh", "width": 24}
SEGMENTS = jnp.array([[1, 1, 1, 2, 2, 2, 2, 0]])


def built(**changes):
    model = Gpt(transformer_config(**(GPT2 | changes)))
    tokens_BT = jax.random.randint(jax.random.key(1), (1, 8), 0, 11)
    
    @jax.jit
    def init():
        params = linen.init(model, jax.random.key(0), tokens_BT, jnp.zeros_like(tokens_BT), causal_mask(tokens_BT))
        return jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), params)

    return model, init(), tokens_BT


@pytest.fixture(scope="module", params=VARIANTS)
def gpt(request):
    return built(**VARIANTS[request.param])


def logits(gpt, tokens_BT, segments_BT, params=None):
    model, own, _ = gpt
    return linen.apply(model, own if params is None else params, None, tokens_BT, positions_in_segments(segments_BT), causal_mask(segments_BT))[0]


def dependence(gpt, segments_BT):
    """(T, T) bool: whether the logits at t depend on the embedding of the token at s, by the gradient of each."""
    model, params, tokens_BT = gpt
    table_VD = params["word"]["embedding"]
    # Each token gets a row of the table of its own, so that the gradient of the table is that of the places.
    own_BT = jnp.arange(8)[None]
    by_place = lambda rows_TD: params | {"word": {"embedding": table_VD.at[:8].set(rows_TD)}}
    hidden = lambda rows_TD: model.apply(
        {"params": by_place(rows_TD)}, own_BT, positions_in_segments(segments_BT), causal_mask(segments_BT), None, method="hidden"
    )[0][0]
    jacobian_TDTD = jax.jit(jax.jacrev(hidden))(table_VD[:8])
    return np.asarray(abs(jacobian_TDTD).sum((1, 3)) > 0)


def test_a_token_depends_on_those_up_to_itself_and_on_no_other(gpt):
    assert np.array_equal(dependence(gpt, jnp.ones((1, 8), int)), np.tril(np.ones((8, 8), bool)))


def test_a_token_depends_on_its_own_document_only(gpt):
    segments = np.asarray(SEGMENTS[0])
    expected = np.tril(segments[:, None] == segments[None])
    assert np.array_equal(dependence(gpt, SEGMENTS), expected)


def test_a_local_layer_sees_its_band():
    gpt = built(layers=2, attention_pattern=("local",), attention_window=3)
    distance = np.arange(8)[:, None] - np.arange(8)
    assert np.array_equal(dependence(gpt, jnp.ones((1, 8), int)), (distance >= 0) & (distance <= 4))  # two layers of two steps back


def test_packed_documents_equal_separate_ones_gradients_too(gpt):
    _, params, tokens_BT = gpt
    weights_TV = jax.random.normal(jax.random.key(3), (8, 11))

    def packed(params):
        return (logits(gpt, tokens_BT, SEGMENTS, params)[0, :7] * weights_TV[:7]).sum()

    def separate(params):
        first, second = tokens_BT[:, :3], tokens_BT[:, 3:7]
        a, b = (logits(gpt, tokens, jnp.ones_like(tokens), params)[0] for tokens in (first, second))
        return (a * weights_TV[:3]).sum() + (b * weights_TV[3:7]).sum()

    (a, grads_a), (b, grads_b) = (jax.jit(jax.value_and_grad(f))(params) for f in (packed, separate))
    np.testing.assert_allclose(a, b, rtol=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4), grads_a, grads_b)


def test_padding_changes_no_embedding():
    model, params, tokens_BT = built(pool="last")
    mask_BT = jnp.arange(8)[None] < 5
    padded = linen.apply(model, params, None, {"tokens": tokens_BT, "mask": mask_BT}, method="embed")
    alone = linen.apply(model, params, None, {"tokens": tokens_BT[:, :5], "mask": mask_BT[:, :5]}, method="embed")
    np.testing.assert_allclose(padded, alone, rtol=1e-5, atol=1e-6)
    assert not np.allclose(alone, linen.apply(model, params, None, {"tokens": tokens_BT, "mask": mask_BT | True}, method="embed"))


def test_positions_count_from_the_beginning_of_each_segment():
    assert positions_in_segments(SEGMENTS).tolist() == [[0, 1, 2, 0, 1, 2, 3, 0]]


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_rotary_positions_tell_distance_alone(positions):
    model, params, tokens_BT = built(positions=positions, max_length=16)
    ones_BT = jnp.ones((1, 8), int)
    here, moved = (
        linen.apply(model, params, None, tokens_BT, positions_in_segments(ones_BT) + by, causal_mask(ones_BT))[0] for by in (0, 5)
    )
    assert np.allclose(here, moved, rtol=1e-4, atol=1e-4) == (positions == "rotary")


def test_residual_kernels_start_smaller_where_asked():
    spread = lambda **changes: float(jnp.std(built(width=96, **changes)[1]["decoder"]["blocks"]["mlp"]["down"]["kernel"]))
    assert spread(scale_residual_initializer=True) < 0.7 * spread(scale_residual_initializer=False)
