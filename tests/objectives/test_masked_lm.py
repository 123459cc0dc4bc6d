import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import build
from research.core import config as config_lib
from research.core import linen
from research.core.errors import UserError
from research.core.types import Vocabulary
from research.models.bert import Bert
from research.objectives.masked_lm import MaskedLM
from tests.tiny import tiny_config

V = Vocabulary(size=64, pad=0, cls=2, sep=3, mask=4, continues=tuple(i >= 40 for i in range(64)))


def make_batch(size=6, length=32, seed=0):
    """Pairs of ragged length; the last row is filler."""
    rng = np.random.default_rng(seed)
    tokens, types = np.zeros((size, length), np.int32), np.zeros((size, length), np.int32)
    for row in range(size):
        a, b = rng.integers(3, 14, 2)
        tokens[row, : a + b + 3] = [2, *rng.integers(5, 64, a), 3, *rng.integers(5, 64, b), 3]
        types[row, a + 2 : a + b + 3] = 1
    return {"tokens": tokens, "token_types": types, "is_next": rng.integers(0, 2, size).astype(np.int32), "valid": np.arange(size) < size - 1}


@pytest.fixture(scope="module")
def objective():
    return dataclasses.replace(build.objective(tiny_config()), vocabulary=V)


@pytest.fixture(scope="module")
def params(objective):
    return jax.jit(objective.init)(jax.random.key(0))


def log_softmax(x):
    x = np.asarray(x, np.float64)
    return x - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True)) - x.max(-1, keepdims=True)


@pytest.mark.short
def test_both_losses_against_numpy(objective, params):
    batch = make_batch()
    terms, metrics = jax.jit(lambda: objective.loss_fn(params, batch, None))()
    masked, positions, chosen = jax.device_get(objective.hide(jnp.asarray(batch["tokens"]), jax.random.key(0)))
    logits, next_logits = jax.jit(objective.model.apply)({"params": params}, batch | {"tokens": masked, "mask": batch["tokens"] != 0}, positions)
    losses, right, rows = [], [], np.flatnonzero(batch["valid"])
    for row in rows:
        for place in range(positions.shape[1]):
            if chosen[row, place]:
                label = batch["tokens"][row, positions[row, place]]
                losses.append(-log_softmax(logits)[row, place, label])
                right.append(np.argmax(logits[row, place]) == label)
    next_losses = [-log_softmax(next_logits)[row, batch["is_next"][row]] for row in rows]
    assert len(losses) == terms["masked_lm_loss"].count and len(rows) == terms["next_sentence_loss"].count
    assert float(terms["masked_lm_loss"].value) == pytest.approx(np.mean(losses), rel=1e-5)
    assert float(terms["next_sentence_loss"].value) == pytest.approx(np.mean(next_losses), rel=1e-5)
    assert float(metrics["masked_accuracy"].value) == pytest.approx(np.mean(right))
    accuracy = np.mean([np.argmax(next_logits[row]) == batch["is_next"][row] for row in rows])
    assert float(metrics["next_sentence_accuracy"].value) == pytest.approx(accuracy)


def test_bfloat16_gives_the_loss_of_float32_in_float32(objective, params):
    low = dataclasses.replace(objective, model=Bert(dataclasses.replace(objective.model.config, dtype="bfloat16")))
    found, wanted = (jax.jit(lambda what=what: what.loss_fn(params, make_batch(), None)[0])() for what in (low, objective))
    for name, term in wanted.items():
        assert found[name].total.dtype == jnp.float32
        assert float(found[name].value) == pytest.approx(float(term.value), rel=2e-2)
        assert float(found[name].value) != float(term.value), "nothing was computed in bfloat16"


def test_padding_and_filler_change_nothing(objective, params):
    batch = make_batch()
    loss_fn = jax.jit(lambda batch: objective.loss_fn(params, batch, None))
    before = loss_fn(batch)
    longer = {k: np.pad(x, ((0, 0), (0, 4))) if x.ndim == 2 else x for k, x in make_batch(length=28).items()}
    shorter = make_batch(length=28)
    unmasked = jax.jit(lambda batch: dataclasses.replace(objective, mask_rate=0.0).loss_fn(params, batch, None)[0])
    longer_terms, shorter_terms = unmasked(longer), unmasked(shorter)
    assert float(longer_terms["next_sentence_loss"].value) == pytest.approx(float(shorter_terms["next_sentence_loss"].value), rel=1e-5)
    batch["is_next"] = np.where(batch["valid"], batch["is_next"], 1 - batch["is_next"])
    batch["tokens"] = np.where(batch["valid"][:, None], batch["tokens"], 0)
    jax.tree.map(np.testing.assert_array_equal, before, loss_fn(batch))


