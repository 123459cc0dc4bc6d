import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.core.errors import UserError
from research.core.types import Mean
from research.objectives.adapted import Adapted
from research.training import optimizer as optimizers
from research.training.state import initial_state, split
from research.training.step import make_train_step
from tests.tiny import tiny_config

L, D, F = 2, 4, 6


@dataclasses.dataclass(frozen=True)
class Chain:
    """Least squares through two stacked kernels and a head."""

    separable = True

    def init(self, rng):
        draw = lambda i, *shape: jax.random.normal(jax.random.fold_in(rng, i), shape)
        return {"blocks": {"up": {"kernel": draw(0, L, D, F)}, "down": {"kernel": draw(1, L, F, D)}}, "head": {"kernel": draw(2, D, 1)}}

    @property
    def logical_axes(self):
        blocks = {"up": {"kernel": ("layers", "embed", "mlp")}, "down": {"kernel": ("layers", "mlp", "embed")}}
        return {"blocks": blocks, "head": {"kernel": ("embed", None)}}

    @property
    def example_batch(self):
        return {"x": jax.ShapeDtypeStruct((8, D), jnp.float32)}

    def loss_fn(self, params, batch, rng):
        x = batch["x"]
        for up, down in zip(params["blocks"]["up"]["kernel"], params["blocks"]["down"]["kernel"]):
            x = x + jnp.tanh(x @ up) @ down / F
        error = (x @ params["head"]["kernel"])[:, 0] - batch["x"].sum(1)
        return {"squared_error": Mean.of(error**2, jnp.ones(len(error)))}, {}


BATCH = {"x": jax.random.normal(jax.random.key(5), (8, D))}


def adapted(pattern="^blocks/up/", trained=None):
    return Adapted(Chain(), 2, 4.0, pattern, trained)


def test_the_loss_is_that_of_the_merged_parameters():
    params = jax.tree.map(lambda x: x + 0.1, adapted().init(jax.random.key(0)))
    one = adapted().loss_fn(params, BATCH, None)[0]["squared_error"]
    other = Chain().loss_fn(adapted().merge(params), BATCH, None)[0]["squared_error"]
    plain = Chain().loss_fn(params["base"], BATCH, None)[0]["squared_error"]
    assert float(one.total) == float(other.total) != pytest.approx(float(plain.total), rel=1e-2)


def test_axes_fit_the_parameters():
    params = adapted("kernel$").init(jax.random.key(0))
    named = jax.tree.map(len, adapted("kernel$").logical_axes, is_leaf=lambda x: isinstance(x, tuple))
    assert named == jax.tree.map(jnp.ndim, params)


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
@pytest.mark.parametrize("trained", [None, "^head/"])
def test_only_the_pairs_are_trained_with_each_optimizer(name, trained):
    what = adapted(trained=trained)
    frozen = optimizers.frozen_names(what.logical_axes, None, what.frozen)
    assert ("base/head/kernel" in frozen) == (trained is None)
    rate = optax.constant_schedule(0.02)
    config = tiny_config(optimizer__name=name, optimizer__weight_decay=0.01, optimizer__layer_decay=0.9).optimizer
    optimizer = optimizers.make_optimizer(config, rate, split(what.logical_axes, frozen)[0])
    start = state = initial_state(what, optimizer, 0, keep_ema=False, frozen=frozen)()
    step = jax.jit(make_train_step(what.loss_fn, optimizer, rate, 0, frozen=frozen))
    losses = []
    for _ in range(30):
        state, means = step(state, BATCH)
        losses.append(float(means["loss"]["squared_error"].value))
    assert losses[-1] < (1 if name in ("lamb", "adafactor") else 0.9) * losses[0], "those two step by the size of a parameter, and B begins at 0"
    jax.tree.map(np.testing.assert_array_equal, split(state.params, frozen)[1], split(start.params, frozen)[1])
    trained = jax.tree.map(lambda old, new: bool(np.any(old != new)), *(split(s.params, frozen)[0] for s in (start, state)))
    assert all(jax.tree.leaves(trained)), trained


def test_a_trained_pattern_that_matches_nothing_is_refused():
    with pytest.raises(UserError, match="lora.trained '\\^top/' matches no parameter: they are blocks/"):
        adapted(trained="^top/").frozen
