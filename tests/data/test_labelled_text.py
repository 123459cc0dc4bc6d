import numpy as np
import pytest

from research import build, tables
from research.core.errors import UserError
from research.data import tokenizer as tokenizers
from research.data.corpus import Corpus
from tests.data.test_tokenizer import DOCUMENTS
from tests.tiny import tiny_config

LENGTH = 24


@pytest.fixture(scope="module", params=["wordpiece", "byte_bpe"])
def kept(request, tmp_path_factory):
    """A tokenizer's file."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train, size = (tokenizers.train_wordpiece, 60) if request.param == "wordpiece" else (tokenizers.train_byte_bpe, 280)
    train(DOCUMENTS, size).save(str(path))
    return path


def made(kept, name, source, length=LENGTH, training=False, vocab_size=300, **data):
    """(corpus, all examples by their place in the data set)"""
    c = tiny_config(
        data__name=f"tests.tiny_labelled_text:{name}", data__source=source, data__length=length, **{f"data__{k}": v for k, v in data.items()}
    )
    corpus = Corpus(c, tables.DATASETS, vocab_size, kept)
    examples = build.examples_of(c, corpus, "train", length, training)
    return corpus, [examples.example(i, np.random.default_rng(i)) for i in range(len(examples))]


def shown(corpus, example, part=None):
    used = example["mask"] if part is None else example["mask"] & (example["token_types"] == part)
    return corpus.tokenizer.decode(list(example["tokens"][used])).lower().strip()


@pytest.mark.short
def test_texts_have_their_labels_and_empty_ones_are_counted_out(cache, kept):
    corpus, examples = made(kept, "Reviews", "labelled_text")
    assert corpus.labels == ("neg", "pos")
    found = {(shown(corpus, example), int(example["label"])) for example in examples}
    assert found == {("the cat sat on the mat.", 1), ("dogs ran.", 0), ("unaffable dogs and cats.", 0)}
    assert {(name, x.dtype.name, x.shape) for name, x in examples[0].items()} == {
        ("tokens", "int32", (LENGTH,)), ("token_types", "int32", (LENGTH,)), ("mask", "bool", (LENGTH,)), ("label", "int32", ())
    }  # fmt: skip
    manifest = corpus.manifest[f"train/{LENGTH}"]
    assert manifest == {"examples": "tiny_reviews/1.0.0:train", "number_of_examples": 3, "number_left_out": 2}


def test_pairs_have_scores(cache, kept):
    corpus, examples = made(kept, "Scored", "labelled_text", 64, text_field="sentence1", second_text_field="sentence2")
    found = {(shown(corpus, x, 0), shown(corpus, x, 1), float(x["label"])) for x in examples}
    if corpus.vocabulary.cls is None:
        assert found == {("the cat sat.", "a cat was sitting.", 4.5), ("dogs ran.", "the mat.", 0.0)}
    assert {label for *_, label in found} == {4.5, 0.0} and examples[0]["label"].dtype == np.float32 and corpus.labels is None


def test_words_are_left_out_in_training_alone(cache, kept):
    _, plain = made(kept, "Reviews", "labelled_text")
    _, evaluated = made(kept, "Reviews", "labelled_text", word_dropout=0.5, crop_words=0.5)
    _, trained = made(kept, "Reviews", "labelled_text", training=True, word_dropout=0.5, crop_words=0.5)
    for a, b in zip(plain, evaluated, strict=True):
        np.testing.assert_array_equal(a["tokens"], b["tokens"])
    assert sum(x["mask"].sum() for x in trained) < sum(x["mask"].sum() for x in plain) and all(x["mask"].sum() > 1 for x in trained)


def test_the_tokenizer_is_trained_on_both_texts(cache):
    corpus, _ = made(None, "Scored", "labelled_text", text_field="sentence1", second_text_field="sentence2", vocab_size=60)
    assert corpus.tokenizer.token_to_id("##ing") or {"w", "##w"} & set(corpus.tokenizer.get_vocab()), "w is in the second alone"
    corpus, _ = made(None, "Tagged", "token_labels", text_field="tokens", label_field="ner", vocab_size=300, tokenizer_type="byte_bpe")
    assert corpus.vocabulary.end is not None


@pytest.mark.short
def test_each_word_has_its_label_at_its_first_token(cache, kept):
    corpus, examples = made(kept, "Tagged", "token_labels", text_field="tokens", label_field="ner")
    assert corpus.labels == ("O", "B-X", "B-Y") and corpus.manifest[f"train/{LENGTH}"]["number_left_out"] == 1
    example = max(examples, key=lambda x: x["mask"].sum())
    labels, tokens = example["labels"], [corpus.tokenizer.id_to_token(int(token)) for token in example["tokens"]]
    assert labels.dtype == np.int32 and list(labels[labels >= 0]) == [1, 2, 0]
    places = np.flatnonzero(labels >= 0)
    assert [tokens[place].lower().strip("ġ")[0] for place in places] == ["u", "c", "s"]
    assert (np.diff(places) > 1).any(), "a word of several pieces"
    _, short = made(kept, "Tagged", "token_labels", 8, text_field="tokens", label_field="ner")
    assert all(example["labels"][-1] == -1 for example in short), "the last is the token that ends the text"


@pytest.mark.short
def test_answers_stand_where_they_are_said_to(cache, kept):
    fields = {"text_field": "question", "second_text_field": "context", "label_field": "answers"}
    corpus, examples = made(kept, "Questions", "answers", 64, **fields)
    assert corpus.manifest["train/64"]["number_left_out"] == 1
    answered = {}
    for example in examples:
        span = example["tokens"][example["start"] : example["end"] + 1] if example["start"] else []
        answered[shown(corpus, example, 0).replace(" ", "")] = corpus.tokenizer.decode(list(span)).strip()
        assert example["start"].dtype == example["end"].dtype == np.int32
        assert not example["start"] or example["token_types"][example["start"]] == 1
    assert sorted(answered.values()) == ["", ".", "dogs", "unaffable cats"]
    length = 24 if corpus.vocabulary.cls is None else 14
    _, short = made(kept, "Questions", "answers", length, **fields)
    assert 0 < sum(bool(x["start"]) for x in short) < 3, "an answer that is cut off is none"
    assert all(x["start"] <= x["end"] < length - 1 for x in short)


@pytest.mark.parametrize(
    "name, source, data, message",
    [
        ("Reviews", "labelled_text", {"label_field": "text"}, "label_field is 'text', which is no class or score: of .* label would do"),
        ("Reviews", "labelled_text", {"label_field": "stars"}, "label_field is 'stars'"),
        ("Tagged", "labelled_text", {"text_field": "tokens", "label_field": "ner"}, "label_field is 'ner'"),
        ("Reviews", "labelled_text", {"second_text_field": "other"}, "second_text_field is 'other'"),
        ("Questions", "answers", {"text_field": "question", "label_field": "answers"}, "answers wants data.second_text_field"),
        ("Scored", "token_labels", {"text_field": "sentence1", "label_field": "sentence2"}, "'sentence1', which is no sequence of words"),
        ("Tagged", "token_labels", {"text_field": "tokens", "label_field": "tokens"}, "'tokens', which is no sequence of classes: .* ner would do"),
        ("Tagged", "labelled_images", {"image_field": "ner"}, "'ner', which is no image: .* none would do"),
        ("Questions", "answers", {"text_field": "question", "second_text_field": "context", "label_field": "context"}, "no sequence of answers"),
        ("Reviews", "text_triples", {"second_text_field": "text"}, "entailment and contradiction.*has neg, pos"),
        ("Scored", "text_triples", {"text_field": "sentence1", "second_text_field": "sentence2"}, "'label', which is no class"),
    ],
)
def test_what_a_data_set_lacks_is_named(cache, kept, name, source, data, message):
    with pytest.raises(UserError, match=message):
        made(kept, name, source, **data)


def test_a_source_of_text_wants_an_objective_of_text(cache):
    c = tiny_config(data__name="tests.tiny_labelled_text:Reviews", data__source="labelled_text")
    with pytest.raises(UserError, match="labelled_text gives text, of which objective.name=masked_lm knows nothing"):
        build.examples_of(c, Corpus(c, tables.DATASETS, None, None), "train", 24, False)


@pytest.mark.parametrize("source", ["packed_text", "text_views"])
def test_a_data_set_of_lines_needs_no_labels(cache, kept, source):
    """As lm1b is."""
    corpus, examples = made(kept, "Lines", source, 16)
    assert (
        len(examples) > 0 and corpus.labels is None and examples[0].keys() >= ({"tokens", "segments"} if source == "packed_text" else {"first/mask"})
    )


def test_a_label_that_the_objective_does_not_know_is_refused(cache, kept):
    """Classes that are plain numbers say nowhere how many there are."""
    given = {"data__name": "tests.tiny_labelled_text:Stars", "data__source": "labelled_text", "objective__name": "sequence_classification"}
    for classes, known in ((5, True), (4, False)):
        c = tiny_config(**given, objective__classes=classes)
        examples = build.examples_of(c, Corpus(c, tables.DATASETS, 300, kept), "train", LENGTH, False)
        rows = (examples.example(i, np.random.default_rng(0)) for i in range(len(examples)))
        if known:
            assert {int(row["label"]) for row in rows} == {0, 4}
        else:
            with pytest.raises(UserError, match="a label of the data set is 4, objective.classes is 4"):
                list(rows)
