import pytest

from research.core.errors import UserError
from research.data import tokenizer as tokenizers

DOCUMENTS = [["The cat sat on the mat.", "The dogs sat on the cats."], ["Unaffable dogs and cats ran."]] * 20


@pytest.fixture(scope="module")
def trained():
    return tokenizers.train_wordpiece(DOCUMENTS, 60)


def test_training_is_deterministic(trained):
    assert tokenizers.train_wordpiece(DOCUMENTS, 60).to_str() == trained.to_str()


def test_pieces_join_to_the_text(trained):
    assert trained.get_vocab_size() <= 60
    encoded = trained.encode("The CATS sat", "on dogs")
    assert encoded.tokens[0] == "[CLS]" and encoded.tokens.count("[SEP]") == 2
    assert trained.decode(encoded.ids) == "the cats sat on dogs"
    assert encoded.type_ids == [0] * (encoded.tokens.index("[SEP]") + 1) + [1] * (len(encoded) - encoded.tokens.index("[SEP]") - 1)


def test_mask_stays_one_token(trained):
    assert "[MASK]" in trained.encode("the [MASK] sat").tokens


def test_vocabulary_tells_pieces_that_go_on(trained):
    v = tokenizers.vocabulary(trained)
    assert (v.pad, v.cls, v.sep, v.mask) == (0, 2, 3, 4) and v.size == trained.get_vocab_size()
    assert [trained.id_to_token(i).startswith("##") for i in range(v.size)] == list(v.continues) and any(v.continues)


def test_loads_both_formats(trained, tmp_path):
    trained.save(str(tmp_path / "tokenizer.json"))
    words = sorted(trained.get_vocab(), key=trained.token_to_id)
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    for name in ("tokenizer.json", "vocab.txt"):
        assert tokenizers.load_tokenizer(tmp_path / name).encode("the unaffable cats", "ran").ids == trained.encode("the unaffable cats", "ran").ids


@pytest.mark.parametrize("name, text, message", [("none.json", None, "no tokenizer at"), ("tokenizer.json", "{", "cannot be read")])
def test_a_bad_file_is_refused(tmp_path, name, text, message):
    if text:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        tokenizers.load_tokenizer(tmp_path / name)


def test_a_tokenizer_without_special_tokens_is_refused(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\n")
    with pytest.raises(UserError, match="MASK"):
        tokenizers.vocabulary(tokenizers.load_tokenizer(tmp_path / "vocab.txt"))
