"""A pass over the documents: each part is read, goes through the rules one document at a time, and is written; what became of it is counted."""

import base64
import dataclasses
import heapq
import io
import json
import pathlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from PIL import Image

from research.core.files import write_atomically
from research.curation.documents import Document, Dropped, Rule, characters
from research.curation.engine import done, reporting
from research.curation.ngrams import digest
from research.curation.shards import Place

KEPT = 10  # examples of what a rule dropped, and of what it changed
EXCERPT = 240  # characters of one
THUMBNAIL = 64  # pixels of a side of an image, at most

Effect = Callable[[Place, Document], Document | Dropped]  # of a stage that compared documents with each other


class Tally:
    """What came to one rule and what left it: documents and characters, reasons, and a random ten of those dropped and of those changed.

    Which ten is said by a hash of their keys, so that it does not depend on who counted them. Of a rule that hides something (`secret`) what it changed is shown
    as it is afterwards.
    """

    def __init__(self, rule: str, secret: bool = False):
        self.rule, self.seconds, self._secret = rule, 0.0, secret
        self.counts, self.why = Counter[str](), Counter[str]()
        self._examples: dict[str, list] = {"dropped": [], "changed": []}

    def count(self, before: Document, after: Document | Dropped):
        self.counts.update(documents_in=1, characters_in=characters(before))
        if isinstance(after, Dropped):
            self.why[after.why] += 1
            self._keep("dropped", before, lambda: {"why": after.why, **excerpt(before), **like(after)})
        else:
            self.counts.update(documents_out=1, characters_out=characters(after), documents_changed=after is not before)
            if after.get("text") != before.get("text"):
                shown = ("after",) if self._secret else ("before", "after")
                self._keep("changed", before, lambda: {name: text for name, text in zip(("before", "after"), difference(before["text"], after["text"])) if name in shown})

    def _keep(self, which: str, document: Document, example: Callable[[], dict]):
        order, kept = -digest(f"{self.rule} {document['key']}".encode()), self._examples[which]
        if len(kept) < KEPT or order > kept[0][0]:
            told = (order, document["key"], -self.counts["documents_in"], example())  # of equal keys the first counts, and no examples are compared
            (heapq.heappushpop if len(kept) == KEPT else heapq.heappush)(kept, told)

    def result(self) -> dict:
        examples = {which: [{"order": -order, "key": key, **told} for order, key, _, told in sorted(kept, key=lambda k: -k[0])] for which, kept in self._examples.items()}
        return {"rule": self.rule, **self.counts, "why": dict(sorted(self.why.items())), **examples, "seconds": self.seconds}


def excerpt(document: Document) -> dict[str, str]:
    """The beginning of a text, and an image made small, a PNG file in base64."""
    shown = {"text": str(document["text"])[:EXCERPT]} if "text" in document else {}
    if isinstance(document.get("image"), bytes):
        small = io.BytesIO()
        with Image.open(io.BytesIO(document["image"])) as image:
            image.thumbnail((THUMBNAIL, THUMBNAIL))
            image.convert("RGB").save(small, "PNG")
        shown["image"] = base64.b64encode(small.getvalue()).decode()
    return shown


def like(dropped: Dropped) -> dict:
    """What a document is like, if that is why it goes."""
    return {} if dropped.like is None else {"like": {"key": dropped.like["key"], **excerpt(dropped.like)}}


def difference(before: str, after: str) -> tuple[str, str]:
    """What stood and what stands from a little before the first place where two texts differ."""
    first = next((i for i, (a, b) in enumerate(zip(before, after)) if a != b), min(len(before), len(after)))
    start = max(0, first - EXCERPT // 4)
    return before[start : start + EXCERPT], after[start : start + EXCERPT]


@dataclasses.dataclass(frozen=True)
class Pass:
    """The task of one pass.

    Args:
      folder: where it leaves a file for each part, with what was counted.
      read: the documents of a part, by its number.
      effect: (the name of a stage, what it does to the documents of a part, by its number), which comes first; None: nothing.
      rules: (name, rule) in order.
      write: (number, documents) -> what is to be known of what was written.
    """

    folder: pathlib.Path
    read: Callable[[int], Iterable[Document]]
    effect: tuple[str, Callable[[int], Effect]] | None
    rules: tuple[tuple[str, Rule], ...]
    write: Callable[[int, Iterator[Document]], dict]

    def __call__(self, number: int):
        with reporting(self.folder):
            tallies = [Tally(self.effect[0])] if self.effect else []
            tallies += [Tally(name, getattr(rule, "secret", False)) for name, rule in self.rules]
            written = self.write(number, self._documents(number, tallies))
            counted = {"rules": [tally.result() for tally in tallies], "written": written}
            write_atomically(done(self.folder, number), json.dumps(counted))

    def _documents(self, number: int, tallies: list[Tally]) -> Iterator[Document]:
        effect = self.effect[1](number) if self.effect else None
        for index, document in enumerate(self.read(number)):
            steps = [lambda d: effect(Place(number, index), d)] if effect else []
            for step, tally in zip([*steps, *(rule for _, rule in self.rules)], tallies):
                before, start = document, time.perf_counter()
                after = step(before)
                tally.seconds += time.perf_counter() - start
                tally.count(before, after)
                if isinstance(after, Dropped):
                    break
                document = after
            else:
                yield document
