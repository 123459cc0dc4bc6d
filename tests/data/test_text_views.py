import numpy as np
import pytest

from research.core.errors import UserError
from research.core.types import view
from research.data import tokenizer as tokenizers
from research.data.text_inputs import WordAugmentation
from research.data.text_views import TextViews
from tests.data.test_labelled_text import made, shown
from tests.data.test_packing import make_store
from tests.data.test_tokenizer import DOCUMENTS
from tests.objectives.test_masked_lm import V


def test_every_sentence_is_a_view():
    store = make_store([[10, 11, 12], [], [13, 14, 15, 16]])
    views = TextViews(store, 8, V, None)
    found = [view(views.example(i, np.random.default_rng(0)), "first") for i in range(len(views))]
    assert [list(x["tokens"][x["mask"]]) for x in found] == [[2, 10, 11, 3], [2, 12, 3], [2, 13, 14, 3], [2, 15, 16, 3]]
    assert set(found[0]) == {"tokens", "token_types", "mask"} and found[0]["tokens"].shape == (8,) and found[0]["tokens"].dtype == np.int32
    fewer = TextViews(store, 8, V, WordAugmentation(V, 1.0, 1.0))
    assert [fewer.example(i, np.random.default_rng(0))["first/mask"].sum() for i in range(4)] == [3, 3, 3, 3]


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
