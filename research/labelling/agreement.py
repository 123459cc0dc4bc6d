"""How far R annotators agree beyond chance. ratings_NR int: of N examples the class that each gave, -1 for none."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from sklearn.metrics import cohen_kappa_score

from research.core.errors import UserError
from research.labelling import table
from research.labelling.table import Row


def ratings(files: Sequence[Sequence[Row]]) -> tuple[list[Row], list[str], np.ndarray]:
    """(rows, classes, ratings_NR) of the tables of R annotators: a row of each key that any of them has.

    Raises UserError for a key that stands for another text in another table.
    """
    text_of: dict[str, str] = {}
    for row in itertools.chain(*files):
        if row["text"] != text_of.setdefault(row["key"], row["text"]):
            texts = f"{text_of[row['key']][:40]!r} and {row['text'][:40]!r}"
            raise UserError(
                f"the key {row['key']!r} stands for two texts, {texts}: texts are told by their keys, so compare labels of the same texts."
            )
    classes = sorted({row["label"] for rows in files for row in rows} - {""})
    found = {row["key"]: row for rows in reversed(files) for row in rows}
    labels = [{row["key"]: row["label"] for row in rows} for rows in files]
    number = {"": -1} | {name: i for i, name in enumerate(classes)}
    return list(found.values()), classes, np.array([[number[of.get(key, "")] for of in labels] for key in found]).reshape(-1, len(files))


def disputed(rows: list[Row], classes: list[str], ratings_NR: np.ndarray) -> Iterator[tuple[Row, list[str]]]:
    """(row without a label, the R labels that it was given) of the rows that have two different ones."""
    for row, rating_R in zip(rows, ratings_NR):
        if len({rating for rating in rating_R if rating >= 0}) > 1:
            yield table.row(row["key"], row["text"]), [classes[rating] if rating >= 0 else "" for rating in rating_R]


class Interval(NamedTuple):
    value: float
    low: float
    high: float

    @property
    def between(self) -> str:
        """As a reader wants it; "" where there is none."""
        return "" if np.isnan(self.value) else f"{self.low:.3f} to {self.high:.3f}"


def statistics(ratings_NR: np.ndarray) -> Iterator[tuple[str, tuple[int, ...], int, float, Interval]]:
    """(name, which annotators, on how many examples, observed agreement, statistic): Cohen's kappa of each two, Fleiss' kappa and Krippendorff's
    alpha of all; the kappas on what all of these rated, alpha on what any two did."""
    everyone = tuple(range(ratings_NR.shape[1]))
    of_two = [("Cohen's kappa", cohen_kappa, pair, 2) for pair in itertools.combinations(everyone, 2)]
    of_all = [("Fleiss' kappa", fleiss_kappa, everyone, len(everyone)), ("Krippendorff's alpha", krippendorff_alpha, everyone, 2)]
    for name, statistic, who, least in of_two + of_all:
        some_NR = ratings_NR[:, who]
        some_NR = some_NR[(some_NR >= 0).sum(1) >= least]
        yield name, who, len(some_NR), observed_agreement(some_NR), interval(statistic, some_NR)


def observed_agreement(ratings_NR: np.ndarray) -> float:
    """The share of the pairs of ratings of one example, over all examples, that are alike."""
    counts_NC = _counts(ratings_NR)
    total_N = counts_NC.sum(1)
    return _ratio((counts_NC * (counts_NC - 1)).sum(), (total_N * (total_N - 1)).sum())


def cohen_kappa(ratings_N2: np.ndarray) -> float:
    """Of two annotators, on what both rated (Cohen, 1960). NaN where both gave everything the same one class, or nothing is shared."""
    both_N2 = ratings_N2[(ratings_N2 >= 0).all(1)]
    return float("nan") if len(np.unique(both_N2)) < 2 else float(cohen_kappa_score(*both_N2.T))


def fleiss_kappa(ratings_NR: np.ndarray) -> float:
    """Of any number of annotators, on what all of them rated (Fleiss, 1971). NaN where they gave everything one class."""
    counts_NC = _counts(ratings_NR[(ratings_NR >= 0).all(1)])
    raters = ratings_NR.shape[1]
    expected = ((counts_NC.sum(0) / max(counts_NC.sum(), 1)) ** 2).sum()
    agreement = _ratio((counts_NC * (counts_NC - 1)).sum(), len(counts_NC) * raters * (raters - 1))
    return _ratio(agreement - expected, 1 - expected)


def krippendorff_alpha(ratings_NR: np.ndarray) -> float:
    """Of any number of annotators, who may have left examples out, classes being mere names (Krippendorff, Computing Krippendorff's
    Alpha-Reliability, 2011, section C). NaN where there is one class alone."""
    counts_NC = _counts(ratings_NR)
    counts_NC = counts_NC[counts_NC.sum(1) > 1]  # a rating alone can be paired with none
    total_N, total_C = counts_NC.sum(1), counts_NC.sum(0)
    observed = ((total_N**2 - (counts_NC**2).sum(1)) / (total_N - 1)).sum()
    expected = (total_C.sum() ** 2 - (total_C**2).sum()) / max(total_C.sum() - 1, 1)
    return 1 - _ratio(observed, expected)


def interval(statistic: Callable[[np.ndarray], float], ratings_NR: np.ndarray, draws: int = 1000, seed: int = 0) -> Interval:
    """A statistic with its 95 % interval, by the bootstrap: over examples drawn anew, as many as there are."""
    rng, size, value = np.random.default_rng(seed), len(ratings_NR), statistic(ratings_NR)
    if np.isnan(value):
        return Interval(value, value, value)
    drawn = [statistic(ratings_NR[rng.integers(size, size=size)]) for _ in range(draws)]
    return Interval(value, *map(float, np.nanquantile(drawn, (0.025, 0.975))))


def _counts(ratings_NR: np.ndarray) -> np.ndarray:
    """How often each example was given each class (N, C)."""
    return np.stack([(ratings_NR == c).sum(1) for c in range(ratings_NR.max(initial=0) + 1)], 1)


def _ratio(above: float, below: float) -> float:
    return float(above / below) if below else float("nan")
