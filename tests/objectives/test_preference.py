import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict

from research.core import sharding
from research.core.errors import UserError
from research.core.types import Vocabulary, loss_value
from research.models.attention import Mask
from research.models.bert import Bert
from research.models.gpt import Gpt
from research.objectives.causal_lm import CausalLM
from research.objectives.preference import Dpo, Ipo, Kto, RewardModel, mismatched
from research.training.state import TrainState, split
from research.training.step import make_train_step
from tests.tiny import transformer_config

SIZE = 9  # of the vocabulary; the model's table has 11 rows
V = Vocabulary(size=SIZE, pad=0, continues=(), end=1)
B, T = 4, 8
VALID = np.array([True, True, False, True])
PROMPTS = np.array([2, 3, 1, 4])
LENGTHS = {"chosen": np.array([3, 5, 4, 2]), "rejected": np.array([4, 1, 6, 4])}  # of completions


def pair_batch(seed=0):
    rng, index = np.random.default_rng(seed), np.arange(T)
    batch, prompts = {"valid": VALID}, rng.integers(1, SIZE, (B, T))
    for side, lengths in LENGTHS.items():
        real = index < (PROMPTS + lengths)[:, None]
        mask = real & (index >= PROMPTS[:, None])
        tokens = np.where(mask, rng.integers(1, SIZE, (B, T)), prompts)
        batch |= {f"{side}/tokens": np.where(real, tokens, 0).astype(np.int32), f"{side}/mask": mask, f"{side}/real": real}
    return batch


def objective(cls, **fields):
    return cls(model=Gpt(transformer_config(norm="pre", pool="last", layers=2)), vocabulary=V, batch_size=B, length=T, **fields)


@functools.cache
def begun(cls=Dpo):
    return jax.jit(objective(cls).init)(jax.random.key(0))


@functools.cache
def moved():
    """The parameters of a policy that has left its reference."""
    params = begun()
    noise = jax.tree.map(lambda x: 0.1 * np.random.default_rng(x.size).normal(size=x.shape).astype(np.float32), params["reference"])
    return jax.tree.map(jnp.add, {name: x for name, x in params.items() if name != "reference"}, noise) | {"reference": params["reference"]}


@functools.partial(jax.jit, static_argnums=0)
def logits_of(model, params, tokens):
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    return model.apply({"params": params}, tokens, positions, Mask(causal=True))[0]


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def log_probs_by_hand(model, params, tokens, temperature=1.0):
    """log p of each token after those before it, (B, T), in NumPy from the model's logits; and what each is drawn from, (B, T, V)."""
    log_p = log_softmax(np.asarray(logits_of(model, params, tokens), np.float64)[..., :SIZE] / temperature)
    found = np.zeros(tokens.shape)
    for b in range(len(tokens)):
        for t in range(1, tokens.shape[1]):
            found[b, t] = log_p[b, t - 1, tokens[b, t]]
    return found, np.concatenate([log_p[:, :1], log_p[:, :-1]], 1)


def ratios_by_hand(what, params, batch, side):
    own, reference = (log_probs_by_hand(what.model, p, batch[f"{side}/tokens"], what.temperature)[0] for p in (params, params["reference"]))
    return ((own - reference) * batch[f"{side}/mask"]).sum(1), (own * batch[f"{side}/mask"]).sum(1)


@functools.partial(jax.jit, static_argnums=0)
def measure(what, params, batch, rng=None):
    return what.loss_fn(params, batch, rng)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def kto_by_hand(what, params, batch, chosen, rejected):
    """Prompts and completions mismatched row by row in Python lists."""
    found = []
    for side in ("chosen", "rejected"):
        tokens, mask = batch[f"{side}/tokens"], batch[f"{side}/mask"]
        other, other_mask = np.zeros((B, T), np.int32), np.zeros((B, T), bool)
        for b in range(B):
            row = (list(tokens[b, : PROMPTS[b]]) + list(tokens[(b + 1) % B][mask[(b + 1) % B]]))[:T]
            other[b, : len(row)] = row
            other_mask[b, PROMPTS[b] : len(row)] = True
        ratio, _ = ratios_by_hand(what, params, {"x/tokens": other, "x/mask": other_mask}, "x")
        found += [ratio[0], ratio[3]]  # rows 1 and 2, and 2 and 3, have one that is not valid
    z = max(0, np.mean(found))
    w_desirable, w_undesirable = what.desirable_weight, what.undesirable_weight
    losses = [w_desirable - w_desirable * sigmoid(what.beta * (chosen - z)), w_undesirable - w_undesirable * sigmoid(what.beta * (z - rejected))]
    return np.mean([x[VALID] for x in losses]), z


