"""What became of the documents at each rule: counted by part, added up, with examples."""

import base64
import heapq
import io
from collections import Counter
from collections.abc import Callable

from PIL import Image

from research.curation.documents import Document, Dropped, characters
from research.curation.ngrams import digest

KEPT = 10  # examples of what a rule dropped, and of what it changed
EXCERPT = 240  # characters of one
THUMBNAIL = 64  # pixels of a side of an image, at most
COUNTS = ("documents_in", "documents_out", "documents_changed", "characters_in", "characters_out")


class Tally:
    """What came to one rule and what left it: documents and characters, reasons, and a random ten of those dropped and of those changed.

    Which ten is said by a hash of their keys, so that it does not depend on who counted them. `hide` is what is done to a text before it is shown.
    """

    def __init__(self, rule: str, hide: Callable[[str], str] = str):
        self.rule, self.seconds, self._hide = rule, 0.0, hide
        self.counts, self.why = Counter[str](), Counter[str]()
        self._examples: dict[str, list] = {"dropped": [], "changed": []}

    def count(self, before: Document, after: Document | Dropped):
        self.counts.update(documents_in=1, characters_in=characters(before))
        if isinstance(after, Dropped):
            self.why[after.why] += 1
            self._keep("dropped", before, lambda: {"why": after.why, **self._excerpt(before), **self._like(after)})
        else:
            changed = any(after.get(content) != before.get(content) for content in ("text", "image"))
            self.counts.update(documents_out=1, characters_out=characters(after), documents_changed=changed)
            if after.get("text") != before.get("text"):
                self._keep("changed", before, lambda: self._difference(before["text"], after["text"]))

    def result(self) -> dict:
        """What JSON can hold."""
        told = {which: [{"order": -order, "key": key, **example} for order, key, _, example in kept] for which, kept in self._examples.items()}
        return {"rule": self.rule, **{name: self.counts[name] for name in COUNTS}, "why": dict(self.why), **told, "seconds": self.seconds}

    def _keep(self, which: str, document: Document, example: Callable[[], dict]):
        order, kept = -digest(f"{self.rule} {document['key']}".encode("utf-8", "surrogatepass")), self._examples[which]
        if len(kept) < KEPT or order > kept[0][0]:
            told = (order, document["key"], -self.counts["documents_in"], example())  # of equal keys the first counts, and no examples are compared
            (heapq.heappushpop if len(kept) == KEPT else heapq.heappush)(kept, told)

    def _excerpt(self, document: Document) -> dict[str, str]:
        """The beginning of a text, and an image made small, a PNG file in base64."""
        shown = {"text": self._hide(str(document["text"]))[:EXCERPT]} if "text" in document else {}
        if isinstance(document.get("image"), bytes):
            small = io.BytesIO()
            with Image.open(io.BytesIO(document["image"])) as image:
                image.thumbnail((THUMBNAIL, THUMBNAIL))
                image.convert("RGB").save(small, "PNG")
            shown["image"] = base64.b64encode(small.getvalue()).decode()
        return shown

    def _like(self, dropped: Dropped) -> dict:
        """What a document is like, if that is why it goes."""
        return {} if dropped.like is None else {"like": {"key": dropped.like["key"], **self._excerpt(dropped.like)}}

    def _difference(self, before: str, after: str) -> dict[str, str]:
        """What stood and what stands from a little before the first place where two texts differ; where hiding leaves no difference, what stands."""
        first = next((i for i, (a, b) in enumerate(zip(before, after)) if a != b), min(len(before), len(after)))
        start = max(0, first - EXCERPT // 4)
        was, now = (self._hide(text)[start : start + EXCERPT] for text in (before, after))
        return {"after": now} if was == now else {"before": was, "after": now}


def added(a: dict, b: dict) -> dict:
    """Two results of tallies of one rule as one."""
    sums: dict = {name: a[name] + b[name] for name in (*COUNTS, "seconds")}
    examples = {which: heapq.nsmallest(KEPT, [*a[which], *b[which]], key=lambda example: (example["order"], example["key"])) for which in ("dropped", "changed")}
    return {"rule": a["rule"], **sums, "why": dict(Counter(a["why"]) + Counter(b["why"])), **examples}


def told(result: dict) -> dict:
    """What the manifest says of a rule: the same whoever counted, and how long it took."""
    in_order = lambda which: sorted(result[which], key=lambda example: (example["order"], example["key"]))
    examples = {which: [{name: value for name, value in example.items() if name != "order"} for example in in_order(which)] for which in ("dropped", "changed")}
    return {"rule": result["rule"], **{name: result[name] for name in COUNTS}, "why": dict(sorted(result["why"].items())), **examples}
