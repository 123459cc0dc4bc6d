import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.core.errors import UserError
from research.core.types import Vocabulary, loss_value
from research.models.bert import Bert
from research.models.gpt import Gpt
from research.models.vit import Vit, VitConfig
from research.objectives import supervised
from research.objectives.losses import cross_entropy
from research.objectives.supervised import ImageClassification, QuestionAnswering, SequenceClassification, SequenceRegression, TokenClassification
from tests.tiny import transformer_config

V = Vocabulary(size=11, pad=0, cls=2, sep=3, mask=4, end=3, continues=(False,) * 11)
B, T = 6, 9
LENGTHS = np.array([9, 7, 5, 9, 6, 8])
VALID = np.arange(B) < B - 1


def text_batch(seed=0, **labels):
    """[CLS] a [SEP] b [SEP] and padding; the last row is filler."""
    rng = np.random.default_rng(seed)
    mask = np.arange(T) < LENGTHS[:, None]
    tokens = np.where(mask, rng.integers(5, 11, (B, T)), 0).astype(np.int32)
    return {"tokens": tokens, "token_types": (mask & (np.arange(T) > 2)).astype(np.int32), "mask": mask, "valid": VALID} | labels


def image_batch(seed=0):
    rng = np.random.default_rng(seed)
    return {"image": rng.integers(0, 256, (B, 8, 8, 3), np.uint8), "label": rng.integers(0, 7, B).astype(np.int32), "valid": VALID}


def text_objective(cls, model=Bert, **fields):
    return cls(model=model(transformer_config(norm="pre", pool="last")), vocabulary=V, batch_size=B, length=T, **fields)


def image_objective(**fields):
    config = transformer_config(VitConfig, norm="pre", pool="mean", class_token=False, image_size=8, patch_size=4, channels=3)
    return ImageClassification(model=Vit(config), batch_size=B, classes=7, **fields)


def log_softmax(x):
    x = np.asarray(x, np.float64)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def run(objective, batch, rng=None, params=None):
    params = jax.jit(objective.init)(jax.random.key(0)) if params is None else params
    return params, *jax.jit(objective.loss_fn)(params, batch, rng)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_against_numpy(smoothing):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(4, 5)), rng.integers(0, 5, 4)
    targets = np.full((4, 5), smoothing / 5) + (1 - smoothing) * np.eye(5)[labels]
    np.testing.assert_allclose(cross_entropy(jnp.float32(logits), labels, smoothing), -(targets * log_softmax(logits)).sum(-1), rtol=1e-5)


@pytest.mark.parametrize("model", [Bert, Gpt])
def test_the_class_of_a_text(model):
    objective = text_objective(SequenceClassification, model, classes=3)
    label = np.array([0, 1, 2, 2, 1, 0], np.int32)
    params, terms, metrics = run(objective, text_batch(label=label))
    pooled = jax.jit(lambda: objective.model.apply({"params": params}, text_batch(), method="embed"))()
    logits = np.asarray(pooled @ params["head"]["out"]["kernel"] + params["head"]["out"]["bias"])
    assert float(loss_value(terms)) == pytest.approx(-log_softmax(logits)[np.arange(5), label[:5]].mean(), rel=1e-4)
    assert float(metrics["accuracy"].value) == pytest.approx((logits.argmax(-1) == label)[:5].mean())
    assert list(metrics) == ["accuracy"], "the first five of three classes say nothing"
    found = jax.jit(objective.predict)(params, text_batch())["probabilities"]
    np.testing.assert_allclose(np.log(found), log_softmax(logits), atol=1e-5)


def test_a_score():
    objective = text_objective(SequenceRegression)
    label = np.linspace(-1, 3, B).astype(np.float32)
    params, terms, metrics = run(objective, text_batch(label=label))
    score = np.asarray(jax.jit(objective.predict)(params, text_batch())["score"])
    assert float(loss_value(terms)) == pytest.approx(((score - label)[:5] ** 2).mean(), rel=1e-5)
    assert float(metrics["absolute_error"].value) == pytest.approx(abs(score - label)[:5].mean(), rel=1e-5)


