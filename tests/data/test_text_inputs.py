import numpy as np
import pytest

from research.core.types import Vocabulary
from research.data import text_inputs
from research.data import tokenizer as tokenizers
from tests.data.test_tokenizer import DOCUMENTS
from tests.objectives.test_masked_lm import V

GPT = Vocabulary(size=64, continues=(False,) * 64, end=9)
TOKENIZERS = {"wordpiece": tokenizers.train_wordpiece(DOCUMENTS, 60), "byte_bpe": tokenizers.train_byte_bpe(DOCUMENTS, 280)}


def ids(*tokens):
    return np.array(tokens, np.int32)


@pytest.mark.short
def test_layouts():
    one, pair = text_inputs.lay_out([ids(20, 21)], V, 6), text_inputs.lay_out([ids(20, 21), ids(30)], V, 8)
    assert [list(one[name]) for name in ("tokens", "token_types", "mask")] == [[2, 20, 21, 3, 0, 0], [0] * 6, [True] * 4 + [False] * 2]
    assert [list(pair[name]) for name in ("tokens", "token_types")] == [[2, 20, 21, 3, 30, 3, 0, 0], [0, 0, 0, 0, 1, 1, 0, 0]]
    assert pair["tokens"].dtype == pair["token_types"].dtype == np.int32 and pair["mask"].dtype == bool
    one, pair = text_inputs.lay_out([ids(20, 21)], GPT, 4), text_inputs.lay_out([ids(20), ids(30)], GPT, 5)
    assert list(one["tokens"]) == [20, 21, 9, 9] and list(one["mask"]) == [True, True, True, False]
    assert list(pair["tokens"]) == [20, 9, 30, 9, 9] and list(pair["token_types"]) == [0, 0, 1, 1, 0]


def test_a_vocabulary_of_two_separators_has_both_between_a_pair():
    """As RoBERTa's: <s> a </s></s> b </s>."""
    two = V._replace(separators=2)
    one, pair = text_inputs.lay_out([ids(20, 21)], two, 6), text_inputs.lay_out([ids(20, 21), ids(30)], two, 8)
    assert list(one["tokens"]) == [2, 20, 21, 3, 0, 0] and list(pair["tokens"]) == [2, 20, 21, 3, 3, 30, 3, 0]
    assert list(pair["token_types"]) == [0, 0, 0, 0, 0, 1, 1, 0]
    cut = text_inputs.lay_out([ids(*range(20, 40)), ids(50, 51)], two, 9)
    assert list(cut["tokens"]) == [2, 20, 21, 22, 3, 3, 50, 51, 3] and cut["mask"].all()
    tokenizer = TOKENIZERS["wordpiece"]
    inputs, begins, spans_N2 = text_inputs.question_inputs("Who ran?", "Dogs ran.", tokenizer, tokenizers.vocabulary(tokenizer)._replace(separators=2), 32)
    first = tokenizer.encode("Dogs ran.", add_special_tokens=False).ids[0]
    assert inputs["tokens"][begins] == first and inputs["token_types"][begins] == 1 and inputs["token_types"][begins - 1] == 0


