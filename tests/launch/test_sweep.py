"""Sweeps as a person gives them, over runs that are real and small."""

import argparse
import contextlib
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from launch import pool, sweep, trials
from research import report
from research.core.errors import UserError, run_command
from research.core.metrics import read_metrics
from tests.tiny import devices

ROOT = pathlib.Path(__file__).parents[2]
SWEEP = ["--config=tests/tiny.py", "--sweep=optimizer.learning_rate=1e-4,1e-2", "--sweep=seed=0:2"]


def start(workdir, *arguments, **options):
    env = os.environ | devices(1) | {"COLUMNS": "200"}
    return subprocess.Popen([sys.executable, "-m", "launch.sweep", *arguments, f"--workdir={workdir}"], cwd=ROOT, env=env, text=True, **options)


def ended(workdir):
    """{trial: when its last checkpoint was written} of those that are at their end."""
    return {path.parents[1].name: path.stat().st_mtime_ns for path in workdir.glob("*/checkpoints/6")}


@pytest.mark.slow
def test_a_sweep_killed_and_given_again_does_only_the_rest(tmp_path):
    first = start(tmp_path, *SWEEP, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not ended(tmp_path):
        assert first.poll() is None
        time.sleep(0.2)
    first.send_signal(signal.SIGINT)
    assert first.wait(timeout=120) == 1
    done = ended(tmp_path)
    assert 1 <= len(done) < 4
    again = start(tmp_path, *SWEEP, "--parallel=2", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    said, _ = again.communicate(timeout=600)
    assert again.returncode == 0 and len(ended(tmp_path)) == 4
    assert {name: ended(tmp_path)[name] for name in done} == done, "what was done is not done again"
    kept = json.loads((tmp_path / "sweep.json").read_text())
    reached = {name: read_metrics(tmp_path / name / "metrics.jsonl")[-1]["validation/loss"] for name in kept["trials"]}
    best = min(reached, key=reached.get)
    first_row = next(line for line in said.splitlines() if "done" in line)
    assert f"{reached[best]:.4f}" in first_row and kept["trials"][best]["optimizer.learning_rate"] in first_row
    assert said.count("done") == 4
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        report.main(["report", str(tmp_path)])
    assert {"index.html", "curves.png", "runs.csv", "table.md", "table.tex"} <= {path.name for path in (tmp_path / "report").iterdir()}
    means = {
        rate: np.mean([reached[n] for n, changes in kept["trials"].items() if changes["optimizer.learning_rate"] == rate])
        for rate in ("1e-4", "1e-2")
    }
    best = min(means, key=means.get)
    bold = re.search(rf"^\| {float(best):g} \| 2 \| \*\*([\d.]+)", out.getvalue(), re.MULTILINE)
    assert float(bold[1]) == pytest.approx(means[best], rel=1e-3)


@pytest.mark.slow
def test_successive_halving_runs_the_best_for_longer(tmp_path):
    rates = "--sweep=optimizer.learning_rate=1e-4,1e-3,1e-2,3e-2"
    process = start(
        tmp_path,
        SWEEP[0],
        "--config.optimizer.warmup_steps=0",
        rates,
        "--halving=validation/loss",
        "--eta=2",
        "--parallel=2",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    said, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors[-2000:]
    steps = {path.name: max(int(step.name) for step in (path / "checkpoints").glob("*")) for path in tmp_path.glob("*-????????")}
    assert sorted(steps.values()) == [1, 1, 3, 6]
    at = lambda name, step: next(
        line["validation/loss"] for line in read_metrics(tmp_path / name / "metrics.jsonl") if line["step"] == step and "validation/loss" in line
    )
    first = sorted(steps, key=lambda name: at(name, 1))
    assert {name for name in steps if steps[name] > 1} == set(first[:2])
    assert [name for name in steps if steps[name] == 6] == sorted(first[:2], key=lambda name: at(name, 3))[:1]


def test_trials_share_what_they_compile_and_have_devices_of_their_own(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    found, started = trials.trials(SWEEP[:1], trials.expanded(["seed=0:2"], False), tmp_path), []
    monkeypatch.setattr(pool, "subprocess", argparse.Namespace(Popen=lambda command, env, **_: started.append(env), STDOUT=None))
    for trial, gpu in zip(found, "01"):
        sweep.Job(trial, ["research.train"], "validation/loss").start(None, {"CUDA_VISIBLE_DEVICES": gpu})
    assert [env["JAX_COMPILATION_CACHE_DIR"] for env in started] == [str(tmp_path / "compilation_cache")] * 2
    assert [env["CUDA_VISIBLE_DEVICES"] for env in started] == ["0", "1"]


class Finished(sweep.Job):
    """A trial whose figures are given by step, and which can only be asked for what it has."""

    def start(self, until, slot):
        raise AssertionError(f"{self.trial.directory} was started to reach {until}")


def test_a_halving_given_again_starts_nothing(tmp_path):
    """Though those that went on have become worse than those that did not."""
    reached = {1: [2.0, 2.1, 2.5, 2.6], 3: [3.0, 3.1], 6: [4.0]}
    found = trials.trials(SWEEP[:1], trials.expanded(["seed=0:4"], False), tmp_path)
    for i, trial in enumerate(found):
        measured = {step: values[i] for step, values in reached.items() if i < len(values)}
        for step in measured:
            (trial.directory / "checkpoints" / str(step)).mkdir(parents=True)
        lines = (json.dumps({"step": step, "validation/loss": value}) + "\n" for step, value in measured.items())
        (trial.directory / "metrics.jsonl").write_text("".join(lines))
    jobs = [Finished(trial, [], "validation/loss") for trial in found]
    sweep.climb(jobs, [(1, 4), (3, 2), (6, 1)], [{}], 1, lambda: None)
    with pytest.raises(AssertionError, match="seed=2.* was started to reach 3"):
        sweep.climb(jobs, [(1, 4), (3, 3)], [{}], 1, lambda: None)


def test_one_trial_is_one_directory_however_it_is_named(tmp_path):
    named = lambda *sweeps: {trial.directory.name for trial in trials.trials(SWEEP[:1], trials.expanded(sweeps, False), tmp_path)}
    first = named("seed=0:2", "optimizer.b1=0.8")
    for name in first:
        (tmp_path / name).mkdir()
    assert named("optimizer.b1=0.8", "seed=0:2") == first
    assert named("optimizer.b1=0.8", "seed=1,1") < first
    assert len(named("data.threads=1,2")) == 2, "what is swept counts, though a run may change it"


@pytest.mark.parametrize(
    "gpus, parallel, expected",
    [("0,1,2,3", 2, ["0,1", "2,3"]), ("4,5", 2, ["4", "5"]), ("0,1,2", 2, ["0", "1"])],
)
def test_trials_at_a_time_part_the_gpus(monkeypatch, gpus, parallel, expected):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    monkeypatch.setattr(pool.glob, "glob", lambda pattern: [])
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in pool.slots(parallel, here=True)] == expected
    with pytest.raises(UserError, match="two trials cannot share one"):
        pool.slots(len(gpus.split(",")) + 1, here=True)


@pytest.mark.slow
def test_a_failed_run_is_told_and_stops_no_other(tmp_path):
    process = start(tmp_path, SWEEP[0], "--sweep=data.source=pears,plums", "--parallel=2", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said, errors = process.communicate(timeout=300)
    assert process.returncode == 1 and said.count("failed") == 2
    assert "2 of 2 failed" in errors and "choose one of sentence_pairs" in errors.replace("\n", " ")


def call(*arguments):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        sweep.main(["sweep", *arguments])
    return out.getvalue()


def test_a_dry_run_prints_the_commands_and_writes_nothing(tmp_path):
    lines = call(*SWEEP, f"--workdir={tmp_path}/new", "--dry_run", "--config.run.log_every=2").splitlines()
    assert len(lines) == 4 and not (tmp_path / "new").exists()
    expected = (
        "python -m research.train --config=tests/tiny.py --config.run.log_every=2 --config.optimizer.learning_rate=1e-4 --config.seed=0 --workdir="
    )
    assert lines[0].startswith(expected)


@pytest.mark.parametrize(
    "launcher, flags, command",
    [
        ("slurm", ["--nodes=2", "--time=60"], "launch.slurm --wait --skip_preflight --nodes=2 --time=60"),
        ("tpu_vm", ["--type=v5p-8", "--spot"], "launch.tpu_vm up --skip_preflight --type=v5p-8 --spot"),
        ("gke", ["--type=v5p-8", "--claim=c", "--image=i"], "launch.gke --apply --wait --skip_preflight --type=v5p-8 --claim=c --image=i"),
    ],
)
def test_on_a_cluster_each_trial_is_a_job_of_its_launcher(tmp_path, launcher, flags, command):
    lines = call(*SWEEP, f"--workdir={tmp_path}/new", f"--launcher={launcher}", *flags, "--dry_run").splitlines()
    assert len(lines) == 4 and lines[0].startswith(
        f"python -m {command} --config=tests/tiny.py --config.optimizer.learning_rate=1e-4 --config.seed=0 --workdir="
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--sweep=seed=0:2", "--workdir=x"], "say what to run"),
        (["--config=tests/tiny.py", "--sweep=seed=0:2"], "say where"),
        (["--config=tests/tiny.py", "--sweep=sead=0:2", "--workdir=x"], "has no field 'sead'"),
        (["--config=tests/tiny.py", "--workdir=x"], "has no sweep()"),
        (["--config=tests/tiny.py", "--workdir=x", "--sweeep=seed=1"], "sweeep"),
        (["--config=nowhere.py", "--workdir=x"], "no config file nowhere.py"),
        ([*SWEEP, "--workdir=x", "--launcher=tpu_vm", "--type=v5p-8", "--name=a"], "a name of its own"),
        ([*SWEEP, "--workdir=x", "--launcher=gke"], "say the TPUs"),
        ([*SWEEP, "--workdir=x", "--launcher=slurm", "--node=2"], "node"),
        (["--config=tests/tiny.py", "--workdir=x", "--sweep=seed=0:4", "--halving=validation/masked_accuracy"], "--mode=min or --mode=max"),
        (["--config=tests/tiny.py", "--workdir=x", "--sweep=run.steps=3,9", "--halving=validation/loss"], "they cannot differ in run.steps"),
    ],
)
def test_what_cannot_work_is_one_line(arguments, message):
    with pytest.raises(SystemExit) as stopped:
        run_command(sweep.main, ["sweep", *arguments])
    assert message in stopped.value.code and stopped.value.code.startswith("error: ")
