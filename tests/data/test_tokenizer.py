import json
import subprocess
import sys
import unicodedata

import jax
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from research import build
from research.core.errors import UserError
from research.core.types import loss_value
from research.data import tokenizer as tokenizers
from research.data.text_stream import TextStream
from tests.tiny import tiny_config
from tests.tiny_text import document

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


def elsewhere(train: str, documents, size: int) -> str:
    """What another process trains, whose hash tables have another order."""
    code = f"from research.data import tokenizer; print(tokenizer.{train}({documents!r}, {size}).to_str(), end='')"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def byte_bpe():
    return tokenizers.train_byte_bpe(DOCUMENTS, 280)


def test_byte_bpe_training_is_deterministic(byte_bpe):
    assert tokenizers.train_byte_bpe(DOCUMENTS, 280).to_str() == elsewhere("train_byte_bpe", DOCUMENTS, 280) == byte_bpe.to_str()


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


TEXTS = [[document(i, 0)] for i in range(40)]


@pytest.fixture(scope="module")
def unigram():
    return tokenizers.train_unigram(TEXTS, 340)


def test_unigram_training_is_deterministic(unigram):
    assert tokenizers.train_unigram(TEXTS, 340).to_str() == elsewhere("train_unigram", TEXTS, 340) == unigram.to_str()


@pytest.mark.short
@pytest.mark.parametrize(
    "text", ["The cat.\n\n  Sat\ton é 漢字 👍\r\n\n\n", "x ", "", "\x00\u200b\ufeff", "Ａ\u00a0ﬁ", "a[SEP]b", "<0x41> ##ing <0x"]
)
def test_unigram_gives_any_text_back_as_nfkc_has_it(unigram, text):
    ids = unigram.encode(text, add_special_tokens=False).ids
    assert unigram.decode(ids, skip_special_tokens=False) == unicodedata.normalize("NFKC", text)
    assert tokenizers.SPECIAL.index("[UNK]") not in ids


def test_a_unigram_text_streams_as_it_is(unigram):
    """A character of several bytes comes when its last does."""
    ids = unigram.encode("Aa 漢字 ab").ids
    stream = TextStream(unigram, ids[:1], [])
    pieces = [stream.push(token) for token in ids[1:]] + [stream.close()]
    assert "".join(pieces) == unigram.decode(ids).removeprefix(unigram.decode(ids[:1])) and {"漢", "字"} <= set(pieces)


def test_unigram_pieces_are_the_likeliest_first_and_shorten_the_text(unigram):
    scores = [score for _, score in json.loads(unigram.to_str())["model"]["vocab"]]
    learned = scores[len(tokenizers.SPECIAL) + len(tokenizers.BYTES) :]
    assert learned == sorted(learned, reverse=True) and -20 < learned[-1] and learned[0] < 0
    assert unigram.get_vocab_size() <= 340
    tokens = unigram.encode(TEXTS[0][0]).tokens
    assert len(tokens) < len(TEXTS[0][0]) / 2 and "▁ab" in tokens


def test_unigram_has_the_tokens_that_both_kinds_of_model_need(unigram):
    v = tokenizers.vocabulary(unigram)
    assert (v.pad, v.cls, v.sep, v.mask, v.end, v.separators) == (0, 2, 3, 4, 3, 1) and v.size == unigram.get_vocab_size()
    encoded = unigram.encode("aa ba. zq [MASK] ab\nab")
    assert encoded.tokens == ["▁aa", "▁ba", ".", "▁", "<0x7A>", "<0x71>", " [MASK]", "▁ab", "\n", "a", "b"]  # the blank before it is the mask's
    assert [v.continues[i] for i in encoded.ids] == [False, False, True, False, True, True, False, False, False, True, True]


def test_rare_characters_are_bytes_to_unigram():
    common = [["ab ba ab abba baab " * 100]] * 10
    found = tokenizers.train_unigram([*common, ["é"]], 300)
    assert found.token_to_id("é") is None and found.encode("é").tokens == ["▁", "<0xC3>", "<0xA9>"]
    assert tokenizers.train_unigram([*common, ["é" * 100]], 300).token_to_id("é") is not None


def test_a_unigram_vocabulary_has_room_for_the_characters():
    with pytest.raises(UserError, match="at least 284 tokens, vocab_size is 283"):
        tokenizers.train_unigram([["ab aba bab abb baa"]], 283)
    assert tokenizers.train_unigram([["ab aba bab abb baa"]], 284).get_vocab_size() <= 284


def test_unigram_loads_from_its_file(unigram, tmp_path):
    unigram.save(str(tmp_path / "tokenizer.json"))
    assert tokenizers.load_tokenizer(tmp_path / "tokenizer.json").to_str() == unigram.to_str()


@pytest.mark.parametrize("kind", [pytest.param("masked_lm", marks=pytest.mark.slow), "causal_lm"])
def test_a_model_trains_on_unigram_tokens(cache, tmp_path, kind):
    gpt = dict(model__name="gpt", model__norm="pre", objective__name="causal_lm", data__source="packed_text") if kind == "causal_lm" else {}
    config = tiny_config(data__tokenizer_type="unigram", model__vocab_size=340, model__layers=1, optimizer__warmup_steps=0, **gpt)
    corpus = build.make_corpus(config, tmp_path)
    assert corpus.text_tools()[0].to_str() == tokenizers.train_unigram(TEXTS, 340).to_str()
    e = build.experiment(config, corpus.vocabulary, jax.devices()[:1])
    source = build.training_source(e, corpus)
    with e.in_force():
        state, losses = e.init(), []
        for _ in range(8):
            state, measured = e.train_step(state, e.place(source.next(None), config.data.batch_size))
            losses.append(float(loss_value(measured["loss"])))
    assert losses[-1] < losses[0]


def test_documents_are_encoded_in_order_each_text_by_itself(trained):
    documents = [[], ["the cat", ""], ["sat"]] * 50
    found = list(tokenizers.encoded(trained, documents))
    assert [texts for texts, _ in found] == documents
    assert [tokens for _, tokens in found[:3]] == [[trained.encode(text, add_special_tokens=False).ids for text in texts] for texts in documents[:3]]


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
    with pytest.raises(UserError, match="at least 257 tokens, vocab_size is 256"):
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
