"""A preparation: passes over the documents with comparisons between them, each begun where a killed one stopped, and what it all came to."""

import dataclasses
import functools
import hashlib
import heapq
import itertools
import json
import pathlib
import platform
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import Protocol

import filelock

from research.core.errors import UserError
from research.core.files import write_atomically
from research.curation.beam import FileSystems
from research.curation.documents import Document, Part, Rule
from research.curation.engine import Engine, done, reporting
from research.curation.output import Output
from research.curation.passes import KEPT, Effect, Pass
from research.curation.shards import Shards
from research.curation.tokens import Tokens

PACKAGES = ("apache-beam", "array-record", "datasketch", "ftfy", "ImageHash", "phonenumbers", "pillow", "py3langid", "tensorflow-datasets", "tokenizers", "trafilatura", "warcio")
FILES = 100  # of the input that one worker hashes at a time


class Format(Protocol):
    """What an input looks like (research/curation/inputs.py)."""

    def parts(self) -> list[Part]: ...

    def read(self, part: Part) -> Iterator[Document]: ...


class Stage(Protocol):
    """A rule for which documents have to be compared with each other, or with others: all of them first, then what comes of it for each."""

    def compare(self, engine: Engine, before: pathlib.Path, shards: int, folder: pathlib.Path) -> None:
        """Compares the documents of the shards of the folder `before`, and leaves in `folder` what was found."""

    def effect(self, before: pathlib.Path, folder: pathlib.Path, shard: int) -> Effect: ...


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is to be done. `fields` are those of its config, as JSON has them; `name`, `version` and `folder` are of the data set: folder/name/version."""

    name: str
    version: str
    folder: pathlib.Path
    fields: dict
    format: Format
    rules: tuple[tuple[str, Rule | Stage], ...]
    output: dict  # the fields of Output that the config knows
    part_size: int  # bytes of small parts that make one shard
    tokens: Tokens | None = None  # None: the data set has no tokenizer of its own

    @property
    def place(self) -> pathlib.Path:
        return self.folder / self.name / self.version


def prepare(recipe: Recipe, engine: Engine) -> tuple[dict, bool]:
    """(the manifest of the data set, whether it was made now): made whole or not at all.

    Raises UserError where there are no documents, or none is left, or another recipe made what is there.
    """
    recipe.place.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(recipe.place.parent / ".lock"):
        parts = recipe.format.parts()
        shards = together(parts, recipe.part_size)
        files = _hashes(engine, parts, recipe.place.parent / ".hashing")
        asked = {"name": recipe.name, "version": recipe.version, "recipe": recipe.fields, "input": files}
        if recipe.place.exists():
            return _same(recipe.place, asked), False
        work = recipe.place.parent / f".preparing-{_key(asked)}"
        for other in recipe.place.parent.glob(".preparing-*"):
            if other != work:
                shutil.rmtree(other)  # of a recipe that was changed since
        counted = _passes(recipe, engine, shards, work)
        manifest = asked | {"rules": _merged(counted), "versions": _versions()} | _finish(recipe, work, counted[-1])
        write_atomically(work / recipe.version / "timing.json", json.dumps(_seconds(counted), indent=2))
        write_atomically(work / recipe.version / "manifest.json", json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
        (work / recipe.version).replace(recipe.place)
        shutil.rmtree(work)
    return manifest, True


def together(parts: list[Part], size: int) -> list[list[Part]]:
    """The parts of each shard: one, or several small ones in a row, of `size` bytes at most."""
    shards: list[list[Part]] = []
    room = 0
    for part in parts:
        if not shards or part.size is None or part.size > room:
            shards.append([])
            room = size
        shards[-1].append(part)
        room = 0 if part.size is None else room - part.size
    return shards


def _passes(recipe: Recipe, engine: Engine, shards: list[list[Part]], work: pathlib.Path) -> list[list[dict]]:
    """What each shard counted in each pass; the last pass writes the data set."""
    (work / recipe.version).mkdir(parents=True, exist_ok=True)
    output = Output(folder=work / recipe.version, name=recipe.name, shards=len(shards), **recipe.output)
    segments = _segments(recipe.rules)
    counted = []
    for number, (stage, rules) in enumerate(segments):
        folder, before = work / f"pass-{number}", work / f"pass-{number - 1}"
        if any(not done(folder, shard).exists() for shard in range(len(shards))):
            effect = None if stage is None else (stage[0], _compared(stage[1], engine, before, len(shards), work / f"stage-{number}"))
            read = functools.partial(_from_input, recipe.format, shards) if number == 0 else functools.partial(_from_shards, before)
            write = output.write if number == len(segments) - 1 else functools.partial(_to_shards, folder)
            what = ", ".join([name for name, _ in ([stage] if stage else []) + rules]) or "reading"
            engine.each(Pass(folder, read, effect, tuple(rules), write), folder, len(shards), what)
        counted.append([json.loads(done(folder, shard).read_text()) for shard in range(len(shards))])
        _check_some_left(counted)
        shutil.rmtree(work / f"stage-{number}", ignore_errors=True)
        for path in before.glob("*.array_record"):  # which nobody reads any more
            path.unlink()
    return counted


def _segments(rules) -> list[tuple]:
    """[(stage or None, rules after it), ...], each with its name."""
    segments: list[tuple] = [(None, [])]
    for name, rule in rules:
        if hasattr(rule, "compare"):
            segments.append(((name, rule), []))
        else:
            segments[-1][1].append((name, rule))
    return segments


def _compared(stage: Stage, engine: Engine, before: pathlib.Path, shards: int, folder: pathlib.Path):
    """The effect of a stage whose comparison is done now, if it was not."""
    if not (folder / "finished").exists():
        shutil.rmtree(folder, ignore_errors=True)
        stage.compare(engine, before, shards, folder)
        (folder / "finished").touch()
    return functools.partial(stage.effect, before, folder)


def _from_input(format: Format, shards: list[list[Part]], number: int) -> Iterable[Document]:
    return itertools.chain.from_iterable(map(format.read, shards[number]))


def _from_shards(folder: pathlib.Path, number: int) -> Iterable[Document]:
    return Shards(folder).read(number)


def _to_shards(folder: pathlib.Path, number: int, documents: Iterator[Document]) -> dict:
    Shards(folder).write(number, documents)
    return {}


def _check_some_left(counted: list[list[dict]]):
    for rule in _merged(counted):
        if not rule["documents_in"]:
            raise UserError("the input has no document at all: look at input.files and input.format.")
        if not rule["documents_out"]:
            why = ", ".join(f"{reason} ({n:,})" for reason, n in rule["why"].items())
            raise UserError(f"the rule {rule['rule']} drops all of {rule['documents_in']:,} documents that came to it: {why}. Change its fields, or leave it out.")


def _merged(counted: list[list[dict]]) -> list[dict]:
    """What each rule did to the documents of all shards."""
    return [rule for shards in counted for rule in map(_sum, zip(*(shard["rules"] for shard in shards)))]


def _sum(tallies: tuple[dict, ...]) -> dict:
    total: dict = {"rule": tallies[0]["rule"]}
    for name in ("documents_in", "documents_out", "documents_changed", "characters_in", "characters_out"):
        total[name] = sum(tally.get(name, 0) for tally in tallies)
    total["why"] = dict(sorted(sum((Counter(tally["why"]) for tally in tallies), Counter()).items()))
    for which in ("dropped", "changed"):
        found = heapq.nsmallest(KEPT, (example for tally in tallies for example in tally[which]), key=lambda example: (example["order"], example["key"]))
        total[which] = [{name: value for name, value in example.items() if name != "order"} for example in found]
    return total


def _seconds(counted: list[list[dict]]) -> dict[str, float]:
    """{rule: seconds of one processor}."""
    return {tallies[0]["rule"]: sum(tally["seconds"] for tally in tallies) for shards in counted for tallies in zip(*(shard["rules"] for shard in shards))}


def _finish(recipe: Recipe, work: pathlib.Path, counted: list[dict]) -> dict:
    """Completes the data set: what the manifest says of its splits and files."""
    output = Output(folder=work / recipe.version, name=recipe.name, shards=len(counted), **recipe.output)
    sizes = [shard["written"] for shard in counted]
    splits = {split: sum(size[split] for size in sizes) for split in output.splits}
    if empty := [split for split, size in splits.items() if not size]:
        raise UserError(f"no document fell into the split {empty[0]}, of {sum(splits.values())}: change output.validation or output.test, or leave that split out (0).")
    output.finish(sizes, f"Prepared by the recipe {_key(recipe.fields)}.")
    tokens = {} if recipe.tokens is None else {"tokens": recipe.tokens.describe(output.folder, splits)}
    files = [*sorted(output.folder.glob("*.array_record-*")), *output.folder.glob("tokenizer.json")]
    return {"splits": splits, "output": {path.name: _sha256(str(path)) for path in files}} | tokens


def _hashes(engine: Engine, parts: list[Part], folder: pathlib.Path) -> list[dict]:
    """What the files of the input are, each once."""
    files = sorted({(part.name, part.path) for part in parts})
    groups = [files[start : start + FILES] for start in range(0, len(files), FILES)]
    shutil.rmtree(folder, ignore_errors=True)
    engine.each(functools.partial(_hash, groups, folder), folder, len(groups), "hashing")
    found = [file for n in range(len(groups)) for file in json.loads(done(folder, n).read_text())]
    shutil.rmtree(folder)
    return found


def _hash(groups: list[list[tuple[str, str]]], folder: pathlib.Path, number: int):
    with reporting(folder):
        write_atomically(done(folder, number), json.dumps([{"name": name, "sha256": _sha256(path)} for name, path in groups[number]]))


def _sha256(path: str) -> str:
    total = hashlib.sha256()
    with FileSystems.open(path, compression_type="uncompressed") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def _same(place: pathlib.Path, asked: dict) -> dict:
    """The manifest of what is there. Raises UserError if that is of another recipe, or other input."""
    path = place / "manifest.json"
    manifest = json.loads(path.read_text()) if path.exists() else {}
    for what in asked:
        if manifest.get(what) != json.loads(json.dumps(asked[what])):
            raise UserError(f"{place} was prepared from another {what}: choose another --config.name or --config.version, or remove that folder.")
    return manifest


def _key(asked: dict) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]


def _versions() -> dict[str, str]:
    """Of what the text depends on."""
    return {"python": platform.python_version()} | {package: metadata.version(package) for package in PACKAGES}
