import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.core.errors import UserError
from research.core.types import loss_value
from research.models import decode
from research.models.gpt import Gpt
from research.objectives import policy_gradient
from research.objectives.losses import token_entropy, token_log_probs
from research.objectives.policy_gradient import DrGrpo, Grpo, Ppo, Reinforce
from tests.objectives.test_preference import SIZE, V, gradient, log_probs_by_hand, logits_of, measure, on_devices, train
from tests.tiny import transformer_config

B, T, GROUP = 6, 9, 2
VALID = np.arange(B) != 4
PROMPTS, LENGTHS = np.array([2, 2, 3, 3, 1, 1]), np.array([3, 7, 1, 4, 5, 2])  # LENGTHS: of completions; one fills its row
INDEX = np.arange(T)
MASK = (INDEX >= PROMPTS[:, None]) & (INDEX < (PROMPTS + LENGTHS)[:, None])
REWARDS = np.array([1.0, 0.0, 0.5, -1.0, 2.0, 1.0], np.float32)
PER_TOKEN = ("log_probs", "reference_log_probs", "advantages", "values", "returns")


def objective(cls, **fields):
    return cls(model=Gpt(transformer_config(norm="pre", layers=2)), vocabulary=V, batch_size=B, length=T, **fields)


@functools.cache
def begun(cls=Grpo):
    return jax.jit(objective(cls).init)(jax.random.key(0))


def rollout(what, params, seed=0, stale=0.3):
    """A batch whose log-probabilities are those of the policy but for `stale`; what is outside the mask is no number."""
    rng = np.random.default_rng(seed)
    tokens = np.where(INDEX < (PROMPTS + LENGTHS)[:, None], rng.integers(1, SIZE, (B, T)), 0).astype(np.int32)
    log_p, _ = log_probs_by_hand(what.model, params, tokens, what.temperature)
    noise = rng.normal(size=(5, B, T))
    arrays = (log_p + stale * noise[0], log_p + 0.4 * noise[1], *noise[2:])
    batch = {name: np.where(MASK, x, np.nan).astype(np.float32) for name, x in zip(PER_TOKEN, arrays)}
    return {"tokens": tokens, "mask": MASK, "reward": REWARDS, "valid": VALID} | {name: batch[name] for name in batch if name in what.example_batch}


def clipped_by_hand(r, advantage, low=0.2, high=0.2):
    return -min(r * advantage, min(max(r, 1 - low), 1 + high) * advantage)


def k3(x):
    return np.exp(x) - x - 1


def over_tokens(x):
    return x[MASK & VALID[:, None]].mean()


def over_completions(x):
    return np.mean([x[b][MASK[b]].mean() for b in range(B) if VALID[b]])


def over_sums(most):
    return lambda x: np.mean([x[b][MASK[b]].sum() / most for b in range(B) if VALID[b]])


CASES = {
    "reinforce": (objective(Reinforce, importance_cap=1.2), over_tokens, lambda x: -min(x.r, 1.2) * x.advantage * x.log_p),
    "ppo": (
        objective(Ppo, clip_high=0.4, value_clip=0.3, value_weight=0.7),
        over_tokens,
        lambda x: (
            clipped_by_hand(x.r, x.advantage, high=0.4)
            + 0.7 * max((x.value - x.returns) ** 2, (x.old_value + np.clip(x.value - x.old_value, -0.3, 0.3) - x.returns) ** 2)
        ),
    ),
    "ppo, values not clipped": (
        objective(Ppo, temperature=0.7, clip=0.1),
        over_tokens,
        lambda x: clipped_by_hand(x.r, x.advantage, 0.1, 0.1) + 0.5 * (x.value - x.returns) ** 2,
    ),
    "grpo": (
        objective(Grpo, kl_weight=0.3, entropy_weight=0.2),
        over_completions,
        lambda x: clipped_by_hand(x.r, x.advantage) + 0.3 * k3(x.reference - x.log_p) - 0.2 * x.entropy,
    ),
    "dr_grpo": (objective(DrGrpo, completion_length=7), over_sums(7), lambda x: clipped_by_hand(x.r, x.advantage)),
    "dr_grpo, of the whole row": (
        objective(DrGrpo, kl_weight=0.1),
        over_sums(T),
        lambda x: clipped_by_hand(x.r, x.advantage) + 0.1 * k3(x.reference - x.log_p),
    ),
}


