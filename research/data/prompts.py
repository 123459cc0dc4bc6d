"""What a language model is asked, and what the answer should be."""

from typing import NamedTuple

import numpy as np
import tokenizers

from research.core.types import Vocabulary
from research.data.records import Records, usable
from research.data.text import as_text
from research.data.text_inputs import encode


class Prompt(NamedTuple):
    ids: np.ndarray  # int32, with the token that begins a text where the vocabulary has one
    text: str
    answer: str  # "" where none is known


class Prompts:
    """The prompts of a split, of `length` tokens at most: longer ones, and empty ones, are left out and counted in the manifest.

    Args:
      records: of a TFDS data set.
      fields: the feature that holds the prompt, and the one that holds the answer, if there is one.
      words: None: the whole text is the prompt; else its first so many words.
    """

    def __init__(
        self,
        records: Records,
        fields: tuple[str, ...],
        tokenizer: tokenizers.Tokenizer,
        vocabulary: Vocabulary,
        length: int,
        words: int | None = None,
    ):
        self._records, self._fields, self._words, self.length = records, fields, words, length
        self._tokenizer, self._begin = tokenizer, [] if vocabulary.cls is None else [vocabulary.cls]
        self._indices = usable(records, lambda record: 0 < len(self._prompt(record).ids) <= length)
        self.manifest = {"prompts": records.name, "number_of_prompts": len(self), "number_left_out": len(records) - len(self)}

    def __len__(self):
        return len(self._indices)

    def __getitem__(self, i: int) -> Prompt:
        return self._prompt(self._records[int(self._indices[i])])

    def _prompt(self, record) -> Prompt:
        text, *answer = (as_text(record[field]) for field in self._fields)
        if self._words is not None:
            text = " ".join(text.split()[: self._words])
        ids = encode(self._tokenizer, text)
        return Prompt(np.concatenate([np.array(self._begin, np.int32), ids]) if len(ids) else ids, text, *(answer or [""]))
