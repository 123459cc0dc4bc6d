"""What a preparation is made of: documents, the rules they pass through, and the parts of the input that workers take."""

from typing import Any, NamedTuple, Protocol

# A document has a `key`, which no other of the input has, and `text` or `image`, the bytes of its file; one that is `malformed`, which says how, may have
# neither. Whatever else it has comes along: what msgpack can hold, None, bool, int, float, str, bytes, lists and dicts of those.
Document = dict[str, Any]


class Dropped(NamedTuple):
    """In place of a document: it goes, and why. The reason is one of few, so that they can be counted: no figure of the document is in it."""

    why: str
    like: Document | None = None  # the earlier document that it is like, or the example of an evaluation set whose text it has


class Rule(Protocol):
    """A frozen dataclass: the same document gives the same result, always and everywhere.

    One with an attribute `needs`, "text" or "image", is given no document without that; one with a method `hide(text) -> text` says what of texts is not to be
    shown in reports.
    """

    def __call__(self, document: Document) -> Document | Dropped:
        """The document as it goes on, the very same object where nothing changes; never changed in place."""


class Part(NamedTuple):
    """What one worker takes at a time: a file, or from `start` up to `stop` of it, in what its format counts (bytes, row groups, examples)."""

    path: str  # as the format opens it
    name: str  # the same on every machine: what keys and the manifest have
    start: int = 0
    stop: int | None = None
    size: int | None = None  # bytes, where they are known: small parts are taken together


def characters(document: Document) -> int:
    """How much there is of a document: the characters of its text, or the bytes of its image."""
    content = document.get("text", document.get("image"))
    return len(content) if isinstance(content, str | bytes) else 0
