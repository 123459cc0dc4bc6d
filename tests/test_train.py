"""The commands as a person gives them."""

import contextlib
import io
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from configs import base
from research import evaluate, predict, train
from research.core import config as config_lib
from research.core import metrics
from research.core.errors import run_command
from research.data import sources
from research.training import checkpoint, run_directory
from tests.tiny import devices

ROOT = pathlib.Path(__file__).parents[1]
TINY = "--config=tests/tiny.py"
MESH = ["--config.mesh.fsdp=4", "--config.mesh.tensor=2"]


def call(command, *arguments):
    """What the command prints, in this process."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        command.main(["command", *arguments])
    return out.getvalue()


def error(command, *arguments):
    """The one line that a wrong command ends with."""
    with pytest.raises(SystemExit) as stopped, contextlib.redirect_stdout(io.StringIO()):
        run_command(command.main, ["command", *arguments])
    assert isinstance(stopped.value.code, str) and "\n" not in stopped.value.code and stopped.value.code.startswith("error: ")
    return stopped.value.code


def spawn(*arguments, **environment):
    """The train command in a process of its own, on one device. What it says goes to a file: a pipe that nobody reads would stop it."""
    env = os.environ | devices(1) | {"PYTHONUNBUFFERED": "1"} | environment
    said = tempfile.TemporaryFile("w+")
    process = subprocess.Popen([sys.executable, "-m", "research.train", *arguments], cwd=ROOT, env=env, stdout=said, stderr=subprocess.STDOUT)
    process.said = said
    return process


def finish(process, code=0):
    process.wait(timeout=300)
    with process.said as said:
        said.seek(0)
        output = said.read()
    assert process.returncode == code, output
    return output


def saved_arrays(workdir, step):
    """Every array of a checkpoint by name, as raw as Orbax gives it."""
    found = {}
    for item in ("params", "optimizer", "ema"):
        if not (pathlib.Path(workdir) / "checkpoints" / str(step) / item).exists():
            continue
        tree = ocp.StandardCheckpointer().restore(pathlib.Path(workdir).absolute() / "checkpoints" / str(step) / item)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            found[f"{item}{path}"] = np.asarray(leaf)
    return found


def assert_same_run(a, b, step):
    assert (a / "metrics.jsonl").read_bytes() == (b / "metrics.jsonl").read_bytes()
    one, other = saved_arrays(a, step), saved_arrays(b, step)
    assert one.keys() == other.keys() and len(one) > 20
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


@pytest.fixture(scope="module")
def run(cache, tmp_path_factory):
    """A finished run of six steps on eight devices, and what it printed."""
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    return workdir, call(train, TINY, f"--workdir={workdir}", *MESH)


def test_a_run_directory_is_complete(run):
    workdir, printed = run
    names = {path.name for path in workdir.iterdir()}
    assert names == {
        "config.json",
        "provenance.json",
        "metrics.jsonl",
        "timing.jsonl",
        "tensorboard",
        "checkpoints",
        "plots",
        "tokenizer.json",
        ".lock",
    }
    assert {path.name for path in (workdir / "plots").iterdir()} == {"loss.png", "accuracy.png"}
    lines = metrics.read_metrics(workdir / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 3, 4, 5, 6, 6]
    assert {"train/loss", "train/masked_lm_loss", "train/gradient_norm", "train/learning_rate"} < lines[0].keys()
    assert {"validation/loss", "validation/masked_accuracy", "validation/next_sentence_accuracy"} < lines[-1].keys()
    timing = metrics.read_metrics(workdir / "timing.jsonl")[-1]
    assert timing["timing/tokens_per_second"] > 0 and 0 < timing["timing/model_flop_utilization"] < 1
    start = json.loads((workdir / "provenance.json").read_text())["starts"][0]
    assert start["packages"]["jax"] and start["git_commit"] and len(start["devices"]) == 8
    assert start["data"]["train/32"]["number_of_documents"] == 40 and start["data"]["validation/32"]["number_of_pairs"] > 0
    for said in ("Step 6 of 6", f"{lines[-1]['validation/loss']:.4f}", str(workdir), "plots/loss.png", "research.evaluate"):
        assert said in printed


def test_evaluate_prints_the_figures_last_logged(run):
    workdir, _ = run
    printed = json.loads(call(evaluate, f"--workdir={workdir}"))
    assert printed == metrics.read_metrics(workdir / "metrics.jsonl")[-1]
    earlier = json.loads(call(evaluate, f"--workdir={workdir}", "--step=3"))
    assert earlier == [line for line in metrics.read_metrics(workdir / "metrics.jsonl") if "validation/loss" in line][0]
    said = json.loads(call(evaluate, f"--workdir={workdir}", "--config.data.validation_split=validation[:9]", "--split=validation[:9]"))
    assert "validation/loss" in said, "the run's own validation split is called as training calls it"
    elsewhere = json.loads(call(evaluate, f"--workdir={workdir}", "--config.mesh.fsdp=8", "--config.mesh.tensor=1", "--split=train[:10]"))
    assert elsewhere["train[:10]/loss"] != printed["validation/loss"]


def test_a_run_of_eight_devices_is_read_on_one(run):
    text = ["--text=Aa [MASK] ac."]
    alone = subprocess.run(
        [sys.executable, "-m", "research.predict", f"--workdir={run[0]}", *text],
        cwd=ROOT,
        env=os.environ | devices(1),
        capture_output=True,
        text=True,
    )
    assert alone.returncode == 0 and alone.stdout == call(predict, f"--workdir={run[0]}", *text)
    assert "does not divide" in error(predict, f"--workdir={run[0]}", *text, "--config.mesh.fsdp=3")


def test_predict_fills_the_mask(run):
    workdir, _ = run
    printed = call(predict, f"--workdir={workdir}", "--text=Aa [MASK] ac. [MASK]", "--top=3")
    lines = [line.split("  ") for line in printed.strip().split("\n")]
    assert len(lines) == 2 and all(len(line) == 3 for line in lines)
    chances = [float(fill.split()[1]) for fill in lines[0]]
    assert chances == sorted(chances, reverse=True) and 0 < sum(chances) <= 1


@pytest.mark.parametrize(
    "text, message",
    [("--text=no mask here", r"no [MASK]"), ("--text= ", "say what to fill"), ("--text=[MASK]" + " aa" * 40, "takes at most 32"), ("--top=0", "top")],
)
def test_predict_refuses(run, text, message):
    assert message in error(predict, f"--workdir={run[0]}", text)


def test_the_same_command_again_changes_nothing_and_workdir_alone_is_enough(run, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(run[0], workdir)
    before = (workdir / "metrics.jsonl").read_bytes()
    assert "Step 6 of 6" in call(train, f"--workdir={workdir}")
    assert (workdir / "metrics.jsonl").read_bytes() == before
    assert len(json.loads((workdir / "provenance.json").read_text())["starts"]) == 2


def test_another_config_is_refused_and_nothing_is_harmed(run):
    workdir, _ = run
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    said = error(train, TINY, f"--workdir={workdir}", *MESH, "--config.optimizer.learning_rate=0.5", "--config.seed=3")
    for part in ("optimizer.learning_rate is 0.01 there, 0.5 here", "seed is 0 there, 3 here", "another --workdir"):
        assert part in said
    for changes in (["--config.optimizer.learning_rte=1"], ["--config.data.batch_size=12"], ["--config.data.length=64"], ["--config.mesh.fsdp=3"]):
        error(train, TINY, f"--workdir={workdir}", *MESH, *changes)
    assert before == {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}


def test_a_run_is_trained_by_one_process_at_a_time(run, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(run[0], workdir)
    with (claimed := run_directory.claim(workdir)):
        assert "is being trained by another process" in error(train, f"--workdir={workdir}")
    call(train, f"--workdir={workdir}")
    assert not claimed.lock.is_locked, "released by the end of the block, whoever still holds it"


@pytest.mark.slow
def test_a_run_made_again_is_the_same_and_what_differs_is_told(run, tmp_path):
    said = call(train, f"--rerun={run[0]}", f"--workdir={tmp_path}/again")
    assert f"Nothing differs from {run[0]}" in said
    assert_same_run(run[0], tmp_path / "again", 6)
    old = json.loads((run[0] / "provenance.json").read_text())
    start = old["starts"][-1]
    start |= {"git_commit": "0123", "git_diff": "+ x", "devices": ["gpu NVIDIA H100"], "python": "3.9.1"}
    start["packages"] |= {"jax": "0.1", "gone": "1.0"}
    next(iter(start["data"].values()))["seen"] = 7
    shutil.copytree(run[0], tmp_path / "old")
    (tmp_path / "old/provenance.json").write_text(json.dumps(old))
    said = call(train, f"--rerun={tmp_path}/old", f"--workdir={tmp_path}/other", "--config.seed=1", "--until=1")
    for line in (
        "config.seed: 0 there, 1 here",
        "code: commit 0123 there, ",
        "code: diff, not the same there and here",
        "package Python: 3.9.1 there",
        f"package jax: 0.1 there, {jax.__version__} here",
        "package gone: 1.0 there, none here",
        "hardware: 1 x gpu NVIDIA H100, 1 processes there, 8 x cpu cpu, 1 processes here",
        "data train/32.seen: 7 there, None here",
    ):
        assert f"\n  {line}" in said
    assert said.count(" there, ") == 7
    for more, message in ((["--config=x.py"], "leave one out"), ([], "goes to another")):
        assert message in error(train, f"--rerun={run[0]}", f"--workdir={run[0]}", *more)
    (tmp_path / "old/provenance.json").unlink()
    assert "does not tell what it ran with" in error(train, f"--rerun={tmp_path}/old", f"--workdir={tmp_path}/third")


def test_code_that_git_does_not_know_and_a_project_s_own_differ_too(run, tmp_path, monkeypatch):
    """The command is given in a project of its own, whose code is changed between two runs."""
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com"]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    (tmp_path / "model.py").write_text("x = 1")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run[0], tmp_path / "runs/old")
    config, defaults = config_lib.read(run[0] / "config.json", base.get_config()), base.get_config()
    differs = lambda: run_directory.what_differs(tmp_path / "runs/old", config, defaults, {})
    run_directory.write(tmp_path / "runs/old", config, None, None, [], {})
    assert differs() == []
    (tmp_path / "model.py").write_text("x = 2")
    assert differs() == ["code of the project here: untracked, not the same there and here"]


@pytest.mark.slow
def test_the_mesh_and_the_reporting_may_change(run, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(run[0], workdir)
    shutil.rmtree(workdir / "checkpoints" / "6")
    call(train, TINY, f"--workdir={workdir}", "--config.mesh.fsdp=8", "--config.run.log_every=3")
    now, before = (metrics.read_metrics(path / "metrics.jsonl")[-1] for path in (workdir, run[0]))
    assert now == pytest.approx(before, rel=1e-4)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([TINY], "--workdir"),
        (["--workdir=nowhere"], "holds no run"),
        ([TINY, "--workdir=README.md"], "is a file"),
        (["--config=configs/none.py", "--workdir=nowhere"], "no config file configs/none.py"),
        ([TINY, "--workdir=nowhere", "--config.mesh.fsdp=8", "--config.data.batch_size=12"], "12 does not divide"),
        ([TINY, "--workdir=nowhere", "--config.mesh.fsdp=3"], "8 devices"),
        ([TINY, "--workdir=nowhere", *MESH, "--config.data.length=33"], "33 is longer than the 32 positions"),
        ([TINY, "--workdir=nowhere", *MESH, "--config.run.log_every=0"], "config.run.log_every is 0"),
        ([TINY, "--workdir=nowhere", *MESH, "--config.run.best_mode=mn"], "choose min or max"),
        ([TINY, "--workdir=nowhere", *MESH, "--config.run.best_metric=validation/los"], "choose one of validation/loss, validation/masked_lm_loss"),
        ([TINY, "--workdir=nowhere", *MESH, "--config.optimizer.no_decay=(bias"], "no regular expression"),
        ([TINY, "--workdir=nowhere", *MESH, "--distributed"], "no job to join"),
        ([TINY, "--workdir=nowhere", *MESH, "--config.objective.mask_rate=1.5"], "between 0 and 1"),
        ([TINY, "--workdir=nowhere", *MESH, "--config.model.dropout=1.0"], "model.dropout is 1.0: it must be at least 0 and less than 1"),
        ([TINY, "--workdir=nowhere", *MESH, "--config.model.layers=0"], "at least 1"),
        ([TINY, "--workdir=nowhere", *MESH, '--config.mesh.extra_rules=(("embd", "fsdp"),)'], "names 'embd': the axes are batch, embed"),
        ([TINY, "--workdir="], "say where the run goes"),
        ([TINY, "--workdir=nowhere", *MESH, "--config.objective.name=research.build:objective"], "no dataclass"),
        ([TINY, "--workdir=nowhere", *MESH, "--config.data.source=pears"], "choose one of sentence_pairs"),
        ([TINY, "--workdir=nowhere", *MESH, "--config.data.tokenizer=none.json"], "no tokenizer at none.json"),
        ([TINY, "--workdir=nowhere", *MESH, "--config.init.from=nowhere/run"], "no finished checkpoint"),
    ],
)
def test_wrong_input_is_one_line(cache, monkeypatch, arguments, message, tmp_path):
    placed = [argument.replace("=nowhere", f"={tmp_path}/nowhere") if argument.startswith("--workdir") else argument for argument in arguments]
    assert message in error(train, *placed)


def test_a_mistyped_field_on_the_command_line():
    said = finish(spawn(TINY, "--workdir=nowhere", "--config.optimizer.learning_rte=1"), code=1)
    assert said.strip().count("\n") == 0 and "learning_rate" in said and "Traceback" not in said


def test_no_network_names_the_package(tmp_path):
    said = finish(
        spawn(
            "--config=configs/quickstart.py", f"--workdir={tmp_path}/run", LODESTAR_CACHE=str(tmp_path / "empty"), PIP_NO_INDEX="1", PIP_FIND_LINKS=""
        ),
        code=1,
    )
    assert "error: the package gensim==4.4.0" in said.splitlines()[-1] and "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_an_unreadable_checkpoint_is_one_line(run, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(run[0], workdir)
    shutil.rmtree(workdir / "checkpoints" / "6" / "optimizer" / "d")
    said = error(train, TINY, f"--workdir={workdir}", *MESH)
    assert "checkpoints/6 cannot be read" in said and "use step 3" in said


@pytest.mark.slow
def test_a_full_disk_is_one_line(run, tmp_path, monkeypatch):
    workdir = tmp_path / "copy"
    shutil.copytree(run[0], workdir)
    shutil.rmtree(workdir / "checkpoints" / "6")

    def full(self, step, scalars):
        raise OSError(28, "No space left on device", str(workdir / "metrics.jsonl"))

    def full_for_orbax(self, *_):
        raise ValueError("RESOURCE_EXHAUSTED: Error writing file [os_error_code='28']")

    with monkeypatch.context() as patch:
        patch.setattr(metrics.MetricWriter, "write", full)
        said = error(train, TINY, f"--workdir={workdir}", *MESH)
        assert "disk is full while writing" in said and "metrics.jsonl" in said
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoints, "save", full_for_orbax)
        assert "disk is full:" in error(train, TINY, f"--workdir={workdir}", *MESH)
    call(train, TINY, f"--workdir={workdir}", *MESH)
    assert (workdir / "metrics.jsonl").read_bytes() == (run[0] / "metrics.jsonl").read_bytes()


def test_a_run_stopped_and_resumed_is_the_run_never_stopped(run, tmp_path, monkeypatch):
    """Bit for bit: parameters, optimizer state, figures, and the examples consumed."""
    consumed = {"whole": [], "parts": []}

    def record(into, stop_at=None):
        original = sources.GrainSource.next

        def next_(self, params):
            batch = original(self, params)
            consumed[into].append(batch["tokens"].copy())
            if len(consumed[into]) == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            return batch

        monkeypatch.setattr(sources.GrainSource, "next", next_)

    with monkeypatch.context() as monkeypatch:
        record("whole")
        call(train, TINY, f"--workdir={tmp_path}/whole", *MESH)
    with monkeypatch.context() as monkeypatch:
        record("parts", stop_at=4)
        out = io.StringIO()
        with contextlib.redirect_stdout(out), pytest.raises(SystemExit, check=lambda stopped: stopped.code == 75):
            train.main(["train", TINY, f"--workdir={tmp_path}/parts", *MESH])
        assert "Step 4 of 6: stopped" in out.getvalue()
    assert len(consumed["parts"]) == 4
    with monkeypatch.context() as monkeypatch:
        record("parts")
        call(train, TINY, f"--workdir={tmp_path}/parts", *MESH)
    np.testing.assert_array_equal(np.array(consumed["whole"]), np.array(consumed["parts"]))
    assert_same_run(tmp_path / "whole", tmp_path / "parts", 6)


@pytest.mark.slow
def test_a_killed_run_ends_as_one_never_killed(cache, tmp_path):
    arguments = [
        "--config=tests/tiny.py:60",
        "--config.model.dropout=0.1",
        "--config.run.eval_every=20",
        "--config.run.save_every=10",
        "--config.optimizer.ema_decay=0.9",
    ]
    never = spawn(*arguments, f"--workdir={tmp_path}/never")
    finish(never)
    killed = spawn(*arguments, f"--workdir={tmp_path}/killed")
    deadline = time.time() + 200
    while time.time() < deadline and not any(line["step"] >= 24 for line in metrics.read_metrics(tmp_path / "killed" / "metrics.jsonl")):
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    finish(killed, code=-9)
    lines = metrics.read_metrics(tmp_path / "killed" / "metrics.jsonl")
    assert 24 <= lines[-1]["step"] < 60, "the kill came too late to mean anything"
    finish(spawn(*arguments, f"--workdir={tmp_path}/killed"))
    assert_same_run(tmp_path / "never", tmp_path / "killed", 60)
    assert (tmp_path / "never" / "checkpoints" / "60" / "ema").exists()
    read = json.loads(call(evaluate, f"--workdir={tmp_path}/never", "--config.mesh.fsdp=8"))
    assert read == pytest.approx(metrics.read_metrics(tmp_path / "never" / "metrics.jsonl")[-1], rel=1e-4), "evaluation uses the moving average"


def test_other_data_under_the_same_name_is_refused(run, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(run[0], workdir)
    provenance = (workdir / "provenance.json").read_text()
    assert '"number_of_documents": 40' in provenance
    (workdir / "provenance.json").write_text(provenance.replace('"number_of_documents": 40', '"number_of_documents": 41'))
    assert "trained on other data: train/32 was" in error(train, TINY, f"--workdir={workdir}", *MESH)


def test_a_paper_s_own_objective_and_source_plug_in_by_name(cache, tmp_path):
    named = ["--config.objective.name=tests.line_fit:LineFit", "--config.data.source=tests.line_fit:Points", "--config.optimizer.learning_rate=1.0"]
    arguments = ["--config=tests/tiny.py:40", f"--workdir={tmp_path}", *MESH, *named]
    assert "absolute_error" in call(train, *arguments)
    reached = metrics.read_metrics(tmp_path / "metrics.jsonl")
    assert reached[-1]["validation/loss"] < 0.2 * reached[0]["train/loss"]
    assert json.loads(call(evaluate, f"--workdir={tmp_path}")) == reached[-1]
    assert "fills no [MASK]" in error(predict, f"--workdir={tmp_path}", "--text=[MASK]")
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"loss.png", "other.png"}
    assert not (tmp_path / "tokenizer.json").exists()
    assert "examples_per_second" in (tmp_path / "timing.jsonl").read_text()


@pytest.mark.slow
def test_starting_from_another_run(run, tmp_path):
    start = [TINY, *MESH, f"--config.init.from={run[0]}", "--config.optimizer.learning_rate=1e-12"]
    call(train, *start, f"--workdir={tmp_path}/same")
    first, trained = metrics.read_metrics(tmp_path / "same" / "metrics.jsonl"), metrics.read_metrics(run[0] / "metrics.jsonl")
    assert first[-1]["validation/loss"] == pytest.approx(trained[-1]["validation/loss"], rel=1e-5)
    other = [*start, f"--workdir={tmp_path}/other", "--config.model.mlp_width=48"]
    assert "mlp/down/kernel is float32[2, 32, 16] there, float32[2, 48, 16] here" in error(train, *other)
    call(train, *other, "--config.init.allow_new=mlp/")


@pytest.mark.slow
def test_short_sequences_first(cache, tmp_path):
    """BERT's 90/10: the first part of a run on short sequences, resumed in the second."""
    arguments = [TINY, *MESH, "--config.data.short_length=16", "--config.data.short_fraction=0.5", f"--workdir={tmp_path}/run"]
    call(train, *arguments)
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    manifest = json.loads((tmp_path / "run" / "provenance.json").read_text())["starts"][0]["data"]
    assert {"train/16", "train/32", "validation/32"} == manifest.keys()
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "6")
    call(train, *arguments)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_two_processes_make_the_run_of_one(cache, tmp_path):
    """A real multi-process job, told by variables where to meet: the same figures as eight devices in one process."""
    probe = {"evaluators": "('knn',)", "name": "tests.tiny_labelled_text:Reviews", "source": "labelled_text", "validation_split": "train"}
    arguments = [TINY, "--config.data.batch_size=16", "--config.mesh.fsdp=4", "--config.mesh.data=2"]
    arguments += [f"--config.probe.{field}={value}" for field, value in probe.items()]
    finish(spawn(*arguments, f"--workdir={tmp_path}/one", **devices(8)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = devices(4) | {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free.getsockname()[1]}", "JAX_NUM_PROCESSES": "2"}
    meeting["LODESTAR_CACHE"] = str(tmp_path / "cold")  # both find nothing prepared: one prepares, the other waits
    two = [spawn(*arguments, f"--workdir={tmp_path}/two", "--distributed", **meeting, JAX_PROCESS_ID=str(i)) for i in range(2)]
    for process in two:
        finish(process)
    one, two = (metrics.read_metrics(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    assert any("validation/knn_accuracy" in line for line in one)
    for a, b in zip(one, two, strict=True):
        assert a == pytest.approx(b, rel=1e-5)
