"""A TFDS data set with its tokenizer."""

import contextlib
import functools
import pathlib
import re

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import read_only_builder
from tokenizers import Tokenizer

from research.core.config import look_up
from research.core.errors import UserError
from research.core.types import Vocabulary
from research.data import text
from research.data import tokenizer as tokenizers
from research.data.fetch import cache_dir, cache_lock
from research.data.records import Records, preparation


class Corpus:
    """The data set that a config names and, where one is wanted, its tokenizer: the one at `kept`, else the one that
    research.prepare made of the data set, else one trained on the training split.

    `datasets` is a table of our own data sets: name -> TFDS builder class. `vocab_size` is of a tokenizer that is trained; None: none is wanted.
    """

    def __init__(self, config, datasets: dict, vocab_size: int | None, kept: pathlib.Path | None):
        self._config, self._datasets = config, datasets
        self.manifest: dict[str, dict] = {}  # what each split was made from, once its examples have been asked for
        self.preparation: dict[str, str] = {}  # how research.prepare made the data set, once it has been opened
        self.tokenizer: Tokenizer | None = None
        self.vocabulary: Vocabulary | None = None
        if vocab_size is not None:
            self.tokenizer = tokenizers.load_tokenizer(kept or self._prepared_tokenizer() or self._trained_tokenizer(vocab_size))
            self.vocabulary = tokenizers.vocabulary(self.tokenizer, config.data.end_token)

    def of(self, config) -> "Corpus":
        """The data set that another config names, with the tokenizer of this one, and noted in its manifest."""
        other = Corpus(config, self._datasets, None, None)
        other.tokenizer, other.vocabulary, other.manifest = self.tokenizer, self.vocabulary, self.manifest
        return other

    @functools.cached_property
    def builder(self) -> tfds.core.DatasetBuilder:
        builder = dataset_builder(self._datasets, self._config.data.name, self._config.data.dir)
        self.preparation = preparation(builder)
        return builder

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The names of the labels that data.label_field holds, or a sequence of which it holds; None where they have none."""
        features, field = self.builder.info.features, self._config.data.label_field
        feature = features[field] if field in features else None
        feature = getattr(feature, "feature", feature)  # of a sequence
        return tuple(feature.names) if isinstance(feature, tfds.features.ClassLabel) and feature.names else None

    @property
    def label_dtype(self):
        """int32 where data.label_field holds the numbers of classes, float32 where it holds a score."""
        return np.float32 if np.issubdtype(self.builder.info.features[self._config.data.label_field].np_dtype, np.floating) else np.int32

    def text_tools(self) -> tuple[Tokenizer, Vocabulary]:
        """(tokenizer, vocabulary). Raises UserError if the objective wants none."""
        if self.tokenizer is None or self.vocabulary is None:
            raise UserError(
                f"data.source={self._config.data.source} gives text, of which objective.name={self._config.objective.name} knows nothing: "
                "choose a source and an objective that match."
            )
        return self.tokenizer, self.vocabulary

    def documents(self, split: str, whole: bool = False) -> text.Documents:
        """The texts of a split, as sentences or whole."""
        d = self._config.data
        return text.Documents(self.builder, split, d.text_field, None if whole else d.language)

    def records(self, split: str, **kinds: str) -> Records:
        """The examples of a split, which have the features that these fields of config.data name, of these kinds (research/data/records.py).

        Raises UserError for one that is not set, not there, or of another kind.
        """
        d = self._config.data
        if unset := [f"data.{field}" for field in kinds if d[field] is None]:
            features = ", ".join(self.builder.info.features)
            raise UserError(f"data.source={d.source} wants {', '.join(unset)}: set it to a feature of {d.name}: {features}.")
        return Records(self.builder, split, {field: (d[field], kind) for field, kind in kinds.items()})

    def _prepared_tokenizer(self) -> pathlib.Path | None:
        path = pathlib.Path(self.builder.data_dir) / "tokenizer.json"
        return path if path.exists() else None

    def _trained_tokenizer(self, size: int) -> pathlib.Path:
        d = self._config.data
        train = look_up(tokenizers.TRAINERS, d.tokenizer_type, "data.tokenizer_type")
        whole = d.tokenizer_type in tokenizers.OF_WHOLE_TEXTS
        documents = text.Documents(self.builder, d.train_split, d.text_field, None if whole else d.language, d.second_text_field)
        cached = cache_dir() / "tokenizers" / re.sub("[/:]", "-", f"{documents.name}-{d.tokenizer_type}-{size}-{documents.key}.json")
        with cache_lock(cached.name):
            if not cached.exists():
                cached.parent.mkdir(parents=True, exist_ok=True)
                train(documents, size).save(f"{cached}.draft")
                pathlib.Path(f"{cached}.draft").replace(cached)
        return cached


def dataset_builder(datasets: dict, name: str, folder: str | None) -> tfds.core.DatasetBuilder:
    """The TFDS builder of `name`: ours by the table, "name/variant" where it has several; any other as it was prepared in `folder`, or as TFDS can prepare it."""
    folder = folder or str(cache_dir() / "tfds")
    ours, _, variant = name.partition("/")
    if ":" not in variant and (ours in datasets or re.fullmatch(r"[\w.]+:[A-Za-z_]\w*", ours)):
        builder = look_up(datasets, ours, "data.name")
        if variant and variant not in builder.builder_configs:
            raise UserError(f"config.data.name is {name!r}: of {ours} there is {', '.join(builder.builder_configs) or 'one kind only'}.")
        return builder(data_dir=folder, file_format="array_record", config=variant or None)
    with contextlib.suppress(tfds.core.DatasetNotFoundError):
        return read_only_builder.builder_from_files(name, data_dir=folder)
    try:
        return tfds.builder(name, data_dir=folder, file_format="array_record")
    except (tfds.core.DatasetNotFoundError, ValueError, ImportError) as e:
        raise UserError(
            f"config.data.name is {name!r}: not one of ours ({', '.join(datasets)}), not prepared in {folder}, and TFDS cannot prepare it here "
            f"({type(e).__name__}). Where tensorflow is installed, `tfds build {name} --file_format=array_record` does; give its folder as config.data.dir."
        ) from e
