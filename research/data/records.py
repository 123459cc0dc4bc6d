"""The records of a split of a TFDS data set, by index: prepared on first use, read without TensorFlow."""

import hashlib
import pathlib
from collections.abc import Mapping

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tqdm import tqdm

from research.core.errors import UserError, is_disk_full
from research.core.types import Examples
from research.data.fetch import cache_lock


def _leaf(feature):
    return getattr(feature, "feature", feature)  # of a sequence


def _is(feature, kind) -> bool:
    dtype = getattr(feature, "np_dtype", None)
    return isinstance(dtype, type | np.dtype) and feature.shape == () and np.issubdtype(dtype, kind)


KINDS = {  # what a feature of a data set may have to be -> whether it is
    "text": lambda feature: _is(_leaf(feature), np.object_),
    "image": lambda feature: isinstance(feature, tfds.features.Image) or feature.np_dtype == np.uint8 and len(feature.shape) == 3,
    "class": lambda feature: _is(feature, np.integer),
    "class or score": lambda feature: _is(feature, np.number),
    "sequence of words": lambda feature: _leaf(feature) is not feature and _is(_leaf(feature), np.object_),
    "sequence of classes": lambda feature: _leaf(feature) is not feature and _is(_leaf(feature), np.integer),
    "sequence of answers (text, answer_start)": lambda feature: {"text", "answer_start"} <= set(getattr(_leaf(feature), "keys", tuple)()),
}


class Records:
    """The examples of one split of a TFDS data set: random access, each a dict of what TFDS reads; an image is the bytes of its file.

    Args:
      builder: a TFDS builder with an `array_record` file format; it is prepared on first use.
      split: any TFDS split, "train[:99%]" too.
      fields: {field of config.data: (the feature it names, which must be there, and what it must be, of KINDS)}.

    Raises UserError if the data set cannot be had or read by index, or has no such split or feature.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str, fields: dict[str, tuple[str, str]]):
        prepare(builder)
        features = builder.info.features
        for field, (feature, kind) in fields.items():
            if feature not in features:
                raise UserError(f"data.{field} is {feature!r}, but {builder.info.full_name} has: {', '.join(features)}.")
            if not KINDS[kind](features[feature]):
                fitting = ", ".join(name for name in features if KINDS[kind](features[name])) or "none"
                raise UserError(f"data.{field} is {feature!r}, which is no {kind}: of {builder.info.full_name} {fitting} would do.")
        images = [name for name, feature in builder.info.features.items() if isinstance(feature, tfds.features.Image)]
        try:
            self._source = builder.as_data_source(split=split, decoders={name: tfds.decode.SkipDecoding() for name in images})
        except NotImplementedError as e:
            again = f"tfds build {builder.info.full_name.rsplit('/', 1)[0]} --file_format=array_record"
            raise UserError(f"{builder.info.full_name} is prepared as files without random access: make it again with `{again}`.") from e
        except (ValueError, KeyError) as e:
            raise UserError(f"{builder.info.full_name} has no split {split!r} ({e}); it has: {', '.join(builder.info.splits)}.") from e
        self.name = f"{builder.info.full_name}:{split}"
        self._made = builder.data_dir, *preparation(builder).values()

    def __len__(self):
        return len(self._source)

    def __getitem__(self, i: int) -> dict:
        return self._source[i]

    def key(self, *how) -> str:
        """Sixteen characters that name these records and `how` they are read: of what is made from them and kept."""
        return hashlib.sha256("\n".join(map(str, (self.name, *how, *self._made))).encode()).hexdigest()[:16]


def preparation(builder: tfds.core.DatasetBuilder) -> dict[str, str]:
    """How research.prepare made a data set: the hash of its manifest; {} if it did not."""
    path = pathlib.Path(builder.data_dir) / "manifest.json"
    return {"preparation_sha256": hashlib.sha256(path.read_bytes()).hexdigest()} if path.exists() else {}


def usable(records: Records, test) -> np.ndarray:
    """The indices of the records that pass `test`, which reads them all once. Raises UserError if none does."""
    bar = tqdm(range(len(records)), desc=f"reading {records.name}", unit=" examples", delay=2)
    indices = np.array([i for i in bar if test(records[i])], np.int64)
    if not len(indices):
        raise UserError(
            f"no example of {records.name} has all that is asked of it, such as a text and a label: choose another split, or other fields."
        )
    return indices


class KnownClasses:
    """Examples whose `label`, or `labels`, an objective that tells `classes` apart knows. Asking for one that it does not raises UserError."""

    def __init__(self, examples: Examples, classes: int):
        self._examples, self._classes, self.manifest = examples, classes, examples.manifest

    def __len__(self):
        return len(self._examples)

    def example(self, i: int, rng: np.random.Generator) -> Mapping[str, np.ndarray | np.generic]:
        example = self._examples.example(i, rng)
        highest = max((example[name].max() for name in ("label", "labels") if name in example), default=0)
        if highest >= self._classes:
            raise UserError(f"a label of the data set is {highest}, objective.classes is {self._classes}: labels count from 0, so set it higher.")
        return example


def prepare(builder):
    """Makes the data set on disk, where it is not there yet. Raises UserError if it cannot be had."""
    try:
        with cache_lock(f"tfds-{builder.name}"):
            builder.download_and_prepare(file_format="array_record")
        if not builder.info.splits:  # another process prepared it after this builder had looked
            builder.info.read_from_directory(builder.data_dir)
    except (OSError, ImportError, tfds.download.DownloadError, NonMatchingChecksumError) as e:
        if is_disk_full(e):
            raise
        reason = f"{type(e).__name__}: {str(e)[:200]}"
        raise UserError(f"the data set {builder.name} could not be prepared ({reason}).") from e
