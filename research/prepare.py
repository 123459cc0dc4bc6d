"""Raw text or images -> a data set that trains: cleaned, deduplicated and checked by a recipe, with a manifest that says what happened.

    python -m research.prepare --config=configs/data/debian.py [--config.FIELD=VALUE ...] [--workers=N] [--beam=OPTION ...]

The data set lies where TFDS keeps them (output.dir), for a training config to name as data.name; beside it manifest.json, funnel.png and index.html. The same
command again goes on where it was stopped. --workers: processes on this machine, all processors unless it is given, by Apache Beam. --beam, any number of times:
an option of Beam, as --beam=--runner=DataflowRunner; then output.dir is on a file system that all its workers see.

    python -m research.prepare --show=aug --config=configs/vit/fashion_tiny.py --config.data.randaugment_layers=2 [--rows=6 --epochs=5 --out=FILE]

What augmentation makes of the examples that a training config begins with, epoch after epoch: a picture, or of texts a page.
"""

import functools
import hashlib
import os
import pathlib
import re
import sys
import tempfile
from collections.abc import Sequence

import numpy as np
from absl import flags
from tqdm import tqdm

from research import build
from research.core import config as config_lib
from research.core.config import look_up
from research.core.errors import UserError, run_command
from research.data import debian, wikipedia_sample
from research.data.corpus import Corpus
from research.data.fetch import cache_dir, package_member
from research.data.tokenizer import TRAINERS
from research.reports import funnel
from research.reports.contact_sheet import PAGES, PICTURES, contact_sheet
from research.reports.tables import markdown
from research.tables import DATASETS, check_augmentation, from_fields

try:
    from research.curation.archives import Parquet, Tfds, Warc, Wikitext
    from research.curation.clean import Fields, Html, Language, Unicode
    from research.curation.contamination import HIT, Contamination, evaluation_examples, identity
    from research.curation.duplicates import ExactDuplicates, NearDuplicates, NearImages
    from research.curation.engine import Engine
    from research.curation.inputs import Csv, Images, JsonLines, Lines, Text
    from research.curation.markup import DebianDescription
    from research.curation.passages import RepeatedPassages
    from research.curation.pii import Pii
    from research.curation.preparation import Recipe, prepare
    from research.curation.quality import C4, GopherQuality, GopherRepetition, WordList
    from research.curation.tokens import Tokens
except ModuleNotFoundError as e:
    sys.exit(f"error: there is no package {str(e.name).partition('.')[0]}, which preparing data needs: pip install 'lodestar-research[data]'.")

NAMES = """rules fields.required fields.numbers language.keep gopher_quality.stop_words pii.kinds contamination.sets output.fields
output.classes""".split()  # fields of a recipe that hold several
FETCHERS = {  # name -> function() -> the pattern of the files that it fetched
    "debian": lambda: str(debian.fetch() / "debian-*.jsonl"),
    "debian_en": lambda: str(debian.fetch() / "debian-en.jsonl"),
    "wikipedia_dump": lambda: str(package_member(wikipedia_sample.PACKAGE, wikipedia_sample.MEMBER, wikipedia_sample.SHA256)),
}
FORMATS = {  # name -> function(group `input` of a recipe, with its files) -> Format
    "text": lambda group: from_fields(Text, group),
    "lines": lambda group: from_fields(Lines, group),
    "jsonl": lambda group: from_fields(JsonLines, group),
    "csv": lambda group: from_fields(Csv, group),
    "parquet": lambda group: from_fields(Parquet, group),
    "warc": lambda group: from_fields(Warc, group),
    "wikitext": lambda group: from_fields(Wikitext, group),
    "images": lambda group: from_fields(Images, group),
    "tfds": lambda group: from_fields(Tfds, group, datasets=DATASETS),
}
RULES = {  # name -> function(recipe) -> Rule or Stage
    "fields": lambda c: from_fields(Fields, c.fields),
    "unicode": lambda c: from_fields(Unicode, c.unicode),
    "debian_description": lambda c: DebianDescription(),
    "html": lambda c: from_fields(Html, c.html),
    "language": lambda c: from_fields(Language, c.language),
    "gopher_quality": lambda c: from_fields(GopherQuality, c.gopher_quality),
    "gopher_repetition": lambda c: from_fields(GopherRepetition, c.gopher_repetition),
    "c4": lambda c: from_fields(C4, c.c4),
    "word_list": lambda c: from_fields(WordList, c.word_list),
    "pii": lambda c: from_fields(Pii, c.pii),
    "exact_duplicates": lambda c: ExactDuplicates(),
    "near_duplicates": lambda c: from_fields(NearDuplicates, c.near_duplicates, seed=c.seed),
    "near_images": lambda c: from_fields(NearImages, c.near_images),
    "repeated_passages": lambda c: from_fields(RepeatedPassages, c.repeated_passages),
    "contamination": lambda c: from_fields(Contamination, c.contamination, examples=functools.partial(evaluation_examples, DATASETS)),
}