@dataclasses.dataclass
class Token:
    """What the loss of one token is made of."""

    log_p: float
    r: float
    reference: float
    advantage: float
    entropy: float
    value: float
    old_value: float
    returns: float


def tokens_by_hand(what, params, batch):
    """{(row, place): Token}, the model's logits and values apart all in NumPy."""
    log_p, drawn_from = log_probs_by_hand(what.model, params, batch["tokens"], what.temperature)
    value = np.asarray(jax.jit(what.values)(params, batch["tokens"])) if isinstance(what, Ppo) else np.zeros((B, T))
    return {
        (b, t): Token(
            log_p[b, t],
            np.exp(log_p[b, t] - batch["log_probs"][b, t]),
            batch["reference_log_probs"][b, t],
            batch["advantages"][b, t],
            -(np.exp(drawn_from[b, t]) * drawn_from[b, t]).sum(),
            value[b, t],
            *(batch[name][b, t] if name in batch else 0 for name in ("values", "returns")),
        )
        for b, t in zip(*np.nonzero(MASK))
    }


def spread(found, f):
    x = np.zeros((B, T))
    for place, token in found.items():
        x[place] = f(token)
    return x


@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_that_of_the_paper(name):
    what, mean, of = CASES[name]
    params = begun(type(what))
    batch = rollout(what, params)
    found = tokens_by_hand(what, params, batch)
    terms, metrics = measure(what, params, batch)
    assert float(loss_value(terms)) == pytest.approx(mean(spread(found, of)), rel=1e-4)
    low, high = (0, 1.2) if isinstance(what, Reinforce) else (1 - what.clip, 1 + (what.clip_high or what.clip))
    bites = lambda x: x.r > high and (isinstance(what, Reinforce) or x.advantage > 0) or x.r < low and x.advantage < 0
    wanted = {
        "entropy": over_tokens(spread(found, lambda x: x.entropy)),
        "rollout_kl": over_tokens(spread(found, lambda x: k3(np.log(x.r)))),
        "clip_fraction": over_tokens(spread(found, bites)),
        "reward": REWARDS[VALID].mean(),
    }
    assert 0 < wanted["clip_fraction"] < 1 and wanted["rollout_kl"] > 0.01, "the case must be stale"
    if what.kl_weight:
        wanted["reference_kl"] = over_tokens(spread(found, lambda x: k3(x.reference - x.log_p)))
    assert {key: float(value.value) for key, value in metrics.items()} == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("name", ["reinforce", "ppo", "grpo", pytest.param("dr_grpo", marks=pytest.mark.slow)])
def test_what_the_policy_did_not_choose_weighs_nothing(name):
    what = CASES[name][0]
    params = begun(type(what))
    batch = rollout(what, params)
    counts = MASK & VALID[:, None]
    per_token = {key: jnp.where(counts, batch[key], 0) for key in PER_TOKEN if key in batch}

    def loss(params, per_token, tokens):
        terms, metrics = what.loss_fn(params, batch | per_token | {"tokens": tokens}, None)
        return loss_value(terms), (terms, metrics)

    run = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
    one = run(params, per_token, batch["tokens"])
    unread = ~VALID[:, None] | (INDEX >= (PROMPTS + LENGTHS)[:, None])  # filler, and padding: what comes after the end of a completion
    other = {key: jnp.where(counts, x, np.nan if key == "advantages" else 3.0) for key, x in per_token.items()}
    same = run(params, other, np.where(unread, 5, batch["tokens"]))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    for key, grads in one[0][1].items():
        assert not np.any(np.asarray(grads)[~counts]), key
    assert np.any(one[0][1]["advantages"]) and all(np.isfinite(x).all() for x in jax.tree.leaves(one))


def own_gradient(what, params, batch):
    grads, _ = gradient(what, params, batch)
    return {name: x for name, x in grads.items() if name not in ("reference", "value")}


