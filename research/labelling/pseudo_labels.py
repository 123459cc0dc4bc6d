"""Labels that a model gives to texts without any, where it is sure enough; and how far its being sure can be believed.

Probabilities (N, C) are of C classes. What is measured is measured on examples with labels that the model was not trained on: one half sets the
temperature, the other judges it.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from scipy.stats import binomtest

from research.core.errors import UserError

BINS = 15  # of confidence (arXiv 1706.04599, table 1)
HOTTEST = 20.0  # temperature; the coldest is 1 / HOTTEST


class Reliability(NamedTuple):
    """Of examples by how sure the model was: bins of equal width (arXiv 1706.04599, section 2); NaN in an empty one."""

    confidence_B: np.ndarray  # mean probability of the likeliest class
    accuracy_B: np.ndarray  # how often that was right
    count_B: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error (arXiv 1706.04599, eq. 3)."""
        return float(np.nansum(self.count_B * np.abs(self.accuracy_B - self.confidence_B)) / self.count_B.sum())


def reliability(probabilities_NC: np.ndarray, labels_N: np.ndarray, bins: int = BINS) -> Reliability:
    confidence_N, right_N = probabilities_NC.max(1), probabilities_NC.argmax(1) == labels_N
    bin_N = np.clip(np.ceil(confidence_N * bins).astype(int) - 1, 0, bins - 1)  # bin m has those in (m / bins, (m + 1) / bins]
    count_B = np.bincount(bin_N, minlength=bins)
    mean = lambda x_N: np.bincount(bin_N, x_N, bins) / np.where(count_B, count_B, np.nan)
    return Reliability(mean(confidence_N), mean(right_N), count_B)


def tempered(probabilities_NC: np.ndarray, temperature: float) -> np.ndarray:
    """The softmax of logits / temperature: log-probabilities are logits (arXiv 1706.04599, eq. 9)."""
    return softmax(np.log(np.maximum(probabilities_NC, np.finfo(np.float32).tiny)) / temperature, 1)


def best_temperature(probabilities_NC: np.ndarray, labels_N: np.ndarray) -> float:
    """The one, between 1 / HOTTEST and HOTTEST, with the least mean of -log p(label)."""
    rows = np.arange(len(labels_N))
    loss = lambda log_t: -np.log(np.maximum(tempered(probabilities_NC, np.exp(log_t))[rows, labels_N], np.finfo(np.float64).tiny)).mean()
    return float(np.exp(minimize_scalar(loss, bounds=(-np.log(HOTTEST), np.log(HOTTEST)), method="bounded").x))


class Calibration(NamedTuple):
    """temperature: of the first half; the rest is of the second."""

    temperature: float
    before: Reliability
    after: Reliability
    probabilities_NC: np.ndarray  # after
    labels_N: np.ndarray

    @property
    def at_bound(self) -> bool:
        """Whether the temperature is the most or the least of all that were tried, so that a better one may lie beyond."""
        return bool(abs(np.log(self.temperature)) > np.log(HOTTEST) - 1e-3)


def calibration(probabilities_NC: np.ndarray, labels_N: np.ndarray, seed: int = 0) -> Calibration:
    """Halves drawn at random, always the same. Raises UserError for fewer than two examples with a label, or a label of no class."""
    places = np.random.default_rng(seed).permutation(np.flatnonzero(labels_N >= 0))
    if len(places) < 2:
        raise UserError(f"--held_out has {len(places)} texts with a label, of which there must be two at least: name another split.")
    if (highest := labels_N.max()) >= (classes := probabilities_NC.shape[1]):
        raise UserError(f"a label of --held_out is {highest}, the run tells {classes} classes apart, from 0 on: name data with the same classes.")
    first, second = np.array_split(places, 2)
    temperature = best_temperature(probabilities_NC[first], labels_N[first])
    before_NC, label_N = probabilities_NC[second], labels_N[second]
    after_NC = tempered(before_NC, temperature)
    return Calibration(temperature, reliability(before_NC, label_N), reliability(after_NC, label_N), after_NC, label_N)


class Precision(NamedTuple):
    """Of labels with at least so much confidence: how many there are, how often they are right, Wilson's 95 % interval; NaN where there are none."""

    number: int
    value: float
    low: float
    high: float


def precision_at(threshold: float, probabilities_NC: np.ndarray, labels_N: np.ndarray) -> Precision:
    sure_N = probabilities_NC.max(1) >= threshold
    count, right = int(sure_N.sum()), int((probabilities_NC.argmax(1) == labels_N)[sure_N].sum())
    if not count:
        return Precision(0, np.nan, np.nan, np.nan)
    interval = binomtest(right, count).proportion_ci(method="wilson")
    return Precision(count, right / count, float(interval.low), float(interval.high))


def summary(found: Calibration, threshold: float, split: str) -> str:
    """In words, how far the model's being sure can be believed."""
    sure = precision_at(threshold, found.probabilities_NC, found.labels_N)
    right = f"right in {sure.value:.1%} ({sure.low:.1%} to {sure.high:.1%})" if sure.number else "how often it is right cannot be told"
    bound = " That temperature is at the bound of its search, and a better one may lie beyond: hold out more, or train the run further."
    return (
        f"On {len(found.labels_N):,} texts of {split}, with the temperature {found.temperature:.2f} that suits as many others, the expected "
        f"calibration error is {found.after.error:.3f}; without it {found.before.error:.3f}. Of {sure.number:,} of these the run is sure enough, "
        f"and {right}.{bound * found.at_bound}"
    )
