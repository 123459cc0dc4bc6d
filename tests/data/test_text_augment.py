import collections
import types

import numpy as np
import pytest

from research import build, tables
from research.core import config as config_lib
from research.core.errors import UserError
from research.core.types import Vocabulary
from research.data import text_augment, text_inputs
from research.data import tokenizer as tokenizers
from research.data.corpus import Corpus
from research.data.text_augment import BackTranslation, CodeSwitch, Eda, SpanCorruption, TextAugmentation
from tests.data.test_tokenizer import DOCUMENTS
from tests.tiny import tiny_config

SYNONYMS = {"cat": ("feline", "tomcat"), "sat": ("posed",), "mat": ("rug",), "the": ("this",), "café": ("bar",)}
TEXT = "The Cat sat, on\nthe mat! (a café)"
WORDS = text_augment.words_of(TEXT)


def eda(alpha):
    return Eda(alpha, lambda word: SYNONYMS.get(word, ()))


def draws(operation, *arguments, n=2000):
    return [operation(*arguments, np.random.default_rng(i)) for i in range(n)]


def shown(words):
    return [word for word, _ in words]


@pytest.mark.parametrize("text", ["", " \n", "word", "two  words", "a\tb\nc", "Ünïcödé — 漢字, 🙂"])
def test_words_make_the_text_again(text):
    assert text_augment.joined(text_augment.words_of(text)) == text.rstrip()


@pytest.mark.parametrize(
    "word, other, found", [("(Cat),", "feline", "(Feline),"), ("cat", "fat cat", "fat cat"), ("«été»", "hiver", "«hiver»"), ("aa-a", "b", "b")]
)
def test_a_word_comes_in_the_place_of_another_as_that_was_written(word, other, found):
    assert text_augment.in_place_of(word, other) == found


def test_synonyms_replace_n_words_that_have_any_and_are_no_stop_words():
    found = draws(eda(0.25).replaced, WORDS)  # 2 of 8 words
    changed = [[i for i, (a, b) in enumerate(zip(shown(WORDS), shown(words), strict=True)) if a != b] for words in found]
    assert {len(places) for places in changed} == {2} and {i for places in changed for i in places} == {1, 2, 5, 7}
    counts = np.bincount([i for places in changed for i in places])[[1, 2, 5, 7]]
    assert counts == pytest.approx(1000, abs=90), "each as likely"
    assert {shown(words)[1] for words in found} == {"Cat", "Feline", "Tomcat"} and {shown(words)[7] for words in found} == {"café)", "bar)"}
    everything = draws(eda(1.0).replaced, WORDS, n=5)
    assert all(text_augment.joined(words).endswith("posed, on\nthe rug! (a bar)") for words in everything), "as many as there are"


def test_synonyms_of_any_words_are_inserted_anywhere_n_times():
    found = [shown(words) for words in draws(eda(0.4).inserted, WORDS)]  # 3
    assert {len(words) for words in found} == {11}
    new = collections.Counter(word for words in found for word in words if word in ("feline", "tomcat", "posed", "rug", "bar"))
    assert [new["feline"] + new["tomcat"], new["posed"], new["rug"], new["bar"]] == pytest.approx([1500] * 4, abs=150)
    places = np.bincount(
        [words.index("bar") for words in map(shown, draws(Eda(0.1, lambda word: ("bar",) if word == "mat" else ()).inserted, WORDS))]
    )
    assert places == pytest.approx([2000 / 9] * 9, abs=60)


def test_two_words_change_places_n_times_and_the_white_space_stays():
    one = draws(eda(0.1).swapped, WORDS)
    moved = [sum(a != b for a, b in zip(words, WORDS)) for words in one]
    assert set(moved) == {2} and all([space for _, space in words] == [space for _, space in WORDS] for words in one)
    assert all(sorted(shown(words)) == sorted(shown(WORDS)) for words in draws(eda(0.5).swapped, WORDS, n=50))
    assert max(sum(a != b for a, b in zip(words, WORDS)) for words in draws(eda(0.5).swapped, WORDS, n=50)) > 4


