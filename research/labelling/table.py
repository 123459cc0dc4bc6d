"""A CSV file of labels: a row is a text with its key and, where it has one, its label, how sure that is, and whose it is."""

import collections
import contextlib
import csv
import io
import pathlib
import tempfile
from collections.abc import Iterable, Sequence

from research.core.errors import UserError
from research.core.files import write_atomically

COLUMNS = ("key", "text", "label", "confidence", "annotator")
LONGEST = 2**31 - 1  # characters of a text; the csv module would stop at 131,072

Row = dict[str, str]  # of COLUMNS, "" where there is nothing, and of whatever other columns the file has, which are kept


def row(key: str, text: str, label: str = "", confidence: float | None = None, annotator: str = "") -> Row:
    return dict(zip(COLUMNS, (key, text, label, "" if confidence is None else f"{confidence:.4f}", annotator)))


def read(path: str | pathlib.Path, classes: Sequence[str] | None = None) -> list[Row]:
    """The rows of a file, which need not have a column `confidence` or `annotator`.

    Raises UserError, naming the row, for a file that cannot be read or lacks a column, a row with too much or too little, no text, a key that came
    before, a label that is none of `classes`, or a confidence that is no probability.
    """
    csv.field_size_limit(LONGEST)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval=None)
            fields, rows = reader.fieldnames or [], list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise UserError(f"{path} cannot be read as a CSV file in UTF-8 ({e}).") from e
    if missing := [name for name in COLUMNS[:3] if name not in fields]:
        raise UserError(f"{path} has no column {', '.join(missing)}: its first line must name {', '.join(COLUMNS)}, the last two if it has them.")
    seen: set[str] = set()
    for number, found in enumerate(rows, 1):
        if wrong := _wrong(found, seen, classes):
            raise UserError(f"{path}, row {number} below its header: {wrong}.")
        seen.add(found["key"])
    return [dict.fromkeys(COLUMNS, "") | found for found in rows]


def _wrong(found: dict, seen: set[str], classes: Sequence[str] | None) -> str | None:
    if None in found or None in found.values():
        return "it has more cells than the header, or fewer; put texts with commas in quotation marks"
    if not found["key"] or not found["text"].strip():
        return "it has no key, or no text"
    if found["key"] in seen:
        return f"the key {found['key']!r} came before; each must be another"
    if classes is not None and found["label"] and found["label"] not in classes:
        return f"the label {found['label']!r} is none of {', '.join(classes)}"
    try:
        sure = float(found.get("confidence") or 1)
    except ValueError:
        sure = -1
    return None if 0 <= sure <= 1 else f"the confidence {found['confidence']!r} is no number between 0 and 1"


def write(path: str | pathlib.Path, rows: Iterable[Row]):
    """Replaces the file at once: whoever reads it finds it whole, before or after.

    Raises UserError for a key that comes twice, and a file that cannot be written, which then is as it was.
    """
    rows, text = list(rows), io.StringIO()
    if twice := [key for key, times in collections.Counter(found["key"] for found in rows).items() if times > 1]:
        raise UserError(f"the key {twice[0]!r} comes twice in what {path} is to hold: give each text its own.")
    writer = csv.DictWriter(
        text, list(dict.fromkeys([*COLUMNS, *(name for found in rows for name in found)])), restval="", lineterminator="\n", quoting=csv.QUOTE_ALL
    )
    writer.writeheader()
    writer.writerows(rows)
    make_place(path)
    with _writing(path):
        write_atomically(pathlib.Path(path), text.getvalue())


def make_place(path: str | pathlib.Path):
    """Makes the folder of a file to be written. Raises UserError where it cannot be made or nothing can be written in it."""
    with _writing(path):
        folder = pathlib.Path(path).parent
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()


@contextlib.contextmanager
def _writing(path: str | pathlib.Path):
    try:
        yield
    except OSError as e:
        raise UserError(
            f"{path} cannot be written ({e.strerror or e}): mend that, or name another place; a file that was there stays as it was."
        ) from e
