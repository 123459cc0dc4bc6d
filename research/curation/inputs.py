"""The input of a preparation: files of text and of images; research/curation/archives.py has the formats that programs write.

A format is a frozen dataclass of the fields of the group `input` that it reads. `parts()` lists what there is, the same on every machine and for
any number of workers; `read(part)` streams the documents of one part.

Where `key_field` names none, the key of a document is "<name of the part>:<offset or number in the file>", or the name of the file that is all of
it. A field `key` of the input counts only where `key_field` names it, a field `text` only where `text_field` does. A record that cannot be a
document (a line that is no JSON object, a text that is no string, an image that is cut off, nothing in `key_field`) comes as its key and `malformed`,
the reason: it has neither text nor image, so that the rule `fields` drops and counts it. What is wrong with a whole file of records stops the
preparation with a UserError that names it.
"""

import contextlib
import csv
import dataclasses
import glob
import io
import json
import lzma
import math
import os
import pathlib
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import pyarrow as pa
from PIL import Image
from warcio.exceptions import ArchiveLoadFailed

from research.core.errors import UserError
from research.curation.beam import FileSystems
from research.curation.documents import Document, Part
from research.data.images import decode

CODECS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}  # of pyarrow, which, unlike Beam, notices where a file was cut off
COMPRESSED = (*CODECS, ".xz")
PIECE = 1 << 16  # bytes of a line of an earlier part that are passed over at a time
UNREADABLE = (OSError, EOFError, csv.Error, lzma.LZMAError, pa.ArrowException, UnicodeDecodeError, ElementTree.ParseError, ArchiveLoadFailed)


@dataclasses.dataclass(frozen=True)
class Text:
    """Each file is one document, which is in memory whole; its key is the name of the file."""

    files: str | None
    encoding: str

    def __post_init__(self):
        require_encoding(self.encoding)

    def parts(self) -> list[Part]:
        return matched(self.files)

    def read(self, part: Part) -> Iterator[Document]:
        with opened(part.path) as file:
            yield {"key": part.name, "text": decoded(file.read(), self.encoding, part.path, 0)}


@dataclasses.dataclass(frozen=True)
class Lines:
    """Each line that is not blank is one document."""

    files: str | None
    encoding: str
    part_size: int

    def parts(self) -> list[Part]:
        return ranges(self.files, self.part_size, self.encoding)

    def read(self, part: Part) -> Iterator[Document]:
        for key, line in lines(part, self.encoding):
            yield {"key": key, "text": line}


@dataclasses.dataclass(frozen=True)
class JsonLines:
    """Each line that is not blank is a JSON object, one document. Raises UserError if no line of the first part has a text in `text_field`."""

    files: str | None
    encoding: str
    part_size: int
    text_field: str
    key_field: str | None

    def parts(self) -> list[Part]:
        parts = ranges(self.files, self.part_size, self.encoding)
        self._require_text(parts[0])
        return parts

    def read(self, part: Part) -> Iterator[Document]:
        for key, line in lines(part, self.encoding):
            try:
                record = plain(json.loads(line))
            except (ValueError, RecursionError):
                yield {"key": key, "malformed": "no JSON"}
                continue
            yield document(record, key, self.text_field, self.key_field) if isinstance(record, dict) else {"key": key, "malformed": "no JSON object"}

    def _require_text(self, part: Part):
        fields: set[str] = set()
        reasons: set[str] = set()
        for found in self.read(part):
            if "text" in found:
                return
            reasons |= {found["malformed"]} if "malformed" in found else set()
            fields |= found.keys() - {"key", "malformed"}
        if fields or reasons:
            there = "; ".join(filter(None, [", ".join(sorted(fields)), ", ".join(f"lines with {reason}" for reason in sorted(reasons))]))
            raise UserError(f"no line at the beginning of {part.path} has a text in {self.text_field!r}, but: {there}. Set input.text_field.")