def main(argv):
    if (what := config_lib.given("show", argv)) is not None:
        return show(what, argv)

    def define(values):
        flags.DEFINE_integer("workers", os.cpu_count(), "Processes on this machine.", lower_bound=1, flag_values=values)
        flags.DEFINE_multi_string("beam", [], "Options of Apache Beam.", flag_values=values)

    values, config = config_lib.parse(argv, define)
    made = recipe(config)
    manifest, now = prepare(made, Engine(values.workers, values.beam))
    if made.tokens is not None:
        made.tokens.store(made.place, manifest["splits"])
    funnel.write(manifest, made.place)
    summarise(made.place, manifest, now)


def recipe(config) -> Recipe:
    """What a recipe's config says, every name of it looked up."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", config.name) or not re.fullmatch(r"\d+\.\d+\.\d+", config.version):
        raise UserError(f"config.name {config.name!r} and config.version {config.version!r} must be as TFDS has them: such as my_corpus and 1.0.0.")
    if not config.rules:
        raise UserError("config.rules names no rule: `fields` is the least, which drops documents without a text.")
    o = config.output
    if "://" in (o.dir or ""):
        raise UserError(f"config.output.dir is {o.dir}: mount it, and give the folder; files are put in place there as only file systems do.")
    values = config_lib.flatten(config)
    for name in NAMES:
        if not isinstance(values[name], tuple) or not all(isinstance(item, str) for item in values[name]):
            raise UserError(f"config.{name} is {values[name]!r}: it must hold names only, as ('one', 'other').")
    folder = pathlib.Path(o.dir or cache_dir() / "tfds").expanduser()
    require_writable(folder, "config.output.dir")
    return Recipe(
        name=config.name,
        version=config.version,
        folder=folder,
        rules=tuple((name, look_up(RULES, name, "rules")(config)) for name in config.rules),
        tokens=tokens(config),
        fields=as_json(config),
        format=look_up(FORMATS, config.input.format, "input.format")(found(config.input)),
        part_size=config.input.part_size,
        output=dict(
            fields=o.fields,
            numbers=config.fields.numbers,
            label=o.label_field,
            classes=o.classes,
            validation=o.validation,
            test=o.test,
            split_by=o.split_by,
        ),
    )


def require_writable(folder: pathlib.Path, what: str):
    """Makes the folder, if it is not there. Raises UserError where nothing can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as e:
        raise UserError(f"{what}: nothing can be written in {folder} ({e.strerror}): choose another folder.") from e


def found(group):
    """The group `input`, with the files that are to be fetched first where none are named."""
    if group.fetch is None or group.files is not None:
        return group
    return config_lib.changed(group, {"files": look_up(FETCHERS, group.fetch, "input.fetch")()})


def tokens(config) -> Tokens | None:
    """What is trained and counted once the data set is written; None where nothing is."""
    group = config.tokens
    if group.type is None:
        return None
    if "text" not in config.output.fields:
        raise UserError(f"tokens.type is {group.type}, but output.fields, {', '.join(config.output.fields)}, have no text: leave tokens.type out.")
    if group.language is not None and group.length is not None:
        raise UserError("tokens.length is of rows of packed_text, which wants texts whole: leave out that or tokens.language.")
    return from_fields(Tokens, group, train=look_up(TRAINERS, group.type, "tokens.type"))


def as_json(config) -> dict:
    """The recipe as JSON has it, with the hashes of what its rules read and of the modules of its user's own, but not where its data set lies.

    Raises UserError where an evaluation set cannot be read.
    """
    told = config.to_dict()
    del told["output"]["dir"]
    i, sha256 = config.input, lambda path: hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
    named = [(name, "rules") for name in config.rules] + [(i.format, "input.format"), (i.fetch, "input.fetch"), (config.tokens.type, "tokens.type")]
    own = [(name.partition(":")[0], look_up({}, name, field)) for name, field in named if name is not None and ":" in name]
    files = [config.word_list.file] * ("word_list" in config.rules)
    sets = config.contamination.sets if "contamination" in config.rules else ()
    return told | {
        "files": {path: sha256(path) for path in files},
        "modules": {module: sha256(sys.modules[module].__file__) for module, _ in own},
        "evaluation_sets": {name: identity(evaluation_examples(DATASETS, name)) for name in sets},
    }