@pytest.mark.parametrize(
    "what, lengths",
    [
        (objective(Ppo, value_weight=0.0), LENGTHS),
        (objective(Grpo, kl_weight=0.0), np.full(B, 4)),  # of one length: each token weighs the same
        pytest.param(objective(DrGrpo, completion_length=4), np.full(B, 4), marks=pytest.mark.slow),
    ],
    ids=["Ppo", "Grpo", "DrGrpo"],
)
def test_where_the_policy_is_the_one_that_drew_all_have_the_gradient_of_reinforce(what, lengths):
    params = begun(type(what))
    batch = rollout(what, params)
    batch["mask"] = (INDEX >= PROMPTS[:, None]) & (INDEX < (PROMPTS + lengths)[:, None])
    batch["log_probs"] = np.asarray(jax.jit(what.log_probs)(params, batch["tokens"]))
    batch["advantages"] = np.random.default_rng(1).normal(size=(B, T)).astype(np.float32)
    reinforce = own_gradient(objective(Reinforce), params, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), own_gradient(what, params, batch), reinforce)
    assert np.abs(reinforce["word"]["embedding"]).max() > 1e-2
    metrics = measure(what, params, batch)[1]
    assert float(metrics["rollout_kl"].value) == pytest.approx(0, abs=1e-6) and float(metrics["clip_fraction"].value) == 0


def test_a_ratio_that_was_capped_or_clipped_is_a_number_to_the_gradient():
    params = begun()
    stale = rollout(objective(Reinforce), params)
    log_p, _ = log_probs_by_hand(objective(Reinforce).model, params, stale["tokens"])
    r = np.exp(log_p - np.where(MASK, stale["log_probs"], 0))
    a = np.where(MASK, stale["advantages"], 0)
    by_hand = {
        Reinforce: np.minimum(r, 1.2) * a,  # arXiv 1802.01561: what log p is weighed with
        Ppo: np.where((a > 0) & (r > 1.2) | (a < 0) & (r < 0.8), 0, r * a),
    }
    for cls, fields in ((Reinforce, {"importance_cap": 1.2}), (Ppo, {"value_weight": 0.0})):
        what = objective(cls, **fields)
        own = params | {"value": begun(Ppo)["value"]}
        fresh = rollout(what, own) | {"log_probs": stale["log_probs"], "advantages": stale["advantages"]}
        weighed = stale | {"log_probs": log_p.astype(np.float32), "advantages": by_hand[cls].astype(np.float32)}
        expected = own_gradient(objective(Reinforce), params, weighed)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), own_gradient(what, own, fresh), expected)


@pytest.mark.slow
def test_devices_that_share_rows_and_tokens_find_the_same():
    what, params = CASES["ppo"][0], begun(Ppo)
    batch = rollout(what, params)
    found, wanted = on_devices(what, params, batch, data=2, context=3), gradient(what, params, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), found, wanted)


def kl_rewards(what, batch, rewards=REWARDS):
    """The rewards of each token of each completion, in lists."""
    found = []
    for b in range(B):
        penalties = [-what.kl_weight * (batch["log_probs"][b, t] - batch["reference_log_probs"][b, t]) for t in np.flatnonzero(MASK[b])]
        found.append(np.array(penalties) + np.where(np.arange(LENGTHS[b]) == LENGTHS[b] - 1, rewards[b], 0))
    return found


def credit(what, batch):
    found = jax.jit(what.credit, static_argnums=2)(REWARDS, batch, GROUP)
    assert all(not np.any(np.asarray(x)[~MASK]) and x.shape == (B, T) for x in found.values())
    return {name: np.asarray(x) for name, x in found.items()}


def test_reinforce_credits_a_completion_with_what_it_is_over_the_others():
    what = objective(Reinforce, kl_weight=0.3)
    batch = rollout(what, begun())
    returns = [x.sum() for x in kl_rewards(what, batch)]
    found = credit(what, batch)["advantages"]
    for b in range(B):
        np.testing.assert_allclose(found[b][MASK[b]], returns[b] - returns[b + 1 - 2 * (b % 2)], rtol=1e-4)


@pytest.mark.parametrize("cls", [Grpo, DrGrpo])
def test_grpo_credits_a_completion_with_its_reward_among_those_of_the_prompt(cls):
    what = objective(cls, kl_weight=0.3)
    found = credit(what, rollout(what, begun()))["advantages"]
    for b in range(B):
        pair = REWARDS[b - b % 2 : b - b % 2 + 2]
        wanted = (REWARDS[b] - pair.mean()) / (pair.std() if cls is Grpo else 1)
        np.testing.assert_allclose(found[b][MASK[b]], wanted, rtol=1e-4)