def test_labels_of_words():
    objective = text_objective(TokenClassification, classes=3)
    labels = np.random.default_rng(1).integers(-1, 3, (B, T)).astype(np.int32)
    params, terms, metrics = run(objective, text_batch(labels=labels))
    probabilities = np.asarray(jax.jit(objective.predict)(params, text_batch())["probabilities"])
    counted = [(row, t) for row in range(B - 1) for t in range(T) if labels[row, t] >= 0]
    assert terms["classification_loss"].count == len(counted)
    assert float(loss_value(terms)) == pytest.approx(np.mean([-np.log(probabilities[row, t, labels[row, t]]) for row, t in counted]), rel=1e-4)
    assert float(metrics["accuracy"].value) == pytest.approx(np.mean([probabilities[row, t].argmax() == labels[row, t] for row, t in counted]))


def test_answers_against_a_loop():
    objective = dataclasses.replace(text_objective(QuestionAnswering))
    start, end = np.array([3, 4, 0, 5, 3, 3], np.int32), np.array([5, 5, 0, 7, 4, 3], np.int32)
    batch = text_batch(start=start, end=end)
    params, terms, metrics = run(objective, batch)
    hidden = jax.jit(lambda: objective.model.apply({"params": params}, batch, method="encode"))()
    logits = np.asarray(hidden @ params["head"]["out"]["kernel"] + params["head"]["out"]["bias"], np.float64)
    losses, best = [], []
    for row, length in enumerate(LENGTHS):
        s, e = log_softmax(logits[row, :length, 0]), log_softmax(logits[row, :length, 1])
        losses.append([-s[start[row]], -e[end[row]]])
        spans = [(0, 0)] + [(i, j) for i in range(3, length - 1) for j in range(i, length - 1)]
        best.append(max(spans, key=lambda span: s[span[0]] + e[span[1]]))
    assert [float(terms[name].value) for name in ("start_loss", "end_loss")] == pytest.approx(np.mean(losses[:5], 0).tolist(), rel=1e-4)
    assert float(metrics["exact_match"].value) == pytest.approx(np.mean([span == (i, j) for span, i, j in zip(best, start, end)][:5]))
    found = jax.jit(objective.predict)(params, batch)
    assert list(zip(np.asarray(found["start"]).tolist(), np.asarray(found["end"]).tolist())) == best


def test_an_answer_is_no_longer_than_the_longest():
    objective = text_objective(QuestionAnswering)
    peak = lambda t: jnp.where(jnp.arange(T) == t, 0.0, -9.0)[None]
    inputs = {name: x[:1] for name, x in text_batch().items()}
    span = lambda i, j: [int(x[0]) for x in objective.best_span(peak(i), peak(j), inputs)[:2]]
    assert span(3, 6) == [3, 6] and span(6, 3) != [6, 3], "an answer does not end before it begins"
    assert span(0, 0) == [0, 0], "there may be none"
    object.__setattr__(objective, "longest", 3)
    assert span(3, 5) == [3, 5] and span(3, 6) != [3, 6]


@pytest.mark.parametrize("fields", [{"mixup": 0.5}, {"cutmix": 1.0}, {"mixup": 0.5, "cutmix": 1.0}])
def test_labels_weigh_what_there_is_of_each_image(fields):
    """Of images of one value each, a mixed one's mean says how much of which it has."""
    objective = image_objective(**fields)
    value = np.array([10, 60, 90, 140, 200, 250], np.uint8)
    image = np.broadcast_to(value[:, None, None, None], (B, 8, 8, 3))
    label = np.arange(B, dtype=np.int32)
    mix = jax.jit(objective.mix)
    weights = []
    for seed in range(30):
        mixed, other, weight = (np.asarray(x) for x in mix(image, label, VALID, jax.random.key(seed)))
        np.testing.assert_allclose(mixed.mean((1, 2, 3)), weight * value[label] + (1 - weight) * value[other], rtol=1e-4)
        assert weight[0] == weight[-1] == 1, "filler is mixed with nothing: the last row, and the first, which comes after it"
        assert (0 <= weight).all() and (weight <= 1).all() and (other[1:] == label[:-1]).all()
        weights.append(weight[1:-1])
    assert len(np.unique(np.round(weights, 4))) > 10 and 0.3 < np.mean(weights) < 0.85
    mixed = np.concatenate([np.asarray(mix(image, label, VALID, jax.random.key(seed))[0])[1:-1] for seed in range(30)])
    share_pasted = np.mean([len(np.unique(row.round(2))) == 2 for row in mixed])
    assert share_pasted == 0 if "cutmix" not in fields else share_pasted > (0.2 if "mixup" in fields else 0.6)


