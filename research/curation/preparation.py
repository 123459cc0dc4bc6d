"""A preparation: passes over the documents with comparisons between them, each begun where a killed one stopped, and what it all came to."""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import pathlib
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from typing import Protocol

import filelock

from research.core.errors import UserError
from research.core.files import write_atomically
from research.curation.beam import FileSystems
from research.curation.documents import Document, Part, Rule
from research.curation.engine import Engine, done, reporting
from research.curation.output import Output
from research.curation.passes import Effect, Pass
from research.curation.shards import Shards
from research.curation.tally import added, told
from research.curation.tokens import Tokens

PACKAGES = """apache-beam array-record datasketch ftfy ImageHash jusText lodestar-research lxml lxml_html_clean mwparserfromhell numpy phonenumbers pillow
py3langid pyarrow scipy sentencex tensorflow-datasets tokenizers trafilatura warcio""".split()
FINISHED = "finished"  # in the folder of a stage: its comparison is done, in so many `seconds`, and what is `told` of it
HASHED = 1 << 30  # bytes of the input that one worker hashes at a time


class Format(Protocol):
    """What an input looks like (research/curation/inputs.py)."""

    def parts(self) -> list[Part]: ...

    def read(self, part: Part) -> Iterator[Document]: ...


class Stage(Protocol):
    """A rule for which documents have to be compared with each other, or with others: all of them first, then what comes of it for each."""

    def compare(self, engine: Engine, before: pathlib.Path, shards: int, folder: pathlib.Path) -> dict:
        """Compares the documents of the shards of the folder `before`, and leaves in `folder` what was found.

        Returns what the manifest is to say of that, beside what it says of every rule. Files that it names *.jsonl are put beside the manifest.
        """

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

    Raises UserError where there are no documents, or none is left, or another recipe, or other packages, made what is there.
    """
    recipe.place.parent.mkdir(parents=True, exist_ok=True)
    with alone(recipe.place.parent / ".lock"):
        parts = recipe.format.parts()
        shards = together(parts, recipe.part_size)
        files = _hashes(engine, parts, recipe.place.parent / ".hashing")
        asked = {"name": recipe.name, "version": recipe.version, "recipe": recipe.fields, "input": files}
        if recipe.place.exists():
            return _same(recipe.place, asked), False
        work = recipe.place.parent / f".preparing-{_key(asked | _versions())}"  # which must be the same all the way
        for other in recipe.place.parent.glob(".preparing-*"):
            if other != work:
                print(f"Removed what another recipe, other input or other packages left unfinished: {other}")
                shutil.rmtree(other)
        rules, sizes, seconds = _passes(recipe, engine, shards, work)
        manifest = asked | {"rules": rules, "versions": _versions()} | _finish(recipe, work, sizes)
        write_atomically(work / recipe.version / "timing.json", json.dumps(seconds, indent=2))
        write_atomically(work / recipe.version / "manifest.json", json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
        (work / recipe.version).replace(recipe.place)
        shutil.rmtree(work)
    return manifest, True


@contextlib.contextmanager
def alone(path: pathlib.Path) -> Iterator[None]:
    """Held by the one process that prepares a data set; another says that it waits."""
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=1)
    except filelock.Timeout:
        print(f"Another process prepares {path.parent}: this one waits for it.", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


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


def _passes(recipe: Recipe, engine: Engine, shards: list[list[Part]], work: pathlib.Path) -> tuple[list[dict], list[dict], dict]:
    """(what the manifest says of each rule, how many examples of each split every shard has, seconds); the last pass writes the data set."""
    (work / recipe.version).mkdir(parents=True, exist_ok=True)
    output = Output(folder=work / recipe.version, name=recipe.name, shards=len(shards), **recipe.output)
    segments = _segments(recipe.rules)
    hide: Callable[[str], str] = next((rule.hide for _, rule in recipe.rules if hasattr(rule, "hide")), str)
    rules_told: list[dict] = []
    written: list[dict] = []
    seconds: dict[str, float] = {}
    for number, (stage, rules) in enumerate(segments):
        folder, before = work / f"pass-{number}", work / f"pass-{number - 1}"
        if any(not done(folder, shard).exists() for shard in range(len(shards))):
            effect = None if stage is None else (stage[0], _compared(stage[1], engine, before, len(shards), work / f"stage-{number}"))
            read = functools.partial(_from_input, recipe.format, shards) if number == 0 else functools.partial(_from_shards, before)
            last = number == len(segments) - 1
            then, write = (None, output.write) if last else (segments[number + 1][0], functools.partial(_to_shards, folder))
            what = ", ".join([name for name, _ in ([stage] if stage else []) + rules])
            engine.each(Pass(folder, read, effect, tuple(rules), then, hide, write), folder, len(shards), what)
        results, written = _counted(folder, len(shards))
        _check_some_left(results)
        told_now = list(map(told, results))
        if stage is not None:
            comparison = json.loads((work / f"stage-{number}" / FINISHED).read_text())
            told_now[0] |= comparison["told"]
            seconds[f"{number}: comparing"] = comparison["seconds"]  # by the clock; those of rules are of one processor
        rules_told += told_now
        seconds |= {f"{number}: {rule['rule']}": rule["seconds"] for rule in results}
        for path in [*before.glob("*.array_record"), *(work / f"stage-{number}").glob("*.npy")]:  # which nobody reads any more
            path.unlink()
    return rules_told, written, seconds


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
    """The effect of a stage whose comparison is done now, or what is left of it; what came of it, and how long that took, stays in the folder."""
    if not (folder / FINISHED).exists():
        start = time.perf_counter()
        comparison = {"told": stage.compare(engine, before, shards, folder), "seconds": time.perf_counter() - start}
        write_atomically(folder / FINISHED, json.dumps(comparison))
    return functools.partial(stage.effect, before, folder)


def _from_input(format: Format, shards: list[list[Part]], number: int) -> Iterable[Document]:
    return itertools.chain.from_iterable(map(format.read, shards[number]))


def _from_shards(folder: pathlib.Path, number: int) -> Iterable[Document]:
    return Shards(folder).read(number)


def _to_shards(folder: pathlib.Path, number: int, documents: Iterator[Document]) -> dict:
    Shards(folder).write(number, documents)
    return {}


def _counted(folder: pathlib.Path, shards: int) -> tuple[list[dict], list[dict]]:
    """(what each rule of a pass did to the documents of all shards, what was written of each shard): one after another, since there may be many."""
    rules: list[dict] = []
    written = []
    for shard in range(shards):
        result = json.loads(done(folder, shard).read_text())
        rules = list(map(added, rules, result["rules"])) if rules else result["rules"]
        written.append(result["written"])
    return rules, written


def _check_some_left(rules: list[dict]):
    for rule in rules:
        if not rule["documents_in"]:
            raise UserError("the input has no document at all: look at input.files and input.format.")
        if not rule["documents_out"]:
            why = ", ".join(f"{reason} ({n:,})" for reason, n in sorted(rule["why"].items()))
            raise UserError(f"the rule {rule['rule']} drops all of {rule['documents_in']:,} documents that came to it: {why}. Change its fields, or leave it out.")


def _finish(recipe: Recipe, work: pathlib.Path, sizes: list[dict]) -> dict:
    """Completes the data set: what the manifest says of its splits and files."""
    output = Output(folder=work / recipe.version, name=recipe.name, shards=len(sizes), **recipe.output)
    splits = {split: sum(size[split] for size in sizes) for split in output.splits}
    if empty := [split for split, size in splits.items() if not size]:
        raise UserError(f"no document fell into the split {empty[0]}, of {sum(splits.values())}: change output.validation or output.test, or leave that split out (0).")
    output.finish(sizes, f"Prepared by the recipe {_key(recipe.fields)}.")
    tokens = {} if recipe.tokens is None else {"tokens": recipe.tokens.describe(output.folder, splits)}
    beside = [pathlib.Path(shutil.copy(path, output.folder)) for path in sorted(work.glob("stage-*/*.jsonl"))]
    files = [*sorted(output.folder.glob("*.array_record-*")), *output.folder.glob("tokenizer.json"), *beside]
    return {"splits": splits, "output": {path.name: _sha256(str(path)) for path in files}} | tokens


def _hashes(engine: Engine, parts: list[Part], folder: pathlib.Path) -> list[dict]:
    """What the files of the input are, each once."""
    sizes: dict[tuple[str, str], int] = {}
    for part in parts:
        sizes[part.name, part.path] = sizes.get((part.name, part.path), 0) + (HASHED if part.size is None else part.size)
    groups = [[(file.name, file.path) for file in group] for group in together([Part(path, name, size=sizes[name, path]) for name, path in sorted(sizes)], HASHED)]
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
    """The manifest of what is there. Raises UserError if that is of another recipe, or other input, or made with other packages."""
    path = place / "manifest.json"
    manifest = json.loads(path.read_text()) if path.exists() else {}
    for what in asked:
        if manifest.get(what) != json.loads(json.dumps(asked[what])):
            raise UserError(f"{place} was prepared from another {what}: choose another --config.name or --config.version, or remove that folder.")
    before, now = manifest.get("versions", {}), _versions()
    others = [name for name in sorted(before | now) if before.get(name) != now.get(name)]
    if differ := [f"{name} {before.get(name, 'none')} instead of {now.get(name, 'none')}" for name in others]:
        raise UserError(f"{place} was prepared with {', '.join(differ)}: to prepare it anew choose another --config.version, or remove that folder.")
    return manifest


def _key(asked: dict) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]


def _versions() -> dict[str, str]:
    """Of what the text depends on."""
    return {"python": platform.python_version()} | {package: metadata.version(package) for package in PACKAGES}
