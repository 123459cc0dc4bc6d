"""Other places that keep a run's figures, beside metrics.jsonl, which stays the record: Weights & Biases and MLflow (extras `wandb` and `mlflow`).

Where they are, and whose, their own environment variables say: WANDB_PROJECT, WANDB_MODE, MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, ... A run that goes on goes on
there; what it does again after a kill is there twice.
"""

import hashlib
import importlib
import os
import pathlib
from typing import Protocol

from research.core import config as config_lib
from research.core.errors import UserError
from research.training import run_directory


class Tracker(Protocol):
    def write(self, step: int, scalars: dict[str, float]) -> None: ...

    def close(self) -> None: ...


class WeightsAndBiases:
    """Raises UserError where wandb is not installed."""

    def __init__(self, workdir: pathlib.Path, config):
        wandb = _package("wandb")
        project = os.environ.get("WANDB_PROJECT", "lodestar")
        self._run = wandb.init(project=project, name=workdir.name, id=_identity(workdir), resume="allow", dir=workdir, config=config.to_dict())
        self._run.define_metric("*", step_metric="step")

    def write(self, step, scalars):
        self._run.log({"step": step} | scalars)

    def close(self):
        self._run.finish()


class MLflow:
    """Raises UserError where mlflow is not installed."""

    def __init__(self, workdir: pathlib.Path, config):
        mlflow = _package("mlflow")
        self._client, tag = mlflow.MlflowClient(), {"lodestar.run": _identity(workdir)}
        experiment = mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "lodestar")).experiment_id
        known = self._client.search_runs([experiment], filter_string=f"tags.`lodestar.run` = '{tag['lodestar.run']}'")
        self._run = known[0] if known else self._client.create_run(experiment, run_name=workdir.name, tags=tag)
        for name, value in () if known else config_lib.flatten(config).items():
            self._client.log_param(self._run.info.run_id, name, value)

    def write(self, step, scalars):
        for name, value in scalars.items():
            self._client.log_metric(self._run.info.run_id, name, value, step=step)

    def close(self):
        self._client.set_terminated(self._run.info.run_id)


def _identity(workdir: pathlib.Path) -> str:
    """The same whenever the run in this directory goes on, and no other's."""
    return hashlib.sha256(f"{workdir.resolve()} {run_directory.first_start(workdir)}".encode()).hexdigest()[:16]


def _package(name: str):
    """Only now: to import one of these takes seconds."""
    try:
        return importlib.import_module(name)
    except ImportError as e:
        raise UserError(f"config.run.trackers names {name}, which is not installed: pip install 'lodestar-research[{name}]', or leave it out.") from e