class Hidden(MaskedLM):
    """The same with what is hidden given: tokens that change do not draw other masks."""

    def hide(self, tokens_BT, rng):
        masked_BT, positions_BP, chosen_BP = type(self).given
        hidden_BT = jnp.zeros(tokens_BT.shape, bool).at[jnp.arange(len(tokens_BT))[:, None], positions_BP].max(chosen_BP)
        return jnp.where(hidden_BT, masked_BT, type(self).shown), positions_BP, chosen_BP


def test_an_unmasked_label_has_no_gradient(objective, params):
    """The input held as it is, the label at a position matters to the loss just where the position is masked."""
    batch = make_batch(2)
    Hidden.given = objective.hide(jnp.asarray(batch["tokens"]), jax.random.key(0))
    Hidden.shown = batch["tokens"]
    fixed = Hidden(**{field.name: getattr(objective, field.name) for field in dataclasses.fields(MaskedLM)})
    _, positions, chosen = Hidden.given
    hidden = set(np.asarray(positions)[0][np.asarray(chosen)[0]].tolist())
    loss = jax.jit(lambda tokens: fixed.loss_fn(params, batch | {"tokens": tokens}, None)[0]["masked_lm_loss"].value)
    before, places = float(loss(batch["tokens"])), np.flatnonzero(batch["tokens"][0])
    assert 0 < len(hidden) < len(places)
    for place in places:
        tokens = batch["tokens"].copy()
        tokens[0, place] = 5 + (tokens[0, place] + 7) % 50
        assert (float(loss(tokens)) != before) == (place in hidden), place


def test_the_share_and_kinds_of_masks(objective):
    tokens = np.random.default_rng(0).integers(5, 64, (2000, 32)).astype(np.int32)
    tokens[:, 0], tokens[:, 20], tokens[:, 30], tokens[:, 31:] = 2, 3, 3, 0
    masked, positions, chosen = jax.device_get(objective.hide(jnp.asarray(tokens), jax.random.key(5)))
    assert (chosen.sum(1) == round(0.15 * 28)).all()
    hidden = np.zeros(tokens.shape, bool)
    np.put_along_axis(hidden, positions, chosen, axis=1)
    assert hidden.sum() == chosen.sum(), "a position was drawn twice"
    assert (tokens[hidden] > 4).all() and (masked[~hidden] == tokens[~hidden]).all()
    share = hidden.mean(0)[[i for i in range(31) if i not in (0, 20, 30)]]
    assert 0.11 < share.min() and share.max() < 0.18, "every position is as likely as any other"
    assert np.mean(masked[hidden] == 4) == pytest.approx(0.8 + 0.1 / 64, abs=0.015)
    assert np.mean(masked[hidden] == tokens[hidden]) == pytest.approx(0.1 + 0.1 / 64, abs=0.015)


def test_whole_words_are_hidden_or_shown(objective):
    whole = dataclasses.replace(objective, whole_word=True)
    tokens = np.random.default_rng(0).integers(5, 64, (500, 32)).astype(np.int32)
    tokens[:, 0], tokens[:, 31] = 2, 3
    hidden = np.zeros(tokens.shape, bool)
    _, positions, chosen = jax.device_get(whole.hide(jnp.asarray(tokens), jax.random.key(5)))
    np.put_along_axis(hidden, positions, chosen, axis=1)
    goes_on = np.array(V.continues)[tokens[:, 2:31]]
    assert (hidden[:, 2:31] == hidden[:, 1:30])[goes_on].all()
    assert not (hidden[:, 2:31] == hidden[:, 1:30])[~goes_on].all()
    assert hidden[np.array(V.continues)[tokens[:, 1]], 1].any(), "a piece right after [CLS] can be hidden"
    assert hidden.sum(1).max() <= round(0.15 * 30) and hidden.sum(1).mean() > 3.7, "a word too long makes way for the next"


def test_masks_belong_to_the_example_not_to_the_batch(objective):
    tokens = jnp.asarray(make_batch()["tokens"])
    whole = objective.hide(tokens, jax.random.key(1))
    alone = [objective.hide(tokens[row : row + 1], jax.random.key(1)) for row in (3, 0)]
    for row, one in zip((3, 0), alone):
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[row], b[0]), whole, one)
    assert not np.array_equal(whole[0], objective.hide(tokens, jax.random.key(2))[0]), "another step, other masks"


def test_training_draws_by_key_and_evaluation_by_none(objective, params):
    batch = make_batch()
    loss = lambda rng: float(objective.loss_fn(params, batch, rng)[0]["masked_lm_loss"].value)
    assert loss(None) == loss(None) and loss(jax.random.key(1)) == loss(jax.random.key(1)) != loss(jax.random.key(2))


