import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.core import linen
from research.core.errors import UserError
from research.core.types import loss_value
from research.models.bert import Bert
from research.models.vit import Vit
from research.objectives.masked_image import MaskedImage
from tests.tiny import transformer_config, vit_config

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1)).astype(np.uint8)
IMAGES[0, :2, :2] = 0  # a patch all of one colour
BATCH = {"image": IMAGES, "valid": np.array([True, True, True, False])}


def objective_of(cls=MaskedImage, **changes):
    fields = {"mask_rate": 0.75, "decoder_width": 8, "decoder_layers": 1, "decoder_heads": 2}
    return cls(Vit(vit_config(pool="mean", layers=1, class_token=False)), batch_size=4, **(fields | changes))


@dataclasses.dataclass(frozen=True)
class Fixed(MaskedImage):
    """With an order of the patches and targets that do not depend on the images."""

    order: tuple = tuple(range(16))

    def orders(self, image_BHWC, rng):
        return jnp.broadcast_to(jnp.array(self.order), (len(image_BHWC), 16))

    def targets(self, image_BHWC):
        return jnp.broadcast_to(jnp.arange(64.0).reshape(16, 4) % 7, (len(image_BHWC), 16, 4))


@functools.partial(jax.jit, static_argnums=0)
def loss_of(what, params, batch, rng=None):
    return loss_value(what.loss_fn(params, batch, rng)[0])


@pytest.fixture(scope="module")
def objective():
    return objective_of()


@pytest.fixture(scope="module")
def params(objective):
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), jax.eval_shape(objective.init, jax.random.key(0)))


def predicted(objective, params):
    order_BN = objective.orders(IMAGES, jax.random.key(0))
    hidden = linen.apply(objective.model, params, None, BATCH, order_BN[:, :4], method="encode_visible")
    return order_BN, linen.apply(objective.decoder, params["decoder"], None, hidden, order_BN)


def test_the_loss_is_that_of_hidden_patches_normalised(objective, params):
    """In NumPy, from what the two modules give for the visible patches."""
    terms, _ = jax.jit(objective.loss_fn)(params, BATCH, None)
    order, found = (np.asarray(x) for x in jax.jit(predicted, static_argnums=0)(objective, params))
    assert found.shape == (4, 12, 4)
    errors = []
    for row in range(3):  # the fourth is not valid
        for i, n in enumerate(order[row, 4:]):
            patch = IMAGES[row, 2 * (n // 4) : 2 * (n // 4) + 2, 2 * (n % 4) : 2 * (n % 4) + 2].reshape(-1) / 127.5 - 1
            errors.append(((found[row, i] - (patch - patch.mean()) / np.sqrt(patch.var() + 1e-6)) ** 2).mean())
    assert terms["reconstruction_loss"].count == len(errors) == 36
    assert float(loss_value(terms)) == pytest.approx(np.mean(errors), rel=1e-4)


def test_visible_patches_are_used_and_hidden_ones_are_not(params):
    what = objective_of(Fixed)
    images = {place: np.array(IMAGES) for place in ("visible", "hidden")}
    images["visible"][:, 0, 0] ^= 255  # of patch 0
    images["hidden"][:, 7, 7] ^= 255  # of patch 15
    before, visible, hidden = (loss_of(what, params, BATCH | {"image": x}) for x in (IMAGES, *images.values()))
    assert before == hidden and abs(before - visible) > 1e-4


def test_each_patch_is_predicted_at_its_own_place(params):
    """In whatever order the patches come, as long as the same are visible."""
    orders = [(0, 1, 2, 3, *range(4, 16)), (2, 0, 3, 1, *reversed(range(4, 16))), (0, 1, 2, 4, 3, *range(5, 16))]
    same, again, other = (loss_of(objective_of(Fixed, order=order), params, BATCH) for order in orders)
    assert float(same) == pytest.approx(float(again), rel=1e-5) and abs(same - other) > 1e-4


def test_filler_rows_weigh_nothing(objective, params):
    other = np.array(IMAGES)
    other[3] = 77
    assert loss_of(objective, params, BATCH) == loss_of(objective, params, BATCH | {"image": other})


def test_an_example_has_its_own_mask_wherever_it_stands(objective):
    key = jax.random.key(7)
    order = objective.orders(IMAGES, key)
    assert np.array_equal(np.sort(order, axis=1), np.broadcast_to(np.arange(16), (4, 16)))
    assert np.array_equal(objective.orders(IMAGES[::-1], key), order[::-1]) and len({tuple(row) for row in order.tolist()}) == 4
    assert not np.array_equal(objective.orders(IMAGES, jax.random.key(8)), order)
    moved = np.roll(IMAGES, 1, axis=2)
    assert not np.array_equal(objective.orders(moved, key), order), "the same pixels elsewhere are another image"


def test_evaluation_hides_the_same_and_training_does_not(objective, params):
    assert loss_of(objective, params, BATCH) == loss_of(objective, params, BATCH)
    assert loss_of(objective, params, BATCH, jax.random.key(1)) != loss_of(objective, params, BATCH, jax.random.key(2))


def test_every_parameter_is_trained_and_named():
    what = dataclasses.replace(objective_of(), model=Vit(vit_config(layers=1, class_token=True)))
    params = jax.jit(what.init)(jax.random.key(0))
    grads = jax.jit(jax.grad(lambda params: loss_value(what.loss_fn(params, BATCH, jax.random.key(0))[0])))(params)
    still = [jax.tree_util.keystr(path) for path, x in jax.tree_util.tree_leaves_with_path(grads) if not (abs(x) > 0).any()]
    # A bias of the keys moves all scores of a query alike, which the softmax undoes: its gradient is rounding noise or nothing.
    assert [name for name in still if "key" not in name] == []
    named = jax.tree.map(len, what.logical_axes, is_leaf=lambda x: isinstance(x, tuple))
    assert named == jax.tree.map(jnp.ndim, params)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"mask_rate": 0.0}, "leaves 16 visible"),
        ({"mask_rate": 1.0}, "leaves 0 visible"),
        ({"decoder_width": 10, "decoder_heads": 5}, "decoder_width 10"),
        ({"decoder_heads": 3}, "decoder_heads, 3"),
        ({"model": Vit(vit_config(pool="attention"))}, "no attention pooling"),
        ({"model": Bert(transformer_config())}, "choose model.name=vit"),
    ],
)
def test_what_cannot_be_is_refused(objective, changes, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(objective, **changes)