def test_words_are_deleted_at_the_rate_and_one_always_stays():
    found = draws(eda(0.3).deleted, WORDS)
    assert np.mean([len(words) for words in found]) == pytest.approx(0.7 * 8, abs=0.1)
    ends = draws(eda(1.0).deleted, WORDS)
    assert {len(words) for words in ends} == {1} and {words[0] for words in ends} == set(WORDS)


@pytest.mark.short
def test_eda_chooses_one_of_four_operations_for_each_copy(monkeypatch):
    for name in ("replaced", "inserted", "swapped", "deleted"):
        monkeypatch.setattr(Eda, name, lambda self, words, rng, name=name: [(name, "")])
    chosen = collections.Counter(draws(eda(0.1), TEXT))
    assert [chosen[name] for name in ("replaced", "inserted", "swapped", "deleted")] == pytest.approx([500] * 4, abs=75)


def test_eda_changes_a_text_of_one_word_and_leaves_an_empty_one():
    assert set(draws(eda(0.5), "Cat!", n=100)) == {"Cat!", "Feline!", "Tomcat!", "Cat! feline", "Cat! tomcat", "feline Cat!", "tomcat Cat!"}
    assert draws(eda(0.5), " ", n=5) == [" "] * 5 and set(draws(eda(0.5), "漢字", n=20)) == {"漢字"}


def test_words_of_the_list_are_translated_at_the_rate():
    switch = CodeSwitch(0.3, {"cat": ("Katze", "chat"), "the": ("die",), "café": ("кафе",)})
    found = draws(switch, TEXT)
    assert np.mean(["The" not in text for text in found]) == pytest.approx(0.3, abs=0.03)
    assert {text.split()[1] for text in found} == {"Cat", "Katze", "Chat"}
    assert text_augment.joined(text_augment.words_of(TEXT)) in found and "Die Katze sat, on\ndie mat! (a кафе)" in draws(
        CodeSwitch(1.0, switch.translations), TEXT, n=20
    )


def test_a_list_of_translations_may_have_several_of_a_word(tmp_path):
    (tmp_path / "words.tsv").write_text("Cat\tKatze\ncat\tchat\n Eis\tice cream\n", encoding="utf-8")
    assert text_augment.read_translations(tmp_path / "words.tsv") == {"cat": ("Katze", "chat"), "eis": ("ice cream",)}


@pytest.mark.parametrize(
    "content", [b"", b"cat\tKatze\ncat Katze\n", b"cat\t\n", b"\tKatze\n", b"cat\tKatze\tchat\n", b"a\tb\n\nc\td\n", b"caf\xe9\tbar\n", None]
)
def test_a_list_that_is_none_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "words.tsv").write_bytes(content)
    with pytest.raises(UserError, match="words.tsv"):
        text_augment.read_translations(tmp_path / "words.tsv")


@pytest.mark.parametrize("space", [" ", "\u00a0", "  "])
def test_several_words_which_no_word_of_a_text_is_are_refused(tmp_path, space):
    (tmp_path / "words.tsv").write_text(f"cat\tKatze\nice{space}cream\tEis\n", encoding="utf-8")
    with pytest.raises(UserError, match="line 2 of .*words.tsv translates 'ice.*cream'"):
        text_augment.read_translations(tmp_path / "words.tsv")


def test_texts_are_translated_back_at_the_rate():
    found = draws(BackTranslation(0.25, lambda text, rng: f"{text} {rng.integers(3)}"), "cat")
    assert np.mean([text != "cat" for text in found]) == pytest.approx(0.25, abs=0.03) and set(found) == {"cat", "cat 0", "cat 1", "cat 2"}


MASK = 99


def spans(ids):
    """The lengths of the spans that the masks of a text of arange(n) stand for."""
    edges = np.array([-1, *(-2 if token == MASK else token for token in ids.tolist()), 40])
    return [int(edges[i + 1] - edges[i - 1] - 1) for i in np.flatnonzero(edges == -2)]


