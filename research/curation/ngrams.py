"""Runs of words as numbers: what duplicates, repeated passages and contamination are found by."""

import functools
import hashlib
import re
import unicodedata

import numpy as np

WORD = re.compile(r"\w+")
BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that every word counts in every place


def words(text: str) -> list[str]:
    """The words of a text without their case, compatible characters as one (NFKC); punctuation and white space lie between them."""
    return [_folded(word) for word in WORD.findall(text)]


@functools.lru_cache(maxsize=1 << 16)
def _folded(word: str) -> str:
    return unicodedata.normalize("NFKC", word).casefold()


def digest(data: bytes) -> int:
    """64 bits of BLAKE2b, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


@functools.lru_cache(maxsize=1 << 16)
def _word_hash(word: str) -> int:
    return digest(_folded(word).encode("utf-8", "surrogatepass"))


def word_hashes(text: str) -> np.ndarray:
    """(N,) uint64: of the words of a text."""
    return np.array([_word_hash(word) for word in WORD.findall(text)], np.uint64)


def windows(hashes_N: np.ndarray, n: int) -> np.ndarray:
    """(max(0, N - n + 1),) uint64: a hash of each run of n words, a polynomial in those of the words modulo 2^64 (Karp and Rabin, 1987), mixed."""
    count = max(0, len(hashes_N) - n + 1)
    total = np.zeros(count, np.uint64)
    for i in range(n):
        total = total * BASE + hashes_N[i : i + count]
    total ^= total >> np.uint64(32)
    return total * BASE


def shingles(text: str, n: int) -> np.ndarray:
    """Sorted uint64, each once: the runs of n words of a text; of a shorter text, which is one run, all of it."""
    hashes = word_hashes(text)
    return np.unique(windows(hashes, max(1, min(n, len(hashes)))))


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """|A ∩ B| / |A ∪ B| of two sets as `shingles` gives them; two empty ones are alike."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    union = len(a) + len(b) - shared
    return shared / union if union else 1.0


def known(values: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Whether each value is in a sorted table."""
    at = np.minimum(np.searchsorted(table, values), max(0, len(table) - 1))
    return table[at] == values if len(table) else np.zeros(len(values), bool)
