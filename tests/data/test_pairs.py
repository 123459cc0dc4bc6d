import types

import numpy as np
import pytest

from research.core.errors import UserError
from research.data.pairs import SentencePairs
from tests.objectives.test_masked_lm import V

LENGTH = 32


def make_store(documents=20, seed=0):
    """Token 1000 * d + i is the i-th of document d."""
    rng = np.random.default_rng(seed)
    lengths = [rng.integers(3, 12, rng.integers(4, 30)) for _ in range(documents)]
    tokens = np.concatenate([1000 * (d + 1) + np.arange(n.sum()) for d, n in enumerate(lengths)])
    sentences = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    ends = np.concatenate([[0], np.cumsum([len(n) for n in lengths])])
    return types.SimpleNamespace(tokens=tokens, sentences=sentences, documents=ends, manifest={"documents": "made:up"})


@pytest.fixture(scope="module")
def store():
    return make_store()


@pytest.fixture(scope="module")
def examples(store):
    pairs = SentencePairs(store, LENGTH, V, short_rate=0.1)
    return [pairs.example(i % len(pairs), np.random.default_rng(i)) for i in range(3000)]


def segments(example):
    tokens, ends = example["tokens"], np.flatnonzero(example["tokens"] == V.sep)
    return tokens[1 : ends[0]], tokens[ends[0] + 1 : ends[1]]


def test_layout(examples):
    for example in examples[:300]:
        a, b = segments(example)
        used = len(a) + len(b) + 3
        assert example["tokens"][0] == V.cls and len(a) and len(b) and used <= LENGTH
        assert (example["tokens"][used:] == V.pad).all()
        np.testing.assert_array_equal(example["token_types"], [0] * (len(a) + 2) + [1] * (len(b) + 1) + [0] * (LENGTH - used))
        assert (np.diff(a) == 1).all() and (np.diff(b) == 1).all()


@pytest.mark.short
def test_the_label_is_the_truth(examples):
    for example in examples:
        a, b = segments(example)
        assert (b[0] == a[-1] + 1) == example["is_next"]
        assert (a[0] // 1000 == b[0] // 1000) == example["is_next"]
    assert np.mean([example["is_next"] for example in examples]) == pytest.approx(0.5, abs=0.03)


def test_form_does_not_tell_the_label(store, examples):
    """Nor how long b is, nor how it begins, nor how it ends: a full stop must be as likely under either label."""
    starts, ends = set(store.tokens[store.sentences[:-1]]), set(store.tokens[store.sentences[1:] - 1])
    lengths, stops = {0: [], 1: []}, {0: [], 1: []}
    for example in examples:
        a, b = segments(example)
        assert b[0] in starts and b[0] % 1000, "b begins a sentence, never its document"
        lengths[int(example["is_next"])].append((len(a), len(b)))
        stops[int(example["is_next"])].append(b[-1] in ends)
    np.testing.assert_allclose(np.mean(lengths[0], 0), np.mean(lengths[1], 0), atol=0.8)
    assert np.mean(stops[0]) == pytest.approx(np.mean(stops[1]), abs=0.04)
    assert np.mean(stops[1]) < 0.35


def test_one_pair_in_ten_is_short(store):
    pairs = SentencePairs(store, LENGTH, V, short_rate=0.0)
    used = [(pairs.example(i % len(pairs), np.random.default_rng(i))["tokens"] > 0).sum() for i in range(500)]
    always = SentencePairs(store, LENGTH, V, short_rate=1.0)
    short = [(always.example(i % len(pairs), np.random.default_rng(i))["tokens"] > 0).sum() for i in range(500)]
    assert np.mean(used) > 0.75 * LENGTH and np.mean(short) < 0.65 * LENGTH


def test_all_text_is_used_but_lone_sentences(store):
    pairs = SentencePairs(store, LENGTH, V, 0.0)
    spans = list(zip(pairs._begins, pairs._ends))
    assert all(end - begin >= 2 for begin, end in spans) and all(a[1] <= b[0] for a, b in zip(spans, spans[1:]))
    assert sum(end - begin for begin, end in spans) > 0.9 * (len(store.sentences) - 1)


def test_pairs_want_tokens_between_them(store):
    with pytest.raises(UserError, match=r"no \[CLS\], \[SEP\] token, which sentence_pairs needs"):
        SentencePairs(store, LENGTH, V._replace(cls=None, sep=None), 0.1)


def test_one_document_makes_no_pairs():
    with pytest.raises(UserError, match="fewer than two documents"):
        SentencePairs(make_store(1), LENGTH, V, 0.1)
