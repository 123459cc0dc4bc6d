"""Which of N examples to label next: places among them, the most worth it first, always the same. C classes, D dimensions."""

from collections.abc import Callable

import numpy as np


def entropy(probabilities_NC: np.ndarray, count: int) -> np.ndarray:
    """The `count` of which a model is least sure by the entropy of what it tells, -sum p log p."""
    p_NC = np.maximum(probabilities_NC, np.finfo(np.float32).tiny)
    return _first(-(p_NC * np.log(p_NC)).sum(1), count)


def margin(probabilities_NC: np.ndarray, count: int) -> np.ndarray:
    """Those whose likeliest class is least ahead of the next."""
    ordered_NC = np.sort(probabilities_NC, 1)
    return _first(ordered_NC[:, -2] - ordered_NC[:, -1], count)


def k_center(x_ND: np.ndarray, centers_KD: np.ndarray, count: int) -> np.ndarray:
    """Those that, one by one, lie farthest from all centers so far, which each then joins (arXiv 1708.00489, algorithm 1).

    centers_KD: the embeddings of what has a label already; where there is nothing the first is the one nearest to the mean.
    """
    x_ND = np.asarray(x_ND, np.float64)
    squared = lambda center_D: ((x_ND - center_D) ** 2).sum(1)
    chosen = [] if len(centers_KD) else [int(np.argmin(squared(x_ND.mean(0))))]
    distance_N = np.full(len(x_ND), np.inf)
    for center_D in [*centers_KD, *x_ND[chosen]]:
        distance_N = np.minimum(distance_N, squared(center_D))
    while len(chosen) < min(count, len(x_ND)):
        distance_N[chosen] = -1  # which is less than that of any other, though it lie on a center
        chosen.append(int(np.argmax(distance_N)))
        distance_N = np.minimum(distance_N, squared(x_ND[chosen[-1]]))
    return np.array(chosen[:count], int)


def random(size: int, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(size)[:count]


def _first(worth_N: np.ndarray, count: int) -> np.ndarray:
    return np.argsort(-worth_N, kind="stable")[:count]


def _k_center(run, pool, known, count, seed):
    x_ND = run.embeddings([*pool, *known])
    return k_center(x_ND[: len(pool)], x_ND[len(pool) :], count)


STRATEGIES: dict[str, Callable] = {  # (research.labelling.run.Run, texts without a label, texts with one, count, seed) -> places among the former
    "entropy": lambda run, pool, known, count, seed: entropy(run.probabilities(pool), count),
    "margin": lambda run, pool, known, count, seed: margin(run.probabilities(pool), count),
    "k_center": _k_center,
    "random": lambda run, pool, known, count, seed: random(len(pool), count, seed),
}
