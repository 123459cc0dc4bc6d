"""Noise that is planted, and how much of it a recipe finds.

    python -m tests.curation.planted

Paragraphs of Wikipedia, each within a web page with navigation, a notice and a footer. Into some, none twice: letters decoded wrongly, personal data, sentences of
a test set; beside them copies in other letters, copies with some words changed, and paragraphs in German and French. Prints how many of each came back as they
were, masked or dropped, and what became of paragraphs with nothing planted.
"""

import json
import pathlib
import random
import tempfile
from collections import Counter

from absl import app
from tensorflow_datasets.core import read_only_builder

from research import prepare
from research.curation import ngrams
from research.curation.contamination import evaluation_examples
from research.data import debian
from research.data.wikipedia_sample import split_articles
from research.tables import DATASETS

EACH = 100  # documents with noise of one kind
TEST_SET = "movie_reviews:test:text"
RULES = ("fields", "html", "unicode", "language", "gopher_quality", "pii", "contamination", "exact_duplicates", "near_duplicates")
PAGE = """<!doctype html><html><head><title>{title}</title></head><body>
<nav><ul><li><a href="/">Home</a></li><li><a href="/about">About us</a></li><li><a href="/login">Log in</a></li></ul></nav>
<div class="cookie-notice">We use cookies to improve your experience. By continuing you accept our cookie policy.</div>
<main><article><h1>{title}</h1><p>{text}</p></article></main>
<aside><h3>Related</h3><ul><li><a href="/1">Ten tricks that will surprise you</a></li></ul></aside>
<footer>Copyright 2026 Example Media. All rights reserved. Terms of service, privacy policy.</footer></body></html>"""
BOILERPLATE = ("Log in", "cookie", "Ten tricks", "All rights reserved")
PERSONAL = {"<EMAIL>": "jane.doe@example.org", "<PHONE>": "+1 650-253-0000", "<IP>": "93.184.216.34", "<CARD>": "4111 1111 1111 1111"}


def main(argv):
    with tempfile.TemporaryDirectory() as folder:
        for line in table(*run(pathlib.Path(folder))):
            print(line)


def paragraphs(rng: random.Random) -> list[str]:
    """Paragraphs of 60 to 200 words, of which none is much like another."""
    found = [line for articles in split_articles() for _, text in articles for line in text.splitlines() if 60 <= len(line.split()) <= 200]
    return rng.sample(sorted(set(found)), len(set(found)))


def planted(rng: random.Random) -> list[dict]:
    """Documents with `kind`, what is planted in them, `text`, what they had before, and `page`, the page that has it."""
    clean = paragraphs(rng)
    mojibake = [text for text in clean if not text.isascii()][:EACH]
    rest = [text for text in clean if text not in set(mojibake)]
    take = lambda: [rest.pop() for _ in range(EACH)]
    lines = [example["text"] for example in evaluation_examples(DATASETS, TEST_SET) if len(ngrams.words(example["text"])) >= 20]
    foreign = [json.loads(line)["text"] for name in ("de", "fr") for line in open(debian.fetch() / f"debian-{name}.jsonl", encoding="utf-8")]
    foreign = [debian.paragraphs(text) for text in rng.sample([text for text in foreign if len(text) > 500], EACH)]
    documents = [("mojibake", text, text.encode("utf-8").decode("cp1252", "ignore")) for text in mojibake if in_cp1252(text)]
    documents += [("personal data", text, with_inserted(rng, text, " ".join(PERSONAL.values()))) for text in take()]
    documents += [("lines of a test set", text, with_inserted(rng, text, line)) for text, line in zip(take(), rng.sample(lines, EACH))]
    documents += [("another language", text, text) for text in foreign]
    copied, edited = take(), take()
    documents += [("nothing", text, text) for text in [*copied, *edited, *rest]]
    documents += [("copy", text, text.upper()) for text in copied]
    documents += [("copy with edits", text, with_edits(rng, text, 0.02)) for text in edited]
    return [{"key": f"{i}", "kind": kind, "text": before, "page": PAGE.format(title="A page", text=text)} for i, (kind, before, text) in enumerate(documents)]


def in_cp1252(text: str) -> bool:
    """Whether its bytes as UTF-8 are all letters of that encoding, so that nothing is lost."""
    try:
        text.encode("utf-8").decode("cp1252")
    except UnicodeDecodeError:
        return False
    return True


def with_inserted(rng: random.Random, text: str, noise: str) -> str:
    words = text.split(" ")
    words.insert(rng.randrange(len(words)), noise)
    return " ".join(words)


def with_edits(rng: random.Random, text: str, share: float) -> str:
    words = text.split(" ")
    for place in rng.sample(range(len(words)), max(1, round(share * len(words)))):
        words[place] = rng.choice(words)
    return " ".join(words)


def run(folder: pathlib.Path) -> tuple[list[dict], dict[str, str], list[dict]]:
    """(what was planted, {key: text} of what came out, what the manifest says of each rule)."""
    documents = planted(random.Random(0))
    (folder / "in.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
    fields = f"input.files={folder / 'in.jsonl'} input.text_field=page input.key_field=key output.dir={folder / 'tfds'} output.validation=0 rules={RULES}"
    fields += f" contamination.sets=('{TEST_SET}',) name=planted near_duplicates.bands=20 near_duplicates.rows=6"
    prepare.main(["prepare", "--config=configs/data/base.py", *(f"--config.{field}" for field in fields.replace(", ", ",").split(" ")), "--workers=1"])
    builder = read_only_builder.builder_from_files("planted", data_dir=str(folder / "tfds"))
    manifest = json.loads((folder / "tfds" / "planted" / "1.0.0" / "manifest.json").read_text())
    return documents, {example["key"].decode(): example["text"].decode() for example in builder.as_data_source(split="train")}, manifest["rules"]


def found(document: dict, came_out: str | None) -> bool:
    """Whether what is planted in a document is no more, and, where it is not to be dropped, all else is."""
    body = lambda text: " ".join(text.split()).removeprefix("A page ")
    if document["kind"] in ("mojibake", "nothing"):
        return came_out is not None and body(came_out) == body(document["text"])
    if document["kind"] == "personal data":
        return came_out is not None and all(mask in came_out for mask in PERSONAL) and not any(secret in came_out for secret in PERSONAL.values())
    return came_out is None


def table(documents: list[dict], out: dict[str, str], rules: list[dict]) -> list[str]:
    planted = Counter(document["kind"] for document in documents)
    right = Counter(document["kind"] for document in documents if found(document, out.get(document["key"])))
    lines = [f"{kind}: {right[kind]:,} of {count:,} {'as they were' if kind == 'nothing' else 'found'}" for kind, count in planted.items()]
    pages = sum(any(phrase in text for phrase in BOILERPLATE) for text in out.values())
    lines.append(f"boilerplate: in {len(documents):,} of {len(documents):,} pages, in {pages:,} of the {len(out):,} texts that came out")
    dropped = [document for document in documents if document["kind"] == "nothing" and document["key"] not in out]
    lines.append(f"dropped of those with nothing planted: {len(dropped)}; by rule, of all: " + ", ".join(f"{rule['rule']} {rule['documents_in'] - rule['documents_out']}" for rule in rules))
    return lines


if __name__ == "__main__":
    app.run(main)