BY_HAND = {
    "dpo": (objective(Dpo, beta=0.5), lambda what, h: -np.log(sigmoid(what.beta * h))),
    "conservative dpo": (
        objective(Dpo, beta=0.5, label_smoothing=0.2),
        lambda what, h: -0.8 * np.log(sigmoid(what.beta * h)) - 0.2 * np.log(sigmoid(-what.beta * h)),
    ),
    "ipo": (objective(Ipo, beta=0.3, temperature=0.6), lambda what, h: (h - 1 / (2 * 0.3)) ** 2),
}
KTO = objective(Kto, beta=0.5, desirable_weight=1.5, undesirable_weight=0.7)


@pytest.mark.parametrize("name", [*BY_HAND, "kto"])
def test_the_loss_is_that_of_the_paper(name):
    what, by_hand = BY_HAND.get(name, (KTO, None))
    batch, params = pair_batch(), moved()
    (chosen, log_p), (rejected, _) = (ratios_by_hand(what, params, batch, side) for side in ("chosen", "rejected"))
    terms, metrics = measure(what, params, batch)
    wanted = {
        "reward_margin": what.beta * (chosen - rejected)[VALID].mean(),
        "reward_accuracy": (chosen > rejected)[VALID].mean(),
        "chosen_reward": what.beta * chosen[VALID].mean(),
        "rejected_reward": what.beta * rejected[VALID].mean(),
        "chosen_log_prob": log_p[VALID].sum() / LENGTHS["chosen"][VALID].sum(),
    }
    if name == "kto":
        loss, wanted["reference_kl"] = kto_by_hand(what, params, batch, chosen, rejected)
        assert wanted["reference_kl"] > 0.01, "the case must have one"
    else:
        loss = by_hand(what, chosen - rejected)[VALID].mean()
    assert min(abs(chosen - rejected)) > 0.05, "the case must tell the sides apart"
    assert float(loss_value(terms)) == pytest.approx(loss, rel=1e-4)
    assert {key: float(mean.value) for key, mean in metrics.items()} == pytest.approx(wanted, rel=1e-3, abs=1e-5)


def test_a_policy_that_is_its_reference_has_the_loss_of_a_coin():
    values = [float(loss_value(measure(objective(cls, beta=0.5), begun(), pair_batch())[0])) for cls in (Dpo, Ipo, Kto)]
    assert values == pytest.approx([np.log(2), 1, 0.5], rel=1e-6)


def test_the_divergence_is_never_negative_and_has_no_gradient():
    params = moved()
    swapped = begun() | {"reference": {name: x for name, x in params.items() if name != "reference"}}
    divergences = [float(jax.jit(KTO.divergence)(p, pair_batch()).value) for p in (params, swapped)]
    assert divergences[0] > 0 and divergences[1] == 0
    grads = jax.jit(jax.grad(lambda params: KTO.divergence(params, pair_batch()).value))(params)
    assert all(not np.any(x) for x in jax.tree.leaves(grads))


def test_a_prompt_is_followed_by_the_completion_of_the_next_row():
    batch = pair_batch()
    found = jax.jit(mismatched)(batch)
    assert list(found["valid"]) == [True, False, False, True]
    for side, b in (("chosen", 0), ("chosen", 3), ("rejected", 1)):
        after = (b + 1) % B
        completion = batch[f"{side}/tokens"][after][batch[f"{side}/mask"][after]][: T - PROMPTS[b]]
        at = np.flatnonzero(found[f"{side}/mask"][b])
        assert list(at) == list(range(PROMPTS[b], PROMPTS[b] + len(completion)))
        assert list(found[f"{side}/tokens"][b][: at[-1] + 1]) == [*batch[f"{side}/tokens"][b, : PROMPTS[b]], *completion]


@pytest.mark.parametrize("what", [objective(Dpo), KTO, objective(RewardModel)], ids=lambda what: type(what).__name__)
def test_padding_and_invalid_rows_weigh_nothing_and_the_reference_has_no_gradient(what):
    batch = pair_batch()
    other = dict(batch)
    for side in LENGTHS:
        outside = ~batch[f"{side}/real"] | ~VALID[:, None]
        other[f"{side}/tokens"] = np.where(outside, 7, batch[f"{side}/tokens"]).astype(np.int32)
    params = begun(RewardModel) if isinstance(what, RewardModel) else moved()

    one, same = (gradient(what, params, b) for b in (batch, other))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    trained, reference = split(one[0], getattr(what, "frozen", frozenset()))
    assert np.any(trained["word"]["embedding"]) and not any(np.any(x) for x in jax.tree.leaves(reference))


