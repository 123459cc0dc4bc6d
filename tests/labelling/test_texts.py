import numpy as np
import pytest
import tensorflow_datasets as tfds

from configs import base
from research.core import config as config_lib
from research.data.corpus import Corpus
from research.labelling import table, texts
from tests.tiny_labelled_text import TEXT, data_set

CLASS = tfds.features.ClassLabel(names=["bad", "good"])


def keyed(class_name, keys, feature=TEXT):
    rows = [(key, text, 1) for key, text in zip(keys, ("First.", " \n", "Second: 映画."))]
    return data_set(class_name, {"key": feature, "text": TEXT, "label": CLASS}, rows)


Keyed = keyed("Keyed", ("a", "a", "映"))
Repeated = keyed("Repeated", ("a", "b", "a"))
Unnamed = keyed("Unnamed", ("a", "b", ""))
Numbered = keyed("Numbered", (7, 8, 9), tfds.features.Scalar(np.int64))


def read(name):
    corpus = Corpus(config_lib.changed(base.get_config(), {"data.name": f"tests.labelling.test_texts:{name}"}), {}, None, None)
    return texts.of_dataset(corpus, "train", "text", "label")


def test_keys_are_those_of_the_data_set_and_empty_texts_count_for_nothing(cache):
    found = read("Keyed")
    assert (found.keys, found.texts, found.labels_N.tolist(), found.classes) == (["a", "映"], ["First.", "Second: 映画."], [1, 1], ("bad", "good"))


@pytest.mark.parametrize("name", ["Repeated", "Unnamed", "Numbered"])
def test_where_keys_are_no_names_of_texts_the_place_is_the_key(cache, tmp_path, name):
    found = read(name)
    assert found.keys == [f"tiny_{name.lower()}/1.0.0:train:{i}" for i in (0, 2)]
    table.write(tmp_path / "out.csv", map(table.row, found.keys, found.texts))
    assert len(table.read(tmp_path / "out.csv")) == 2


def test_of_a_table_labels_are_numbers_of_the_classes_that_it_has(tmp_path):
    table.write(tmp_path / "some.csv", [table.row("1", "A", "y"), table.row("2", "B"), table.row("3", "C", "x")])
    found = texts.of_table(tmp_path / "some.csv")
    assert found.classes == ("x", "y") and found.labels_N.tolist() == [1, -1, 0]
    assert found.labelled.keys == ["1", "3"] and found.where(np.array([False, True, False])).texts == ["B"]
