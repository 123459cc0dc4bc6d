"""Pairs of completions of one prompt, of which one was chosen and the other rejected."""

import numpy as np
import tokenizers

from research.core.types import Vocabulary
from research.data.records import Records, usable
from research.data.text import as_text
from research.data.text_inputs import encode


class PreferencePairs:
    """Left out, and counted in the manifest, are pairs with an empty text, or of which prompt and completion, with the token that ends it, do not fit.

    Args:
      records: of a TFDS data set.
      fields: the features that hold the prompt, the chosen completion and the rejected one.
    """

    def __init__(self, records: Records, fields: tuple[str, str, str], tokenizer: tokenizers.Tokenizer, vocabulary: Vocabulary, length: int):
        vocabulary.require("data.source=preference_pairs", "end")
        self._records, self._fields, self._tokenizer, self._vocabulary, self._length = records, fields, tokenizer, vocabulary, length
        self._indices = usable(records, self._fits)
        self.manifest = {"examples": records.name, "number_of_examples": len(self), "number_left_out": len(records) - len(self)}

    def __len__(self):
        return len(self._indices)

    def example(self, i: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Of either side, chosen/ and rejected/, tokens (length,) int32, padded on the right, mask (length,) bool, the completion, and real (length,) bool, all
        but padding. Draws nothing."""
        prompt, *completions = self._parts(self._records[int(self._indices[i])])
        made: dict[str, np.ndarray] = {}
        for side, completion in zip(("chosen", "rejected"), completions):
            at, tokens = np.arange(self._length), np.zeros(self._length, np.int32)
            end = len(prompt) + len(completion)
            tokens[:end] = np.concatenate([prompt, completion])
            made |= {f"{side}/tokens": tokens, f"{side}/mask": (at >= len(prompt)) & (at < end), f"{side}/real": at < end}
        return made

    def _parts(self, record) -> list[np.ndarray]:
        """The ids of prompt and completions, with those that begin and end a text."""
        prompt, *completions = (encode(self._tokenizer, as_text(record[field])) for field in self._fields)
        begin = [] if self._vocabulary.cls is None else [self._vocabulary.cls]
        return [np.array([*begin, *prompt], np.int32), *(np.array([*ids, self._vocabulary.end], np.int32) for ids in completions)]

    def _fits(self, record) -> bool:
        prompt, *completions = self._parts(record)
        return all(as_text(record[field]).strip() for field in self._fields) and len(prompt) + max(map(len, completions)) <= self._length