def test_only_the_policy_has_dropout():
    model = Gpt(transformer_config(norm="pre", layers=2, dropout=0.3))
    what, batch, params = dataclasses.replace(objective(Dpo, beta=0.5), model=model), pair_batch(), begun()
    still, dropped = (measure(what, params, batch, rng)[1] for rng in (None, jax.random.key(1)))
    assert float(still["chosen_reward"].value) == 0 != float(dropped["chosen_reward"].value)
    _, reference = ratios_by_hand(what, params, batch, "chosen")
    tokens = LENGTHS["chosen"][VALID].sum()
    log_p = float(dropped["chosen_log_prob"].value) * tokens
    assert log_p - 3 * float(dropped["chosen_reward"].value) / what.beta == pytest.approx(reference[VALID].sum(), rel=1e-4)


@functools.partial(jax.jit, static_argnums=0)
def gradient(what, params, batch):
    def loss(params):
        terms, metrics = what.loss_fn(params, batch, None)
        return loss_value(terms), (terms, metrics)

    return jax.grad(loss, has_aux=True)(params)


def on_devices(what, params, batch, **sizes):
    """(gradient, (terms, metrics)) of a batch that is split over devices: rows over `data`, tokens over `context`."""
    mesh = sharding.make_mesh({"pipeline": 1, "data": 1, "fsdp": 1, "context": 1, "tensor": 1} | sizes, jax.devices()[: np.prod([*sizes.values()])])
    rules = sharding.make_rules("fsdp_tp")
    split, whole = sharding.batch_sharding(mesh, rules, len(batch["valid"])), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    with jax.set_mesh(mesh), nn.logical_axis_rules(rules):
        step = jax.jit(functools.partial(gradient.__wrapped__, what), in_shardings=(whole, split))
        return jax.device_get(step(params, sharding.place_batch(batch, split, len(batch["valid"]))))


def test_devices_that_share_rows_and_tokens_find_the_same():
    params, batch = moved(), pair_batch()
    found, wanted = on_devices(KTO, params, batch, data=4, context=2), gradient(KTO, params, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), found, wanted)


@functools.cache
def descent(what, rate, accumulate):
    frozen = getattr(what, "frozen", frozenset())
    return frozen, jax.jit(make_train_step(lambda p, b, _: what.loss_fn(p, b, None), optax.sgd(rate), lambda _: rate, 0, accumulate, frozen=frozen))


def train(what, params, batch, steps, rate=0.1, accumulate=1):
    """(the parameters after some steps of gradient descent, the metrics of each step)."""
    frozen, step = descent(what, rate, accumulate)
    state, history = TrainState(jnp.int32(0), params, optax.sgd(rate).init(split(params, frozen)[0])), []
    for _ in range(steps):
        state, means = step(state, batch)
        history.append(means)
    return state.params, history


@pytest.mark.parametrize("what, rate", [(objective(Dpo, beta=0.5), 0.005), (objective(Ipo, beta=0.5), 0.0005), (KTO, 0.005)])
def test_steps_lead_to_what_was_chosen_and_leave_the_reference_bit_by_bit(what, rate):
    batch = pair_batch()
    params, history = train(what, begun(), batch, 4, rate)
    margins = [float(means["reward_margin"].value) for means in history]
    assert margins[0] == 0 and margins == sorted(margins) and margins[-1] > 0.01
    jax.tree.map(np.testing.assert_array_equal, params["reference"], begun()["reference"])
    swap = lambda name: name.replace("chosen", "rejected") if "chosen" in name else name.replace("rejected", "chosen")
    _, history = train(what, begun(), {swap(name): x for name, x in batch.items()}, 4, rate)
    assert float(history[-1]["reward_margin"].value) > 0.01, "of what is now called chosen: the other way round it leads the other way"


@pytest.mark.parametrize("what", [objective(Dpo, beta=0.5), pytest.param(objective(RewardModel), marks=pytest.mark.slow)])
def test_accumulation_changes_nothing(what):
    assert what.separable and not KTO.separable
    params = begun(RewardModel) if isinstance(what, RewardModel) else moved()
    (whole, _), (parts, _) = (train(what, params, pair_batch(), 1, rate=1.0, accumulate=k) for k in (1, 2))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), whole, parts)
    assert np.abs(whole["decoder"]["blocks"]["mlp"]["up"]["kernel"] - params["decoder"]["blocks"]["mlp"]["up"]["kernel"]).max() > 1e-3


