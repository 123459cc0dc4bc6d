"""Documents that have text of evaluation sets: they go, each with the example whose text it has, and how many examples are hit is told."""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from research.core.errors import UserError
from research.core.files import write_atomically
from research.curation import ngrams
from research.curation.documents import Document
from research.curation.duplicates import PAIR, drop_later, found, hashed
from research.curation.engine import Engine, done, reporting
from research.curation.exchange import save
from research.curation.passes import Effect
from research.curation.shards import Place, Shards
from research.data.corpus import dataset_builder
from research.data.records import Records
from research.data.text import as_text

SETS = "sets"  # in the folder of the stage: the evaluation sets, each a shard
HIT = "contaminated.jsonl"  # there, and beside the manifest: which of their examples were hit


@dataclasses.dataclass(frozen=True)
class Contamination:
    """Drops documents that share a run of `ngram` words with an example of an evaluation set, or all of one that has fewer words, but at least
    `min_words`.

    Of arXiv 2005.14165, appendix C, two things are done: runs of 13 words are looked for, whatever their case and punctuation (the words are those
    of research/curation/ngrams.py, not what lies between white space), and none of fewer than 8, the least that its measurements of overlap use.
    Three things are not done. There a run is taken out with a window of 200 characters around it, which cuts the document into pieces, of which
    those shorter than 200 characters go; the whole document goes only if there are more than ten pieces. Here it always goes, also a long one that
    quotes a line. And there runs that more than ten documents have are passed over as common phrases; here they count.

    Args:
      sets: names of evaluation sets.
      examples: the name of one -> its examples, as documents.
    """

    needs = "text"

    sets: tuple[str, ...]
    ngram: int
    min_words: int
    examples: Callable[[str], Iterable[Document]]

    def __post_init__(self):
        if not self.sets or not 1 <= self.min_words <= self.ngram:
            raise UserError("contamination: name sets that evaluate, and let min_words lie between 1 and ngram.")

    def compare(self, engine: Engine, before: pathlib.Path, shards: int, folder: pathlib.Path) -> dict:
        """Leaves in `folder` the examples, and of each shard of the folder `before` which documents have text of one.

        Returns `evaluation_sets`: of each how many `examples` it has, how many of these are `too_short` to be looked for, and how many were `hit`:
        share a run with any of the documents that came to this rule. Which these are stands in HIT, each {"set": its name, "key": of the example}.
        """
        examples = Shards(folder / SETS)
        examples.folder.mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(self.sets):
            examples.write(number, self.examples(name))
        sizes = self._index(examples, folder)
        engine.each(functools.partial(_look_up, before, folder), folder, shards, "looking for evaluation sets")
        places = self._hit(folder, shards)
        lines = [json.dumps({"set": self.sets[place.shard], "key": examples[place]["key"]}, ensure_ascii=False) + "\n" for place in places]
        write_atomically(folder / HIT, "".join(lines))
        hits = np.bincount([place.shard for place in places], minlength=len(self.sets)).tolist()
        return {"evaluation_sets": {name: size | {"hit": hit} for (name, size), hit in zip(sizes.items(), hits)}}

    def effect(self, before: pathlib.Path, folder: pathlib.Path, shard: int) -> Effect:
        return drop_later(found(folder, shard), Shards(folder / SETS), lambda example: f"has text of {self.sets[example.shard]}")

    def _index(self, examples: Shards, folder: pathlib.Path) -> dict[str, dict[str, int]]:
        """Leaves in `folder` the runs of words of all examples, those of each length in a file, sorted."""
        runs: dict[int, list[np.ndarray]] = {}
        sizes = {}
        for set_, name in enumerate(self.sets):
            size = sizes[name] = {"examples": 0, "too_short": 0}
            for number, example in enumerate(examples.read(set_)):
                hashes = ngrams.word_hashes(example["text"])
                length = min(len(hashes), self.ngram)
                size["examples"] += 1
                size["too_short"] += length < self.min_words
                if length >= self.min_words:
                    runs.setdefault(length, []).append(hashed(ngrams.windows(hashes, length), Place(set_, number)))
            if size["examples"] == size["too_short"]:
                raise UserError(f"contamination.sets: {name} has no text of {self.min_words} words: choose another, or lower min_words.")
        for length, rows in runs.items():
            save(folder / f"runs-{length}.npy", np.unique(np.concatenate(rows)))
        return sizes

    def _hit(self, folder: pathlib.Path, shards: int) -> list[Place]:
        """The examples that have a run which is in any document, in order: a run may be of several."""
        shared = functools.reduce(np.union1d, (np.load(_shared(folder, shard)) for shard in range(shards)))
        places = np.unique(np.concatenate([runs["place"][ngrams.known(runs["hash"], shared)] for runs in _runs(folder).values()]))
        return [Place.of(place) for place in places]