def test_ppo_credits_each_token_by_gae():
    what = objective(Ppo, kl_weight=0.3, discount=0.9, gae_decay=0.8)
    batch = rollout(what, begun(Ppo))
    found = credit(what, batch)
    for b, rewards in enumerate(kl_rewards(what, batch)):
        values = batch["values"][b][MASK[b]].astype(float)
        delta = rewards + 0.9 * np.append(values[1:], 0) - values
        advantages = [sum(0.72**k * delta[t + k] for k in range(len(delta) - t)) for t in range(len(delta))]
        np.testing.assert_allclose(found["advantages"][b][MASK[b]], advantages, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found["returns"][b][MASK[b]], advantages + values, rtol=1e-4, atol=1e-5)


def learns(what) -> bool:
    """Whether some steps with what `what` makes of rewards make the better completion of each prompt likelier, and the other less likely."""
    what = dataclasses.replace(what, kl_weight=0.0)
    params = what.begin(begun(Ppo))
    batch = rollout(what, params, stale=0.0) | {"valid": np.ones(B, bool)}
    if isinstance(what, Ppo):
        batch["values"] = np.zeros((B, T), np.float32)
    batch |= what.credit(REWARDS - REWARDS.reshape(-1, GROUP).mean(1).repeat(GROUP), batch, GROUP)
    after, _ = train(what, params, batch, 3, rate=0.05)
    before, now = (np.where(MASK, jax.jit(what.log_probs)(p, batch["tokens"]), 0).sum(1) for p in (params, after))
    better = REWARDS > REWARDS.reshape(-1, GROUP).mean(1).repeat(GROUP)
    return bool((now > before)[better].all() and (now < before)[~better].all())


LEARNERS = [
    objective(Reinforce),
    objective(Ppo, clip=0.9),
    objective(Grpo, clip=0.9),
    pytest.param(objective(DrGrpo, clip=0.9), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("what", LEARNERS, ids=lambda what: type(what).__name__)
def test_what_is_rewarded_becomes_likelier(what, monkeypatch):
    assert learns(what)
    for name in ("gae", "group_relative", "leave_one_out"):
        monkeypatch.setattr(policy_gradient, name, lambda *args, rule=getattr(policy_gradient, name): -rule(*args))
    assert not learns(what), "advantages of the wrong sign must not pass"


def test_the_reference_stays_bit_by_bit_and_accumulation_changes_nothing():
    what = objective(Grpo, kl_weight=0.3, entropy_weight=0.1)
    batch = rollout(what, begun())
    (whole, _), (parts, _) = (train(what, begun(), batch, 2, rate=0.5, accumulate=k) for k in (1, 3))
    for params in (whole, parts):
        jax.tree.map(np.testing.assert_array_equal, params["reference"], begun()["reference"])
        assert what.frozen and np.any(params["word"]["embedding"] != begun()["word"]["embedding"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), whole, parts)


@pytest.mark.parametrize("name", ["ppo", pytest.param("reinforce", marks=pytest.mark.slow)])
def test_nor_where_all_tokens_weigh_the_same(name):
    what = CASES[name][0]
    params = begun(type(what))
    batch = rollout(what, params)
    (whole, _), (parts, _) = (train(what, params, batch, 1, rate=1.0, accumulate=k) for k in (1, 2))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), whole, parts)


def test_there_is_a_reference_where_it_weighs_something():
    with_one, without = (objective(Grpo, kl_weight=weight) for weight in (0.1, 0.0))
    assert "reference" in jax.eval_shape(with_one.init, jax.random.key(0)) and with_one.frozen
    assert "reference" not in jax.eval_shape(without.init, jax.random.key(0)) | without.logical_axes and not without.frozen
    assert "reference" not in without.begin(begun()), "nor where a run goes on from one that has one"
    assert "reference_kl" not in measure(without, begun(), rollout(without, begun()))[1]


def test_the_value_head_is_no_part_of_the_reference():
    what, params = objective(Ppo), begun(Ppo)
    assert params.keys() == {*params["reference"], "value", "reference"} and "value" not in params["reference"]
    axes = jax.tree.map(len, what.logical_axes, is_leaf=lambda x: isinstance(x, tuple))
    assert axes == jax.tree.map(jnp.ndim, params)
    tokens = rollout(what, params)["tokens"]
    found = np.asarray(jax.jit(what.values)(params, tokens))
    other = np.where(INDEX < 5, tokens, 3)
    same = np.asarray(jax.jit(what.values)(params, other))
    np.testing.assert_array_equal(found[:, :6], same[:, :6])  # what token 5 may bring is told by those before it
    assert (found[:, 0] == 0).all() and len(np.unique(found[:, 1:6])) > 5
    own, reference = (jax.jit(what.log_probs)(p, tokens) for p in (params, params["reference"]))
    np.testing.assert_array_equal(own, reference)


