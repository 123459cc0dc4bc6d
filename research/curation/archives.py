"""The input of a preparation in the formats that programs write: Parquet, crawled pages (WARC), exports of MediaWiki, TFDS data sets.

What is said in research/curation/inputs.py of parts, keys, records that are malformed and errors holds here too.
"""

import codecs
import dataclasses
import io
import pathlib
import re
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow_datasets as tfds
from PIL import Image
from warcio.archiveiterator import WARCIterator
from warcio.recordloader import ArcWarcRecord
from warcio.statusandheaders import StatusAndHeadersParser

from research.core.errors import UserError
from research.curation.documents import Document, Part
from research.curation.inputs import document, matched, opened, plain, with_image
from research.data.corpus import dataset_builder
from research.data.records import Records
from research.data.wikipedia_sample import plain_text, read_articles

EXAMPLES = 1000  # of a TFDS data set that one worker takes at a time
HTML = ("text/html", "application/xhtml+xml")
PACKED = ("br", "zstd")  # content encodings that warcio does not undo
CHARSET = r"charset\s*=\s*[\"']?\s*([\w.:-]+)"
BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
# What browsers read in place of encodings that pages name (WHATWG Encoding Standard, section 4.2), by Python's names.
WIDER = {"ascii": "cp1252", "iso8859-1": "cp1252", "iso8859-9": "cp1254", "gb2312": "gb18030", "gbk": "gb18030"}
WIDER |= {"shift_jis": "cp932", "euc_kr": "cp949", "big5": "big5hkscs"}


