"""Labels that a model gives to texts without any, where it is sure enough; and how far its being sure can be believed.

Probabilities (N, C) are of C classes. What is measured is measured on examples with labels that the model was not trained on: one half sets the
temperature, the other judges it.
"""

import pathlib
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest

from research.core.errors import UserError

BINS = 15  # of confidence (arXiv 1706.04599, table 1)


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
    logits_NC = np.log(np.maximum(probabilities_NC, np.finfo(np.float32).tiny)) / temperature
    likelihood_NC = np.exp(logits_NC - logits_NC.max(1, keepdims=True))
    return likelihood_NC / likelihood_NC.sum(1, keepdims=True)


def best_temperature(probabilities_NC: np.ndarray, labels_N: np.ndarray) -> float:
    """The one, between 1/20 and 20, with the least mean of -log p(label)."""
    rows = np.arange(len(labels_N))
    loss = lambda log_t: -np.log(np.maximum(tempered(probabilities_NC, np.exp(log_t))[rows, labels_N], np.finfo(np.float64).tiny)).mean()
    return float(np.exp(minimize_scalar(loss, bounds=(-np.log(20), np.log(20)), method="bounded").x))


class Calibration(NamedTuple):
    """temperature: of the first half; the rest is of the second."""

    temperature: float
    before: Reliability
    after: Reliability
    probabilities_NC: np.ndarray  # after
    labels_N: np.ndarray


def calibration(probabilities_NC: np.ndarray, labels_N: np.ndarray, seed: int = 0) -> Calibration:
    """Halves drawn at random, always the same. Raises UserError for fewer than two examples with a label."""
    places = np.random.default_rng(seed).permutation(np.flatnonzero(labels_N >= 0))
    if len(places) < 2:
        raise UserError(f"--held_out has {len(places)} texts with a label, of which there must be two at least: name another split.")
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


def draw(found: Calibration, threshold: float, path: pathlib.Path):
    """The reliability diagram, before and after; a point is as large as there are examples in its bin."""
    figure, axis = plt.subplots(figsize=(4.6, 4.4), layout="constrained")
    axis.plot([0, 1], [0, 1], color="0.7", linewidth=1, label="as sure as right")
    axis.axvline(threshold, color="0.7", linewidth=1, linestyle=":", label=f"threshold {threshold:g}")
    for what, color, name in ((found.before, "#d94801", "as trained"), (found.after, "#08519c", f"temperature {found.temperature:.2f}")):
        some = what.count_B > 0
        axis.plot(what.confidence_B[some], what.accuracy_B[some], color=color, linewidth=1, label=f"{name}: ECE {what.error:.3f}")
        axis.scatter(
            what.confidence_B[some], what.accuracy_B[some], 12 + 600 * what.count_B[some] / what.count_B.sum(), color=color, alpha=0.5, linewidth=0
        )
    axis.set(xlabel="confidence", ylabel=f"accuracy ({found.before.count_B.sum():,} held out)", xlim=(0, 1.02), ylim=(0, 1.02))
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, loc="upper left")
    figure.savefig(path, dpi=120)
    plt.close(figure)
