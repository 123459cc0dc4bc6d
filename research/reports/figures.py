"""What people would rather look at than read."""

import math
import pathlib
from typing import TypeGuard

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from research.reports.runs import Group, Reached, better
from research.reports.tables import ranked

MOST = 12  # curves in one picture: the best of them where there are more
CURVE = plt.get_cmap("viridis")


def curves(groups: list[Group], metrics: list[str], path: pathlib.Path):
    """Each metric over the steps: of a group the mean over its seeds, and between the lowest and the highest a band."""
    shown = [group for group in ranked(groups, metrics[0]) if group.reached(metrics[0])][:MOST]
    wide, high = min(2, len(metrics)), -(-len(metrics) // 2)
    figure, axes = plt.subplots(high, wide, figsize=(4.6 * wide, 3.4 * high + 0.13 * len(shown)), squeeze=False, layout="constrained")
    colors = [CURVE(x) for x in np.linspace(0, 0.9, len(shown))]
    for axis in axes.flat[len(metrics) :]:
        axis.remove()
    for axis, metric in zip(axes.flat, metrics):
        for group, color in zip(shown, colors):
            steps, values = group.curves(metric)
            if steps:
                axis.plot(steps, values.mean(0), color=color, linewidth=1.6, marker=".", label=group.label)
                axis.fill_between(steps, values.min(0), values.max(0), color=color, alpha=0.18, linewidth=0)
        axis.set(title=metric, xlabel="step")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
    if len(shown) > 1:
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    _save(figure, path)


def parallel_coordinates(groups: list[Group], metric: str, path: pathlib.Path):
    """A line a group across one axis a field and, last, one for the metric, by which it is coloured: the darker the better (Inselberg, 1985)."""
    runs, known = [run for group in groups for run in group.runs], [(group, found) for group in groups if _finite(found := group.reached(metric))]
    measured, reached = [group for group, _ in known], [found.mean for _, found in known]
    fields = list(measured[0].values)
    columns = [_scaled([group.values[field] for group in measured]) for field in fields] + [_scaled(reached)]
    order = np.argsort(np.argsort(np.array(reached) * (1 if better(metric, runs) == "min" else -1)))
    figure, axis = plt.subplots(figsize=(1.9 * len(columns) + 1.5, 4), layout="constrained")
    for i in np.argsort(-order):  # the best on top
        axis.plot(
            range(len(columns)), [column[0][i] for column in columns], color=CURVE(0.95 * order[i] / max(1, len(order) - 1)), linewidth=1.8, alpha=0.9
        )
    for x, (_, ticks) in enumerate(columns):
        axis.axvline(x, color="#444444", linewidth=0.8)
        for height, text in ticks:
            axis.annotate(
                text,
                (x, height),
                xytext=(4, 0),
                textcoords="offset points",
                fontsize=8,
                va="center",
                bbox={"fc": "white", "ec": "none", "alpha": 0.7, "pad": 0.5},
            )
    axis.set_xticks(range(len(columns)), [name.rpartition(".")[2] for name in fields] + [metric])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    _save(figure, path)


def reliability_diagram(curves: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]], threshold: float, path: pathlib.Path):
    """How right a model is by how sure it is (arXiv 1706.04599, figure 1): {name: (mean confidence, accuracy, number of examples) of each bin}.

    A point is as large as there are examples in its bin; an empty bin has none.
    """
    figure, axis = plt.subplots(figsize=(4.6, 4.4), layout="constrained")
    axis.plot([0, 1], [0, 1], color="0.7", linewidth=1, label="as sure as right")
    axis.axvline(threshold, color="0.7", linewidth=1, linestyle=":", label=f"threshold {threshold:g}")
    for (name, (confidence_B, accuracy_B, count_B)), color in zip(curves.items(), CURVE(np.linspace(0.1, 0.7, len(curves)))):
        some = count_B > 0
        axis.plot(confidence_B[some], accuracy_B[some], color=color, linewidth=1, label=name)
        axis.scatter(confidence_B[some], accuracy_B[some], 12 + 600 * count_B[some] / count_B.sum(), color=color, alpha=0.5, linewidth=0)
    axis.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, loc="upper left")
    _save(figure, path)


def _finite(found: Reached | None) -> TypeGuard[Reached]:
    return found is not None and math.isfinite(found.mean)


def _scaled(values) -> tuple[list[float], list[tuple[float, str]]]:
    """(heights from 0 to 1, ticks): numbers to scale, by their logarithm where they span much; else each value in its place."""
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        log = min(values) > 0 and max(values) / min(values) >= 20
        x = [math.log(value) if log else float(value) for value in values]
        span = max(x) - min(x) or 1.0
        heights = [(value - min(x)) / span for value in x]
        named = dict(zip(heights, values)) if len(set(values)) <= 8 else {0.0: min(values), 1.0: max(values)}
        return heights, [(height, f"{value:.4g}") for height, value in named.items()]
    names = sorted(map(str, dict.fromkeys(map(str, values))))
    place = {name: i / max(1, len(names) - 1) for i, name in enumerate(names)}
    return [place[str(value)] for value in values], [(height, name) for name, height in place.items()]


def _save(figure, path: pathlib.Path):
    figure.savefig(path, dpi=130)
    plt.close(figure)