def test_the_score_of_a_text_is_that_of_its_last_token_and_the_loss_that_of_their_difference():
    what, batch, params = objective(RewardModel), pair_batch(), begun(RewardModel)
    assert what.predicts == "score" and "reference" not in params
    scores = {}
    for side, lengths in LENGTHS.items():
        inputs = {"tokens": batch[f"{side}/tokens"], "mask": batch[f"{side}/real"]}
        hidden = np.asarray(jax.jit(lambda: what.model.apply({"params": params}, inputs, method="encode"))())
        last = hidden[np.arange(B), PROMPTS + lengths - 1]
        scores[side] = (last @ np.asarray(params["head"]["out"]["kernel"]) + np.asarray(params["head"]["out"]["bias"]))[:, 0]
        np.testing.assert_allclose(jax.jit(what.predict)(params, inputs)["score"], scores[side], rtol=1e-4, atol=1e-5)
    margin = (scores["chosen"] - scores["rejected"])[VALID]
    terms, metrics = measure(what, params, batch)
    assert float(loss_value(terms)) == pytest.approx(-np.log(sigmoid(margin)).mean(), rel=1e-4)
    wanted = {"score_margin": margin.mean(), "score_accuracy": (margin > 0).mean()}
    wanted |= {f"{side}_score": scores[side][VALID].mean() for side in scores}
    assert {key: float(mean.value) for key, mean in metrics.items()} == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    _, history = train(what, params, batch, 4)
    assert float(history[-1]["score_margin"].value) > margin.mean() + 0.01


@pytest.mark.slow
def test_a_bert_can_score_too():
    what = dataclasses.replace(objective(RewardModel), model=Bert(transformer_config(norm="pre")))
    params = jax.jit(what.init)(jax.random.key(0))
    assert np.isfinite(loss_value(measure(what, params, pair_batch())[0]))


@pytest.mark.parametrize("cls", [Dpo, RewardModel])
def test_axes_name_each_dimension_and_what_was_pretrained_fits(cls):
    what, params = objective(cls), begun(cls)
    is_axes = lambda x: isinstance(x, tuple)
    assert jax.tree.map(len, what.logical_axes, is_leaf=is_axes) == jax.tree.map(jnp.ndim, params)
    pretrained = jax.eval_shape(CausalLM(what.model, V, B, T).init, jax.random.key(0))
    beside = {"head"} if cls is RewardModel else {"reference"}
    assert jax.tree.map(jnp.shape, {name: x for name, x in params.items() if name not in beside}) == jax.tree.map(jnp.shape, pretrained)
    spec = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), pair_batch())
    assert what.example_batch == spec


def test_a_run_begins_from_what_the_model_now_is():
    what, pretrained = objective(Dpo), {name: x for name, x in moved().items() if name != "reference"}
    for given in (pretrained, moved()):  # a reference that was there is another run's
        params = what.begin(given)
        jax.tree.map(np.testing.assert_array_equal, {name: x for name, x in params.items() if name != "reference"}, params["reference"])
        jax.tree.map(np.testing.assert_array_equal, params["reference"], pretrained)
    buffers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(params)]
    assert len(set(buffers)) == len(buffers), "those of the policy are donated"
    assert what.frozen == {name for name in flatten_dict(params, sep="/") if name.startswith("reference/")}


@pytest.mark.parametrize(
    "cls, fields, match",
    [
        (Dpo, {"beta": 0.0}, "objective.beta is 0.0: it must be over 0"),
        (Ipo, {"beta": float("nan")}, "objective.beta is nan"),
        (Dpo, {"label_smoothing": 0.5}, "objective.label_smoothing is 0.5: it must be at least 0 and under 0.5"),
        (Kto, {"undesirable_weight": -1.0}, "objective.undesirable_weight is -1.0"),
        (Kto, {"batch_size": 1}, "data.batch_size must be at least 2"),
        (Dpo, {"model": Bert(transformer_config(norm="pre"))}, "Dpo trains a decoder such as gpt, not Bert: choose model.name=gpt"),
    ],
)
def test_what_cannot_be_is_refused(cls, fields, match):
    with pytest.raises(UserError, match=match):
        dataclasses.replace(objective(cls), **fields)
