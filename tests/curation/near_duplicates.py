"""How many near-duplicates are found, and how many found are any: against the exact Jaccard similarity of all pairs of a random sample.

    python -m tests.curation.near_duplicates [--documents=2000] [--seed=0]

Prints, for the parameters of the recipe and for FineWeb's, the recall and precision of the documents that an earlier one is like, and the share of pairs at each
similarity that became candidates beside the probability that is stated.
"""

import pathlib
import random
import tempfile

import numpy as np
from absl import app, flags

from research.curation import ngrams
from research.curation.documents import Dropped
from research.curation.duplicates import NearDuplicates
from research.curation.inputs import JsonLines
from research.curation.markup import DebianDescription
from research.data import debian
from tests.curation.stages import after

DOCUMENTS = flags.DEFINE_integer("documents", 2000, "Of the sample.")
SEED = flags.DEFINE_integer("seed", 0, "Of the sample.")
KINDS = {
    "configs/data/debian.py": NearDuplicates(ngram=5, threshold=0.75, bands=20, rows=6, seed=0),
    "FineWeb": NearDuplicates(ngram=5, threshold=0.75, bands=14, rows=8, seed=0),
}


def main(argv):
    documents = sample(DOCUMENTS.value, SEED.value)
    pairs = similar_pairs(documents, 5, 0.3)
    for name, kind in KINDS.items():
        like = {j for i, j, similarity in pairs if similarity >= kind.threshold}
        found = dropped(kind, documents)
        print(f"{name}: {kind.bands} bands of {kind.rows} rows; of {len(documents):,} documents {len(like)} are like an earlier one")
        print(f"  recall {len(found & like) / len(like):.4f}, precision {len(found & like) / max(1, len(found)):.4f} at a similarity of {kind.threshold}")
        for low, high, number, share, stated in curve(kind, documents, pairs):
            print(f"  similarity {low:.1f} to {high:.1f}: {number:6,} pairs, {share:.3f} are candidates, {stated:.3f} stated")


def sample(number: int, seed: int) -> list[dict]:
    """English descriptions as plain text, in the order of the index."""
    format = JsonLines(files=str(debian.fetch() / "debian-en.jsonl"), encoding="utf-8", part_size=1 << 30, text_field="text", key_field="key")
    everything = [DebianDescription()(document) for part in format.parts() for document in format.read(part)]
    return [everything[i] for i in sorted(random.Random(seed).sample(range(len(everything)), number))]


def similar_pairs(documents: list[dict], ngram: int, least: float) -> list[tuple[int, int, float]]:
    """(i, j, Jaccard similarity) of all pairs i < j that are at least so similar: every pair is compared, by its sets of n-grams as strings."""
    sets = []
    for document in documents:
        words = ngrams.words(document["text"])
        n = min(ngram, len(words))
        sets.append({" ".join(words[i : i + n]) for i in range(len(words) - n + 1)})
    number = {gram: i for i, gram in enumerate(sorted(set().union(*sets)))}
    present = np.zeros((len(sets), len(number)), np.float32)
    for row, grams in zip(present, sets):
        row[[number[gram] for gram in grams]] = 1
    shared, sizes = present @ present.T, present.sum(1)
    similarity = shared / np.maximum(1, sizes[:, None] + sizes - shared)
    return [(i, j, float(similarity[i, j])) for i, j in zip(*np.nonzero(np.triu(similarity >= least, 1)))]


def dropped(kind: NearDuplicates, documents: list[dict]) -> set[int]:
    with tempfile.TemporaryDirectory() as folder:
        (results,) = after(kind, pathlib.Path(folder), documents)
    return {i for i, result in enumerate(results) if isinstance(result, Dropped)}


def curve(kind: NearDuplicates, documents: list[dict], pairs):
    """(similarity from, to, pairs, share of them with a common hash, mean of the stated probabilities)."""
    hashes = [set(row.tolist()) for row in kind.hashes(map(kind.sketch, documents))]
    for low in np.arange(0.3, 1.0, 0.1):
        within = [(i, j, s) for i, j, s in pairs if low <= s < low + 0.1 + 1e-6 * (low > 0.85)]
        if within:
            share = np.mean([bool(hashes[i] & hashes[j]) for i, j, _ in within])
            yield low, low + 0.1, len(within), share, np.mean([kind.probability(s) for _, _, s in within])


if __name__ == "__main__":
    app.run(main)
