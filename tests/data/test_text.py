import numpy as np
import pytest

from research import tables
from research.core.errors import UserError
from research.data import records, text
from research.data import tokenizer as tokenizers
from research.data.corpus import dataset_builder
from tests.tiny import tiny_config


class Lines:
    def __init__(self, name, documents):
        self.name, self.key, self._documents = name, name, documents

    def __len__(self):
        return len(self._documents)

    def __getitem__(self, i):
        return self._documents[i]


def test_sentences_end_where_they_end():
    found = text.sentences("Dr. Smith lives in the U.S. now. He is 3.5 feet tall!\n\nA new paragraph. Is it?")
    assert found == ["Dr. Smith lives in the U.S. now.", "He is 3.5 feet tall!", "A new paragraph.", "Is it?"]


def test_the_store_holds_every_token_in_order(cache):
    documents = Lines("all", [["aa bb.", "cc dd ee."], [], ["ff."]] * 30)
    tokenizer = tokenizers.train_wordpiece([["aa bb cc dd ee ff."]], 60)
    store = text.token_store(documents, tokenizer)
    assert len(store.documents) == 91 and store.tokens.dtype == np.uint16
    for d in (0, 1, 2, 89):
        spans = [store.sentences[s : s + 2] for s in range(store.documents[d], store.documents[d + 1])]
        assert [tokenizer.decode(list(store.tokens[a:b])) for a, b in spans] == [tokenizer.decode(tokenizer.encode(s).ids) for s in documents[d]]
    assert store.manifest["number_of_documents"] == 90 and store.manifest["number_of_tokens"] == len(store.tokens)


def test_whole_documents_come_back_from_the_store_to_the_byte(cache):
    """What stands between sentences is text too, to a byte-level vocabulary."""
    written = ["Aa bb.  Cc dd.\n\nEe ff!\n", "", " gg\r\nhh\t"]
    tokenizer = tokenizers.train_byte_bpe([[document] for document in written], 270)
    store = text.token_store(Lines("whole", [[document] for document in written]), tokenizer)
    bounds = store.sentences[store.documents]
    found = [tokenizer.decode(list(store.tokens[a:b])) for a, b in zip(bounds, bounds[1:])]
    assert found == written and store.manifest["number_of_sentences"] == 2


def test_documents_are_whole_where_no_language_is_named(cache):
    builder = dataset_builder(tables.DATASETS, tiny_config().data.name, None)
    (whole,), cut = text.Documents(builder, "train", "text", None)[3], text.Documents(builder, "train", "text")[3]
    assert "\n" in whole and whole.split() == " ".join(cut).split() and len(cut) > 5
    assert text.Documents(builder, "train", "text", None).key != text.Documents(builder, "train", "text").key
    assert text.Documents(builder, "train", "title", None, "text")[3][1:] == [whole]


def test_a_sentence_without_tokens_is_none(cache):
    """Of a mark that shows nothing, say, which no sentence splitter knows."""
    documents = Lines("invisible", [["aa bb.", "\u200e"], ["\u200b", "cc.", "\ufeff"]])
    store = text.token_store(documents, tokenizers.train_wordpiece([["aa bb cc."]], 60))
    np.testing.assert_array_equal(store.documents, [0, 1, 2])
    assert (np.diff(store.sentences) > 0).all() and store.manifest["number_of_sentences"] == 2


def test_the_store_is_made_once_for_each_tokenizer(cache, monkeypatch):
    documents = Lines("once", [["aa bb."], ["cc dd."]])
    first = tokenizers.train_wordpiece([["aa bb cc dd."]], 60)
    text.token_store(documents, first)
    monkeypatch.setattr(text, "_write_store", lambda *_: pytest.fail("made again"))
    text.token_store(documents, first)
    with pytest.raises(pytest.fail.Exception):
        text.token_store(documents, tokenizers.train_wordpiece([["aa bb cc dd ee ff gg."]], 60))


def full_disk(*_):
    raise OSError(28, "No space left on device")


