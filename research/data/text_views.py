"""Texts for contrastive learning: one in two views, two that belong together, or those with a third that does not."""

import numpy as np
import tokenizers

from research.core.errors import UserError
from research.core.types import Vocabulary
from research.data.records import Records, usable
from research.data.text import TokenStore, as_text
from research.data.text_augment import TextAugmentation
from research.data.text_inputs import encode, lay_out


class TextViews:
    """The sentences of all documents, each in two views, `first` and `second`: augmented in training, drawn apart.

    Without that, and in evaluation, the two are the same, and only dropout makes them differ (SimCSE, arXiv 2104.08821, section 3; its
    table 1 compares the two ways).
    """

    def __init__(self, store: TokenStore, length: int, vocabulary: Vocabulary, augmentation: TextAugmentation | None):
        self._store, self._length, self._vocabulary, self._augmentation = store, length, vocabulary, augmentation
        if not len(self):
            raise UserError(f"{store.manifest['documents']} has no sentences: no views can be made.")
        self.manifest = store.manifest

    def __len__(self):
        return len(self._store.sentences) - 1

    def example(self, i: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """first/tokens, first/token_types (length,) int32, first/mask (length,) bool, second/tokens, ...: as of `lay_out`."""
        ids = self._store.tokens[self._store.sentences[i] : self._store.sentences[i + 1]]
        views = ((name, self._augmentation.of_ids(ids, rng) if self._augmentation else ids) for name in ("first", "second"))
        return {key: x for name, kept in views for key, x in prefixed(name, lay_out([kept], self._vocabulary, self._length)).items()}


class TextPairs:
    """Two texts that belong together, as a question and its answer or a sentence and its translation: views `first` and `second`.

    Left out, and counted in the manifest, are examples with an empty text.
    """

    def __init__(
        self,
        records: Records,
        fields: tuple[str, str],
        tokenizer: tokenizers.Tokenizer,
        vocabulary: Vocabulary,
        length: int,
        augmentation: TextAugmentation | None,
    ):
        self._records, self._fields, self._augmentation = records, fields, augmentation
        self._tokenizer, self._vocabulary, self._length = tokenizer, vocabulary, length
        self._indices = usable(records, lambda record: all(as_text(record[field]).strip() for field in fields))
        self.manifest = {"examples": records.name, "number_of_examples": len(self), "number_left_out": len(records) - len(self)}

    def __len__(self):
        return len(self._indices)

    def example(self, i: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """first/tokens, ..., second/tokens, ...: those of `lay_out` for each of the two."""
        record = self._records[int(self._indices[i])]
        example: dict[str, np.ndarray] = {}
        for view, field in zip(("first", "second"), self._fields):
            text = as_text(record[field])
            ids = self._augmentation(text, rng) if self._augmentation else encode(self._tokenizer, text)
            example |= prefixed(view, lay_out([ids], self._vocabulary, self._length))
        return example


class TextTriples:
    """A premise, a hypothesis that it entails, and one that it contradicts, the hard negative (SimCSE, section 4): views `first`, `second`, `third`.

    Made of pairs labelled entailment, neutral or contradiction, as TFDS's glue/mnli and snli are: for each entailment with a premise that
    has a contradiction too there is one triple. Premises that lack either give none.

    Args:
      records: of the pairs.
      fields: the features that hold premise, hypothesis and label.
      labels: the names of the labels.
    """

    def __init__(self, records: Records, fields: tuple[str, str, str], labels, tokenizer: tokenizers.Tokenizer, vocabulary: Vocabulary, length: int):
        self._records, (self._premise, self._hypothesis, label) = records, fields
        self._tokenizer, self._vocabulary, self._length = tokenizer, vocabulary, length
        if not {"entailment", "contradiction"} <= set(labels or ()):
            names = ", ".join(labels or ("none",))
            raise UserError(f"data.source=text_triples wants pairs labelled entailment and contradiction; {records.name} has {names}.")
        wanted = {labels.index("entailment"): 0, labels.index("contradiction"): 1}
        found: dict[str, tuple[list[int], list[int]]] = {}
        for i in range(len(records)):
            record = records[i]
            if record[label] in wanted and record[self._premise].strip() and record[self._hypothesis].strip():
                found.setdefault(record[self._premise], ([], []))[wanted[record[label]]].append(i)
        both = ((entailed, contradicted) for entailed, contradicted in found.values() if contradicted)
        triples = [(i, contradicted[n % len(contradicted)]) for entailed, contradicted in both for n, i in enumerate(entailed)]
        if not triples:
            raise UserError(f"{records.name} has no premise with both an entailment and a contradiction: no triples can be made.")
        self._triples = np.array(triples, np.int64)
        self.manifest = {"examples": records.name, "number_of_pairs": len(records), "number_of_triples": len(self)}

    def __len__(self):
        return len(self._triples)

    def example(self, i: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """first/tokens, ..., second/tokens, ..., third/tokens, ...: those of `lay_out` for each of the three. Draws nothing."""
        entailed, contradicted = (self._records[int(record)] for record in self._triples[i])
        texts = {"first": entailed[self._premise], "second": entailed[self._hypothesis], "third": contradicted[self._hypothesis]}
        example: dict[str, np.ndarray] = {}
        for name, text in texts.items():
            example |= prefixed(name, lay_out([encode(self._tokenizer, as_text(text))], self._vocabulary, self._length))
        return example


def prefixed(view: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{view}/{name}": x for name, x in arrays.items()}
