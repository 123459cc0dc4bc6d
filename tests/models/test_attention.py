"""Masking conformance: every implementation of attention against NumPy in float64, forward and gradients, over all kinds of masks.

An implementation that ignores any part of a mask fails; that it would is itself tested.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax._src.cudnn import fused_attention_stablehlo

from research.core import sharding
from research.core.errors import UserError
from research.models.attention import IMPLEMENTATIONS, Mask, attention, causal_pieces, places

T = 150  # no multiple of a block
SEGMENTS = np.repeat([[1, 2, 3, 0], [1, 1, 2, 2]], [40, 30, 60, 20], axis=1).astype(np.int32)
HIDDEN = np.where(np.arange(T) < 120, 1, 0)[None].repeat(2, 0).astype(np.int32)
HIDDEN[1] = 0  # a row of padding alone: its queries see nothing
ONES = np.ones((2, T), np.int32)
MASKS = {
    "none": Mask(),
    "causal": Mask(causal=True),
    "band": Mask(window=37),
    "causal band": Mask(causal=True, window=37),
    "segments": Mask(SEGMENTS),
    "causal segments": Mask(SEGMENTS, causal=True),
    "causal banded segments": Mask(SEGMENTS, causal=True, window=37),
    "padding, a row of it alone": Mask(ONES, HIDDEN),
    "causal padding": Mask(ONES, HIDDEN, causal=True),
    "queries of a segment without keys": Mask(SEGMENTS, np.where(SEGMENTS == 3, 1, SEGMENTS)),
    "causal, in pieces": Mask(causal=True, pieces=6),
    "causal banded segments, in pieces": Mask(SEGMENTS, causal=True, window=37, pieces=10),
    "a band switched off": Mask(causal=True, window=37, banded=np.array(False)),
    "a band switched on": Mask(causal=True, window=37, banded=np.array(True)),
}


def inputs(H, G, K=24):
    draw = lambda seed, *shape: np.random.default_rng(seed).normal(size=shape)
    return draw(0, 2, T, H, K), draw(1, 2, T, G, K), draw(2, 2, T, G, K), draw(3, 2, T, H, K)


def sees(mask: Mask) -> np.ndarray:
    """(B, T, T) bool, one pair at a time, from the words of the docstring."""
    allowed = np.zeros((2, T, T), bool)
    keys = mask.segments_BT if mask.keys_BS is None else mask.keys_BS
    band = mask.window if mask.banded is None or mask.banded else None
    place = stands_at(T, mask.pieces)
    for b, t, s in np.ndindex(2, T, T):
        same = mask.segments_BT is None or mask.segments_BT[b, t] == keys[b, s]
        behind = place[t] - place[s]
        allowed[b, t, s] = same and (not mask.causal or behind >= 0) and (band is None or abs(behind) < band)
    return allowed


def stands_at(length, pieces):
    """First piece, last, second, last but one, ..."""
    left, found = [list(piece) for piece in np.split(np.arange(length), pieces)], []
    while left:
        found += left.pop(0)
        found += left.pop() if left else []
    return found


def reference(q, k, v, out_gradient, allowed):
    """(out, dq, dk, dv) in float64."""
    R = q.shape[2] // k.shape[2]
    k, v = (np.repeat(x, R, axis=2) for x in (k, v))
    scores = np.where(allowed[:, None], np.einsum("bthk,bshk->bhts", q, k) * q.shape[-1] ** -0.5, -np.inf)
    top = scores.max(-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isfinite(top), top, 0))
    weights /= np.maximum(weights.sum(-1, keepdims=True), 1e-300)
    d_weights = np.einsum("bthk,bshk->bhts", out_gradient, v)
    d_scores = weights * (d_weights - (d_weights * weights).sum(-1, keepdims=True)) * q.shape[-1] ** -0.5
    fold = lambda x: x.reshape(*x.shape[:2], -1, R, x.shape[-1]).sum(3)
    dq = np.einsum("bhts,bshk->bthk", d_scores, k)
    dk, dv = fold(np.einsum("bhts,bthk->bshk", d_scores, q)), fold(np.einsum("bhts,bthk->bshk", weights, out_gradient))
    return np.einsum("bhts,bshk->bthk", weights, v), dq, dk, dv


def computed(run, mask, arrays):
    q, k, v, out_gradient = (jnp.asarray(x, jnp.float32) for x in arrays)
    out, backward = jax.vjp(lambda q, k, v: run(q, k, v, mask), q, k, v)
    return out, *backward(out_gradient)


def check(run, mask, H, G):
    arrays = inputs(H, G)
    expected = reference(*arrays, sees(mask))
    found = jax.jit(lambda *arrays: computed(run, jax.tree.map(jnp.asarray, mask), arrays))(*arrays)
    for name, ours, theirs in zip(("out", "dq", "dk", "dv"), found, expected):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_every_implementation_obeys_every_mask(implementation, kind):
    check(lambda *args: attention(*args, implementation=implementation), MASKS[kind], 4, 2)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_heads_share_keys_and_values(implementation, groups):
    check(lambda *args: attention(*args, implementation=implementation), MASKS["causal segments"], 4, groups)


@pytest.mark.parametrize(
    "part, kind",
    [
        ("causal", "causal"),
        ("window", "band"),
        ("segments_BT", "segments"),
        ("keys_BS", "padding, a row of it alone"),
        ("pieces", "causal, in pieces"),
    ],
)
def test_ignoring_a_part_of_the_mask_is_seen(part, kind):
    dropped = {"causal": False, "pieces": 1}.get(part)
    with pytest.raises(AssertionError):
        check(lambda q, k, v, mask: attention(q, k, v, dataclasses.replace(mask, **{part: dropped}), implementation="xla"), MASKS[kind], 4, 2)


OVER_DEVICES = [
    ({"fsdp": 2, "tensor": 2}, "causal segments"),
    ({"context": 4}, "causal band"),
    ({"context": 4}, "causal segments, in pieces"),
    ({"context": 2, "tensor": 2}, "padding, a row of it alone"),
]
MORE = [(sizes, kind) for sizes, _ in OVER_DEVICES for _, kind in OVER_DEVICES if (sizes, kind) not in OVER_DEVICES]


@pytest.mark.parametrize("sizes, kind", OVER_DEVICES + [pytest.param(*more, marks=pytest.mark.slow) for more in MORE])
def test_splash_is_the_same_over_devices(sizes, kind):
    """Rows over fsdp, heads over tensor, queries over context."""
    mesh = sharding.make_mesh({"pipeline": 1, "data": 1, "fsdp": 1, "context": 1, "tensor": 1} | sizes, jax.devices()[:4])
    arrays = [
        np.pad(x, ((0, 0), (0, 106), (0, 0), (0, 0))) for x in inputs(4, 2)
    ]  # 256 tokens: a block for each of two, half of one for each of four
    masks = MASKS | {"causal segments, in pieces": Mask(SEGMENTS, causal=True, pieces=8)}
    wide = jax.tree.map(lambda x: jnp.pad(jnp.asarray(x), ((0, 0), (0, 106))), masks[kind])
    run = lambda q, k, v, mask: attention(q, k, v, mask, implementation="splash")
    alone = jax.jit(lambda *arrays: computed(run, wide, arrays))(*arrays)
    with jax.set_mesh(mesh), nn.logical_axis_rules(sharding.make_rules("fsdp_tp")):
        apart = jax.jit(lambda *arrays: computed(run, wide, arrays))(*arrays)
    for ours, theirs in zip(apart, alone):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("context", [2, 4, 8])
def test_in_pieces_every_device_sees_as_much(context):
    mesh = sharding.make_mesh({"pipeline": 1, "data": 1, "fsdp": 1, "context": context, "tensor": 1}, jax.devices()[:context])
    with jax.set_mesh(mesh), nn.logical_axis_rules(sharding.make_rules("fsdp_tp")):
        pieces = causal_pieces(64)
        assert causal_pieces(65) == 1
    assert sorted(places(64, pieces)) == list(range(64)) and causal_pieces(64) == 1
    seen = [np.sum(part + 1) for part in np.split(places(64, pieces), context)]
    assert len(set(seen)) == 1 and len({np.sum(part + 1) for part in np.split(np.arange(64), context)}) == context


@pytest.mark.parametrize("implementation", ["splash", "cudnn"])
def test_kernels_refuse_what_they_cannot_do(implementation, monkeypatch):
    q, k, v, _ = (jnp.asarray(x, jnp.float32) for x in inputs(4, 4))
    with pytest.raises(UserError, match="attention_dropout"):
        attention(q, k, v, implementation=implementation, drop=lambda weights: weights)
    monkeypatch.setattr("research.models.attention.platform", lambda: "gpu")
    with pytest.raises(UserError, match="in 16 bits"):
        attention(q, k, v, implementation="cudnn")


@pytest.mark.parametrize("kind, call", [("causal", "fmhaSoftmax"), ("causal banded segments", "fmhaScaleBiasSoftmax")])
def test_for_a_gpu_cudnn_is_called_forward_and_backward(monkeypatch, kind, call):
    """The program for a GPU that is not here: JAX's questions about it are answered for it."""
    for question in ("check_cudnn_version", "check_compute_capability"):
        monkeypatch.setattr(fused_attention_stablehlo, question, lambda *_: 91000)
    monkeypatch.setattr("research.models.attention.platform", lambda: "gpu")
    q, k, v, _ = (jnp.pad(jnp.asarray(x, jnp.bfloat16), ((0, 0), (0, 0), (0, 0), (0, 8))) for x in inputs(4, 2))
    mask = jax.tree.map(jnp.asarray, MASKS[kind])
    run = lambda q, k, v: attention(q, k, v, mask, "cudnn").astype(jnp.float32).sum()
    text = jax.jit(jax.grad(run, (0, 1, 2))).trace(q, k, v).lower(lowering_platforms=("cuda",)).as_text()
    assert f"__cudnn${call}(" in text and f"__cudnn${call}Backward(" in text


@pytest.mark.parametrize(
    "rows, tokens, drop, chosen", [(4, 256, None, True), (3, 256, None, False), (4, 96, None, False), (4, 256, lambda w: w, False)]
)
def test_a_tpu_gets_splash_where_it_can_be(monkeypatch, rows, tokens, drop, chosen):
    monkeypatch.setattr("research.models.attention.platform", lambda: "tpu")
    x = jax.ShapeDtypeStruct((rows, tokens, 4, 8), "float32")
    mesh = sharding.make_mesh({"pipeline": 1, "data": 1, "fsdp": 4, "context": 1, "tensor": 1}, jax.devices()[:4])
    with jax.set_mesh(mesh), nn.logical_axis_rules(sharding.make_rules("fsdp_tp")):
        text = str(jax.make_jaxpr(lambda x: attention(x, x, x, Mask(causal=True), drop=drop))(x))
        assert ("pallas_call" in text) == chosen
