"""Runs side by side: what they were, where they differ, what they reached over the seeds."""

import dataclasses
import json
import math
import pathlib
import statistics

from research.core import config as config_lib
from research.core.errors import UserError
from research.core.metrics import read_metrics

SEED = "seed"  # runs that differ in it alone are the same experiment made again


@dataclasses.dataclass(frozen=True)
class Run:
    """A run directory. config: {dotted field: value}; measured: the lines of metrics.jsonl; timing: of timing.jsonl; starts: of provenance.json."""

    directory: pathlib.Path
    config: dict
    measured: list[dict]
    timing: list[dict]
    starts: list[dict]

    def curve(self, metric: str) -> list[tuple[int, float]]:
        return [(line["step"], line[metric]) for line in self.measured if metric in line]

    def last(self, metric: str) -> float | None:
        points = self.curve(metric)
        return points[-1][1] if points else None


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone. values: what is theirs of the fields in which groups differ."""

    values: dict
    runs: list[Run]

    @property
    def label(self) -> str:
        return ", ".join(f"{name.rpartition('.')[2]}={value}" for name, value in self.values.items()) or "all"

    def reached(self, metric: str) -> tuple[float, float | None] | None:
        """(mean over the seeds of what was measured last, its standard error; None of one run), or None where nothing was measured."""
        found = [value for run in self.runs if (value := run.last(metric)) is not None]
        if not found:
            return None
        return statistics.fmean(found), statistics.stdev(found) / math.sqrt(len(found)) if len(found) > 1 else None


def read_run(path: pathlib.Path) -> Run:
    """Raises UserError for a directory that holds no run."""
    if not (path / "config.json").is_file():
        raise UserError(f"{path} holds no run: there is no config.json in it.")
    config = config_lib.leaves(json.loads((path / "config.json").read_text()))
    starts = json.loads((path / "provenance.json").read_text())["starts"] if (path / "provenance.json").exists() else []
    return Run(path, config, read_metrics(path / "metrics.jsonl"), read_metrics(path / "timing.jsonl"), starts)


def find_runs(paths: list[pathlib.Path]) -> list[Run]:
    """The runs at `paths`; of a sweep those of its trials that have begun. Raises UserError where there is none."""
    found = []
    for path in paths:
        if (path / "sweep.json").exists():
            names = json.loads((path / "sweep.json").read_text())["trials"]
            found += [read_run(path / name) for name in names if (path / name / "config.json").exists()]
        else:
            found.append(read_run(path))
    if not found:
        raise UserError(f"{', '.join(map(str, paths))}: no run has begun there.")
    return found


def differing(runs: list[Run]) -> list[str]:
    """The fields in which the runs differ."""
    names = dict.fromkeys(name for run in runs for name in run.config)
    return [name for name in names if len({json.dumps(run.config.get(name)) for run in runs}) > 1]


def grouped(runs: list[Run]) -> list[Group]:
    fields = [name for name in differing(runs) if name != SEED]
    groups = {}
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
    return "min" if metric.endswith(("loss", "perplexity", "error")) else "max"
