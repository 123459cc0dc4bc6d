"""Rules that make plain text of texts that are written in some notation."""

import dataclasses

from research.curation.documents import Document
from research.data.debian import paragraphs


@dataclasses.dataclass(frozen=True)
class DebianDescription:
    """A package's description as Debian's index has it (research/data/debian.py) -> paragraphs, one a line."""

    needs = "text"

    def __call__(self, document: Document) -> Document:
        text = paragraphs(document["text"])
        return document if text == document["text"] else document | {"text": text}
