"""The records of a split of a TFDS data set, by index: prepared on first use, read without TensorFlow."""

import hashlib

import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from research.core.errors import UserError, is_disk_full
from research.data.fetch import cache_lock


class Records:
    """The examples of one split of a TFDS data set: random access, each a dict of what TFDS reads; an image is the bytes of its file.

    Args:
      builder: a TFDS builder with an `array_record` file format; it is prepared on first use.
      split: any TFDS split, "train[:99%]" too.
      fields: {field of config.data: the feature it names}: those that must be there.

    Raises UserError if the data set cannot be had or read by index, or has no such split or feature.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str, fields: dict[str, str]):
        prepare(builder)
        for field, feature in fields.items():
            if feature not in builder.info.features:
                raise UserError(f"data.{field} is {feature!r}, but {builder.info.full_name} has: {', '.join(builder.info.features)}.")
        images = [name for name, feature in builder.info.features.items() if isinstance(feature, tfds.features.Image)]
        try:
            self._source = builder.as_data_source(split=split, decoders={name: tfds.decode.SkipDecoding() for name in images})
        except NotImplementedError as e:
            again = f"tfds build {builder.info.full_name.rsplit('/', 1)[0]} --file_format=array_record"
            raise UserError(f"{builder.info.full_name} is prepared as files without random access: make it again with `{again}`.") from e
        except (ValueError, KeyError) as e:
            raise UserError(f"{builder.info.full_name} has no split {split!r} ({e}); it has: {', '.join(builder.info.splits)}.") from e
        self.name = f"{builder.info.full_name}:{split}"
        self._place = builder.data_dir

    def __len__(self):
        return len(self._source)

    def __getitem__(self, i: int) -> dict:
        return self._source[i]

    def key(self, *how) -> str:
        """Sixteen characters that name these records and `how` they are read: of what is made from them and kept."""
        return hashlib.sha256("\n".join(map(str, (self.name, *how, self._place))).encode()).hexdigest()[:16]


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
