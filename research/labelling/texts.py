"""Texts to be labelled, of a TFDS data set or a CSV file, with the labels that they have."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from research.core.errors import UserError
from research.data.corpus import Corpus
from research.data.records import KINDS
from research.data.text import as_text
from research.labelling import table


class Texts(NamedTuple):
    keys: list[str]  # no two alike
    texts: list[str]
    labels_N: np.ndarray  # int, -1 where there is none
    classes: tuple[str, ...]  # the names of the labels; none where nothing has one

    def where(self, chosen_N: np.ndarray) -> "Texts":
        """Those at the places `chosen_N`, or where it is True."""
        places = np.arange(len(self.keys))[chosen_N]
        return Texts([self.keys[i] for i in places], [self.texts[i] for i in places], self.labels_N[places], self.classes)

    @property
    def labelled(self) -> "Texts":
        return self.where(self.labels_N >= 0)


def of_dataset(corpus: Corpus, split: str, field: str, label_field: str) -> Texts:
    """The texts of a split that are not empty. Their keys are the texts that the data set has as `key`, where no two are alike and none is empty, or
    else all of them the split with the place in it.

    Labels are of a feature `label_field` that holds the number of a class; where there is none, no text has a label. Raises UserError where there
    is no text.
    """
    records, features = corpus.records(split, text_field="text"), corpus.builder.info.features
    labelled = label_field in features and np.issubdtype(features[label_field].np_dtype, np.integer) and features[label_field].shape == ()
    own_keys, places, texts, labels = [], [], [], []
    for i in tqdm(range(len(records)), desc=f"reading {records.name}", unit=" examples", delay=2):
        record = records[i]
        if (text := as_text(record[field])).strip():
            own_keys.append(as_text(record["key"]) if "key" in features and KINDS["text"](features["key"]) else "")
            places.append(f"{records.name}:{i}")
            texts.append(text)
            labels.append(int(record[label_field]) if labelled else -1)
    if not texts:
        raise UserError(f"{records.name} has no text in {field!r}: name another split, or another --config.data.text_field.")
    names = corpus.labels or tuple(map(str, range(max(labels) + 1)))
    return Texts(own_keys if all(own_keys) and len({*own_keys}) == len(own_keys) else places, texts, np.array(labels), names if labelled else ())


def of_table(path: str | pathlib.Path, classes: Sequence[str] | None = None) -> Texts:
    """The texts of a CSV file of labels; the classes are those given, or all that it has, sorted. Raises UserError for a file without texts."""
    rows = table.read(path, classes)
    if not rows:
        raise UserError(f"{path} has no text: give it some lines below the header.")
    names = tuple(classes or sorted({row["label"] for row in rows} - {""}))
    labels_N = np.array([names.index(row["label"]) if row["label"] else -1 for row in rows])
    return Texts([row["key"] for row in rows], [row["text"] for row in rows], labels_N, names)