def summarise(place: pathlib.Path, manifest: dict, now: bool):
    header, body = funnel.rows(manifest)
    print(markdown(header, body))
    print(f"{'Prepared' if now else 'Prepared before, by the same recipe from the same input'}: " + ", ".join(f"{n:,} {split}" for split, n in manifest["splits"].items()))
    for rule in manifest["rules"]:
        for name, of in rule.get("evaluation_sets", {}).items():
            print(f"{rule['rule']}: of {name} {of['hit']:,} of {of['examples']:,} examples were found ({of['too_short']:,} too short); which: {HIT}")
    print(f"In {place}: manifest.json, index.html, funnel.png, timing.json")
    named = "" if place.parents[1] == cache_dir() / "tfds" else f" --config.data.dir={place.parents[1]}"
    named += f" --config.model.vocab_size={manifest['tokens']['vocabulary']}" if "tokens" in manifest else ""
    print(f"Next: a run on it, python -m research.train --config=... --config.data.name={manifest['name']}{named} --workdir=runs/{manifest['name']}")


def show(what: str, argv):
    """A contact sheet of what a training config's augmentation makes of examples: --show=aug."""

    def define(values):
        flags.DEFINE_enum("show", None, ["aug"], "What to show of a training config.", flag_values=values)
        flags.DEFINE_integer("rows", 6, "Examples.", lower_bound=1, flag_values=values)
        flags.DEFINE_integer("epochs", 5, "How often each is seen.", lower_bound=1, flag_values=values)
        flags.DEFINE_string("out", None, "The file: absent, augmentation.png, or .html for texts, here.", flag_values=values)

    values, config = config_lib.parse(argv, define)
    if "model" not in config:
        raise UserError(f"--show={what} is of a config that trains, such as configs/vit/fashion_tiny.py; a recipe augments nothing.")
    config_lib.check_fields(config)
    check_augmentation(config)
    require_sheet(pathlib.Path(values.out or "augmentation.png"))
    corpus = build.make_corpus(config, pathlib.Path(values.out or "."))
    originals, variants, captions = seen_in_training(config, corpus, values.rows, values.epochs)
    out = pathlib.Path(values.out or f"augmentation.{'html' if isinstance(originals[0], str) else 'png'}")
    contact_sheet(originals, variants, [f"epoch {epoch}" for epoch in range(values.epochs)], captions, out)
    print(f"In {out}: {len(originals)} examples of {config.data.name}, and what training sees of them. What is masked or mixed on the device is not in it.")


def require_sheet(path: pathlib.Path):
    """Raises UserError for a file that cannot be written, or is of no kind that a contact sheet has."""
    if path.suffix not in (*PICTURES, *PAGES):
        raise UserError(f"--out={path} is neither a picture ({', '.join(PICTURES)}) nor a page ({', '.join(PAGES)}): give such an ending.")
    if not path.parent.is_dir():
        raise UserError(f"--out={path}: there is no folder {path.parent}: make it, or choose another.")
    require_writable(path.parent, "--out")


def seen_in_training(config, corpus: Corpus, rows: int, epochs: int):
    """(originals, what each is in each epoch, captions) of the examples that training begins with: images (H, W, C) uint8, or texts."""
    plain = config_lib.changed(config, {"data.source": "images"}) if config.data.source == "image_views" else config  # of which each view is augmented
    original = build.examples_of(plain, corpus, config.data.train_split, config.data.length, training=False)
    examples = build.examples_of(config, corpus, config.data.train_split, config.data.length, training=True)
    order = build.in_order(config, examples)
    seen, chosen = order.random_map(examples.example), [int(order[i]) for i in range(min(rows, len(examples)))]
    places = places_of(chosen, order, len(examples), epochs)
    first = [original.example(i, np.random.default_rng(0)) for i in chosen]
    label = lambda example: "" if "label" not in example else corpus.labels[int(example["label"])] if corpus.labels else f"{example['label']:.3g}"
    variants = [[shown(corpus, seen[place[i]]) for place in places] for i in chosen]
    return [shown(corpus, example) for example in first], variants, [label(example) for example in first]


def places_of(chosen: list[int], order: Sequence[int], size: int, epochs: int) -> list[dict[int, int]]:
    """{number of a chosen example: its place in `order`} of each epoch, of `size` places; each is read no further than the last of them."""
    places = [dict[int, int]() for _ in range(epochs)]
    with tqdm(total=epochs * size, desc="looking for the examples", unit=" places", unit_scale=True, delay=1) as bar:
        for epoch, found in enumerate(places):
            for place in range(epoch * size, (epoch + 1) * size):
                bar.update()
                if (number := int(order[place])) in chosen:
                    found[number] = place
                    if len(found) == len(chosen):
                        break
    return places


def shown(corpus: Corpus, example) -> np.ndarray | str:
    """The image of an example, or its text; of two views the first."""
    name = next((name for name in ("image", "first/image", "tokens", "first/tokens") if name in example), None)
    if name is None:
        raise UserError(f"--show=aug: examples of this config have {', '.join(example)}, no image and no text.")
    if name.endswith("image"):
        return example[name]
    mask = example.get(name.replace("tokens", "mask"), np.ones(len(example[name]), bool))
    return corpus.text_tools()[0].decode(example[name][mask].tolist(), skip_special_tokens=False)


if __name__ == "__main__":
    run_command(main)
