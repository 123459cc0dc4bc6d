"""Of real runs, what Weights & Biases (offline) and MLflow (in files) then hold."""

import sys

import pytest

from research import train
from research.core.errors import UserError
from research.core.metrics import read_metrics
from research.training import trackers
from tests.tiny import tiny_config

TINY = ["train", "--config=tests/tiny.py", "--config.mesh.fsdp=8"]


def told(workdir):
    """{name: [(step, value), ...]} of metrics.jsonl."""
    found = {}
    for line in read_metrics(workdir / "metrics.jsonl"):
        for name in line.keys() - {"step"}:
            found.setdefault(name, []).append((line["step"], pytest.approx(line[name])))
    return found


def train_in_two_starts(workdir, tracker):
    for until in ("--until=3", "--until=6"):
        train.main([*TINY, f"--workdir={workdir}", f"--config.run.trackers=('{tracker}',)", until])


def records(data: bytes):
    """Of a .wandb file: after seven bytes the log format of LevelDB, blocks of 32 KiB with chunks of crc, length and kind (whole, first, middle, last)."""
    place, parts = 7, b""
    while place + 7 <= len(data):
        if 2**15 - place % 2**15 < 7:
            place += 2**15 - place % 2**15
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""


@pytest.mark.parity
def test_weights_and_biases(cache, tmp_path, monkeypatch):
    wandb_pb = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    monkeypatch.setenv("WANDB_MODE", "offline")
    train_in_two_starts(tmp_path / "run", "wandb")
    files = sorted((tmp_path / "run/wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2 and len({file.name for file in files}) == 1, "two starts of one run"
    found = {}
    for file in files:
        for data in records(file.read_bytes()):
            record = wandb_pb.Record.FromString(data)
            line = {item.key or item.nested_key[0]: float(item.value_json) for item in record.history.item}
            for name in line.keys() - {"step"}:
                found.setdefault(name, []).append((int(line["step"]), line[name]))
    expected = told(tmp_path / "run")
    assert {name: found[name] for name in expected} == expected and "timing/tokens_per_second" in found


@pytest.mark.parity
def test_mlflow(cache, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setattr(mlflow, "MlflowClient", lambda client=mlflow.MlflowClient: client(tracking_uri=f"file://{tmp_path}/store"))
    mlflow.set_tracking_uri(f"file://{tmp_path}/store")
    train_in_two_starts(tmp_path / "run", "mlflow")
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("lodestar").experiment_id])
    for name, expected in told(tmp_path / "run").items():
        assert [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)] == expected
    assert run.data.params["optimizer.learning_rate"] == "0.01" and run.info.status == "FINISHED"


@pytest.mark.parametrize("name, module", [("wandb", "WeightsAndBiases"), ("mlflow", "MLflow")])
def test_what_is_not_installed_is_one_line(monkeypatch, tmp_path, name, module):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"lodestar-research\[{name}\]"):
        getattr(trackers, module)(tmp_path, tiny_config())