@dataclasses.dataclass(frozen=True)
class Parquet:
    """Each row is one document, with all its columns; a part is a row group. Hugging Face's files are such: a pattern finds them in any folders.

    The column `image_field`, binary or a struct of `bytes` and more, as Hugging Face has images, is its `image`; where it is named, there need be no
    `text_field`.
    """

    files: str | None
    text_field: str
    image_field: str | None
    key_field: str | None

    def parts(self) -> list[Part]:
        return [part._replace(start=i, stop=i + 1, size=size) for part in matched(self.files) for i, size in enumerate(self._row_groups(part.path))]

    def read(self, part: Part) -> Iterator[Document]:
        with opened(part.path) as file:
            table = pq.ParquetFile(file)
            number = sum(table.metadata.row_group(i).num_rows for i in range(part.start))
            for batch in table.iter_batches(batch_size=1000, row_groups=range(part.start, part.stop or table.num_row_groups)):
                for row in batch.to_pylist():
                    image = row.pop(self.image_field, None)
                    found = document(plain(row), f"{part.name}:{number}", self.text_field, self.key_field)
                    yield with_image(found, image["bytes"] if isinstance(image, dict) else image)
                    number += 1

    def _row_groups(self, path: str) -> list[int]:
        """Bytes of each, before compression."""
        with opened(path) as file:
            table = pq.ParquetFile(file)
            schema, metadata = table.schema_arrow, table.metadata
            text = self.text_field if self.image_field is None else None
            require_fields(schema.names, path, text_field=text, image_field=self.image_field, key_field=self.key_field)
            if self.image_field is not None and not holds_bytes(kind := schema.field(self.image_field).type):
                raise UserError(f"input.image_field is {self.image_field!r}, but in {path} that is {kind}: name one of the bytes of images.")
            return [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether a column is binary, or a struct with `bytes` that are."""
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and holds_bytes(kind.field(index).type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


@dataclasses.dataclass(frozen=True)
class Tfds:
    """Each example of a split is one document: strings as text, images as the bytes of their files, all else as Python has it.

    The feature `image_field` is its `image`, pixels (H, W, 1 or 3) uint8 as a PNG file; where it is not named and there is no `text_field`, the one that is an
    image.

    Args:
      datasets: a table of our own data sets: name -> TFDS builder class.
    """

    name: str | None
    dir: str | None
    split: str
    text_field: str
    image_field: str | None
    key_field: str | None
    datasets: dict

    def parts(self) -> list[Part]:
        builder, records = self._open()
        features = builder.info.features
        if self._image(features) is None:
            require_fields(features, records.name, text_field=self.text_field)
        require_fields(features, records.name, image_field=self.image_field, key_field=self.key_field)
        parts, first = [], 0
        for file in builder.info.splits[self.split].file_instructions:
            end = first + file.take
            name = f"{builder.info.full_name}/{pathlib.PurePath(file.filename).name}"
            parts += [Part(str(file.filename), name, start, min(start + EXAMPLES, end)) for start in range(first, end, EXAMPLES)]
            first = end
        return parts

    def read(self, part: Part) -> Iterator[Document]:
        builder, records = self._open()
        image = self._image(builder.info.features)
        for i in range(part.start, len(records) if part.stop is None else part.stop):
            example = with_strings(records[i], builder.info.features)
            picture = {} if image is None else {"image": encoded(example.pop(image))}
            yield document(plain(example), f"{records.name}:{i}", self.text_field, self.key_field) | picture

    def _open(self) -> tuple[tfds.core.DatasetBuilder, Records]:
        if self.name is None:
            raise UserError("input.name is not set: with input.format=tfds it is the name of a data set.")
        builder = dataset_builder(self.datasets, self.name, self.dir)
        return builder, Records(builder, self.split, {})

    def _image(self, features) -> str | None:
        """The feature that is named, or the one that is an image, of a data set without text."""
        if self.image_field is not None:
            return self.image_field
        images = [name for name, feature in features.items() if isinstance(feature, tfds.features.Image)]
        return images[0] if len(images) == 1 and self.text_field not in features else None


def encoded(image: bytes | np.ndarray) -> bytes:
    """The file of an image, of pixels as PNG."""
    if isinstance(image, bytes):
        return image
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
    return file.getvalue()


def with_strings(value: Any, feature) -> Any:
    """What TFDS reads of a feature, with the bytes of its texts decoded, however deep they lie."""
    leaf = getattr(feature, "feature", feature)  # of a sequence
    if isinstance(leaf, tfds.features.FeaturesDict):
        return {name: with_strings(value[name], inner) for name, inner in leaf.items()}
    if isinstance(leaf, tfds.features.Text):
        return value.decode() if isinstance(value, bytes) else [with_strings(inner, leaf) for inner in value]
    return value


def require_fields(there, where: str, **fields: str | None):
    """Raises UserError if one of input.<fields>, where it is set, names nothing that is there."""
    for field, name in fields.items():
        if name is not None and name not in there:
            raise UserError(f"input.{field} is {name!r}, but {where} has: {', '.join(there)}.")


@dataclasses.dataclass(frozen=True)
class Warc:
    """Each page of a WARC file is one document, its HTML or, in a WET file, its text, with its `url` and `date` (ISO 8601).

    A page is a response of status 200 that is HTML, or a conversion record. One whose content encoding cannot be undone is malformed.
    """

    files: str | None

    def parts(self) -> list[Part]:
        return matched(self.files)

    def read(self, part: Part) -> Iterator[Document]:
        with opened(part.path) as file:
            records = WARCIterator(file, no_record_parse=True)
            for number, record in enumerate(records):
                if record.length is not None and (page := content(record)) is not None:
                    header = record.rec_headers.get_header
                    yield {"key": f"{part.name}:{number}", "url": header("WARC-Target-URI"), "date": header("WARC-Date"), **page}
                records.read_to_end()
                if record.length is None or record.raw_stream.limit or records.err_count:
                    raise UserError(f"{part.path} is damaged: record {number} is not as long as it says. Fetch it again, or leave it out.")


def content(record: ArcWarcRecord) -> Document | None:
    """The text of a record, or why there is none; None if it is no page."""
    if record.rec_type == "conversion":
        return {"text": record.raw_stream.read().decode("utf-8", "replace")}
    if record.rec_type != "response" or not record.length:
        return None
    record.http_headers = http = StatusAndHeadersParser([], verify=False).parse(record.raw_stream)
    kind, _, parameters = (http.get_header("Content-Type") or "").partition(";")
    if http.get_statuscode() != "200" or kind.strip().lower() not in HTML:
        return None
    if (http.get_header("Content-Encoding") or "").lower() in PACKED:
        return {"malformed": "a content encoding that cannot be undone"}
    charset = re.search(CHARSET, parameters, re.I)
    try:
        return {"text": page_text(record.content_stream().read(), charset and charset[1])}
    except zlib.error:
        return {"malformed": "a content encoding that cannot be undone"}


def page_text(data: bytes, charset: str | None) -> str:
    """The text of a page in the first encoding that all of it fits: of its byte order mark, its HTTP header, its <meta>, UTF-8.

    That is the order of the HTML standard (section 13.2.3), which looks for a <meta> in 1,024 bytes. Where none fits, as when a page was cut off, the
    first is taken, and what does not fit becomes U+FFFD.
    """
    mark = next((name for mark, name in BYTE_ORDER_MARKS.items() if data.startswith(mark)), None)
    meta = re.search(rf"<meta[^>]*{CHARSET}", data[:1024].decode("latin-1"), re.I)
    declared = re.sub(r"(?i)utf-16.*", "utf-8", meta[1]) if meta else None  # as the standard has it: in UTF-16 it would not have been found
    encodings = [known for name in (mark, charset, declared, "utf-8") if name and (known := encoding(name))]
    for name in encodings:
        try:
            return data.decode(name)
        except UnicodeError:
            continue
    return data.decode(encodings[0], "replace")


def encoding(name: str) -> str | None:
    """Python's name of an encoding that a page names; None if Python knows none of text."""
    try:
        "".encode(name)
        known = codecs.lookup(name).name
    except (LookupError, ValueError):
        return None
    return WIDER.get(known, known)


@dataclasses.dataclass(frozen=True)
class Wikitext:
    """Each article of an XML export of MediaWiki is one document: prose without markup, one paragraph a line. Its key is its `title`."""

    files: str | None

    def parts(self) -> list[Part]:
        return matched(self.files)

    def read(self, part: Part) -> Iterator[Document]:
        with opened(part.path) as file:
            for title, wikitext in read_articles(file):
                yield {"key": title, "title": title, "text": plain_text(wikitext)}
