import dataclasses

import jax
import jax.numpy as jnp
import pytest

from research import build
from research.compile import chips
from research.compile.flops import count_flops
from research.models.attention import Mask, attention
from tests.tiny import tiny_config


def test_matrix_products_count_two_a_multiply_add():
    a, b = jax.ShapeDtypeStruct((3, 5), "float32"), jax.ShapeDtypeStruct((5, 7), "float32")
    assert count_flops(jnp.matmul, a, b) == 2 * 3 * 5 * 7
    batched = jax.ShapeDtypeStruct((4, 3, 5), "float32")
    assert count_flops(lambda x, y: jnp.einsum("bij,bkj->bik", x, y), batched, batched) == 2 * 4 * 3 * 5 * 3


def test_a_scan_counts_each_time_round():
    x = jax.ShapeDtypeStruct((6, 6), "float32")
    body = lambda x, _: (jax.checkpoint(lambda x: x @ x)(x), None)
    assert count_flops(lambda x: jax.lax.scan(body, x, length=9)[0], x) == 9 * 2 * 6**3


def test_branches_of_a_cond_count_as_if_taken_equally_often():
    x = jax.ShapeDtypeStruct((6, 6), "float32")
    assert count_flops(lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x, x), x) == 2 * 6**3


def test_a_convolution():
    image, kernel = jax.ShapeDtypeStruct((2, 3, 8, 8), "float32"), jax.ShapeDtypeStruct((5, 3, 4, 4), "float32")
    assert count_flops(lambda x, w: jax.lax.conv(x, w, (4, 4), "VALID"), image, kernel) == 2 * (2 * 5 * 2 * 2) * (3 * 4 * 4)


@pytest.mark.parametrize("scan_layers", [True, False])
def test_the_model_counts_as_the_formula_says(scan_layers):
    config = tiny_config(model__scan_layers=scan_layers)
    e = build.experiment(config, devices=jax.devices()[:1])
    batch = {name: jnp.zeros(x.shape, x.dtype) for name, x in e.objective.example_batch.items()}
    tokens, step_flops = e.work()(batch)
    m, b, t = config.model, 16, 32
    p = e.objective.predictions(t)
    layer = 2 * b * t * (4 * m.width**2 + 2 * m.width * m.mlp_width) + 4 * b * t * t * m.width
    heads = 2 * b * (p * m.width * (m.width + m.vocab_size) + m.width**2 + 2 * m.width)
    assert tokens == b * t and step_flops == 3 * (m.layers * layer + heads)
    whole = dataclasses.replace(e.objective, mask_rate=1.0)
    loss = lambda objective: count_flops(lambda p, b: objective.loss_fn(p, b, None), e.shapes.params, batch)
    assert loss(e.objective) < loss(whole), "only masked positions reach the vocabulary"


def test_the_cpu_s_peak_is_measured():
    assert 1e8 < chips.peak_flops(jax.devices(), "float32") < 1e14


@pytest.mark.parametrize(
    "mask, visited", [(Mask(), 1.0), (Mask(causal=True), 3 / 4), (Mask(causal=True, window=100), 3 / 4), (Mask(window=1), 1 / 2)]
)
def test_kernels_of_attention_count_the_blocks_they_visit(mask, visited):
    """On two by two blocks of 512: below the diagonal and on it there are three, on it two; on four by four each is of 128."""
    T = 1024
    x = jax.ShapeDtypeStruct((2, T, 4, 64), "float32")
    run = lambda x: attention(x, x, x, mask, implementation="splash")
    whole = 2 * 2 * (2 * 4 * T * T * 64)
    assert count_flops(run, x) == pytest.approx(visited * whole)
    assert count_flops(run, x, dense=True) == whole
    forward_and_back = lambda x: jax.grad(lambda x: run(x).sum())(x)
    assert count_flops(forward_and_back, x) == pytest.approx(visited * whole * (2 + 3 + 4) / 2, rel=1e-3)


@dataclasses.dataclass
class Chip:
    device_kind: str
    platform: str = "tpu"


@pytest.mark.parametrize("kind, peak", [("TPU v5 lite", 197e12), ("TPU v5p", 459e12), ("NVIDIA H100 80GB HBM3", 989e12), ("TPU v99", None)])
def test_known_chips(kind, peak):
    assert chips.peak_flops([Chip(kind)] * 4, "bfloat16") == (peak and 4 * peak)
