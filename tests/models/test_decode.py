import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.core.linen import apply, init
from research.models import decode
from research.models.attention import causal_mask
from research.models.decode import Decoder, Sampling
from research.models.gpt import Gpt
from research.models.layers import TransformerConfig
from research.tables import from_fields
from tests.tiny import tiny_config

VOCAB = 16
HOT = Sampling(temperature=3.0)
PROMPTS = [[5, 9, 2, 7, 7, 1, 4, 8, 6], [6], [2, 8, 5, 1]]
KINDS = {
    "dense": {},
    "banded": {"attention_pattern": ("dense", "local"), "attention_window": 3},
    "rotary": {"positions": "rotary", "kv_heads": 2, "norm_type": "rms", "use_bias": False, "gated_mlp": True, "tied_head": False},
}


def make(**changes):
    changes = {"vocab_size": VOCAB, "norm": "pre", "initializer_stddev": 0.4} | changes
    model = Gpt(from_fields(TransformerConfig, tiny_config(**{f"model__{name}": value for name, value in changes.items()}).model))
    zeros = jnp.zeros((1, 4), jnp.int32)
    return model, jax.jit(lambda rng: init(model, rng, zeros, zeros, causal_mask(zeros)))(jax.random.key(0))


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return made(**KINDS[request.param])


@pytest.fixture(scope="module")
def dense():
    return made()


def made(end=-2, **changes):  # no token is -2: nothing ends by itself
    model, params = make(**changes)
    return Decoder(model, model.config.vocab_size, end), params, logits_of(model, params)


def logits_of(model, params, length=16):
    """tokens -> logits_V of the next, by the model without a cache."""
    positions_1T, mask_1TT = jnp.arange(length)[None], causal_mask(jnp.ones((1, length), jnp.int32))
    run = jax.jit(lambda tokens_1T: apply(model, params, None, tokens_1T, positions_1T, mask_1TT)[0][0])
    return functools.cache(lambda *tokens: np.asarray(run(decode.pad([tokens], length)[0])[len(tokens) - 1]))


def log_softmax(logits):
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def texts(decoder, params, sampling=Sampling(temperature=0), prompts=PROMPTS, max_tokens=6, slots=16, keys=None):
    """The tokens of each prompt, without the -1 after their end; all prompts padded to one length, so that few shapes are compiled."""
    keys = jax.vmap(jax.random.key)(jnp.arange(len(prompts))) if keys is None else keys
    steps = list(decode.stream(decoder, sampling, params, *decode.pad(prompts, 9), keys, max_tokens, slots))
    return [[int(token) for token in row if token >= 0] for row in np.transpose(steps)]


def greedy(logits_of, prompt, steps=6, bend=lambda logits, tokens: logits):
    tokens = list(prompt)
    for _ in range(steps):
        tokens.append(int(bend(logits_of(*tokens), tokens).argmax()))
    return tokens[len(prompt) :]


def test_greedy_with_a_cache_is_greedy_without(kind):
    decoder, params, full = kind
    expected = [greedy(full, prompt) for prompt in PROMPTS]
    assert texts(decoder, params) == expected
    assert len({tuple(row) for row in expected}) == 3 and max(len(set(row)) for row in expected) > 2  # nothing that a constant would pass


def test_logits_with_a_cache_are_those_without(kind):
    """A prompt prefilled, then a continuation token by token, against one pass over the whole; rows of different lengths, padded."""
    (decoder, params, full), more = kind, [[1, 5, 2, 9], [4, 4, 7, 2], [8, 3, 3, 6]]
    cache = decode.prefill(decoder, 16, params, *decode.pad(PROMPTS, 9)).cache
    forward = jax.jit(lambda cache, tokens, positions: decode.forward(decoder, params, cache, tokens, positions))
    for n in range(4):
        tokens_BT, positions_BT = np.array([[row[n]] for row in more]), np.array([[len(prompt) + n] for prompt in PROMPTS])
        logits_BTV, cache = forward(cache, tokens_BT, positions_BT)
        np.testing.assert_allclose(logits_BTV[:, 0], [full(*prompt, *row[: n + 1]) for prompt, row in zip(PROMPTS, more)], atol=2e-5)


def test_a_row_draws_the_same_in_any_company(dense):
    decoder, params, _ = dense
    keys = jax.vmap(jax.random.key)(jnp.array([10, 11, 12]))
    together = texts(decoder, params, HOT, keys=keys)
    turned = texts(decoder, params, HOT, prompts=PROMPTS[1:] + PROMPTS[:1], keys=keys[jnp.array([1, 2, 0])])
    assert turned == together[1:] + together[:1]
    assert texts(decoder, params, HOT, keys=keys[::-1]) != together