@pytest.mark.parametrize("what", [case[0] for case in CASES.values()][:4], ids=lambda what: type(what).__name__)
def test_the_batch_is_as_it_says(what):
    batch = rollout(what, begun(type(what)))
    assert {name: (x.shape, x.dtype) for name, x in batch.items()} == {name: (x.shape, x.dtype) for name, x in what.example_batch.items()}


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_and_entropy_against_numpy(temperature):
    what, tokens = objective(Grpo), rollout(objective(Grpo), begun())["tokens"]
    log_p, drawn_from = log_probs_by_hand(what.model, begun(), tokens, temperature)
    logits = logits_of(what.model, begun(), tokens)
    found = token_log_probs(logits, tokens, SIZE, temperature)
    np.testing.assert_allclose(found, log_p, rtol=1e-4, atol=1e-5)
    entropy = -(np.exp(drawn_from) * drawn_from).sum(-1)
    np.testing.assert_allclose(token_entropy(logits, SIZE, temperature)[:, 1:], entropy[:, 1:], rtol=1e-4)
    assert found[0, 0] == 0 and found.dtype == jnp.float32
    whole = token_log_probs(logits, tokens, logits.shape[-1], temperature)
    assert (np.asarray(whole) < np.asarray(found))[:, 1:].all(), "rows of the table that are no tokens must matter"
    grads = jax.grad(lambda x: token_entropy(x, SIZE).sum() + token_log_probs(x, tokens, SIZE).sum())(logits)
    assert np.isfinite(grads).all() and not np.any(grads[..., SIZE:])


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_trainer_finds_what_is_drawn_as_likely_as_the_decoder_did(temperature):
    """Prompts of different lengths in a cache, token by token; the decoder's own distribution at each."""
    what = objective(Grpo, temperature=temperature)
    params, decoder = begun(), decode.Decoder(what.model, SIZE, V.end)
    prompts = [[2, 5, 3], [7], [4, 4, 6, 8], [3, 8]]
    tokens, lengths = decode.pad(prompts, T)
    sampling, keys = decode.Sampling(temperature), jax.random.split(jax.random.key(3), len(prompts))
    padded, log_probs, mask = tokens.copy(), np.zeros(tokens.shape), np.zeros(tokens.shape, bool)
    state = decode.prefill(decoder, T, params, tokens, lengths)
    forward = jax.jit(decode.forward, static_argnums=0)
    for _ in range(4):
        at, done = np.asarray(state.position_B) + 1, np.asarray(state.done_B)
        logits, _ = forward(decoder, params, state.cache, state.token_B[:, None], state.position_B[:, None])
        log_p = np.asarray(jax.nn.log_softmax(logits[:, 0] / temperature))
        _, state = decode.step(decoder, sampling, params, keys, state)
        for b in np.flatnonzero(~done):
            padded[b, at[b]], mask[b, at[b]] = state.token_B[b], True
            log_probs[b, at[b]] = log_p[b, padded[b, at[b]]]
    found = np.asarray(jax.jit(what.log_probs)(params, padded))
    np.testing.assert_allclose(found[mask], log_probs[mask], atol=1e-5)
    assert mask.sum() > 8 and (log_probs[mask] < -0.01).any()


@pytest.mark.parametrize(
    "cls, fields, match",
    [
        (Grpo, {"kl_weight": -0.1}, "objective.kl_weight is -0.1: it must be at least 0"),
        (Ppo, {"clip": 1.0}, "objective.clip is 1.0: it must be over 0 and under 1"),
        (Ppo, {"value_clip": 0.0}, "objective.value_clip is 0.0: it must be over 0"),
        (Ppo, {"gae_decay": 1.5}, "objective.gae_decay is 1.5: it must be in 0..1"),
        (Reinforce, {"importance_cap": float("nan")}, "objective.importance_cap is nan"),
        (Reinforce, {"temperature": 0.0}, "objective.temperature is 0.0: it must be over 0"),
        (DrGrpo, {"completion_length": 0}, "objective.completion_length is 0: it must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused(cls, fields, match):
    with pytest.raises(UserError, match=match):
        objective(cls, **fields)
