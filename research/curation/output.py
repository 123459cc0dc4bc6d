"""What comes out: a TFDS data set of array_record files, which `data.name` of a training config names."""

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core import example_serializer

from research.core.errors import UserError
from research.curation import ngrams
from research.curation.documents import Document

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Output:
    """Writes the documents of a shard to a file of each split.

    Args:
      folder: of the data set, its name the version.
      name: of the data set.
      shards: how many there are, and so how many files of a split.
      fields: of a document that an example has.
      numbers: those of them that are numbers: float32.
      label: the one that is the name of a class, or its number; None: none is.
      classes: the names that it has.
      validation, test: the share of documents held out, drawn by a hash of
      split_by: the field by which documents stay together.
    """

    folder: pathlib.Path
    name: str
    shards: int
    fields: tuple[str, ...]
    numbers: tuple[str, ...]
    label: str | None
    classes: tuple[str, ...]
    validation: float
    test: float
    split_by: str

    def __post_init__(self):
        if not self.fields:
            raise UserError("output.fields is empty: name what of a document the data set is to have, such as text.")
        if min(self.validation, self.test) < 0 or self.validation + self.test >= 1:
            raise UserError(f"output.validation {self.validation} and output.test {self.test} are shares of the documents: together less than 1.")
        if self.label is not None and not self.classes:
            raise UserError(f"output.label_field is {self.label!r}: name its classes as output.classes.")
        if self.label is not None and self.label not in self.fields:
            raise UserError(f"output.label_field is {self.label!r}, which output.fields has not: add it there.")

    @property
    def features(self) -> tfds.features.FeaturesDict:
        kinds: dict = {"key": tfds.features.Text()}
        for field in self.fields:
            kinds[field] = tfds.features.Text()
            if field == "image":
                kinds[field] = tfds.features.Image()
            elif field in self.numbers:
                kinds[field] = tfds.features.Scalar(np.float32)
            elif field == self.label:
                kinds[field] = tfds.features.ClassLabel(names=self.classes)
        return tfds.features.FeaturesDict(kinds)

    def write(self, shard: int, documents: Iterator[Document]) -> dict:
        """{split: how many examples were written}. Every split has a file of every shard, if an empty one."""
        features = self.features
        serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
        drafts = {split: self.folder / f"{self.file(split, shard)}.draft" for split in self.splits}
        writers = {split: ArrayRecordWriter(str(draft), "group_size:1") for split, draft in drafts.items()}
        sizes = dict.fromkeys(self.splits, 0)
        for document in documents:
            split = self.split_of(document)
            writers[split].write(serializer.get_tf_example(features.encode_example(self.example(document))).SerializeToString(deterministic=True))
            sizes[split] += 1
        for split, draft in drafts.items():
            writers[split].close()
            draft.replace(self.folder / self.file(split, shard))
        return sizes

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(split for split, share in zip(SPLITS, (1, self.validation, self.test)) if share)

    def file(self, split: str, shard: int) -> str:
        return f"{self.name}-{split}.array_record-{shard:05}-of-{self.shards:05}"

    def split_of(self, document: Document) -> str:
        """Drawn by a hash of the field `split_by`."""
        if (value := document.get(self.split_by)) is None:
            raise UserError(f"output.split_by is {self.split_by!r}, which the document {document['key']} does not have: it has {', '.join(document)}.")
        draw = ngrams.digest(str(value).encode("utf-8", "surrogatepass")) / 2**64
        return "test" if draw < self.test else "validation" if draw < self.test + self.validation else "train"

    def example(self, document: Document) -> dict:
        if missing := [field for field in self.fields if document.get(field) is None]:
            raise UserError(f"output.fields: the document {document['key']} has no {missing[0]!r}; it has {', '.join(document)}.")
        for field in self.fields:
            self._check(document["key"], field, document[field])
        return {"key": document["key"]} | {field: document[field] for field in self.fields}

    def _check(self, key: str, field: str, value):
        """Raises UserError for a value that is not of the kind of its field."""
        if field == self.label:
            if not (value in self.classes if isinstance(value, str) else isinstance(value, int) and 0 <= value < len(self.classes)):
                raise UserError(f"output.classes: the label {value!r} of the document {key} is none of {', '.join(self.classes)}.")
        elif field in self.numbers:
            if not isinstance(value, int | float):
                raise UserError(f"output.fields: {field} of the document {key} is no number: put the rule `fields` before, which mends or drops it.")
        elif not isinstance(value, bytes if field == "image" else str):
            what = "image" if field == "image" else "text; numbers are named in fields.numbers"
            raise UserError(f"output.fields: {field} of the document {key} is {str(value)[:40]!r}, which is no {what}.")

    def finish(self, sizes: list[dict], description: str):
        """Writes what TFDS wants to know, given what `write` returned for each shard."""
        infos = [
            tfds.core.SplitInfo(name=split, shard_lengths=[size[split] for size in sizes], num_bytes=self._bytes(split), filename_template=self._template(split))
            for split in self.splits
        ]
        tfds.folder_dataset.write_metadata(
            data_dir=self.folder, features=self.features, split_infos=infos, description=description, check_data=False
        )

    def _bytes(self, split: str) -> int:
        return sum((self.folder / self.file(split, shard)).stat().st_size for shard in range(self.shards))

    def _template(self, split: str):
        return tfds.core.ShardedFileTemplate(data_dir=self.folder, dataset_name=self.name, split=split, filetype_suffix="array_record")