def test_a_row_stops_at_its_end_token_and_at_the_end_of_the_cache(dense):
    decoder, params, _ = dense
    endless = texts(decoder, params, HOT, max_tokens=20)
    assert [len(row) for row in endless] == [7, 15, 12]
    end = endless[0][3]
    assert texts(dataclasses.replace(decoder, end=end), params, HOT, max_tokens=20) == [row[: [*row, end].index(end)] for row in endless]


def test_tokens_past_the_vocabulary_are_never_chosen(dense):
    decoder, params, _ = dense
    rows = texts(dataclasses.replace(decoder, vocab_size=5), params, HOT, max_tokens=15)
    assert {token for row in rows for token in row} == {0, 1, 2, 3, 4}


def test_the_next_step_is_dispatched_before_a_token_is_read(dense, monkeypatch):
    events, real_step = [], decode.step
    monkeypatch.setattr(decode, "step", lambda *args: events.append("step") or real_step(*args))
    decoder, params, _ = dense
    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    for _ in decode.stream(decoder, Sampling(temperature=0), params, *decode.pad(PROMPTS, 9), keys, 3, 16):
        events.append("read")
    assert events == ["step", "step", "read", "step", "read", "read"]


@pytest.fixture(scope="module")
def logits():
    return np.random.default_rng(0).normal(size=(5, 12)).astype(np.float32) * 2


@pytest.mark.parametrize("k", [1, 4, 12, 40])
def test_top_k_against_numpy(logits, k):
    kept = np.isfinite(decode.keep_top_k(logits, k))
    assert [set(np.flatnonzero(row)) for row in kept] == [set(np.argsort(-row)[:k]) for row in logits]


@pytest.mark.parametrize("p", [1e-6, 0.5, 0.9, 1.0])
def test_top_p_against_a_loop(logits, p):
    for row, bent in zip(logits, decode.keep_top_p(logits, p)):
        probability, kept, total = np.exp(row.astype(np.float64)) / np.exp(row.astype(np.float64)).sum(), set(), 0.0
        for token in np.argsort(-row):
            if total >= p - 1e-9:
                break
            kept.add(token)
            total += probability[token]
        assert set(np.flatnonzero(np.isfinite(bent))) == kept
        np.testing.assert_array_equal(np.asarray(bent)[sorted(kept)], row[sorted(kept)])


def test_top_p_after_top_k(logits):
    bent = decode.keep_top_p(decode.keep_top_k(logits, 3), 1.0)
    assert np.isfinite(bent).sum(-1).tolist() == [3] * 5


def test_repetition_penalty_against_numpy(logits):
    seen = np.random.default_rng(1).random(logits.shape) < 0.5
    expected = [[(x / 1.7 if x > 0 else x * 1.7) if s else x for x, s in zip(row, flags)] for row, flags in zip(logits, seen)]
    np.testing.assert_allclose(decode.penalise(logits, seen, 1.7), expected, rtol=1e-6)


def test_the_penalty_is_on_what_the_row_has_of_prompt_and_text(dense):
    decoder, params, full = dense

    def bend(logits, tokens):
        seen = np.isin(np.arange(VOCAB), tokens)
        return np.where(seen, np.where(logits > 0, logits / 1.5, logits * 1.5), logits)

    expected = [greedy(full, prompt, bend=bend) for prompt in PROMPTS]
    assert texts(decoder, params, Sampling(temperature=0, repetition_penalty=1.5)) == expected
    assert expected != [greedy(full, prompt) for prompt in PROMPTS]


def test_draws_follow_the_softmax(logits):
    n, row = 20_000, logits[:1]
    keys = jax.random.split(jax.random.key(0), n)
    drawn = decode.choose(Sampling(temperature=2.0, top_k=5), jnp.repeat(row, n, 0), jnp.zeros((n, 12), bool), keys)
    best = np.argsort(-row[0])[:5]
    expected = np.zeros(12)
    expected[best] = np.exp(row[0, best] / 2) / np.exp(row[0, best] / 2).sum()
    np.testing.assert_allclose(np.bincount(drawn, minlength=12) / n, expected, atol=0.012)


