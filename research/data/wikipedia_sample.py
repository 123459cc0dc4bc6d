"""A TFDS data set of 106 English Wikipedia articles, made from raw wikitext that the wheel of gensim carries."""

import bz2
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator
from typing import IO

import mwparserfromhell
import tensorflow_datasets as tfds
from mwparserfromhell import nodes

from research.data.fetch import package_member
from research.data.text import sentences

PACKAGE = "gensim==4.4.0"
MEMBER = "gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
SHA256 = "a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d"

TOPICS = [
    "A Modest Proposal",
    "Aardwolf",
    "Aldous Huxley",
    "America the Beautiful",
    "Andre Agassi",
    "Angola",
    "Art",
    "List of Atlas Shrugged characters",
]

# Sections that list sources rather than tell anything, and namespaces that link to no text.
APPENDICES = re.compile(r"^(references|external links|further reading|see also|notes|footnotes|bibliography|sources|citations|gallery)\b", re.I)
MEDIA = re.compile(r"^\s*:?\s*(file|image|category|media|[a-z]{2,3}|[a-z-]+wiki\w*)\s*:", re.I)

NO_PROSE = ("ref", "table", "gallery", "math", "timeline", "score", "imagemap", "nowiki", "code", "pre", "source", "syntaxhighlight")


class WikipediaSample(tfds.core.GeneratorBasedBuilder):
    """Articles with markup, templates, tables and references removed; `text` has one paragraph a line, as the `wikipedia` data set does.

    Every tenth article is for validation.
    """

    name = "wikipedia_sample"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict({"title": tfds.features.Text(), "text": tfds.features.Text()})
        return self.dataset_info_from_configs(features=features, homepage="https://en.wikipedia.org", license="CC BY-SA 3.0")

    def _split_generators(self, dl_manager):
        train, validation = split_articles()
        return {"train": self._generate_examples(train), "validation": self._generate_examples(validation)}

    def _generate_examples(self, articles):
        for title, text in articles:
            yield title, {"title": title, "text": text}


class WikipediaTopics(tfds.core.GeneratorBasedBuilder):
    """Sentences of the validation articles of wikipedia_sample, each labelled with its article: what a text is about, for probes of embeddings.

    Sentences of more than four words, of the articles with more than 40 of them; every other one is for validation.
    """

    name = "wikipedia_topics"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict({"text": tfds.features.Text(), "label": tfds.features.ClassLabel(names=TOPICS)})
        return self.dataset_info_from_configs(features=features, homepage="https://en.wikipedia.org", license="CC BY-SA 3.0")

    def _split_generators(self, dl_manager):
        articles = [(title, [s for s in sentences(text) if len(s.split()) > 4]) for title, text in split_articles()[1]]
        labelled = [(title, sentence) for title, found in articles if len(found) > 40 for sentence in found]
        return {"train": self._generate_examples(labelled[::2]), "validation": self._generate_examples(labelled[1::2])}

    def _generate_examples(self, labelled):
        for i, (title, sentence) in enumerate(labelled):
            yield i, {"text": sentence, "label": title}


def split_articles() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(title, text) of the articles that have a text, those for training and those for validation."""
    with bz2.open(package_member(PACKAGE, MEMBER, SHA256)) as file:
        articles = [(title, plain_text(wikitext)) for title, wikitext in read_articles(file)]
    articles = [(title, text) for title, text in articles if text]
    return [article for i, article in enumerate(articles) if i % 10 != 9], articles[9::10]


def read_articles(file: IO[bytes]) -> Iterator[tuple[str, str]]:
    """(title, wikitext) of each article of a MediaWiki export; redirects and pages that are not articles are left out."""
    events = ElementTree.iterparse(file, events=("start", "end"))
    _, root = next(events)
    for event, page in events:
        if event == "end" and page.tag.endswith("}page"):
            if page.findtext("{*}ns") == "0" and page.find("{*}redirect") is None:
                yield page.findtext("{*}title"), page.findtext("{*}revision/{*}text") or ""
            root.clear()  # which would keep all pages, empty or not


def plain_text(wikitext: str) -> str:
    """Paragraphs of prose, one a line."""
    lines: Iterable[str] = prose(mwparserfromhell.parse(wikitext)).splitlines()
    lines = (re.sub(r"\(\s*[,;]*\s*\)|\s+(?=[,.;])|''+", "", line) for line in lines)  # what a template leaves behind
    lines = (re.sub(r"\s+", " ", line).strip(" *#:;") for line in lines)
    # What the parser could not close, a table most often, is left out with its line.
    return "\n".join(line for line in lines if len(line.split()) > 5 and not re.search(r"^[|!]|\[\[|\{\{|\|\|", line))


def prose(code: mwparserfromhell.wikicode.Wikicode) -> str:
    """The text a reader sees, without headings, templates, tables, references, pictures and the appendices."""
    text, appendix = [], None
    for node in code.nodes:
        if isinstance(node, nodes.Heading):
            if appendix is None or node.level <= appendix:
                appendix = node.level if APPENDICES.match(str(node.title).strip()) else None
        elif appendix is not None:
            continue
        elif isinstance(node, nodes.Text):
            text.append(node.value)
        elif isinstance(node, nodes.HTMLEntity):
            text.append(node.normalize())
        elif isinstance(node, nodes.Wikilink) and not MEDIA.match(str(node.title)):
            text.append(prose(node.text or node.title))
        elif isinstance(node, nodes.ExternalLink) and node.title:
            text.append(prose(node.title))
        elif isinstance(node, nodes.Tag) and str(node.tag).lower() not in NO_PROSE:
            text.append(prose(node.contents) if node.contents else "")
    return "".join(text)
