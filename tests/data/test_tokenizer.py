import json
import subprocess
import sys

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

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
    assert (v.pad, v.cls, v.sep, v.mask, v.end) == (0, 2, 3, 4, 3) and v.size == trained.get_vocab_size()
    assert [trained.id_to_token(i).startswith("##") for i in range(v.size)] == list(v.continues) and any(v.continues)


def test_loads_both_formats(trained, tmp_path):
    trained.save(str(tmp_path / "tokenizer.json"))
    words = sorted(trained.get_vocab(), key=trained.token_to_id)
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    for name in ("tokenizer.json", "vocab.txt"):
        assert tokenizers.load_tokenizer(tmp_path / name).encode("the unaffable cats", "ran").ids == trained.encode("the unaffable cats", "ran").ids


@pytest.fixture(scope="module")
def byte_bpe():
    return tokenizers.train_byte_bpe(DOCUMENTS, 280)


def test_byte_bpe_training_is_deterministic(byte_bpe):
    """In another process too, whose hash tables have another order."""
    assert tokenizers.train_byte_bpe(DOCUMENTS, 280).to_str() == byte_bpe.to_str()
    code = "from tests.data.test_tokenizer import *; print(tokenizers.train_byte_bpe(DOCUMENTS, 280).to_str(), end='')"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout == byte_bpe.to_str()


@pytest.mark.short
@pytest.mark.parametrize("text", ["The cat.\n\n  Sat\ton é 漢字 👍\r\n\n\n", " x", "", "\x00\u200b\ufeff", "a<|endoftext|>b", "[SEP] ##ing Ġ"])
def test_byte_bpe_gives_any_text_back(byte_bpe, text):
    assert byte_bpe.get_vocab_size() == 280
    assert byte_bpe.decode(byte_bpe.encode(text).ids, skip_special_tokens=False) == text


def test_byte_bpe_has_an_end_and_none_of_berts_tokens(byte_bpe):
    v = tokenizers.vocabulary(byte_bpe)
    assert (v.size, v.end, v.pad, v.cls, v.sep, v.mask) == (280, byte_bpe.token_to_id("<|endoftext|>"), None, None, None, None)
    ids = byte_bpe.encode("The unaffable\ncats sat").ids
    starts = [not v.continues[i] for i in ids[1:]]
    assert "".join("|" * start + byte_bpe.decode([i]) for i, start in zip(ids[1:], starts)).split("|")[1:] == [" unaffable", "\ncats", " sat"]
    with pytest.raises(UserError, match=r"no \[CLS\], \[MASK\] token, which masked_lm needs.*wordpiece"):
        v._replace(pad=0).require("masked_lm", "pad", "cls", "mask")


def test_byte_bpe_loads_both_formats(byte_bpe, tmp_path):
    byte_bpe.save(str(tmp_path / "tokenizer.json"))
    byte_bpe.model.save(str(tmp_path))
    for name in ("tokenizer.json", "vocab.json"):
        again = tokenizers.load_tokenizer(tmp_path / name)
        assert again.encode("the cats<|endoftext|> ran\n").ids == byte_bpe.encode("the cats<|endoftext|> ran\n").ids
        assert tokenizers.vocabulary(again) == tokenizers.vocabulary(byte_bpe)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(UserError, match="vocab.json cannot be read"):
        tokenizers.load_tokenizer(tmp_path / "vocab.json")


def stored_bpe(path, words, merges):
    (path / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    return tokenizers.load_tokenizer(path / "vocab.json")


BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())


def test_a_stored_vocabulary_of_roberta(tmp_path):
    found = stored_bpe(tmp_path, [*BYTES, "th", "the", "<s>", "<pad>", "</s>", "<mask>"], ["t h", "th e"])
    assert found.encode("the <mask>T").tokens == ["the", " <mask>", "T"]  # the blank is the mask's
    known = tokenizers.vocabulary(found)
    assert [found.id_to_token(i) for i in (known.cls, known.pad, known.sep)] == ["<s>", "<pad>", "</s>"]


def test_a_stored_vocabulary_of_clip(tmp_path):
    """Lower case, single digits, and words that say where they end."""
    words = [*BYTES, *[f"{byte}</w>" for byte in BYTES], "th", "the</w>", "<|startoftext|>", tokenizers.END]
    found = stored_bpe(tmp_path, words, ["t h", "th e</w>"])
    assert found.encode("\nTHE  th10<|endoftext|>").tokens == ["the</w>", "t", "h</w>", "1</w>", "0</w>", tokenizers.END]
    known = tokenizers.vocabulary(found)
    assert (found.id_to_token(known.cls), found.id_to_token(known.end), known.sep) == ("<|startoftext|>", tokenizers.END, None)


def test_a_byte_bpe_vocabulary_has_room_for_the_bytes():
    with pytest.raises(UserError, match="at least 257 tokens, model.vocab_size is 256"):
        tokenizers.train_byte_bpe(DOCUMENTS, 256)


@pytest.mark.parametrize("name, text, message", [("none.json", None, "no tokenizer at"), ("tokenizer.json", "{", "cannot be read")])
def test_a_bad_file_is_refused(tmp_path, name, text, message):
    if text:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        tokenizers.load_tokenizer(tmp_path / name)


def test_a_tokenizer_without_special_tokens_is_refused(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\n")
    with pytest.raises(UserError, match="MASK"):
        tokenizers.vocabulary(tokenizers.load_tokenizer(tmp_path / "vocab.txt")).require("masked_lm", "cls", "mask")


def test_what_tokens_mean_by_the_names_that_others_give_them():
    """RoBERTa's, CLIP's, and one whose turns end with a token of their own."""
    roberta = tokenizers.train_byte_bpe(DOCUMENTS, 280)
    roberta.add_special_tokens(["<s>", "<pad>", "</s>", "<mask>"])
    known = tokenizers.vocabulary(roberta)
    ids = [roberta.token_to_id(token) for token in ("<pad>", "<s>", "</s>", "<mask>", tokenizers.END)]
    assert [known.pad, known.cls, known.sep, known.mask, known.end] == ids and known.separators == 2 and known.size == 1 + max(ids)
    clip = Tokenizer(models.BPE({"a": 0, "a</w>": 1, "<|startoftext|>": 2, "<|endoftext|>": 7}, [], end_of_word_suffix="</w>"))
    known = tokenizers.vocabulary(clip)
    assert (known.cls, known.sep, known.end, known.separators, known.size) == (2, None, 7, 1, 8) and not any(known.continues)
    chat = tokenizers.train_byte_bpe(DOCUMENTS, 280)
    chat.add_special_tokens(["<|im_end|>"])
    assert tokenizers.vocabulary(chat, "<|im_end|>").end == chat.token_to_id("<|im_end|>") != tokenizers.vocabulary(chat).end
    with pytest.raises(UserError, match="data.end_token is '<end>', which is no token"):
        tokenizers.vocabulary(chat, "<end>")


def test_a_vocab_txt_is_cased_where_the_file_beside_it_says_so(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join([*tokenizers.SPECIAL, "Cat", "cat"]))
    assert tokenizers.load_tokenizer(tmp_path / "vocab.txt").encode("Cat").tokens[1] == "cat"
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert tokenizers.load_tokenizer(tmp_path / "vocab.txt").encode("Cat").tokens[1] == "Cat"