@dataclasses.dataclass(frozen=True)
class Csv:
    """Each row of a table is one document, with its cells as they stand; the first line names the columns."""

    files: str | None
    encoding: str
    text_field: str
    key_field: str | None

    def __post_init__(self):
        require_encoding(self.encoding)

    def parts(self) -> list[Part]:
        return matched(self.files)

    def read(self, part: Part) -> Iterator[Document]:
        csv.field_size_limit(2**31 - 1)  # characters of a cell; else 131,072
        with opened(part.path) as file:
            rows = csv.DictReader(io.TextIOWrapper(file, "utf-8-sig" if self.encoding == "utf-8" else self.encoding, newline=""))
            if missing := {self.text_field, self.key_field} - {None, *(rows.fieldnames or ())}:
                there = ", ".join(rows.fieldnames or ())
                raise UserError(f"{part.path} has no column {', '.join(sorted(map(str, missing)))}: it has {there}. Set input.text_field and key_field.")
            for number, row in enumerate(rows):
                if None in row or None in row.values():
                    yield {"key": f"{part.name}:{number}", "malformed": "more cells than columns, or fewer"}
                else:
                    yield document(plain(row), f"{part.name}:{number}", self.text_field, self.key_field)


@dataclasses.dataclass(frozen=True)
class Images:
    """A folder of folders of images: each file whose extension Pillow knows is one document, `image`, with the name of its folder as `label`.

    The folder may be a pattern. Each image is kept as it is in its file.
    """

    files: str | None

    def parts(self) -> list[Part]:
        extensions = {extension for extension, kind in Image.registered_extensions().items() if kind in Image.OPEN}
        inside = None if self.files is None else f"{self.files.rstrip('/')}/*/*"
        parts = [part for part in matched(inside) if pathlib.PurePath(part.name).suffix.lower() in extensions]
        if not parts:
            raise UserError(f"no file in the folders of {self.files} is an image that Pillow can open, such as .jpg or .png: set input.files.")
        return parts

    def read(self, part: Part) -> Iterator[Document]:
        with opened(part.path) as file:
            image = file.read()
        yield with_image({"key": part.name, "label": pathlib.PurePath(part.path).parent.name}, image)


def document(record: dict[str, Any], place: str, text_field: str, key_field: str | None) -> Document:
    """The document that a record of plain values is, with all its fields; its key is `place` where no field has it."""
    key = place if key_field is None else record.get(key_field)
    text = record.get(text_field)
    if key is None or key == "":
        return {"key": place, "malformed": f"no {key_field}"}
    if not isinstance(text, str | None):
        return {"key": place, "malformed": f"a {text_field} that is no string"}
    others = {name: value for name, value in record.items() if name not in ("key", "text", "image", "malformed", text_field)}
    return {"key": str(key), **others} | ({} if text is None else {"text": text})


def with_image(found: Document, image: bytes | None) -> Document:
    """The document with the bytes of its image, if it has one. It is decoded once: what is cut off is found here, not by a training run."""
    if image is None or "malformed" in found:
        return found
    try:
        decode(image, 3, found["key"])
    except UserError:
        return {"key": found["key"], "malformed": "an image that cannot be decoded to 8 bits a channel"}
    return found | {"image": image}