@pytest.mark.short
@pytest.mark.parametrize(
    "rate, mean_span, hidden, count",
    [(0.15, 3.0, 6, 2), (0.3, 3.0, 12, 4), (0.5, 1.0, 20, 20), (0.01, 3.0, 1, 1), (1.0, 3.0, 39, 2), (0.9, 1.0, 36, 5)],
)
def test_spans_hide_so_many_tokens_in_so_many_places(rate, mean_span, hidden, count):
    """Of 40 tokens; where few are kept there is room for few spans."""
    text = np.arange(40, dtype=np.uint16)
    for found in draws(SpanCorruption(rate, mean_span, MASK), text, n=200):
        kept = found[found != MASK]
        assert (np.diff(kept) > 0).all() and len(kept) == 40 - hidden and (found == MASK).sum() == count
        assert not ((found[1:] == MASK) & (found[:-1] == MASK)).any() and sum(spans(found)) == hidden and min(spans(found)) > 0


def test_all_ways_to_hide_spans_are_as_likely():
    """Of 6 tokens 3 in 2 spans, in 2 of the 4 places between the 3 that stay, of 1 and 2 or of 2 and 1 tokens."""
    found = collections.Counter(tuple(ids) for ids in draws(SpanCorruption(0.5, 2.0, MASK), np.arange(6), n=6000))
    assert len(found) == 12 and list(found.values()) == pytest.approx([500] * 12, abs=90)


def test_a_text_of_one_token_is_not_hidden_and_of_two_one_is():
    assert [list(ids) for ids in draws(SpanCorruption(1.0, 3.0, MASK), np.arange(1), n=3)] == [[0]] * 3
    assert {tuple(ids) for ids in draws(SpanCorruption(0.15, 3.0, MASK), np.arange(2), n=50)} == {(MASK, 1), (0, MASK)}


WORDPIECE = tokenizers.train_wordpiece(DOCUMENTS, 60)
V = tokenizers.vocabulary(WORDPIECE)


def test_operations_come_in_order_words_before_tokens():
    said = []
    word = lambda name: lambda text, rng: said.append((name, text)) or f"{text} cats"
    token = lambda name: lambda ids, rng: said.append((name, len(ids))) or ids[1:]
    made = TextAugmentation(WORDPIECE, (word("a"), word("b")), (token("c"), token("d")))
    whole = text_inputs.encode(WORDPIECE, "the cats cats")
    np.testing.assert_array_equal(made("the", np.random.default_rng(0)), whole[2:])
    assert said == [("a", "the"), ("b", "the cats"), ("c", len(whole)), ("d", len(whole) - 1)]
    crop = text_inputs.WordAugmentation(V, 0.5, 0.5)
    assert list(TextAugmentation(WORDPIECE, (), (crop,))("\u200b", np.random.default_rng(0))) == [], "of no tokens none"


@pytest.mark.parametrize("train, size", [(tokenizers.train_wordpiece, 60), (tokenizers.train_byte_bpe, 280)])
def test_a_text_that_is_kept_as_ids_has_the_same_words(train, size):
    tokenizer = train(DOCUMENTS, size)
    ids = text_inputs.encode(tokenizer, "Unaffable dogs sat — on the mat.").astype(np.uint16)
    seen = []
    made = TextAugmentation(tokenizer, (lambda text, rng: seen.append(text) or text,), ())
    np.testing.assert_array_equal(made.of_ids(ids, np.random.default_rng(0)), ids)
    assert seen[0].lower().startswith("unaffable dogs sat ")
    untouched = TextAugmentation(types.SimpleNamespace(), (), (lambda ids, rng: ids[::-1],))
    np.testing.assert_array_equal(untouched.of_ids(ids, None), ids[::-1])


def translated(text, rng):
    return f"back {text}"


def config(name="Reviews", source="labelled_text", **data):
    fields = {"data__text_field": "sentence1", "data__second_text_field": "sentence2"} if name == "Scored" else {}
    more = {f"data__{field}": value for field, value in data.items()}
    return tiny_config(data__name=f"tests.tiny_labelled_text:{name}", data__source=source, **fields, **more)


