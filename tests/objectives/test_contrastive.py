"""Each loss against a double loop in NumPy, its gradient against that of a naive form, and one device against eight."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from research import build
from research.core import linen, sharding
from research.core.errors import UserError
from research.core.types import Vocabulary, loss_value, view
from research.models.bert import Bert
from research.models.two_tower import TwoTower, unit
from research.models.vit import Vit, VitConfig
from research.objectives import similarity
from research.objectives.contrastive import Clip, NtXent, SigLip, SimCse
from tests.tiny import tiny_config, transformer_config

VALID = np.array([True, True, False, True, True, False])
T, E = 0.3, 4
N = 48  # of batches; no other size in these models is that
COUNTED = np.arange(N) % 5 != 2
TEXT = transformer_config(pool="mean", layers=1)
IMAGE = transformer_config(VitConfig, image_size=8, channels=1, patch_size=4, pool="mean", layers=1)
WORDS = Vocabulary(size=11, continues=(False,) * 11, pad=0, cls=2, sep=3, mask=4, end=3)
PAIRS = TwoTower(Vit(IMAGE), Bert(TEXT), E, temperature=0.1)


def rows(n=3, count=len(VALID), seed=0):
    x = np.random.default_rng(seed).normal(size=(n, count, E))
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def log_sum_exp(values):
    return np.log(np.sum(np.exp(np.asarray(values, np.float64))))


def by_hand(name, a, b, c, valid, scale=1 / T, bias=-1.5):
    """The mean loss over valid rows, by loops."""
    kept = np.flatnonzero(valid)
    losses = []
    for i in kept:
        if name == "nt_xent":
            for x, y in ((a, b), (b, a)):
                others = [x[i] @ y[j] * scale for j in kept] + [x[i] @ x[j] * scale for j in kept if j != i]
                losses.append(log_sum_exp(others) - x[i] @ y[i] * scale)
        if name == "info_nce":
            across, down = log_sum_exp([a[i] @ b[j] * scale for j in kept]), log_sum_exp([a[j] @ b[i] * scale for j in kept])
            losses.append((across + down) / 2 - a[i] @ b[i] * scale)
        if name == "pairwise_sigmoid":
            logits = [(1 if i == j else -1) * (a[i] @ b[j] * scale + bias) for j in kept]
            losses.append(sum(np.log1p(np.exp(-x)) for x in logits))
        if name == "entailment":
            others = [a[i] @ b[j] * scale for j in kept] + [a[i] @ c[j] * scale for j in kept]
            losses.append(log_sum_exp(others) - a[i] @ b[i] * scale)
    return np.mean(losses)


def computed(name, a, b, c, valid):
    count = jnp.sum(valid)
    if name == "nt_xent":
        return jnp.sum(similarity.nt_xent(a, b, T, valid)[0] * valid) / (2 * count)
    if name == "info_nce":
        return jnp.sum(sum(similarity.info_nce(similarity.similarities(a, b) / T, valid)) * valid) / (2 * count)
    if name == "pairwise_sigmoid":
        return jnp.sum(similarity.pairwise_sigmoid(similarity.similarities(a, b) / T - 1.5, valid) * valid) / count
    return jnp.sum(similarity.own_among([similarity.similarities(a, x) / T for x in (b, c)], valid)[0] * valid) / count


LOSSES = ("nt_xent", "info_nce", "pairwise_sigmoid", "entailment")


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients_are_those_of_the_loops(name):
    views = rows()
    loss, grads = jax.jit(jax.value_and_grad(lambda views: computed(name, *views, VALID)))(jnp.asarray(views, jnp.float32))
    np.testing.assert_allclose(loss, by_hand(name, *views, VALID), rtol=1e-5)
    expected = np.zeros_like(views)
    for at in np.ndindex(views.shape):
        step = np.zeros_like(views)
        step[at] = 1e-5
        expected[at] = (by_hand(name, *(views + step), VALID) - by_hand(name, *(views - step), VALID)) / 2e-5
    np.testing.assert_allclose(grads, expected, rtol=1e-4, atol=1e-5)
    assert not np.asarray(grads)[:, ~VALID].any() and abs(expected[:2]).max() > 0.1


OBJECTIVES = {
    "nt_xent": NtXent(Vit(IMAGE), 16, 7, temperature=T, projection_width=5),
    "clip": Clip(PAIRS, 16, 7, WORDS),
    "siglip": SigLip(PAIRS, 16, 7, WORDS),
    "simcse": SimCse(Bert(transformer_config(pool="mean", layers=1, dropout=0.1)), WORDS, 16, 7, projection_width=5),
    "simcse/supervised": SimCse(Bert(TEXT), WORDS, 16, 7, projection_width=5, supervised=True),
}


@pytest.fixture(scope="module")
def params():
    return {name: jax.jit(objective.init)(jax.random.key(0)) for name, objective in OBJECTIVES.items()}


def make_batch(objective, valid, seed=0):
    rng, batch = np.random.default_rng(seed), {}
    for name, x in objective.example_batch.items():
        shape = (len(valid), *x.shape[1:])
        highest = {"image": 256, "tokens": 11}.get(name.rpartition("/")[2], 2)
        batch[name] = np.ones(shape, bool) if x.dtype == bool else rng.integers(0, highest, shape).astype(x.dtype)
    return batch | {"valid": valid}


@functools.partial(jax.jit, static_argnums=0)
def measured(objective, params, batch, rng=None):
    """(loss, metrics, gradients)"""

    def loss(params):
        terms, metrics = objective.loss_fn(params, batch, rng)
        return loss_value(terms), {name: x.value for name, x in metrics.items()}

    (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(params)
    return value, metrics, grads


def embedded(objective, params, batch):
    """The views of a batch as the loss sees them, without dropout, in float64."""
    if isinstance(objective, (Clip, SigLip)):
        return [np.asarray(x, np.float64) for x in linen.apply(objective.model, params, None, batch, method="towers")[:2]]
    shown = [linen.apply(objective.model, params, None, view(batch, name), method="embed") for name in objective.views]
    shown = [linen.apply(objective.head, params["projection"], None, x) for x in shown]
    return [np.asarray(unit(np.tanh(x) if isinstance(objective, SimCse) else x), np.float64) for x in shown]


@pytest.mark.parametrize("name", ["nt_xent", "clip", "siglip", "simcse/supervised"])
def test_objectives_are_the_loops_over_what_their_models_embed(name, params):
    objective, params = OBJECTIVES[name], params[name]
    batch = make_batch(objective, COUNTED)
    loss, _, grads = measured(objective, params, batch)
    views = embedded(objective, params, batch)
    kind = {"clip": "info_nce", "siglip": "pairwise_sigmoid", "simcse/supervised": "entailment"}.get(name, name)
    scale, bias = {"nt_xent": (1 / 0.3, 0), "clip": (10, 0), "siglip": (10, -10), "simcse/supervised": (20, 0)}[name]
    np.testing.assert_allclose(loss, by_hand(kind, *views, *[None] * (3 - len(views)), COUNTED, scale, bias), rtol=2e-5)
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(grads) if x.ndim == 0), "scale and bias are learned"


@pytest.mark.parametrize("name", OBJECTIVES)
def test_rows_that_are_not_valid_weigh_nothing(name, params):
    objective = OBJECTIVES[name]
    batch, other = make_batch(objective, COUNTED), make_batch(objective, COUNTED, seed=1)
    other = {key: np.where(COUNTED.reshape(-1, *[1] * (x.ndim - 1)), batch[key], x) for key, x in other.items()}
    found, wanted = (measured(objective, params[name], b) for b in (other, batch))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, wanted)
    nothing = measured(objective, params[name], batch | {"valid": np.zeros(N, bool)})
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(nothing)) and nothing[0] == 0


MESH = {"pipeline": 1, "data": 2, "fsdp": 4, "context": 1, "tensor": 1}


def on_eight(objective, batch, params, rng):
    """(loss, metrics, gradients) of a batch split over eight devices, and the text of what was compiled."""
    mesh, rules = sharding.make_mesh(MESH), sharding.make_rules("fsdp_tp")
    split = sharding.batch_sharding(mesh, rules, len(batch["valid"]))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    with jax.set_mesh(mesh), nn.logical_axis_rules(rules):
        step = jax.jit(lambda params, batch: measured.__wrapped__(objective, params, batch, rng), in_shardings=(whole, split))
        compiled = step.lower(params, batch).compile()
        return compiled(params, sharding.place_batch(batch, split, len(batch["valid"]))), compiled.as_text()


def matrices(text):
    """The shapes (N, N), or of both views (2N, 2N), that a program for one device has."""
    return re.findall(rf"\b\w+\[(?:\d+,)*(?:{N},{N}|{2 * N},{2 * N}|{N},{2 * N}|{2 * N},{N})\]", text)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name.startswith("simcse") else ()) for name in OBJECTIVES])
def test_one_device_equals_eight_and_none_holds_all_similarities(name, params):
    objective = OBJECTIVES[name]
    batch = make_batch(objective, COUNTED)
    rng = jax.random.key(3) if name == "simcse" else None
    found, text = on_eight(objective, batch, params[name], rng)
    wanted = measured(objective, params[name], batch, rng)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), jax.device_get(found), jax.device_get(wanted))
    assert re.search(rf"f32\[{N // 8},{N}\]", text) and not matrices(text)


def test_a_matrix_held_whole_would_be_seen(params, monkeypatch):
    held = lambda x, *axes: sharding.constrain(x, *[None] * len(axes)) if axes == ("batch", None) else sharding.constrain(x, *axes)
    monkeypatch.setattr(similarity, "constrain", held)
    assert matrices(on_eight(OBJECTIVES["clip"], make_batch(OBJECTIVES["clip"], np.ones(N, bool)), params["clip"], None)[1])


def test_recall_counts_what_is_found_and_ties_are_misses():
    x = jnp.array([[3.0, 1, 2, 9], [4, 4, 1, 9], [0, 5, 1, 9], [9, 9, 9, 0]])
    valid = np.array([True, True, True, False])
    found = {name: (float(x.total), float(x.count)) for name, x in similarity.recalls(x, valid, ("image", "text")).items()}
    assert found == {
        "in_batch_image_to_text_recall_at_1": (1, 3),
        "in_batch_text_to_image_recall_at_1": (0, 3),
        "in_batch_image_to_text_recall_at_5": (3, 3),
        "in_batch_text_to_image_recall_at_5": (3, 3),
    }
    many = jnp.eye(9) + 2 * (np.arange(9)[:, None] == 0) * (np.arange(9) > 3)  # five texts are nearer to the first image than its own
    assert similarity.recalls(many, np.ones(9, bool), ("a", "b"))["in_batch_a_to_b_recall_at_5"].total == 8
    collapsed = similarity.recalls(jnp.ones((9, 9)), np.ones(9, bool), ("a", "b"))
    assert all(mean.total == 0 for mean in collapsed.values())


def test_alignment_and_uniformity():
    a, b, _ = rows()
    kept = np.flatnonzero(VALID)
    np.testing.assert_allclose(similarity.alignment(a, b, VALID).value, np.mean([((a[i] - b[i]) ** 2).sum() for i in kept]), rtol=1e-5)
    pairs = [np.exp(-2 * ((a[i] - a[j]) ** 2).sum()) for i in kept for j in kept if i != j]
    np.testing.assert_allclose(similarity.uniformity(jnp.asarray(a, jnp.float32), VALID).value, np.log(np.mean(pairs)), rtol=1e-5)


def test_clip_s_scale_stops_at_a_hundred_and_comes_back(params):
    batch = make_batch(OBJECTIVES["clip"], COUNTED)
    at = lambda scale, sign: jax.grad(lambda x: sign * similarity.at_most(x, 2.0))(scale)
    assert [at(1.0, 1), at(1.0, -1), at(2.5, 1), at(2.5, -1)] == [1, -1, 1, 0]
    found = [measured(OBJECTIVES["clip"], params["clip"] | {"log_scale": np.float32(x)}, batch)[1]["scale"] for x in (np.log(50), 9)]
    np.testing.assert_allclose(found, [50, 100], rtol=1e-5)


def test_simcse_draws_two_dropouts_in_training_and_the_same_in_each_evaluation(params):
    objective, batch = OBJECTIVES["simcse"], make_batch(OBJECTIVES["simcse"], COUNTED)
    first, second = (measured(objective, params["simcse"], batch, jax.random.key(i)) for i in (1, 2))
    assert first[0] != second[0] and first[1]["alignment"] > 1e-3
    once, again = (measured(objective, params["simcse"], batch) for _ in range(2))
    assert once[0] == again[0] and once[1]["alignment"] > 1e-3 and once[1].keys() == first[1].keys() | {"uniformity"}


def test_the_parameters_are_those_of_the_model_and_a_head(params):
    assert params["nt_xent"].keys() == {"patch", "class_token", "position", "encoder", "projection"}
    assert params["siglip"].keys() == params["clip"].keys() | {"bias"} and params["siglip"]["bias"] == -10
    np.testing.assert_allclose(np.exp(params["siglip"]["log_scale"]), 10, rtol=1e-6)
    for name, objective in OBJECTIVES.items():
        jax.tree.map(lambda x, axes: x.ndim == len(axes) or pytest.fail(name), params[name], objective.logical_axes)
        assert not objective.separable


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: NtXent(PAIRS, 16, 7), "NtXent shows all views to one model"),
        (lambda: Clip(Bert(TEXT), 16, 7), "Clip is of pairs: choose model.name=two_tower"),
        (lambda: SimCse(Bert(TEXT), WORDS, 16, 7), "model.dropout is 0"),
    ],
)
def test_objectives_of_the_wrong_model_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_two_towers_of_images_need_no_tokenizer():
    tower = {"name": "vit", "image_size": 8, "patch_size": 4, "norm": "pre"}
    changes = {f"model__{view}__{name}": value for view in ("first", "second") for name, value in tower.items()}
    config = tiny_config(model__name="two_tower", objective__name="clip", data__source="image_views", **changes)
    assert not build.has_vocabulary(config) and build.objective(config).example_batch.keys() == {"first/image", "second/image", "valid"}
    assert build.has_vocabulary(tiny_config(model__name="two_tower", objective__name="clip"))
