"""On a real SLURM of one machine, brought up by slurm_here.sh."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
import submitit

from launch import slurm
from research.core.errors import UserError
from research.core.metrics import read_metrics
from tests.tiny import devices

ROOT = pathlib.Path(__file__).parents[2]
there_is = all(map(shutil.which, ("slurmctld", "slurmd", "munged", "sbatch"))) and hasattr(os, "getuid") and os.getuid() == 0
on_slurm = pytest.mark.skipif(
    not there_is, reason="needs slurmctld, slurmd and munge, and to be root: apt-get install slurmctld slurmd slurm-client munge"
)
JOB = ["--tasks_per_node=2", "--time=10", "--config.mesh.fsdp=2", "--skip_preflight"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The environment in which commands reach it."""
    folder = tmp_path_factory.mktemp("slurm")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    subprocess.run(["bash", ROOT / "tests/launch/slurm_here.sh", folder, str(port)], check=True)
    yield os.environ | {"SLURM_CONF": f"{folder}/slurm.conf", "SLURM_POLL_SECONDS": "0.5"} | devices(1)
    for name in ("slurmd", "slurmctld", "munged"):
        os.kill(int((folder / f"{name}.pid").read_text()), signal.SIGTERM)


def launch(environment, *arguments, module="launch.slurm"):
    return subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)


def until(happened, what: str, seconds: float = 240):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, what
        time.sleep(0.2)


def scontrol(environment, *arguments):
    subprocess.run(["scontrol", *arguments], env=environment, check=True)


@on_slurm
@pytest.mark.slow
def test_two_processes_train_make_room_go_on_by_themselves_and_are_cancelled(cluster, tmp_path):
    """The first signal is the one that SLURM is asked to send before the time is up. Nothing is saved but at a stop and at the end."""
    workdir = tmp_path / "run"
    command = [*JOB, "--config=tests/tiny.py:3000", "--config.run.save_every=3000", "--config.run.eval_every=3000", f"--workdir={workdir}"]
    done = launch(cluster, *command)
    assert done.returncode == 0, done.stderr
    job = json.loads((workdir / "slurm/job.json").read_text())["id"]
    trained = lambda: max((line["step"] for line in read_metrics(workdir / "metrics.jsonl")), default=0)
    saved = lambda: max((int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()), default=0)
    until(lambda: trained() > 3 or not slurm_state(cluster, job), "training never began")
    again = launch(cluster, *command)
    assert f"job {job} has this run already: RUNNING" in again.stdout, again.stderr
    subprocess.run(["scancel", "--signal=USR2", job], env=cluster, check=True)
    until(lambda: slurm_state(cluster, job) == "PENDING", "the job was not queued again")
    first = saved()
    assert 3 < first < 3000, "it saved before it made room"
    scontrol(cluster, "update", f"JobId={job}", "StartTime=now")  # SLURM itself lets two minutes pass
    until(lambda: trained() > first, "the run did not go on")
    waiting = subprocess.Popen([sys.executable, "-m", "launch.slurm", *command, "--wait"], cwd=ROOT, env=cluster, text=True, stdout=subprocess.PIPE)
    subprocess.run(["scancel", job], env=cluster, check=True)
    said, _ = waiting.communicate(timeout=120)
    assert waiting.returncode == 75 and ": stopped" in said and first < saved() < 3000, "it saved when it was cancelled"
    assert launch(cluster, *command, f"--until={saved() + 5}", "--wait").returncode == 0
    steps = [line["step"] for line in read_metrics(workdir / "metrics.jsonl") if "train/loss" in line]
    assert steps == list(range(1, saved() + 1))
    starts = json.loads((workdir / "provenance.json").read_text())["starts"]
    assert [start["processes"] for start in starts] == [2, 2, 2]


def slurm_state(environment, job):
    return subprocess.run(["squeue", "-h", f"--jobs={job}", "--format=%T"], env=environment, capture_output=True, text=True).stdout.strip()


@on_slurm
@pytest.mark.slow
def test_a_sweep_there(cluster, tmp_path):
    """One trial cannot be laid out on the devices there: its run's own words come back, and the other is done."""
    arguments = [
        "--launcher=slurm",
        "--config=tests/tiny.py:3",
        "--sweep=mesh.fsdp=2,3",
        f"--workdir={tmp_path}/sweep",
        "--tasks_per_node=2",
        "--time=10",
    ]
    found = launch(cluster, *arguments, module="launch.sweep")
    assert found.returncode == 1 and found.stdout.count("failed") == 1 and found.stdout.count("done") == 1, found.stderr
    assert "did not end well" in found.stderr and "does not divide over 2 devices" in found.stderr


