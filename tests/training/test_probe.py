import jax
import numpy as np
import pytest

from research import build, measure
from research.core.errors import UserError
from research.training import probe
from tests.tiny import tiny_config


def clouds(n, seed, apart=4.0):
    """Three clouds of points in eight dimensions, far apart in direction."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, n).astype(np.int32)
    return (rng.normal(size=(n, 8)) + apart * np.eye(8)[label]).astype(np.float32), label


@pytest.mark.parametrize("apart, least, most", [(4.0, 0.95, 1.0), (0.0, 0.15, 0.5)])
def test_labels_are_found_where_embeddings_know_them(apart, least, most):
    train, validation = clouds(200, 0, apart), clouds(200, 1, apart)
    figures = probe.knn(train, validation, 10), probe.linear(train, validation)
    assert all(least <= figure <= most for figure in figures), figures


def test_the_vote_against_a_loop():
    (x, label), (y, wanted) = clouds(60, 0, 1.0), clouds(40, 1, 1.0)
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    nearest = np.argsort(-unit(y) @ unit(x).T, axis=1)[:, :5]
    found = np.array([np.bincount(label[row], minlength=3).argmax() for row in nearest])
    assert probe.knn((x, label), (y, wanted), 5) == pytest.approx((found == wanted).mean())
    assert probe.knn((100 * x, label), (y, wanted), 5) == probe.knn((x, label), (y, wanted), 5), "only direction counts"


def test_filler_is_left_out():
    batches = [(np.full((2, 3), i, np.float32), np.array([i, 7], np.int32), np.array([True, i < 2])) for i in range(3)]
    x, label = probe.collect(lambda params, batch: batch, None, batches)
    assert x[:, 0].tolist() == [0, 0, 1, 1, 2] and label.tolist() == [0, 7, 1, 7, 2]


def test_one_class_is_no_probe():
    batch = (np.zeros((4, 2), np.float32), np.zeros(4, np.int32), np.ones(4, bool))
    with pytest.raises(UserError, match="classes"):
        probe.collect(lambda params, batch: batch, None, [batch])


def image_config(**changes):
    vit = dict(model__name="vit", model__image_size=8, model__patch_size=4, model__norm="pre", model__pool="mean", model__class_token=False)
    data = dict(
        data__name="tests.tiny_images:TinyImages", data__source="labelled_images", objective__name="image_classification", objective__classes=3
    )
    return tiny_config(**vit, **data, probe__evaluators=("knn", "linear"), probe__neighbors=3, **changes)


@pytest.fixture(scope="module")
def figures(cache):
    """{(fsdp, tensor): what an evaluation measures}"""

    def measured(mesh):
        config = image_config(mesh__fsdp=mesh[0], mesh__tensor=mesh[1])
        devices = jax.devices()[: mesh[0] * mesh[1]]
        corpus = build.make_corpus(config, cache)
        e = build.experiment(config, corpus.vocabulary, devices)
        params = jax.jit(e.init, out_shardings=e.shardings)().params
        with e.in_force():
            found, other = (measure.evaluator(e, corpus, split, None)(params) for split in ("validation", "train"))
        return found, other, corpus.manifest

    return {mesh: measured(mesh) for mesh in [(1, 1), (4, 2)]}


def test_an_evaluation_probes_the_validation_split(figures):
    found, other, manifest = figures[1, 1]
    assert {"loss", "accuracy", "knn_accuracy", "linear_accuracy"} == set(found) and "knn_accuracy" not in other
    assert found["linear_accuracy"] > 0.6, "a patch embedding of random weights tells three colours apart"
    assert {"probe/train", "probe/validation"} <= manifest.keys()


def test_eight_devices_find_what_one_does(figures):
    assert figures[4, 2][0] == pytest.approx(figures[1, 1][0], abs=1e-4)


def test_the_limit_chooses_at_random_but_always_the_same(cache):
    config = image_config(probe__limit=7)
    corpus = build.make_corpus(config, cache)
    labels = [[int(x["label"]) for x in measure.probe_examples(config, corpus, "train")] for _ in range(2)]
    assert labels[0] == labels[1] and len(labels[0]) == 7 and labels[0] != [0, 1, 2, 0, 1, 2, 0]


def test_a_probe_has_fields_of_its_own(cache):
    config = image_config(data__image_field="other", data__label_field="other", probe__image_field="image", probe__label_field="label")
    assert set(measure.probe_examples(config, build.make_corpus(config, cache), "train")[0]) == {"image", "label"}
    with pytest.raises(UserError, match="data.image_field is 'other'"):
        measure.probe_examples(image_config(data__image_field="other"), build.make_corpus(config, cache), "train")


@pytest.mark.parametrize(
    "changes, says",
    [({"probe__evaluators": ("knm",)}, "knn, linear"), ({"run__best_metric": "validation/knm_accuracy"}, "knn_accuracy")],
)
def test_what_there_is_not_is_named(changes, says):
    with pytest.raises(UserError, match=says):
        build.experiment(tiny_config(**{"probe__evaluators": ("knn",)} | changes), devices=jax.devices()[:1])
