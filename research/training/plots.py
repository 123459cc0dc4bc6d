"""Curves of a run: what people would rather look at than read."""

import pathlib

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from research.core.metrics import read_metrics


def plot_curves(workdir: pathlib.Path) -> list[pathlib.Path]:
    """Writes plots/loss.png, accuracy.png and other.png, of all that was validated, from metrics.jsonl; returns those there was something for."""
    lines = read_metrics(workdir / "metrics.jsonl")
    validated = sorted({name.removeprefix("validation/") for line in lines for name in line if name.startswith("validation/")})
    kinds = {kind: [name for name in validated if name.endswith(kind)] for kind in ("loss", "accuracy")}
    kinds["other"] = [name for name in validated if not name.endswith(tuple(kinds))]
    written = []
    for kind, names in kinds.items():
        if not names:
            continue
        figure, axes = plt.subplots(1, len(names), figsize=(4.2 * len(names), 3.4), squeeze=False, layout="constrained")
        for axis, name in zip(axes[0], names):
            for split, style in (
                ("train", {"color": "#9ecae1", "linewidth": 1}),
                ("validation", {"color": "#d94801", "marker": ".", "linewidth": 1.5}),
            ):
                points = [(line["step"], line[f"{split}/{name}"]) for line in lines if f"{split}/{name}" in line]
                if points:
                    axis.plot(*zip(*points), label=f"{split} {points[-1][1]:.3f}", **style)
            axis.set(title=name.replace("_", " "), xlabel="step")
            axis.grid(alpha=0.3)
            axis.legend(frameon=False)
        (workdir / "plots").mkdir(exist_ok=True)
        path = workdir / "plots" / f"{kind}.png"
        figure.savefig(path, dpi=120)
        plt.close(figure)
        written.append(path)
    return written