@pytest.mark.parametrize("signals, code", [([signal.SIGTERM], 75), ([signal.SIGUSR1], -signal.SIGUSR1)])
def test_a_task_passes_on_that_it_is_to_stop(tmp_path, signals, code):
    """Though it alone is told, as on clusters where SLURM counts processes by cgroup; and the signal before the time is up does not end what it runs."""
    run = f"trap 'echo saved > {tmp_path}/saved; exit 75' TERM; kill -USR2 $$; touch {tmp_path}/begun; while true; do sleep 0.1; done"
    script = f"from launch import slurm_task; slurm_task.STAY = 0; slurm_task.Training(['bash', '-c', {run!r}])()"
    task = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, start_new_session=True)
    until((tmp_path / "begun").exists, "it never began", 60)
    for each in signals:
        task.send_signal(each)
    assert task.wait(timeout=60) == code
    assert (tmp_path / "saved").exists() == (code == 75)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(task.pid, signal.SIGKILL)


def test_a_job_that_could_not_be_called_is_not_taken_for_one_that_has_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "state", lambda job: None)
    submitit.core.utils.cloudpickle_dump(("error", "Traceback ...\nRuntimeError: scontrol requeue failed"), tmp_path / "7_0_result.pkl")
    with pytest.raises(UserError, match="job 7 did not end well .*scontrol requeue failed"):
        slurm.wait("7", tmp_path)
    submitit.core.utils.cloudpickle_dump(("success", None), tmp_path / "8_0_result.pkl")
    slurm.wait("8", tmp_path)


@pytest.mark.parametrize(
    "text, expected", [("90", 90), ("10:30", 11), ("24:00:00", 1440), ("1:30:01", 91), ("2-0", 2880), ("1-12:30", 2190), ("0-00:00:10", 1)]
)
def test_times_are_read_as_sbatch_reads_them(text, expected):
    assert slurm.minutes(text) == expected


@pytest.fixture
def here(monkeypatch, tmp_path):
    """A login node, of which only what the launcher looks for is there."""
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


def call(*arguments, workdir="runs/not_made"):
    slurm.main(["slurm", "--config=tests/tiny.py", f"--workdir={workdir}", *arguments])


def test_the_script(here, capsys):
    call(
        "--nodes=2",
        "--gpus_per_node=8",
        "--time=1-0",
        "--partition=big",
        "--setup=module load cuda",
        "--sbatch=reservation=mine",
        "--cpus_per_task=12",
        "--dry_run",
    )
    said = capsys.readouterr().out
    for line in ("nodes=2", "gpus-per-node=8", "ntasks-per-node=8", "time=1440", "partition=big", "reservation=mine", "requeue", "signal=USR2@120"):
        assert f"#SBATCH --{line}\n" in said
    assert "--cpus-per-task=12" in said[said.index("\nsrun") :], "srun of SLURM 22.05 and later does not take it from the job"
    assert said.index("module load cuda") < said.index("srun")
    assert not pathlib.Path("runs/not_made").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--time=soon"], "--time=soon: say minutes"),
        (["--gpus_per_node=8"], "say how much memory one GPU has"),
        (["--sbatch=reservation"], "--sbatch=KEY=VALUE"),
        (["--gpu=8"], "gpu"),
        (["pears"], "'pears' is not understood"),
    ],
)
def test_what_a_user_can_get_wrong(here, arguments, message):
    with pytest.raises(UserError, match=message):
        call(*arguments)


@pytest.mark.slow
def test_a_job_that_cannot_fit_is_not_launched(here, capfd):
    """Two GPUs of half a MiB each, of which the program is compiled for as many CPU devices."""
    with pytest.raises(UserError, match="not launched. It does not fit: .*--skip_preflight launches all the same"):
        call("--gpus_per_node=2", "--device_memory=0.0005", "--config.mesh.fsdp=2")
    assert "DOES NOT FIT" in capfd.readouterr().out


def test_elsewhere_there_is_no_cluster(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="no SLURM cluster"):
        call()