def test_without_next_sentence_there_is_one_term(objective, params):
    alone = dataclasses.replace(objective, next_sentence=False)
    terms, metrics = alone.loss_fn(params, make_batch(), None)
    assert list(terms) == ["masked_lm_loss"] and list(metrics) == ["masked_accuracy"]
    assert jax.eval_shape(objective.init, jax.random.key(0)).keys() - jax.eval_shape(alone.init, jax.random.key(0)).keys() == {
        "pooler",
        "next_sentence",
    }
    axes = lambda tree: jax.tree.structure(tree, is_leaf=lambda x: isinstance(x, tuple))
    assert axes(alone.logical_axes) == jax.tree.structure(jax.eval_shape(alone.init, jax.random.key(0)))


def pack_rows(batch, rows):
    """The pairs of `batch` with several to a row: `rows` says which."""
    length = sum((batch["tokens"][list(row)] > 0).sum() for row in rows[:1]) + 5
    out = {name: np.zeros((len(rows), length), np.int32) for name in ("tokens", "token_types", "segments")}
    out |= {"is_next": np.full((len(rows), 3), -1, np.int32), "valid": np.ones(len(rows), bool)}
    for r, row in enumerate(rows):
        at = 0
        for n, i in enumerate(row):
            size = (batch["tokens"][i] > 0).sum()
            for name in ("tokens", "token_types"):
                out[name][r, at : at + size] = batch[name][i, :size]
            out["segments"][r, at : at + size] = n + 1
            out["is_next"][r, n] = batch["is_next"][i]
            at += size
    return out


class Shown(MaskedLM):
    """The same with nothing hidden."""

    def hide(self, tokens_BT, rng):
        none_BP = jnp.zeros((len(tokens_BT), 1), jnp.int32)
        return tokens_BT, none_BP, none_BP.astype(bool)


def test_packed_pairs_are_as_if_each_had_a_row_of_its_own(objective, params):
    """Hidden states at every token, the loss and the accuracy of the next sentence, and their gradients."""
    model = dataclasses.replace(objective.model.config, max_length=128)
    one = Shown(Bert(model), V, batch_size=5, length=128)
    params = jax.jit(one.init)(jax.random.key(0))
    several = dataclasses.replace(one, pairs_per_row=3)
    batch = make_batch(5) | {"valid": np.ones(5, bool)}
    packed = pack_rows(batch, [(0, 1, 2), (3, 4)])
    assert {name: x.dtype for name, x in several.example_batch.items()} == {name: x.dtype for name, x in packed.items()}
    encode = jax.jit(lambda batch: linen.apply(one.model, params, None, batch, method="encode"))
    apart, joined = encode(batch | {"mask": batch["tokens"] > 0}), encode(packed)
    for n, i in ((1, 0), (3, 2)):
        places = packed["segments"][0] == n
        np.testing.assert_allclose(joined[0, places], apart[i, : places.sum()], rtol=1e-4, atol=1e-5)

    def next_sentence(what, batch):
        def loss(params):
            terms, metrics = what.loss_fn(params, batch, None)
            return terms["next_sentence_loss"].value, (terms["next_sentence_loss"], metrics["next_sentence_accuracy"])

        (_, means), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        return means, gradients

    (found, gradients), (wanted, expected) = next_sentence(several, packed), next_sentence(one, batch)
    assert found[0].count == wanted[0].count == 5
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), (found, gradients), (wanted, expected))
    tokens = packed["tokens"].copy()
    tokens[0, 1] += 1  # of the first pair: the others do not see it
    moved = encode(packed | {"tokens": tokens})
    changed = np.abs(np.asarray(moved - joined)).max(-1)[0] > 0
    assert changed[packed["segments"][0] == 1].all() and not changed[packed["segments"][0] != 1].any()


def test_a_vocabulary_without_a_mask_is_refused(objective):
    with pytest.raises(UserError, match=r"no \[MASK\] token, which masked_lm needs"):
        dataclasses.replace(objective, vocabulary=V._replace(mask=None))


@pytest.mark.parametrize("size, published", [("base", 109_482_240), ("large", 335_141_888)])
def test_published_parameter_counts(size, published):
    """The encoder with its pooler: the 110M and 340M of the paper's section 3, as Hugging Face's BertModel counts them exactly."""
    _, config = config_lib.parse(["test", f"--config=configs/bert/{size}.py"])
    objective = build.objective(config)
    shapes = jax.eval_shape(objective.init, jax.random.key(0))
    count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
    assert count(shapes) - count(shapes["masked_lm"]) - count(shapes["next_sentence"]) == published
    assert isinstance(objective, MaskedLM) and isinstance(objective.model, Bert)