def _runs(folder: pathlib.Path) -> dict[int, np.ndarray]:
    """{words of a run: HASHED records of all that have so many}"""
    return {int(path.stem.rpartition("-")[2]): np.load(path, mmap_mode="r") for path in sorted(folder.glob("runs-*.npy"))}


def _shared(folder: pathlib.Path, shard: int) -> pathlib.Path:
    return folder / f"shared-{shard:05}.npy"


def _look_up(before: pathlib.Path, folder: pathlib.Path, shard: int):
    """Leaves (document, the first example of which it has a run) of the documents of a shard that have any, and the runs that are in them."""
    with reporting(folder):
        all_runs, pairs, shared = _runs(folder), [np.zeros(0, PAIR)], [np.zeros(0, np.uint64)]
        for number, document in enumerate(Shards(before).read(shard)):
            hashes, places = ngrams.word_hashes(document["text"]), []
            for length, runs in all_runs.items():
                windows = ngrams.windows(hashes, length)
                shared.append(windows[ngrams.known(windows, runs["hash"])])
                places += runs["place"][np.searchsorted(runs["hash"], shared[-1])].tolist()
            if places:
                pairs.append(np.array([(int(Place(shard, number)), min(places))], PAIR))
        save(found(folder, shard), np.concatenate(pairs))
        save(_shared(folder, shard), np.unique(np.concatenate(shared)))
        write_atomically(done(folder, shard), "{}")


def evaluation_examples(datasets: dict, name: str) -> Iterator[Document]:
    """The examples of a file of texts, one a line, each with the key name:line, counted from 1; or of "name:split:field" of a data set, ours by the
    table `datasets` or any that TFDS knows, each with the key name:split:field:number, counted from 0.

    Raises UserError if there is neither, or what there is cannot be read.
    """
    if pathlib.Path(name).is_file():
        try:
            with open(name, encoding="utf-8") as file:
                for number, line in enumerate(file, 1):
                    yield {"key": f"{name}:{number}", "text": line.rstrip("\n")}
        except UnicodeDecodeError as e:
            raise UserError(f"contamination.sets: {name} is not UTF-8 ({e.reason} after {e.start} bytes): convert the file.") from e
        except OSError as e:
            raise UserError(f"contamination.sets: {name} cannot be read ({e.strerror}).") from e
        return
    if name.count(":") < 2:
        raise UserError(f"contamination.sets: {name} is no file, and no data set either: name one as NAME:SPLIT:FIELD.")
    dataset, split, field = name.rsplit(":", 2)
    try:
        records = Records(dataset_builder(datasets, dataset, None), split, {"text_field": (field, "text")})
    except (UserError, ValueError) as e:  # the latter where TFDS cannot make out the name
        raise UserError(f"contamination.sets: {name}: {str(e).partition(chr(10))[0]}") from e
    for i in range(len(records)):
        yield {"key": f"{name}:{i}", "text": as_text(records[i][field])}


def identity(examples: Iterable[Document]) -> str:
    """SHA-256 of the texts of an evaluation set, each with its length before it: another one if any of them is, wherever they come from."""
    total = hashlib.sha256()
    for example in examples:
        text = example["text"].encode("utf-8", "surrogatepass")
        total.update(len(text).to_bytes(8, "little") + text)
    return total.hexdigest()
