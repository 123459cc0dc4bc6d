"""Runs side by side: what they were, where they differ, what they reached over the seeds."""

import dataclasses
import json
import os
import pathlib
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from research.core import config as config_lib
from research.core.errors import UserError
from research.core.metrics import read_metrics

SEED = "seed"  # runs that differ in it alone are the same experiment made again


@dataclasses.dataclass(frozen=True)
class Run:
    """A run directory. name: what tells it from the others; config: {dotted field: value}; measured: the lines of metrics.jsonl; timing: of timing.jsonl;
    starts: of provenance.json; swept: the fields that a sweep gave it."""

    name: str
    config: dict
    measured: list[dict]
    timing: list[dict]
    starts: list[dict]
    swept: frozenset[str] = frozenset()

    def curve(self, metric: str) -> dict[int, float]:
        return {line["step"]: line[metric] for line in self.measured if metric in line}

    def last(self, metric: str) -> tuple[int, float] | None:
        """(step, value) where it was last measured."""
        return max(self.curve(metric).items(), default=None)


class Reached(NamedTuple):
    """mean over `runs` runs, its standard error (None of one run), at `step`."""

    mean: float
    error: float | None
    runs: int
    step: int


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone. values: what is theirs of the fields in which groups differ."""

    values: dict
    runs: list[Run]

    @property
    def label(self) -> str:
        return ", ".join(f"{name.rpartition('.')[2]}={value}" for name, value in self.values.items()) or "all"

    def curves(self, metric: str) -> tuple[list[int], np.ndarray]:
        """(the steps at which all runs have measured it that have at all, the values: a row a run)."""
        curves = [curve for run in self.runs if (curve := run.curve(metric))]
        steps = sorted(set.intersection(*map(set, curves))) if curves else []
        return steps, np.array([[curve[step] for step in steps] for curve in curves])

    def reached(self, metric: str) -> Reached | None:
        """What all reached at the last step that they share; None where there is none."""
        steps, values = self.curves(metric)
        if not steps:
            return None
        last, n = values[:, -1], len(values)
        with np.errstate(invalid="ignore"):
            return Reached(float(last.mean()), float(last.std(ddof=1) / n**0.5) if n > 1 else None, n, steps[-1])


def read_run(path: pathlib.Path, name: str, defaults: ConfigDict, swept=()) -> Run:
    """Fields that came after the run was made have the value that they have in `defaults`. Raises UserError for a directory that holds no run."""
    config = config_lib.flatten(config_lib.read(path / "config.json", defaults))
    starts = json.loads((path / "provenance.json").read_text())["starts"] if (path / "provenance.json").exists() else []
    return Run(name, config, read_metrics(path / "metrics.jsonl"), read_metrics(path / "timing.jsonl"), starts, frozenset(swept))


def find_runs(paths: list[pathlib.Path], defaults: ConfigDict) -> tuple[list[Run], int]:
    """(the runs at `paths`, each once; how many trials of sweeps among these have not begun). Raises UserError where there is no run."""
    found: dict[pathlib.Path, dict] = {}
    waiting = 0
    for path in paths:
        if (path / "sweep.json").exists():
            trials = json.loads((path / "sweep.json").read_text())["trials"]
            begun = {(path / name).resolve(): changes for name, changes in trials.items() if (path / name / "config.json").exists()}
            waiting += len(trials) - len(begun)
            found |= begun
        else:
            found.setdefault(path.resolve(), {})
    if not found:
        raise UserError(f"{', '.join(map(str, paths))}: no run has begun there.")
    above = os.path.commonpath([path.parent for path in found])
    return [read_run(path, os.path.relpath(path, above), defaults, changes) for path, changes in found.items()], waiting


def differing(runs: list[Run]) -> list[str]:
    """The fields in which the runs differ."""
    names = dict.fromkeys(name for run in runs for name in run.config)
    return [name for name in names if len({json.dumps(run.config.get(name)) for run in runs}) > 1]


def grouped(runs: list[Run]) -> list[Group]:
    """By what they compute; where and how often they report only where a sweep was of that."""
    told = lambda name: name != SEED and (not name.startswith(config_lib.MAY_CHANGE) or any(name in run.swept for run in runs))
    fields = list(filter(told, differing(runs)))
    groups: dict[str, Group] = {}
    for run in runs:
        values = {name: run.config.get(name) for name in fields}
        groups.setdefault(json.dumps(values), Group(values, [])).runs.append(run)
    return list(groups.values())


def metrics_of(runs: list[Run]) -> list[str]:
    """What was validated, the metrics by which the runs keep their best checkpoints first."""
    best = dict.fromkeys(run.config["run.best_metric"] for run in runs)
    found = dict.fromkeys(name for run in runs for line in run.measured for name in line if name.startswith("validation/"))
    return [name for name in best if name in found] + [name for name in found if name not in best]


def better(metric: str, runs: list[Run]) -> str:
    """min or max: as the runs say of the metric by which they keep their best; of others losses and what is like them should be small."""
    for run in runs:
        if run.config["run.best_metric"] == metric:
            return run.config["run.best_mode"]
    small = metric.endswith(("loss", "perplexity", "error", "alignment", "uniformity", "_kl")) or "/lost_to_" in metric
    return "min" if small else "max"