def test_the_longest_part_is_cut_first():
    def one_by_one(lengths, room):
        lengths = list(lengths)
        while sum(lengths) > room:
            lengths[int(np.argmax(lengths))] -= 1
        return lengths

    for lengths in ([3, 4], [10, 2], [2, 10], [9, 8], [8, 8], [0, 30], [5], [40]):
        found = text_inputs.fitted(lengths, 11)
        assert sorted(found) == sorted(one_by_one(lengths, 11)) and all(a <= b for a, b in zip(found, lengths)), lengths
    cut = text_inputs.lay_out([ids(*range(20, 40)), ids(50, 51)], V, 9)
    assert list(cut["tokens"]) == [2, 20, 21, 22, 23, 3, 50, 51, 3] and cut["mask"].all()


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_where_words_begin(kind):
    tokenizer = TOKENIZERS[kind]
    v, words = tokenizers.vocabulary(tokenizer), ["Unaffable", "\u200b" if kind == "wordpiece" else "x", "cats", "ran"]
    inputs, first = text_inputs.word_inputs(words, tokenizer, v, 40)
    whole = text_inputs.text_inputs([" ".join(words)], tokenizer, v, 40)
    np.testing.assert_array_equal(inputs["tokens"], whole["tokens"])
    shown = [tokenizer.id_to_token(int(inputs["tokens"][place]))[-1 if kind == "byte_bpe" else 0 :] for place in first if place >= 0]
    assert (first[1] == -1) == (kind == "wordpiece") and len(shown) == (3 if kind == "wordpiece" else 4) and first.dtype == np.int32
    assert not any(v.continues[inputs["tokens"][place]] for place in first[1:] if place >= 0)
    last = int(first[-1])
    _, cut = text_inputs.word_inputs(words, tokenizer, v, last + 1)  # the end of the text takes the place of the last word
    assert cut[-1] == -1 and cut[-2] == first[-2]


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_question_and_its_text(kind):
    tokenizer, context = TOKENIZERS[kind], "The dogs sat.\n The CATS ran on the mat."
    v = tokenizers.vocabulary(tokenizer)
    inputs, begins, spans = text_inputs.question_inputs("cats", context, tokenizer, v, 64)
    found = [context[a:b].strip().lower() for a, b in spans]
    tokens = inputs["tokens"][begins : begins + len(spans)]
    assert found == [tokenizer.decode([int(token)]).removeprefix("##").strip().lower() for token in tokens]
    assert (inputs["token_types"][begins : begins + len(spans)] == 1).all() and inputs["token_types"][begins - 1] == 0
    asked = len(text_inputs.encode(tokenizer, "cats"))
    short, begins, spans = text_inputs.question_inputs("cats", context, tokenizer, v, begins + 4)
    assert short["mask"].all() and begins == inputs["token_types"].argmax() and len(spans) == len(found), f"the text is cut, not the {asked} tokens"
    long, begins, _ = text_inputs.question_inputs(context * 3, context, tokenizer, v, 21)
    assert begins == 10 + (kind == "wordpiece") and long["mask"].all()
    long, begins, _ = text_inputs.question_inputs(context * 3, "a", tokenizer, v, 21)
    assert begins == 19 and long["mask"].all(), "a short text leaves its room to the question"


def words_of(ids):
    return [list(word) for word in np.split(ids, np.flatnonzero(ids < 40)[1:])]


@pytest.mark.short
def test_words_are_left_out_whole_and_never_all():
    """In V tokens from 40 on go on with the word before."""
    text = ids(10, 40, 41, 11, 12, 42, 13, 14, 15, 16, 43, 17, 18, 19)
    assert len(words_of(text)) == 10
    draw = lambda crop, dropout, n=2000: [text_inputs.WordAugmentation(V, crop, dropout)(text, np.random.default_rng(i)) for i in range(n)]
    for found in draw(1.0, 0.3, 200):
        assert all(word in words_of(text) for word in words_of(found)) and sorted(found[found < 40]) == list(found[found < 40])
    assert np.mean([len(words_of(found)) for found in draw(1.0, 0.3)]) == pytest.approx(7, abs=0.1)
    cropped = draw(0.5, 0.0)
    sizes = [len(words_of(found)) for found in cropped]
    assert {*sizes} == {5, 6, 7, 8, 9, 10} and np.mean(sizes) == pytest.approx(7.5, abs=0.1)
    assert all((np.diff(found[found < 40]) == 1).all() for found in cropped), "a crop is a run"
    assert {int(found[0]) for found in cropped} == {10, 11, 12, 13, 14, 15}, "which begins anywhere"
    assert {len(words_of(found)) for found in draw(1.0, 1.0, 50)} == {1}
    assert all((found == text).all() for found in draw(1.0, 0.0, 5))
