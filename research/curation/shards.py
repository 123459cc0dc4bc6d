"""Documents on disk between two passes: a folder of array_record files, each with the documents of one part of the input, in order."""

import collections
import pathlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgpack
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from research.curation.documents import Document

BLOCK = 256  # documents read at a time
OPEN = 64  # files that a process keeps open for reading here and there


class Place(NamedTuple):
    """Where a document is: as one number, in the order of the input."""

    shard: int
    number: int  # in it

    def __int__(self) -> int:
        return self.shard << 40 | self.number

    @classmethod
    def of(cls, number: int) -> "Place":
        return cls(int(number) >> 40, int(number) & (1 << 40) - 1)


class Shards:
    """The shards of a folder, by number."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self._readers: collections.OrderedDict[int, ArrayRecordReader] = collections.OrderedDict()

    def path(self, shard: int) -> pathlib.Path:
        return self.folder / f"{shard:05}.array_record"

    def write(self, shard: int, documents: Iterable[Document]):
        """Writes a shard, which is there whole or not at all."""
        draft = self.path(shard).with_suffix(".draft")
        writer = ArrayRecordWriter(str(draft), "group_size:1")  # each document can be read alone
        for document in documents:
            writer.write(msgpack.packb(document))
        writer.close()
        draft.replace(self.path(shard))

    def read(self, shard: int) -> Iterator[Document]:
        reader = ArrayRecordReader(str(self.path(shard)))
        for start in range(0, reader.num_records(), BLOCK):
            yield from map(msgpack.unpackb, reader.read(start, min(start + BLOCK, reader.num_records())))
        reader.close()

    def __getitem__(self, place: Place) -> Document:
        (record,) = self._reader(place.shard).read(place.number, place.number + 1)
        return msgpack.unpackb(record)

    def _reader(self, shard: int) -> ArrayRecordReader:
        if shard not in self._readers:
            self._readers[shard] = ArrayRecordReader(str(self.path(shard)))
            if len(self._readers) > OPEN:
                self._readers.popitem(last=False)[1].close()
        self._readers.move_to_end(shard)
        return self._readers[shard]
