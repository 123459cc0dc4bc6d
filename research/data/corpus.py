"""A TFDS data set with its tokenizer."""

import contextlib
import functools
import pathlib
import re

import tensorflow_datasets as tfds
from tensorflow_datasets.core import read_only_builder

from research.core.config import look_up
from research.core.errors import UserError
from research.data import text
from research.data import tokenizer as tokenizers
from research.data.fetch import cache_dir, cache_lock


class Corpus:
    """The data set that a config names and, where one is wanted, its tokenizer: the one at `kept`, else one trained on the training split.

    `datasets` is a table of our own data sets: name -> TFDS builder class.
    """

    def __init__(self, config, datasets: dict, wants_tokenizer: bool, kept: pathlib.Path | None):
        self._config, self._datasets = config, datasets
        self.manifest = {}  # what each split was made from, once its examples have been asked for
        self.tokenizer = None
        if wants_tokenizer:
            self.tokenizer = tokenizers.load_tokenizer(self._trained_tokenizer() if kept is None else kept)
        self.vocabulary = tokenizers.vocabulary(self.tokenizer) if wants_tokenizer else None

    @functools.cached_property
    def builder(self) -> tfds.core.DatasetBuilder:
        return dataset_builder(self._datasets, self._config.data.name, self._config.data.dir)

    def documents(self, split: str) -> text.Documents:
        return text.Documents(self.builder, split, self._config.data.text_field, self._config.data.language)

    def _trained_tokenizer(self) -> pathlib.Path:
        documents, size = self.documents(self._config.data.train_split), self._config.model.vocab_size
        cached = cache_dir() / "tokenizers" / re.sub("[/:]", "-", f"{documents.name}-{size}-{documents.key}.json")
        with cache_lock(cached.name):
            if not cached.exists():
                cached.parent.mkdir(parents=True, exist_ok=True)
                tokenizers.train_wordpiece(documents, size).save(f"{cached}.draft")
                pathlib.Path(f"{cached}.draft").replace(cached)
        return cached


def dataset_builder(datasets: dict, name: str, folder: str | None) -> tfds.core.DatasetBuilder:
    """The TFDS builder of `name`: ours by the table; any other as it was prepared in `folder`, or as TFDS can prepare it."""
    folder = folder or str(cache_dir() / "tfds")
    if name in datasets or re.fullmatch(r"[\w.]+:[A-Za-z_]\w*", name):
        return look_up(datasets, name, "data.name")(data_dir=folder, file_format="array_record")
    with contextlib.suppress(tfds.core.DatasetNotFoundError):
        return read_only_builder.builder_from_files(name, data_dir=folder)
    try:
        return tfds.builder(name, data_dir=folder, file_format="array_record")
    except (tfds.core.DatasetNotFoundError, ValueError, ImportError) as e:
        raise UserError(
            f"config.data.name is {name!r}: not one of ours ({', '.join(datasets)}), not prepared in {folder}, and TFDS cannot prepare it here "
            f"({type(e).__name__}). Where tensorflow is installed, `tfds build {name} --file_format=array_record` does; give its folder as config.data.dir."
        ) from e