BEAM_VOCAB, BEAM_END, LIMIT = 4, 3, 3
BEAM_PROMPTS = [[0, 2, 1, 1, 2, 0, 1], [1], [2, 2, 0]]


@pytest.fixture(scope="module")
def small():
    return made(end=BEAM_END, vocab_size=BEAM_VOCAB, initializer_stddev=0.6)


def every_text(full, prompt, limit, alpha):
    """All texts there are, best first: (score, tokens without the end token)."""
    found = []
    for length in range(1, limit + 1):
        for text in itertools.product(range(BEAM_VOCAB), repeat=length):
            if BEAM_END in text[:-1] or (length < limit and text[-1] != BEAM_END):
                continue
            total = sum(log_softmax(full(*prompt, *text[:i]))[token] for i, token in enumerate(text))
            found.append((total / ((5 + length) / 6) ** alpha, [t for t in text if t != BEAM_END]))
    return sorted(found, reverse=True)


def beams_by_loop(full, prompt, width, limit, alpha):
    """Beam search by a plain loop: of each length the `width` best unended prefixes go on; the best of what has ended by then, or at the limit."""
    alive, ended = [(0.0, [])], []
    for n in range(1, limit + 1):
        grown = sorted(((t + x, [*text, v]) for t, text in alive for v, x in enumerate(log_softmax(full(*prompt, *text)))), reverse=True)[: 2 * width]
        over = [(t, text) for t, text in grown if text[-1] == BEAM_END or n == limit]
        ended += [(t / ((5 + n) / 6) ** alpha, [v for v in text if v != BEAM_END]) for t, text in over]
        alive = [(t, text) for t, text in grown if text[-1] != BEAM_END][:width]
    return sorted(ended, reverse=True)[:width]


def search(decoder, params, width, alpha, slots=16, limit=LIMIT, prompts=BEAM_PROMPTS):
    state = decode.prefill(decoder, slots, params, *decode.pad(prompts, 9))
    found = [np.asarray(x) for x in decode.beam_search(decoder, width, LIMIT, params, state, alpha, limit)]
    return [[(float(score), row[:length].tolist()) for row, length, score in zip(*of_row) if np.isfinite(score)] for of_row in zip(*found)]


def check(found, expected):
    for of_prompt, expected_of_prompt in zip(found, expected, strict=True):
        assert [text for _, text in of_prompt] == [text for _, text in expected_of_prompt]
        np.testing.assert_allclose([score for score, _ in of_prompt], [score for score, _ in expected_of_prompt], atol=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_wide_beams_find_the_best_of_all_texts(small, alpha):
    decoder, params, full = small
    expected = [every_text(full, prompt, LIMIT, alpha) for prompt in BEAM_PROMPTS]
    assert [len(of_prompt) for of_prompt in expected] == [40] * 3
    check(search(decoder, params, 40, alpha), expected)


def test_narrow_beams_are_those_of_a_loop(small):
    decoder, params, full = small
    for width in (1, 2):
        expected = [beams_by_loop(full, prompt, width, LIMIT, 0.6) for prompt in BEAM_PROMPTS]
        check(search(decoder, params, width, 0.6), expected)
        best = [every_text(full, prompt, LIMIT, 0.6)[:width] for prompt in BEAM_PROMPTS]
        assert width > 1 or expected != best  # one beam misses some


def test_the_search_goes_on_while_a_longer_text_may_be_better(small):
    """A great length penalty, under which texts that ended early are overtaken. Three times one prompt, so that no other keeps the search going."""
    decoder, params, full = small
    for prompt in itertools.product(range(BEAM_END), repeat=3):
        check(search(decoder, params, 1, 6.0, prompts=[list(prompt)] * 3), [beams_by_loop(full, prompt, 1, LIMIT, 6.0)] * 3)


def test_beams_stop_at_the_limit_and_at_the_end_of_the_cache_each_row_at_its_own(small):
    decoder, params, full = small
    shorter = search(decoder, params, 40, 0.6, limit=2)
    check(shorter, [every_text(full, prompt, 2, 0.6) for prompt in BEAM_PROMPTS])
    found = search(decoder, params, 40, 0.6, slots=9)  # the first prompt has room for 2
    check(found, [every_text(full, prompt, limit, 0.6) for prompt, limit in zip(BEAM_PROMPTS, (2, 3, 3))])


def test_buckets_are_few():
    assert [decode.bucket(n, 100) for n in (1, 16, 17, 32, 64, 65, 100)] == [16, 16, 32, 32, 64, 100, 100]
