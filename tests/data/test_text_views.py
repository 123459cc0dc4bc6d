import jax
import numpy as np
import pytest

from research import build
from research.core.errors import UserError
from research.core.types import view
from research.data import tokenizer as tokenizers
from research.data.text_augment import TextAugmentation
from research.data.text_inputs import WordAugmentation
from research.data.text_views import TextViews
from tests.data.test_labelled_text import made, shown
from tests.data.test_packing import make_store
from tests.data.test_tokenizer import DOCUMENTS
from tests.objectives.test_masked_lm import V
from tests.tiny import tiny_config


def test_every_sentence_is_a_view():
    store = make_store([[10, 11, 12], [], [13, 14, 15, 16]])
    views = TextViews(store, 8, V, None)
    found = [view(views.example(i, np.random.default_rng(0)), "first") for i in range(len(views))]
    assert [list(x["tokens"][x["mask"]]) for x in found] == [[2, 10, 11, 3], [2, 12, 3], [2, 13, 14, 3], [2, 15, 16, 3]]
    assert all((x[f"second/{name}"] == x[f"first/{name}"]).all() for x in [views.example(0, None)] for name in found[0])
    assert set(found[0]) == {"tokens", "token_types", "mask"} and found[0]["tokens"].shape == (8,) and found[0]["tokens"].dtype == np.int32
    fewer = TextViews(store, 8, V, TextAugmentation(None, (), (WordAugmentation(V, 1.0, 1.0),)))
    drawn = [fewer.example(0, np.random.default_rng(seed)) for seed in (0, *range(9))]
    assert all(x[f"{name}/mask"].sum() == 3 for x in drawn for name in ("first", "second"))
    assert any((x["first/tokens"] != x["second/tokens"]).any() for x in drawn) and (drawn[0]["first/tokens"] == drawn[1]["first/tokens"]).all()


def test_a_store_without_sentences_is_refused():
    with pytest.raises(UserError, match="no sentences"):
        TextViews(make_store([[]]), 8, V, None)


def test_triples_of_entailment_and_contradiction(cache, tmp_path):
    tokenizers.train_byte_bpe(DOCUMENTS, 280).save(str(tmp_path / "tokenizer.json"))
    fields = {"text_field": "premise", "second_text_field": "hypothesis"}
    corpus, examples = made(tmp_path / "tokenizer.json", "Inferences", "text_triples", 64, **fields)
    read = sorted(tuple(shown(corpus, view(example, name)) for name in ("first", "second", "third")) for example in examples)
    assert [first for first, _, _ in read] == ["the cat sat."] * 2 and [second for _, second, _ in read] == ["a cat was there.", "an animal sat."]
    assert {third for _, _, third in read} == {"the cat ran.", "the cat moved."}
    manifest = corpus.manifest["train/64"]
    assert len(examples) == manifest["number_of_triples"] == 2 and manifest["number_of_pairs"] == 8


def test_pairs_are_two_views_and_those_with_an_empty_text_are_counted_out(cache, tmp_path):
    tokenizers.train_byte_bpe(DOCUMENTS, 280).save(str(tmp_path / "tokenizer.json"))
    fields = {"text_field": "sentence1", "second_text_field": "sentence2"}
    corpus, examples = made(tmp_path / "tokenizer.json", "Scored", "text_pairs", 64, **fields)
    read = {tuple(shown(corpus, view(example, name)) for name in ("first", "second")) for example in examples}
    assert read == {("the cat sat.", "a cat was sitting."), ("dogs ran.", "the mat."), ("the cats.", "no score.")}
    assert corpus.manifest["train/64"]["number_left_out"] == 0
    _, cut = made(tmp_path / "tokenizer.json", "Scored", "text_pairs", 64, training=True, word_dropout=1.0, **fields)
    assert all(len(shown(corpus, view(example, name)).split()) == 1 for example in cut for name in ("first", "second")), "one word stays"
    corpus, _ = made(tmp_path / "tokenizer.json", "Reviews", "text_pairs", 64, second_text_field="text")
    assert corpus.manifest["train/64"]["number_left_out"] == 1


@pytest.mark.slow
def test_two_towers_of_text_train_on_pairs(cache, tmp_path):
    """The smaller of the two word tables is what the tokenizer must fit; the batches of the source are those the objective takes."""
    tower = {"vocab_size": 300, "max_length": 16, "width": 8, "layers": 1, "heads": 2, "mlp_width": 8, "pool": "mean"}
    both = {f"model__{name}__{field}": value for name in ("first", "second") for field, value in tower.items()}
    data = {"data__name": "tests.tiny_labelled_text:Scored", "data__source": "text_pairs", "data__length": 16, "data__train_split": "train"}
    fields = {"data__text_field": "sentence1", "data__second_text_field": "sentence2", "data__batch_size": 2, "data__eval_batch_size": 2}
    c = tiny_config(model__name="two_tower", objective__name="clip", **both | data | fields | {"model__first__vocab_size": 80})
    corpus = build.make_corpus(c, tmp_path)
    assert corpus.vocabulary.size <= 80
    e = build.experiment(c, corpus.vocabulary, devices=jax.devices()[:1])
    state, means = e.train_step(e.init(), e.place(build.training_source(e, corpus).next(None), 2))
    assert int(state.step) == 1 and means["in_batch_first_to_second_recall_at_1"].count == 2