def plain(value: Any) -> Any:
    """A value as msgpack can hold it: half of a surrogate pair becomes U+FFFD; integers of more than 64 bits, times and the like become strings."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if value is None or isinstance(value, bool | float | bytes):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else str(value)
    if isinstance(value, dict):
        return {plain(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return plain(value.tolist()) if isinstance(value, np.ndarray | np.generic) else str(value)


def matched(pattern: str | None) -> list[Part]:
    """The files that a pattern matches, in order, each as one part with its size; a local folder stands for all that is in it.

    The name of a part is its path below the folder before the first wildcard. Raises UserError if there is none, or one's name is no UTF-8.
    """
    if pattern is None:
        raise UserError("input.files is not set: give a pattern, such as 'crawl/*.jsonl.gz', or as input.fetch what fetches the data.")
    try:
        if FileSystems.get_scheme(pattern) is None:
            pattern = os.path.expanduser(pattern)
            pattern = os.path.join(glob.escape(pattern), "**", "*") if os.path.isdir(pattern) else pattern
            sizes = {path: os.path.getsize(path) for path in glob.iglob(pattern, recursive=True) if os.path.isfile(path)}
        else:
            sizes = {file.path: file.size_in_bytes for file in FileSystems.match([pattern])[0].metadata_list}
    except (OSError, ValueError) as e:
        raise UserError(f"the files that {pattern} matches cannot be listed ({e}).") from e
    if not sizes:
        raise UserError(f"no file matches {pattern}: set input.files to a pattern of files that are there.")
    for path in sorted(sizes):
        if (shown := os.fsencode(path).decode("utf-8", "backslashreplace")) != path:
            raise UserError(f"the name of the file {shown} is not UTF-8, as keys and the manifest must be: rename it.")
    fixed = re.split(r"[*?[]", pattern)[0]
    folder = fixed[: fixed.rfind("/") + 1]
    return [Part(path, path.removeprefix(folder), size=sizes[path]) for path in sorted(sizes)]


@contextlib.contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """A file to read, decompressed by its extension. Raises UserError, naming it, if it cannot be opened, or what is read of it within is damaged."""
    extension = pathlib.PurePath(path).suffix.lower()
    try:
        with FileSystems.open(path, compression_type="uncompressed") as file:
            if extension in CODECS:
                yield io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, "r"), CODECS[extension]))
            else:
                yield lzma.open(file) if extension == ".xz" else file
    except UNREADABLE as e:
        raise UserError(f"{path} cannot be read ({type(e).__name__}: {e}): it may be damaged. Fetch or make it again, or leave it out.") from e


def ranges(pattern: str | None, size: int, encoding: str) -> list[Part]:
    """The parts of files of lines: ranges of `size` bytes; what is compressed whole."""
    require_encoding(encoding)
    if "\n".encode(encoding) != b"\n":
        raise UserError(f"input.encoding is {encoding!r}, in which the end of a line is no single byte: convert the files to utf-8, with iconv.")
    if size < 1:
        raise UserError(f"input.part_size is {size}: it must be at least 1 byte.")
    parts = []
    for part in matched(pattern):
        if pathlib.PurePath(part.name).suffix.lower() in COMPRESSED:
            parts.append(part)
        else:
            end = part.size or 0
            ends = [(start, min(start + size, end)) for start in range(0, max(end, 1), size)]
            parts += [part._replace(start=start, stop=stop, size=stop - start) for start, stop in ends]
    return parts


def lines(part: Part, encoding: str) -> Iterator[tuple[str, str]]:
    """(key, line) of each line that begins in the part and is not blank, without its end."""
    with opened(part.path) as file:
        stop = math.inf if part.stop is None else part.stop
        offset = part.start
        if offset:
            offset -= 1
            file.seek(offset)
            for piece in iter(lambda: file.readline(PIECE), b""):  # of the line that an earlier part has, or its end alone
                offset += len(piece)
                if piece.endswith(b"\n") or offset >= stop:
                    break
        while offset < stop and (line := file.readline()):
            text = decoded(line, encoding, part.path, offset).rstrip("\r\n")
            if text.strip():
                yield f"{part.name}:{offset}", text
            offset += len(line)


def decoded(data: bytes, encoding: str, path: str, offset: int) -> str:
    """The text that the bytes from `offset` on are, without the byte order mark that a file may begin with."""
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as e:
        raise UserError(f"{path} is not {encoding}: the byte at {offset + e.start} does not fit. Set input.encoding, or convert the file.") from e
    return text if offset else text.removeprefix("\ufeff")


def require_encoding(encoding: str):
    """Raises UserError if there is no such encoding of text."""
    try:
        "\n".encode(encoding)
    except (LookupError, ValueError) as e:
        raise UserError(f"input.encoding is {encoding!r}, which Python does not know: try utf-8, cp1252 or gb18030.") from e
