"""The last stage of a preparation: a tokenizer of its own, every split as tokens, and what they are like."""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterable

import numpy as np
from tensorflow_datasets.core import read_only_builder
from tokenizers import Tokenizer
from tqdm import tqdm

from research.core.errors import UserError
from research.data import text
from research.data.packing import efficiency
from research.data.tokenizer import encoded, load_tokenizer

QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Trains a tokenizer on the split `train` of a data set, and cuts every split into its tokens.

    Args:
      train: function(documents, vocab_size) -> tokenizer, such as those of research/data/tokenizer.py.
      vocab_size: the most tokens that it has.
      length: tokens of a packed row; None: rows are not counted.
      language: by whose rules texts are cut into sentences, as sentence_pairs wants them; None: they stay whole, as packed_text wants them.
    """

    train: Callable[..., Tokenizer]
    vocab_size: int
    length: int | None
    language: str | None

    def describe(self, folder: pathlib.Path, splits: Iterable[str]) -> dict:
        """What the manifest of the data set in `folder` says of its tokens; leaves tokenizer.json there.

        Raises UserError where the tokenizer has more tokens than it may.
        """
        path = folder / "tokenizer.json"
        self.train(self._documents(folder, "train"), self.vocab_size).save(str(path))
        tokenizer = load_tokenizer(path)
        if (size := tokenizer.get_vocab_size()) > self.vocab_size:
            raise UserError(f"the tokenizer has {size:,} tokens, tokens.vocab_size is {self.vocab_size:,}: this text needs them; raise it.")
        return {
            "vocabulary": tokenizer.get_vocab_size(),
            "length": self.length,
            "splits": {split: count(tokenizer, self._documents(folder, split), self.length) for split in splits},
        }

    def store(self, place: pathlib.Path, splits: Iterable[str]):
        """Makes the stores of tokens that training looks for, those that are not there yet: they go by where the data set lies for good."""
        tokenizer = load_tokenizer(place / "tokenizer.json")
        for split in splits:
            text.token_store(self._documents(place, split), tokenizer)

    def _documents(self, folder: pathlib.Path, split: str) -> text.Documents:
        return text.Documents(read_only_builder.builder_from_directory(str(folder)), split, "text", self.language)


def count(tokenizer: Tokenizer, documents: text.Documents, length: int | None) -> dict:
    """What the documents are as tokens: how many to a word that white space separates (fertility: arXiv 2012.15613) and of how many characters each,
    the shares of tokens that are unknown and of the vocabulary that is used, quantiles of the tokens of a document; and with a `length` how many
    rows packed_text makes of them (research/data/packing.py), and how much of those is no padding.

    Raises UserError where there is no token at all.
    """
    words = characters = 0
    lengths_N, uses_V = np.zeros(len(documents), np.int64), np.zeros(tokenizer.get_vocab_size(), np.int64)
    bar = tqdm(encoded(tokenizer, documents), desc=f"counting tokens of {documents.name}", unit=" documents", total=len(documents), delay=1)
    for i, (texts, tokens) in enumerate(bar):
        words += sum(len(part.split()) for part in texts)
        characters += sum(map(len, texts))
        lengths_N[i] = sum(map(len, tokens))
        np.add.at(uses_V, np.fromiter(itertools.chain.from_iterable(tokens), np.int64), 1)
    total = int(lengths_N.sum())
    if not total:
        raise UserError(f"{documents.name} has no text: leave tokens.type out.")
    unknown = tokenizer.token_to_id("[UNK]")
    counted = {
        "documents": len(documents),
        "tokens": total,
        "tokens_per_word": round(total / max(1, words), 4),
        "characters_per_token": round(characters / total, 4),
        "unknown": 0.0 if unknown is None else round(int(uses_V[unknown]) / total, 6),
        "vocabulary_used": round(float((uses_V > 0).mean()), 4),
        "tokens_of_a_document": {f"{q:.0%}": int(n) for q, n in zip(QUANTILES, np.quantile(lengths_N, QUANTILES, method="inverted_cdf"))},
    }
    if length is None:
        return counted
    stream = total + int(np.count_nonzero(lengths_N))  # each document with a token that ends it
    rows = -(-stream // length)
    return counted | {"rows": rows, "packing_efficiency": efficiency(stream, rows, length)}
