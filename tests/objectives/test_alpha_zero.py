import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.core.errors import UserError
from research.core.types import loss_value
from research.models.bert import Bert
from research.models.resnet import ResNet
from research.models.vit import Vit
from research.objectives.alpha_zero import AlphaZero
from research.objectives.symmetry import SYMMETRIES, transform
from tests.tiny import transformer_config, vit_config

B, A = 6, 10  # the nine cells, and passing
BOARD = dict(
    image_size=3, channels=2, patch_size=1, class_token=False, pool="mean", pixel_mean=(0.0,), pixel_stddev=(1 / 255,), layers=1, width=8, heads=2
)


def batch_of(seed=0, rows=B):
    """Positions of which some moves are not allowed, and the last row is not valid."""
    rng = np.random.default_rng(seed)
    legal = rng.random((rows, A)) < 0.6
    legal[:, -1] = True
    policy = rng.dirichlet(np.ones(A), rows) * legal
    image = rng.integers(0, 2, (rows, 3, 3, 2)).astype(np.uint8)
    value = np.resize([1, 0, -1], rows).astype(np.float32)
    valid = np.arange(rows) < rows - 1
    return {"image": image, "policy": np.float32(policy / policy.sum(1, keepdims=True)), "legal": legal, "value": value, "valid": valid}


BATCH = batch_of()


def objective_of(cls=AlphaZero, model=ResNet, board=BOARD, **changes):
    return cls(model=model(vit_config(**board)), batch_size=B, actions=A, **changes)


@functools.partial(jax.jit, static_argnums=0)
def measured(what, params, batch, rng=None):
    return what.loss_fn(params, batch, rng)


@functools.partial(jax.jit, static_argnums=0)
def gradient(what, params, batch, rng=None):
    return jax.grad(lambda params: loss_value(what.loss_fn(params, batch, rng)[0]))(params)


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32), jax.eval_shape(objective_of().init, jax.random.key(0)))


def test_the_loss_is_cross_entropy_over_legal_moves_and_squared_error(params):
    """In NumPy, one row after another, from what the network gives."""
    what = objective_of(value_weight=0.25)
    terms, metrics = measured(what, params, BATCH)
    found = jax.jit(what.predict)(params, {"image": BATCH["image"]})
    assert found["policy"].shape == (B, A) and found["policy"].dtype == found["value"].dtype == jnp.float32
    logits, values = np.asarray(found["policy"], np.float64), np.asarray(found["value"], np.float64)
    cross_entropies, errors, entropies, agree, best = [], [], [], [], []
    for row in range(B - 1):
        legal, target = np.flatnonzero(BATCH["legal"][row]), BATCH["policy"][row].astype(np.float64)
        log_p = logits[row, legal] - np.log(np.exp(logits[row, legal]).sum())
        cross_entropies.append(-(target[legal] * log_p).sum())
        entropies.append(-sum(target[a] * np.log(target[a]) for a in legal))
        errors.append((values[row] - BATCH["value"][row]) ** 2)
        best.append(legal[log_p.argmax()] == target.argmax())
        if BATCH["value"][row]:
            agree.append(values[row] * BATCH["value"][row] > 0)
    expected = {"policy_loss": np.mean(cross_entropies), "value_loss": 0.25 * np.mean(errors)}
    assert {name: float(mean.total / mean.count) for name, mean in terms.items()} == pytest.approx(expected, rel=1e-5)
    assert abs(values).max() < 1 and len(set(agree)) == 2, "a case that tells signs apart"
    expected = {
        "policy_divergence": np.mean(np.subtract(cross_entropies, entropies)),
        "move_accuracy": np.mean(best),
        "value_sign_accuracy": np.mean(agree),
    }
    assert {name: float(mean.total / mean.count) for name, mean in metrics.items()} == pytest.approx(expected, rel=1e-4)


def test_what_is_not_allowed_or_not_valid_is_not_learned_from(params):
    """Not even where a row that is not valid holds nonsense."""
    what, other = objective_of(), {name: x.copy() for name, x in BATCH.items()}
    other["image"][-1], other["policy"][-1], other["value"][-1] = 1, 0.7, -5
    jax.tree.map(np.testing.assert_array_equal, gradient(what, params, BATCH), gradient(what, params, other))
    nothing = gradient(what, params, BATCH | {"valid": np.zeros(B, bool)})
    assert not any(x.any() for x in jax.tree.leaves(nothing))
    only_pass = np.arange(A) == A - 1
    grads = gradient(what, params, BATCH | {"legal": BATCH["legal"] & ~(np.arange(A) == 4), "policy": np.float32(only_pass)[None].repeat(B, 0)})
    bias_A = grads["policy"]["out"]["bias"]
    assert bias_A[4] == 0 and (abs(bias_A[np.arange(A) != 4]) > 0).any()


