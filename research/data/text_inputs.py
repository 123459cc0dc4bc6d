"""Texts -> the arrays a model takes: tokens, their types and a mask, of one length; the same for training and for prediction."""

from collections.abc import Sequence

import numpy as np
import tokenizers

from research.core.types import Vocabulary


def text_inputs(texts: Sequence[str], tokenizer: tokenizers.Tokenizer, vocabulary: Vocabulary, length: int) -> dict[str, np.ndarray]:
    """The arrays of `lay_out` for one text or a pair."""
    return lay_out([encode(tokenizer, text) for text in texts], vocabulary, length)


def encode(tokenizer: tokenizers.Tokenizer, text: str) -> np.ndarray:
    """The ids (tokens,) int32 of a text, without those that mark its ends."""
    return np.array(tokenizer.encode(text, add_special_tokens=False).ids, np.int32)


def lay_out(parts: Sequence[np.ndarray], vocabulary: Vocabulary, length: int) -> dict[str, np.ndarray]:
    """tokens (length,) int32, token_types (length,) int32, mask (length,) bool, False at padding: [CLS] a [SEP] or [CLS] a [SEP] b [SEP],
    and where the vocabulary has no such tokens a and b with the token that ends a text after each; [CLS] a [SEP] [SEP] b [SEP] where it has two
    separators.

    Parts are cut at their ends where they do not fit, the longest first, until they are equally long.
    """
    extra = (len(parts) > 1) * (vocabulary.separators - 1)
    room = length - len(parts) - extra - (vocabulary.cls is not None)
    kept = fitted([len(part) for part in parts], room)
    pieces: list = [[] if vocabulary.cls is None else [vocabulary.cls]]
    kinds = [[] if vocabulary.cls is None else [0]]
    for which, (part, count) in enumerate(zip(parts, kept)):
        ends = 1 + extra * (which == 0)
        pieces += [part[:count], [vocabulary.end if vocabulary.sep is None else vocabulary.sep] * ends]
        kinds.append([which] * (count + ends))
    ids, types = np.concatenate(pieces), np.concatenate(kinds)
    tokens = np.full(length, vocabulary.end if vocabulary.pad is None else vocabulary.pad, np.int32)
    tokens[: len(ids)] = ids
    token_types = np.zeros(length, np.int32)
    token_types[: len(ids)] = types
    return {"tokens": tokens, "token_types": token_types, "mask": np.arange(length) < len(ids)}


def fitted(lengths: list[int], room: int) -> list[int]:
    """How much of each length is left when, one by one, the longest is made shorter until `room` is enough."""
    left, kept = len(lengths), [0] * len(lengths)
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        kept[i] = min(lengths[i], room // left)
        room, left = room - kept[i], left - 1
    return kept


def word_inputs(words: Sequence[str], tokenizer: tokenizers.Tokenizer, vocabulary: Vocabulary, length: int):
    """(the arrays of `lay_out` for a sentence given as words, first_W int32: where the first token of each word stands; -1 where it has none,
    or was cut off)."""
    blank = "" if vocabulary.cls is not None else " "  # which a byte-level vocabulary puts before words, but the first
    pieces = [encode(tokenizer, word if i == 0 else blank + word) for i, word in enumerate(words)]
    inputs = lay_out([np.concatenate([np.zeros(0, np.int32), *pieces])], vocabulary, length)
    count_W = np.array([len(piece) for piece in pieces], np.int32)
    first_W = (vocabulary.cls is not None) + np.cumsum(count_W) - count_W
    fits_W = (count_W > 0) & (first_W < inputs["mask"].sum() - 1)
    return inputs, np.where(fits_W, first_W, -1).astype(np.int32)


def question_inputs(question: str, context: str, tokenizer: tokenizers.Tokenizer, vocabulary: Vocabulary, length: int):
    """(the arrays of `lay_out` for a question and the text that may answer it, begins int: where that text's first token stands,
    spans_N2 int32: the characters [start, stop) of each of its tokens, those that did not fit too).

    The text is cut; the question only where it takes more than half the room.
    """
    encoded = tokenizer.encode(context, add_special_tokens=False)
    room = length - 1 - vocabulary.separators - (vocabulary.cls is not None)
    asked = encode(tokenizer, question)[: max(room // 2, room - len(encoded.ids))]
    inputs = lay_out([asked, np.array(encoded.ids[: room - len(asked)], np.int32)], vocabulary, length)
    return inputs, len(asked) + vocabulary.separators + (vocabulary.cls is not None), np.array(encoded.offsets, np.int32).reshape(-1, 2)


class WordAugmentation:
    """Leaves words of a text out in training, but never all of them.

    Args:
      vocabulary: which tells where words begin.
      crop: a run of words stays, of a length drawn evenly between this part of them and all; 1: all stay.
      dropout: the rate at which each of those is left out.
    """

    def __init__(self, vocabulary: Vocabulary, crop: float, dropout: float):
        self._continues, self._crop, self._dropout = np.array(vocabulary.continues), crop, dropout

    def __call__(self, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        word = np.cumsum(~self._continues[ids])
        word -= word[0]
        count = word[-1] + 1
        size = max(1, round(count * rng.uniform(self._crop, 1)))
        begin = rng.integers(count - size + 1)
        stays = (np.arange(count) >= begin) & (np.arange(count) < begin + size)
        drawn = stays & (rng.random(count) >= self._dropout)
        if not drawn.any():
            drawn[begin + rng.integers(size)] = True
        return ids[drawn[word]]
