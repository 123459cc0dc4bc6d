"""Products in eight bits: as near as eight bits are, unbiased where they are rounded at random, and of the blocks alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core as jex

from research import build
from research.compile import chips
from research.core.errors import UserError
from research.models import quantized
from research.models.layers import Dense
from tests.objectives.test_masked_lm import V, make_batch
from tests.tiny import tiny_config, transformer_config

ERRORS = {
    "int8": 0.01,
    "fp8": 0.04,
}  # of a product, over its root mean square: half a step of 1/127 of the largest, and 2^-4 relative, averaged over terms


def dense(dtype):
    return Dense(transformer_config(width=64, heads=4), (8, 16), ("embed", "heads", "head_dim"), 1.0, matmul_dtype=dtype)


def output_and_gradients(dtype, seed=0):
    """(y, d kernel, d x) of y's product with a fixed gradient; in training where there is a key for it."""
    draw = np.random.default_rng(0)
    x, g = (jnp.asarray(draw.normal(size=shape), jnp.float32) for shape in ((32, 8, 64), (32, 8, 8, 16)))
    params = dense(None).init(jax.random.key(0), x)
    rngs = {"stochastic_rounding": jax.random.key(seed)}
    y, backward = jax.vjp(lambda params, x: dense(dtype).apply(params, x, rngs=rngs), params, x)
    d_params, d_x = backward(g)
    return y, d_params["params"]["kernel"].unbox(), d_x


@pytest.mark.short
@pytest.mark.parametrize("dtype", quantized.DTYPES)
def test_products_are_as_near_as_eight_bits_are(dtype):
    for found, exact in zip(output_and_gradients(dtype), output_and_gradients(None)):
        error = np.sqrt(np.mean((np.asarray(found) - exact) ** 2) / np.mean(np.asarray(exact) ** 2))
        assert 1e-4 < error < ERRORS[dtype] * 2, "nothing was rounded, or too much"


def test_gradients_of_int8_are_rounded_at_random_around_what_they_are():
    """The mean over keys is nearer than one draw by far more than rounding to nearest, the same each time, could be."""
    draws = [output_and_gradients("int8", seed) for seed in range(40)]
    nearest = output_and_gradients(None)[2]
    off = lambda x: np.sqrt(np.mean((np.asarray(x) - nearest) ** 2))
    assert off(np.mean([d_x for _, _, d_x in draws], 0)) < 0.6 * off(draws[0][2])
    assert np.array_equal(draws[0][0], draws[1][0]), "the forward pass is not random"


def products(function, *args):
    """The dtypes that the matrix products of a function multiply."""

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                yield str(equation.invars[0].aval.dtype)
            for value in jax.tree.leaves(equation.params, is_leaf=lambda x: isinstance(x, (jex.Jaxpr, jex.ClosedJaxpr))):
                if isinstance(value, (jex.Jaxpr, jex.ClosedJaxpr)):
                    yield from walk(getattr(value, "jaxpr", value))

    return list(walk(jax.make_jaxpr(function)(*args).jaxpr))


@pytest.mark.parametrize("dtype, forward, backward", [("int8", "int8", "int8"), ("fp8", "float8_e4m3fn", "float8_e5m2")])
def test_only_the_blocks_products_with_kernels_are_in_eight_bits(dtype, forward, backward):
    o = dataclasses.replace(build.objective(tiny_config(model__matmul_dtype=dtype)), vocabulary=V)
    params = jax.eval_shape(o.init, jax.random.key(0))
    batch = make_batch()
    seen = products(lambda params: o.loss_fn(params, batch, None)[0], params)
    assert seen.count(forward) == 6 and len(seen) > 6 + 2, "query, key, value, out, up, down of the scanned block"
    value = lambda params, rng: sum(term.value for term in o.loss_fn(params, batch, rng)[0].values())
    training = products(jax.grad(lambda params: value(params, jax.random.key(1))), params)
    assert sum(dtype in (forward, backward) for dtype in training) == 18, "each once more for its input and for its kernel"
    assert forward == backward or training.count(backward) == 12


@pytest.mark.slow
@pytest.mark.parametrize("dtype", quantized.DTYPES)
def test_a_step_in_eight_bits_is_near_one_in_float32_and_the_same_on_eight_devices(dtype):
    losses = {}
    for how, devices, mesh in ((None, 1, {}), (dtype, 1, {}), (dtype, 8, {"mesh__fsdp": 4, "mesh__tensor": 2})):
        e = build.experiment(tiny_config(model__matmul_dtype=how, **mesh), V, jax.devices()[:devices])
        state = jax.jit(e.init, out_shardings=e.shardings)()
        with e.in_force():
            for seed in range(2):
                state, means = e.train_step(state, e.place(make_batch(16, seed=seed), 16))
            losses[how, devices] = [float(means[name].value) for name in ("masked_accuracy", "gradient_norm")] + [
                float(means["loss"]["masked_lm_loss"].value)
            ]
    exact, alone, split = losses.values()
    assert alone == pytest.approx(exact, rel=0.1) and alone != pytest.approx(exact, rel=1e-5)
    assert split == pytest.approx(alone, rel=1e-3)


@dataclasses.dataclass
class Device:
    device_kind: str
    platform: str = "tpu"


def test_what_the_chip_or_the_machine_has_not_is_refused(monkeypatch):
    chips.check_eight_bit([Device("TPU v5 lite")], "int8")
    chips.check_eight_bit([Device("TPU v99")], "fp8")  # of which nothing is known
    with pytest.raises(UserError, match=r"matmul_dtype=fp8: TPU v5 lite is no faster so \(of the eight-bit products int8\)"):
        chips.check_eight_bit([Device("TPU v5 lite")], "fp8")
    with pytest.raises(UserError, match="choose one of int8, fp8"):
        transformer_config(matmul_dtype="int4")
    monkeypatch.setattr(quantized, "qwix", None)
    with pytest.raises(UserError, match="EXTRAS=test,quantized"):
        transformer_config(matmul_dtype="int8")
