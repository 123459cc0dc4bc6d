"""A pass over the documents: each part is read, goes through the rules one document at a time, and is written; what became of it is counted."""

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator

from research.core.errors import UserError
from research.core.files import write_atomically
from research.curation.documents import Document, Dropped, Rule
from research.curation.engine import done, reporting
from research.curation.shards import Place
from research.curation.tally import Tally

Effect = Callable[[Place, Document], Document | Dropped]  # of a stage that compared documents with each other


@dataclasses.dataclass(frozen=True)
class Pass:
    """The task of one pass.

    Args:
      folder: where it leaves a file for each part, with what was counted.
      read: the documents of a part, by its number.
      effect: (the name of a stage, what it does to the documents of a part, by its number), which comes first; None: nothing.
      rules: (name, rule) in order.
      then: (the name of the stage that comes after, that stage); None: none does.
      hide: what is done to a text before it is shown as an example.
      write: (number, documents) -> what is to be known of what was written.
    """

    folder: pathlib.Path
    read: Callable[[int], Iterable[Document]]
    effect: tuple[str, Callable[[int], Effect]] | None
    rules: tuple[tuple[str, Rule], ...]
    then: tuple[str, object] | None
    hide: Callable[[str], str]
    write: Callable[[int, Iterator[Document]], dict]

    def __call__(self, number: int):
        with reporting(self.folder):
            tallies = [Tally(name, self.hide) for name in ([self.effect[0]] if self.effect else []) + [name for name, _ in self.rules]]
            written = self.write(number, self._documents(number, tallies))
            write_atomically(done(self.folder, number), json.dumps({"rules": [tally.result() for tally in tallies], "written": written}))

    def _documents(self, number: int, tallies: list[Tally]) -> Iterator[Document]:
        effect = self.effect[1](number) if self.effect else None
        for index, document in enumerate(self.read(number)):
            steps = [lambda d: effect(Place(number, index), d)] if effect else []
            for step, tally in zip([*steps, *(rule for _, rule in self.rules)], tallies):
                require(document, tally.rule, step)
                before, start = document, time.perf_counter()
                after = step(before)
                tally.seconds += time.perf_counter() - start
                tally.count(before, after)
                if isinstance(after, Dropped):
                    break
                document = after
            else:
                if self.then:
                    require(document, *self.then)
                yield document


def require(document: Document, name: str, rule: object):
    """Raises UserError where a document lacks what the rule of that name reads, "text" or "image", as its `needs` says."""
    needs = getattr(rule, "needs", None)
    if needs is not None and needs not in document:
        raise UserError(f"the rule {name} reads the {needs} of documents, and {document['key']} has none: put the rule `fields` before it, or leave it out.")