def test_a_store_cut_short_is_not_taken_for_whole(cache, monkeypatch):
    documents = Lines("cut", [["aa bb."], ["cc dd."]])
    tokenizer = tokenizers.train_wordpiece([["aa bb cc dd."]], 60)
    with monkeypatch.context() as patch:
        patch.setattr(text.np, "save", full_disk)
        with pytest.raises(OSError, match="No space"):
            text.token_store(documents, tokenizer)
    assert text.token_store(documents, tokenizer).manifest["number_of_documents"] == 2
    assert not list((cache / "tokens").glob("cut*.draft"))


def test_a_data_set_goes_from_tfds_to_documents(cache):
    c = tiny_config()
    documents = text.Documents(dataset_builder(tables.DATASETS, c.data.name, None), "train", "text")
    assert len(documents) == 40 and all(sentence.endswith(".") for sentence in documents[0]) and len(documents[0]) >= 8


def test_another_field_is_another_store(cache):
    builder = dataset_builder(tables.DATASETS, tiny_config().data.name, None)
    tokenizer = tokenizers.train_wordpiece([["aa bb cc dd."]], 60)
    sizes = [len(text.token_store(text.Documents(builder, "train", field), tokenizer).tokens) for field in ("text", "title")]
    assert sizes[0] > 2 * sizes[1]


class Broken:
    name = "broken"

    def __init__(self, error):
        self.error = error

    def download_and_prepare(self, **_):
        raise self.error


def test_what_cannot_be_fetched_is_one_line_and_a_bug_is_not(cache):
    with pytest.raises(UserError, match="broken could not be prepared .*refused"):
        records.prepare(Broken(ConnectionRefusedError(111, "refused")))
    with pytest.raises(ZeroDivisionError):
        records.prepare(Broken(ZeroDivisionError()))


@pytest.mark.parametrize("split, field, message", [("test", "text", "no split 'test'"), ("train", "body", "data.text_field is 'body'.*title")])
def test_a_split_or_field_that_is_not_there_is_named(cache, split, field, message):
    with pytest.raises(UserError, match=message):
        text.Documents(dataset_builder(tables.DATASETS, tiny_config().data.name, None), split, field)


def test_a_data_set_prepared_elsewhere_is_read_by_its_tfds_name(cache):
    """As wikipedia/20230601.en is: TFDS knows no builder of that name here, only the folder it was prepared in."""
    ours = text.Documents(dataset_builder(tables.DATASETS, tiny_config().data.name, None), "train", "text")
    for name in ("tiny_text", "tiny_text:1.0.0"):
        read = text.Documents(dataset_builder(tables.DATASETS, name, str(cache / "tfds")), "train", "text")
        assert [read[i] for i in range(len(read))] == [ours[i] for i in range(len(ours))]


@pytest.mark.parametrize(
    "name", ["wikipedia/20230601.en", "no_such_data_set", "wikipedia/20230601.en:1.0.0", "tests.tiny_text:None_such", "nowhere.at_all:X"]
)
def test_an_unknown_data_set_is_named(name):
    with pytest.raises(UserError, match=name.split(":")[0]):
        dataset_builder(tables.DATASETS, name, None)


def test_files_without_random_access_are_refused(cache, tmp_path):
    """What `tfds build` makes by default, elsewhere."""

    class Sequential:
        name, info = "tiny_text", dataset_builder(tables.DATASETS, tiny_config().data.name, None).info

        def download_and_prepare(self, **_):
            pass

        def as_data_source(self, split, decoders):
            raise NotImplementedError("Random access data source for file format tfrecord is not supported.")

    with pytest.raises(UserError, match="tfds build tiny_text --file_format=array_record"):
        text.Documents(Sequential(), "train", "text")


def test_a_builder_that_waited_while_another_prepared_finds_the_data(tmp_path):
    early, other = (dataset_builder(tables.DATASETS, tiny_config().data.name, str(tmp_path)) for _ in range(2))
    records.prepare(other)
    assert not early.info.splits
    assert len(text.Documents(early, "train", "text")) == 40