@pytest.fixture
def everything(tmp_path, monkeypatch):
    """All fields, with a thesaurus of a few words."""
    (tmp_path / "words.tsv").write_text("cat\tdogs\n")
    monkeypatch.setattr(tables.wordnet, "load", lambda: eda(0).synonyms)
    return {
        "eda_alpha": 0.5,
        "back_translation": f"{__name__}:translated",
        "back_translation_rate": 1.0,
        "code_switch_rate": 1.0,
        "code_switch_words": str(tmp_path / "words.tsv"),
        "crop_words": 0.9,
        "word_dropout": 0.1,
        "span_corruption": 0.3,
    }


def test_a_config_makes_what_it_asks_for_in_order_and_by_default_nothing(everything):
    assert tables.text_augmentation(config(), WORDPIECE, V, training=True) is None
    asked = config(**everything)
    config_lib.check_fields(asked)
    assert tables.text_augmentation(asked, WORDPIECE, V, training=False) is None
    made = tables.text_augmentation(asked, WORDPIECE, V, training=True)
    assert [type(x).__name__ for x in made.of_words + made.of_tokens] == [
        "BackTranslation",
        "Eda",
        "CodeSwitch",
        "WordAugmentation",
        "SpanCorruption",
    ]
    assert made.of_words[0].translate is translated and made.of_tokens[1] == SpanCorruption(0.3, 3.0, V.mask)


@pytest.mark.parametrize("source, name", [("labelled_text", "Reviews"), ("text_pairs", "Scored"), ("text_views", "Reviews")])
def test_sources_augment_in_training_alone_by_their_generators_and_keep_labels(cache, tmp_path, everything, source, name):
    WORDPIECE.save(str(tmp_path / "tokenizer.json"))

    def examples(training, **data):
        c = config(name, source, **data)
        return build.examples_of(c, Corpus(c, tables.DATASETS, 60, tmp_path / "tokenizer.json"), "train", 24, training)

    plain, evaluated, trained = examples(True), examples(False, **everything), examples(True, **everything)
    drawn = lambda made, i, seed=0: {key: x.tolist() for key, x in made.example(i, np.random.default_rng(seed)).items()}
    changed = []
    for i in range(len(plain)):
        original, many = drawn(plain, i), [drawn(trained, i, seed) for seed in range(10)]
        assert drawn(evaluated, i) == original and drawn(trained, i) == many[0]
        assert {len(x["tokens"]) if "tokens" in x else len(x["second/tokens"]) for x in many} == {24}
        assert all(x.get("label") == original.get("label") for x in many)
        changed += [x != original for x in many]
    assert np.mean(changed) > 0.9


def test_a_vocabulary_without_a_mask_is_refused():
    gpt = Vocabulary(size=64, continues=(False,) * 64, end=9)
    with pytest.raises(UserError, match=r"no \[MASK\] token, which data.span_corruption needs"):
        tables.text_augmentation(config(span_corruption=0.1), None, gpt, training=True)


@pytest.mark.parametrize(
    "data, said",
    [
        ({"code_switch_rate": 0.1}, "data.code_switch_words"),
        ({"eda_alpha": 0.1, "language": "de"}, "English"),
        ({"eda_alpha": 1.5}, "data.eda_alpha is 1.5"),
        ({"span_corruption": -0.1}, "data.span_corruption is -0.1"),
        ({"mean_span": 0.5}, "data.mean_span is 0.5"),
    ],
)
def test_fields_that_make_no_sense_are_refused(data, said):
    with pytest.raises(UserError, match=said):
        config_lib.check_fields(config(**data))
        tables.check_augmentation(config(source="labelled_text", **data))


def test_a_back_translation_that_is_no_function_is_refused():
    with pytest.raises(UserError, match="data.back_translation is 'marian': name your own as \"package.module:function\""):
        tables.text_augmentation(config(back_translation="marian"), WORDPIECE, V, training=True)
