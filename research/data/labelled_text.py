"""Text with labels: of a text or a pair, of each word, or a place in it."""

import numpy as np
import tokenizers

from research.core.errors import UserError
from research.core.types import Vocabulary
from research.data.records import Records, usable
from research.data.text import as_text
from research.data.text_augment import TextAugmentation
from research.data.text_inputs import encode, lay_out, question_inputs, word_inputs


class LabelledText:
    """A text, or a pair of texts, with its label: a number of a class, or a score.

    Left out, and counted in the manifest, are examples with an empty text or without a label (-1, as TFDS has it, or not a number).

    Args:
      records: of a TFDS data set.
      fields: the one or two features that hold the texts.
      label: the feature that holds the label.
      dtype: of the label: int32 or float32.
      augmentation: of training.
    """

    def __init__(
        self,
        records: Records,
        fields: tuple[str, ...],
        label: str,
        dtype,
        tokenizer: tokenizers.Tokenizer,
        vocabulary: Vocabulary,
        length: int,
        augmentation: TextAugmentation | None,
    ):
        self._records, self._fields, self._label, self._dtype = records, fields, label, dtype
        self._tokenizer, self._vocabulary, self._length, self._augmentation = tokenizer, vocabulary, length, augmentation
        has_label = lambda label: label >= 0 if dtype == np.int32 else np.isfinite(label)
        self._indices = usable(records, lambda record: has_label(record[self._label]) and all(as_text(record[field]).strip() for field in fields))
        self.manifest = {"examples": records.name, "number_of_examples": len(self), "number_left_out": len(records) - len(self)}

    def __len__(self):
        return len(self._indices)

    def example(self, i: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """tokens, token_types (length,) int32, mask (length,) bool, as of `lay_out`, and label () int32 or float32."""
        record = self._records[int(self._indices[i])]
        texts = [as_text(record[field]) for field in self._fields]
        parts = [self._augmentation(text, rng) if self._augmentation else encode(self._tokenizer, text) for text in texts]
        return lay_out(parts, self._vocabulary, self._length) | {"label": self._dtype(record[self._label])}


class TokenLabels:
    """A sentence of words, each with a label: `words` and `tags` name two sequences of the same length.

    The label of a word is that of its first token; the others, like special tokens and padding, have -1, which is not counted
    (arXiv 1810.04805, section 5.3). What is cut off is lost.
    """

    def __init__(self, records: Records, words: str, tags: str, tokenizer: tokenizers.Tokenizer, vocabulary: Vocabulary, length: int):
        self._records, self._words, self._tags = records, words, tags
        self._tokenizer, self._vocabulary, self._length = tokenizer, vocabulary, length
        self._indices = usable(records, self._labelled)
        self.manifest = {"examples": records.name, "number_of_examples": len(self), "number_left_out": len(records) - len(self)}

    def _labelled(self, record) -> bool:
        words, tags = len(record[self._words]), len(record[self._tags])
        if words != tags:
            raise UserError(f"{self._words} and {self._tags} of {self._records.name} are not a word with a tag each: choose two such features.")
        return words > 0

    def __len__(self):
        return len(self._indices)

    def example(self, i: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """tokens, token_types (length,) int32, mask (length,) bool, as of `lay_out`, and labels (length,) int32. Draws nothing."""
        record = self._records[int(self._indices[i])]
        words = [word.decode() for word in record[self._words]]
        inputs, first_W = word_inputs(words, self._tokenizer, self._vocabulary, self._length)
        labels = np.full(self._length, -1, np.int32)
        labels[first_W[first_W >= 0]] = np.asarray(record[self._tags])[first_W >= 0]
        return inputs | {"labels": labels}


class Answers:
    """A question with a text that may answer it, and where the answer stands: TFDS's `squad` layout, in which the feature `answers` is
    a sequence of {text, answer_start}, the latter in characters. Of several answers the first is taken.

    A question without an answer, or whose answer is cut off with the end of a long text, is answered by the first token, [CLS]
    (arXiv 1810.04805, section 4.3). Left out, and counted in the manifest, are examples with an empty text, or whose answer is not in the
    text where it is said to be.
    """

    def __init__(
        self, records: Records, question: str, context: str, answers: str, tokenizer: tokenizers.Tokenizer, vocabulary: Vocabulary, length: int
    ):
        self._records, self._question, self._context, self._answers = records, question, context, answers
        self._tokenizer, self._vocabulary, self._length = tokenizer, vocabulary, length
        self._indices = usable(records, self._consistent)
        self.manifest = {"examples": records.name, "number_of_examples": len(self), "number_left_out": len(records) - len(self)}

    def _consistent(self, record) -> bool:
        question, context, (start, stop, answer) = as_text(record[self._question]), as_text(record[self._context]), self._first(record)
        return bool(question.strip() and context.strip()) and context[start:stop] == answer

    def _first(self, record) -> tuple[int, int, str]:
        """(start, stop, text) of the first answer; (0, 0, "") where there is none."""
        texts, starts = record[self._answers]["text"], record[self._answers]["answer_start"]
        if not len(texts):
            return 0, 0, ""
        answer, start = texts[0].decode(), int(starts[0])
        return start, start + len(answer), answer

    def __len__(self):
        return len(self._indices)

    def example(self, i: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """tokens, token_types (length,) int32, mask (length,) bool, as of `lay_out`; start and end () int32: the first and the last token of the
        answer. Draws nothing."""
        record = self._records[int(self._indices[i])]
        question, context = as_text(record[self._question]), as_text(record[self._context])
        inputs, begins, spans_N2 = question_inputs(question, context, self._tokenizer, self._vocabulary, self._length)
        start, stop, _ = self._first(record)
        inside = begins + np.flatnonzero((spans_N2[:, 0] < stop) & (spans_N2[:, 1] > start))
        whole = len(inside) and inside[-1] < inputs["mask"].sum() - 1
        return inputs | {"start": np.int32(inside[0] if whole else 0), "end": np.int32(inside[-1] if whole else 0)}