def test_every_parameter_is_trained_and_named():
    for model in (ResNet, Vit):
        what = objective_of(model=model)
        params = jax.jit(what.init)(jax.random.key(0))
        grads = gradient(what, params, BATCH)
        still = [jax.tree_util.keystr(path) for path, x in jax.tree_util.tree_leaves_with_path(grads) if not (abs(x) > 0).any()]
        assert [name for name in still if "key" not in name] == []
        assert jax.tree.map(len, what.logical_axes, is_leaf=lambda x: isinstance(x, tuple)) == jax.tree.map(jnp.ndim, params)
        found = jax.jit(what.predict)(params, {"image": BATCH["image"]})
        assert abs(found["policy"]).max() < 2 and abs(found["value"]).max() < 0.9, "it begins undecided"


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_moves_go_where_their_cells_go(symmetry):
    """A stone on each cell in turn, with the move there: whatever is done to the board is done to both, and passing stays."""
    for which in range(len(SYMMETRIES[symmetry])):
        images, moves = np.eye(9).reshape(9, 3, 3, 1), np.eye(10)[:9]
        moved = jax.vmap(lambda image, policy: transform(symmetry, which, {"image": image, "policy": policy}))(images, moves)
        np.testing.assert_array_equal(moved["policy"][:, :9], moved["image"].reshape(9, 9))
        np.testing.assert_array_equal(np.sort(moved["policy"][:, :9].argmax(1)), np.arange(9))
        passing = transform(symmetry, which, {"image": images[0], "policy": np.eye(10)[9]})["policy"]
        np.testing.assert_array_equal(passing, np.eye(10)[9])


def test_columns_change_places_with_the_board():
    image, columns = np.arange(42).reshape(6, 7, 1), np.arange(7)
    moved = transform("reflection", 1, {"image": image, "policy": columns})
    assert moved["policy"].tolist() == [6, 5, 4, 3, 2, 1, 0] and moved["image"][0, :, 0].tolist() == [6, 5, 4, 3, 2, 1, 0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Symmetric(AlphaZero):
    """A network that says of a turned board what it says of the board, turned: how many stones there are, and of each cell what is on it."""

    def predict(self, params, inputs, rng=None):
        image_BHWC = inputs["image"].astype(jnp.float32)
        cells_BN = (image_BHWC * params).sum(-1).reshape(len(image_BHWC), -1)
        return {"policy": jnp.concatenate([cells_BN, jnp.ones((len(cells_BN), 1))], 1), "value": jnp.tanh(cells_BN.sum(1))}


def test_turned_boards_have_the_loss_of_the_boards():
    """To a network to which they are alike; so image, policy and legal moves are turned together."""
    params = jnp.array([0.7, -1.3])
    plain, turned = (objective_of(Symmetric, symmetry=symmetry) for symmetry in ("none", "dihedral"))
    expected = measured(plain, params, BATCH, jax.random.key(0))
    for seed in range(3):
        found = measured(turned, params, BATCH, jax.random.key(seed))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)


def test_boards_are_turned_in_training_and_not_in_evaluation(params):
    plain, turned = objective_of(), objective_of(symmetry="dihedral")
    losses = [float(loss_value(measured(turned, params, BATCH, jax.random.key(seed))[0])) for seed in range(4)]
    assert len(set(losses)) == 4
    for rng in (None, jax.random.key(0)):
        assert loss_value(measured(plain, params, BATCH, rng)[0]) == loss_value(measured(turned, params, BATCH)[0])


@pytest.mark.parametrize("symmetry", ["reflection", "dihedral"])
def test_each_position_is_turned_in_its_own_way_and_each_way_as_often(symmetry):
    """A network takes note of the boards that it is given."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Telling(AlphaZero):
        def predict(self, params, inputs, rng=None):
            place_B = (inputs["image"][..., 0] * 2 ** jnp.arange(9).reshape(3, 3)).sum((1, 2)).astype(jnp.float32)
            jax.debug.callback(lambda places: seen.extend(places.tolist()), place_B)
            return {"policy": jnp.zeros((len(place_B), A)), "value": place_B * 0}

    seen: list = []
    batch = batch_of(rows=1600)
    batch["image"][:] = 0
    batch["image"][:, 0, 1, 0] = batch["image"][:, 0, 0, 0] = 1  # no transformation keeps these two
    objective_of(Telling, symmetry=symmetry).loss_fn({}, batch, jax.random.key(0))
    jax.effects_barrier()
    ways = len(SYMMETRIES[symmetry])
    counts = np.unique(seen, return_counts=True)[1]
    assert len(counts) == ways and (abs(counts - 1600 / ways) < 5 * (1600 / ways) ** 0.5).all()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"symmetry": "mirror"}, "objective.symmetry is 'mirror': choose one of none, reflection, half_turn, dihedral"),
        ({"board": BOARD | {"image_width": 4}, "symmetry": "dihedral"}, "turns a board of 3 x 4: it must be square"),
        ({"model": lambda _: Bert(transformer_config())}, "AlphaZero reads .*not text: choose model.name vit or resnet"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        objective_of(**changes)
