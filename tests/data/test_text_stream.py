import random

import pytest

from research.data.text_stream import TextStream
from research.data.tokenizer import train_byte_bpe

TEXT = "The naïve café — 東京 and 🦜🧭 — stops here; stop, sto, st. " * 2
STOPS = [[], ["stop"], ["s h", "stops"], ["🧭"], ["東"], ["京 and 🦜", "t. The"], ["nothing of it"], ["abc", "here; s"]]


@pytest.fixture(scope="module")
def tokenizer():
    return train_byte_bpe([["The stops stop here; the stop is here and the sto"] * 3], 300)


def ids_of(tokenizer, text, how):
    """The text in its tokens, or byte by byte, so that every character of more bytes is split."""
    if how == "tokens":
        return tokenizer.encode(text).ids
    return [i for character in text for byte in character.encode() for i in [tokenizer.token_to_id(BYTES[byte])]]


def byte_alphabet():
    """GPT-2's: printable bytes stand for themselves, the others for characters from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


BYTES = byte_alphabet()


def expected(text, stops):
    """Read letter by letter: the text before the stop string that is complete first."""
    for end in range(len(text) + 1):
        begins = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if begins:
            return text[: min(begins)], True
    return text, False


@pytest.mark.parametrize("how", ["tokens", "bytes"])
@pytest.mark.parametrize("stops", STOPS, ids=str)
def test_pieces_join_to_the_text_before_the_stop_and_never_show_more(tokenizer, stops, how):
    text, stopped = expected(TEXT, stops)
    stream, pieces = TextStream(tokenizer, tokenizer.encode("London. ").ids, stops), []
    for token in ids_of(tokenizer, TEXT, how):
        if not stream.stopped:
            pieces.append(stream.push(token))
            assert text.startswith("".join(pieces)) and stream.text == "".join(pieces)
    pieces.append(stream.close())
    assert ("".join(pieces), stream.text, stream.stopped) == (text, text, stopped)


def test_text_comes_as_soon_as_it_is_certain(tokenizer):
    stream = TextStream(tokenizer, tokenizer.encode("x").ids, ["ab"])
    assert [stream.push(token) for token in ids_of(tokenizer, "cacé b", "bytes")] == ["c", "", "ac", "", "é", " ", "b"]


def test_what_ends_within_a_character_says_so(tokenizer):
    stream = TextStream(tokenizer, tokenizer.encode("x").ids, [])
    pieces = [stream.push(token) for token in ids_of(tokenizer, "a🦜", "bytes")[:-1]]
    assert pieces == ["a", "", "", ""] and stream.close() == "\ufffd" and stream.text == "a\ufffd"


def test_what_was_held_for_a_stop_string_comes_at_the_end(tokenizer):
    stream = TextStream(tokenizer, tokenizer.encode("x").ids, ["stop"])
    pieces = [stream.push(token) for token in ids_of(tokenizer, "a sto", "bytes")]
    assert pieces == ["a", " ", "", "", ""] and stream.close() == "sto" and stream.text == "a sto"


def test_any_bytes_whatever_join_to_what_they_decode_to(tokenizer):
    rng = random.Random(0)
    for _ in range(50):
        ids = [tokenizer.token_to_id(BYTES[rng.choice([65, 0xC3, 0xA9, 0xF0, 0x9F, 0xA6, 0x9C, 0xFF])]) for _ in range(12)]
        stream = TextStream(tokenizer, tokenizer.encode("x").ids, [])
        text = "".join(stream.push(token) for token in ids) + stream.close()
        assert text == stream.text == tokenizer.decode(ids)