def test_boxes_are_of_the_drawn_area_and_clipped():
    box = np.asarray(supervised.boxes(jax.random.key(0), 1.0, 4000, 32, 32))
    rows, columns = box.any(2), box.any(1)
    np.testing.assert_array_equal(box, rows[:, :, None] & columns[:, None])
    assert (np.abs(np.diff(rows.astype(int), axis=1)).sum(1) <= 2).all(), "one box each"
    inner = rows[:, 1:-1].any(1) & columns[:, 1:-1].any(1) & ~rows[:, [0, -1]].any(1) & ~columns[:, [0, -1]].any(1)
    assert (rows.sum(1) == columns.sum(1))[inner].all() and inner.sum() > 200, "square where no edge cuts it"
    assert (rows.sum(1) != columns.sum(1))[~inner].mean() > 0.3, "cut off at the edges"
    assert 0.2 < box.mean() < 0.45


def test_the_mixed_loss_is_of_both_labels():
    objective = image_objective(mixup=0.8, label_smoothing=0.1)
    batch, rng = image_batch(), jax.random.key(3)
    params = jax.jit(objective.init)(jax.random.key(0))
    params["head"]["out"]["kernel"] = 0.3 * jax.random.normal(jax.random.key(1), (12, 7))
    _, terms, metrics = run(objective, batch, rng, params)
    rest, mix_rng = jax.random.split(rng)
    image, other, weight = jax.jit(objective.mix)(batch["image"], batch["label"], batch["valid"], mix_rng)
    logits = jax.jit(objective.logits)(params, {"image": image}, rest)
    targets = np.asarray(weight)[:, None] * np.eye(7)[batch["label"]] + (1 - np.asarray(weight))[:, None] * np.eye(7)[other]
    targets = 0.9 * targets + 0.1 / 7
    assert float(loss_value(terms)) == pytest.approx(-(targets * log_softmax(logits)).sum(-1)[:5].mean(), rel=1e-4)
    assert metrics["accuracy"].count == 5 and list(metrics) == ["accuracy", "top_5_accuracy"]
    assert 0 <= float(metrics["accuracy"].value) <= float(metrics["top_5_accuracy"].value) <= 1


def test_evaluation_mixes_nothing_and_training_does():
    objective, batch = image_objective(mixup=0.8, cutmix=1.0), image_batch()
    params = jax.jit(objective.init)(jax.random.key(0))
    params["head"]["out"]["kernel"] = 0.3 * jax.random.normal(jax.random.key(1), (12, 7))
    losses = [
        float(loss_value(run(what, batch, rng, params)[1]))
        for what, rng in [(objective, None), (image_objective(), None), (objective, jax.random.key(0))]
    ]
    assert losses[0] == losses[1] != losses[2]


def test_filler_counts_for_nothing():
    objective = text_objective(SequenceClassification)
    batch = text_batch(label=np.array([0, 1, 0, 1, 1, 0], np.int32))
    other = batch | {"label": np.where(VALID, batch["label"], 1).astype(np.int32), "tokens": np.where(VALID[:, None], batch["tokens"], 5)}
    params, *before = run(objective, batch)
    jax.tree.map(np.testing.assert_array_equal, before, list(run(objective, other, None, params)[1:]))


@pytest.mark.parametrize(
    "objective",
    [text_objective(SequenceClassification), text_objective(TokenClassification, Gpt), text_objective(QuestionAnswering), image_objective()],
    ids=lambda what: type(what).__name__,
)
def test_axes_name_each_dimension_and_a_pretrained_backbone_fits(objective):
    shapes = jax.eval_shape(objective.init, jax.random.key(0))
    jax.tree.map(lambda shape, axes: len(shape.shape) == len(axes) or pytest.fail(str(axes)), shapes, objective.logical_axes)
    inputs = {name: jnp.zeros(x.shape, x.dtype) for name, x in objective.model.inputs(1, T).items()}
    whole = jax.eval_shape(lambda: objective.model.init(jax.random.key(0), inputs, method="embed"))["params"]
    assert set(shapes) - {"head"} <= set(whole) and "head" in shapes


@pytest.mark.parametrize(
    "make",
    [
        lambda: text_objective(SequenceClassification, classes=1),
        lambda: text_objective(SequenceClassification, label_smoothing=1.0),
        lambda: image_objective(mixup=-1.0),
        lambda: dataclasses.replace(image_objective(), model=Bert(transformer_config())),
        lambda: dataclasses.replace(text_objective(SequenceRegression), model=image_objective().model),
    ],
)
def test_what_makes_no_sense_is_refused(make):
    with pytest.raises(UserError):
        make()
