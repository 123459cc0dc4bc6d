"""With a stand-in for gcloud that plays scripted states. The cloud itself was never reached."""

import argparse
import json
import os
import pathlib
import subprocess
import sys

import pytest

from launch import launcher, tpu_types, tpu_vm
from launch.gcloud import Gcloud
from research.core.errors import UserError
from research.core.metrics import read_metrics
from tests.tiny import devices

HERE = pathlib.Path(__file__).parent


class Cloud:
    """The stand-in, and a git repository whose commit is to run, in which commands are given."""

    def __init__(self, folder: pathlib.Path, monkeypatch):
        self.folder, self.repository = folder / "cloud", folder / "repository"
        (self.folder / "bin").mkdir(parents=True)
        for name, text in {
            "gcloud": f'exec {sys.executable} {HERE}/gcloud_stand_in.py "$@"',
            "local.sh": f'PATH={pathlib.Path(sys.executable).parent}:$PATH; [ "$1" = true ] && exit; shift; exec {sys.executable} "$@"',
            "sudo": 'exec "$@"',
            "mount": f"echo mount $@ >> {self.folder}/mounts",
            "mount.nfs": "true",
            "mountpoint": "exit 1",
        }.items():
            (self.folder / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
            (self.folder / "bin" / name).chmod(0o755)
        self.repository.mkdir()
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com"]
        for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
            subprocess.run([*git, *command], cwd=self.repository, check=True)
        monkeypatch.chdir(self.repository)
        monkeypatch.setenv("PATH", f"{self.folder}/bin:{os.environ['PATH']}")
        monkeypatch.setenv("STAND_IN", str(self.folder))
        monkeypatch.setenv("TPU_POLL_SECONDS", "0.2")
        monkeypatch.setenv("XLA_FLAGS", devices(1)["XLA_FLAGS"])
        monkeypatch.setenv("PYTHONPATH", str(HERE.parents[1]))

    def plays(self, *lives, **more):
        (self.folder / "script.json").write_text(json.dumps({"lives": lives} | more))

    def __call__(self, verb, *arguments, name="x"):
        tpu_vm.main(["tpu_vm", verb, f"--name={name}", *arguments])

    def calls(self, *words) -> list[str]:
        """Those that have all the words."""
        path = self.folder / "calls.jsonl"
        lines = [" ".join(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []
        return [line for line in lines if all(word in line for word in words)]


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    return Cloud(tmp_path, monkeypatch)


def test_the_commands_of_a_dry_run(cloud, capsys):
    cloud("create", "--type=v5p-128", "--dry_run")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == (
        "gcloud alpha compute tpus queued-resources create x --node-id=x --accelerator-type=v5p-128 --runtime-version=v2-alpha-tpuv5"
    )
    assert not cloud.calls() and not pathlib.Path("launches").exists()
    cloud("create", "--type=v6e-16", "--slices=2", "--spot", "--zone=us-east5-b", "--project=p", "--dry_run")
    line = capsys.readouterr().out.splitlines()[-1]
    for part in ("--node-count=2 --node-prefix=x", "--accelerator-type=v6e-16", "v2-alpha-tpuv6e", "--spot", "--zone=us-east5-b --project=p"):
        assert part in line
    cloud("create", "--type=v4-8", "--direct", "--reserved", "--dry_run")
    assert "tpu-vm create x --accelerator-type=v4-8 --version=tpu-ubuntu2204-base --reserved" in capsys.readouterr().out


def test_it_waits_in_the_queue_and_asking_again_asks_for_nothing_more(cloud, capsys):
    cloud.plays(["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"])
    for _ in range(2):
        cloud("create", "--type=v5p-128")
        assert "x is there: 1 x v5p-128, 16 hosts" in capsys.readouterr().out
    assert len(cloud.calls(" create ")) == 1
    cloud("status")
    assert "x: 1 x v5p-128, ACTIVE" in capsys.readouterr().out
    for _ in range(2):  # what is not there is deleted already
        cloud("delete", "--type=v5p-128")
    assert not pathlib.Path("launches/x.json").exists()


@pytest.mark.parametrize("dead", ["SUSPENDED", "FAILED"])
def test_what_is_dead_is_deleted_and_asked_for_again(cloud, dead):
    cloud.plays([dead], ["ACTIVE"])
    with pytest.raises(UserError, match=f"x is {dead}"):
        cloud("create", "--type=v5p-8")
    cloud("create", "--type=v5p-8")
    assert [" create " in call for call in cloud.calls() if " create " in call or " delete " in call] == [True, False, True]


def test_why_a_request_failed_is_told(cloud):
    cloud.plays(["FAILED"])
    with pytest.raises(UserError, match="the reservation has no room"):
        cloud("create", "--type=v5p-8")


@pytest.mark.parametrize(
    "said, told",
    [
        ("Quota limit 'TPUV5PPerProjectPerZone' has been exceeded. Limit: 0 in zone us-east5-a.", "Ask for more quota"),
        ('RESOURCE_EXHAUSTED: There is no more capacity in the zone "us-east5-a"', "waits in the queue"),
        ("PERMISSION_DENIED: Cloud TPU API has not been used in project p before", "PERMISSION_DENIED"),
    ],
)
def test_a_refused_request_is_one_line(cloud, said, told):
    cloud.plays(["ACTIVE"], create_error=said)
    with pytest.raises(UserError, match=told) as caught:
        cloud("create", "--type=v5p-8")
    assert said[:30] in str(caught.value)


RUN = [f"--config={HERE.parent}/tiny.py:60", "--skip_preflight"]


@pytest.mark.slow
def test_a_run_goes_on_where_it_was_whatever_happens_to_its_tpus(cloud, tmp_path, capfd):
    """Set up over ssh that is refused at first; really trained, by the shell commands that the workers are sent."""
    workdir = tmp_path / "shared/run"
    at = lambda step: f"{workdir}/checkpoints/{step}"
    cloud.plays(
        ["WAITING_FOR_RESOURCES", "ACTIVE"],  # and gone while it is set up
        ["ACTIVE", ["ACTIVE", at(6)], "SUSPENDED"],  # taken away while training
        ["PROVISIONING", "SUSPENDED"],  # and again before it is there
        ["ACTIVE", ["ACTIVE", at(18)], "REPAIRING", "ACTIVE", ["ACTIVE", at(30)], "STOP", "ACTIVE"],  # booted; then the run alone is told to stop
        refuse=2,
        vanish={"1": 1},
    )
    cloud("up", "--type=v5litepod-4", "--spot", "--nfs=10.0.0.2:/vol", f"--mount={tmp_path}/shared", *RUN, f"--workdir={workdir}")
    assert len(cloud.calls(" create ")) == 4 and capfd.readouterr().out.count("x: started") == 4
    assert [line["step"] for line in read_metrics(workdir / "metrics.jsonl") if "train/loss" in line] == list(range(1, 61))
    starts = json.loads((workdir / "provenance.json").read_text())["starts"]
    assert len(starts) == 4, "once on the second TPUs, three times on the fourth"
    assert f"mount -t nfs 10.0.0.2:/vol {tmp_path}/shared\n" in (cloud.folder / "mounts").read_text()
    assert cloud.calls()[-1].startswith("alpha compute tpus queued-resources delete x") and not pathlib.Path("launches/x.json").exists()


@pytest.mark.slow
def test_a_failed_run_is_told_and_its_tpus_are_left(cloud, tmp_path):
    cloud.plays(["ACTIVE"])
    with pytest.raises(UserError, match="ended with 1: error: .*does not divide over 1 devices.* still there"):
        cloud("up", "--type=v5litepod-4", *RUN, "--config.mesh.fsdp=3", f"--workdir={tmp_path}/run")
    assert not cloud.calls(" delete ")
    cloud("delete")
    assert len(cloud.calls(" delete ")) == 1


def test_an_outage_of_the_cloud_is_waited_out(cloud, monkeypatch):
    monkeypatch.setenv("LAUNCH_PAUSES", "0.01")
    cloud.plays(["WAITING_FOR_RESOURCES", "WAITING_FOR_RESOURCES", "ACTIVE"])
    (cloud.folder / "memory.json").write_text(json.dumps({"made": 0, "there": False, "age": 0, "refused": 0, "outages": 0}))
    cloud("create", "--type=v5p-8")
    cloud.plays(["ACTIVE"], outages=3)
    job = json.loads(pathlib.Path("launches/x.json").read_text())
    assert launcher.persistently(lambda: tpu_vm.state(Gcloud(), job, argparse.Namespace(name="x")))[0] == "ACTIVE"
    assert len(cloud.calls(" describe ")) >= 3 + 3


def test_hosts_that_train_another_run_are_left_to_it(cloud, tmp_path):
    """And what was started last is what is known of them."""
    cloud.plays(["ACTIVE"])
    (cloud.folder / "bin/local.sh").write_text('#!/bin/bash\n[ "$1" = true ] || exec sleep 60\n')
    try:
        cloud("create", "--type=v5litepod-4")
        cloud("setup")
        with pytest.raises(UserError, match="nothing has been started on x"):
            cloud("watch")
        for _ in range(2):
            cloud("run", *RUN, "--workdir=runs/one")
        with pytest.raises(UserError, match="x trains another run, .*runs/one"):
            cloud("run", *RUN, "--workdir=runs/two")
        assert json.loads(pathlib.Path("launches/x.json").read_text())["running"][-1] == "--workdir=runs/one"
    finally:
        cloud("delete")


def test_workers_that_never_answer_are_one_line(cloud):
    cloud.plays(["ACTIVE"], refuse=100)
    cloud("create", "--type=v5litepod-4")
    with pytest.raises(UserError, match="a worker cannot be reached: .*The same command goes on"):
        cloud("setup")
    assert len(cloud.calls(" scp ")) == 5


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["create"], "say what to create"),
        (["create", "--type=v9-8"], "v5litepod-N"),
        (["create", "--type=v5p-12"], "v5p-8, v5p-16"),
        (["create", "--type=tpu7x-8"], "use launch.gke"),
        (["create", "--type=v5p-8", "--slices=2", "--direct"], "leave it out for several"),
        (["up", "--type=v5p-8"], "say what to run"),
        (["up", "--type=v5p-16", "--config=a.py", "--workdir=runs/x"], "several hosts.*--nfs"),
        (["up", "--type=v5p-8", "--spot", "--config=a.py", "--workdir=runs/x"], "taken away.*--nfs"),
        (["fly"], "up|create|setup"),
    ],
)
def test_what_a_user_can_get_wrong(cloud, arguments, message):
    cloud.plays(["ACTIVE"])
    with pytest.raises(UserError, match=message):
        cloud(*arguments)
    assert not cloud.calls(" create ")


def test_preflight_is_asked_of_what_is_known_of_a_name(cloud, monkeypatch):
    cloud.plays(["ACTIVE"])
    cloud("create", "--type=v5litepod-16", "--slices=2")
    asked = []
    monkeypatch.setattr(launcher, "check_fits", lambda passed, *where: asked.append(where))
    with pytest.raises(UserError, match="it is not set up yet"):
        cloud("run", "--config=a.py", "--workdir=/mnt/lodestar/x", "--nfs=10.0.0.2:/vol")
    assert asked == [("--topology=v5e:4x4", "--slices=2")]


def test_preflight_is_asked_of_these_slices_and_before_anything_else(cloud, monkeypatch):
    asked = []

    def refuse(passed, *where):
        asked.append([*passed, *where])
        raise UserError("not launched.")

    monkeypatch.setattr(launcher, "check_fits", refuse)
    with pytest.raises(UserError, match="not launched"):
        cloud("create", "--type=v5litepod-16", "--slices=2", "--config=a.py", "--workdir=runs/x")
    assert asked == [["--config=a.py", "--workdir=runs/x", "--topology=v5e:4x4", "--slices=2"]] and not cloud.calls()


def test_what_ran_can_be_told(cloud):
    (cloud.repository / "a").write_text("1")
    subprocess.run(["git", "add", "a"], check=True)
    with pytest.raises(UserError, match="commit them"):
        cloud("up", "--type=v5p-8", *RUN, "--workdir=runs/x")


def test_another_type_is_not_made_of_what_is_there(cloud):
    cloud.plays(["ACTIVE"])
    cloud("create", "--type=v5p-8")
    with pytest.raises(UserError, match="x was made with v5p-8"):
        cloud("create", "--type=v5p-16")


def test_without_gcloud_it_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="Google Cloud CLI"):
        Gcloud()("queued-resources", "list")


@pytest.mark.parametrize(
    "name, topology, hosts", [("v5p-128", "v5p:4x4x4", 16), ("v4-8", "v4:2x2x1", 1), ("v5litepod-8", "v5e:2x4", 1), ("v6e-256", "v6e:16x16", 64)]
)
def test_names_stand_for_slices(name, topology, hosts):
    found = tpu_types.named(name)
    assert (found.topology, found.hosts) == (topology, hosts)


def test_every_shape_has_as_many_chips_as_it_says():
    for family in tpu_types.FAMILIES.values():
        for chips, shape in family.shapes.items():
            sides = [int(side) for side in shape.split("x")]
            assert chips == sides[0] * sides[1] * (sides[2] if len(sides) == 3 else 1)


@pytest.mark.parametrize(
    "workdir, name",
    [("runs/GPT_xl", "gpt-xl-"), ("/mnt/x/7b/", "run-7b-"), ("s/learning_rate=1e-3,seed=0,b1=0.95-0a1b2c3d", "learning-rate-1e-3-seed-0-b1-0-")],
)
def test_clouds_accept_the_name_of_a_run(workdir, name):
    found = launcher.name_of(workdir)
    assert found.startswith(name) and len(found) <= 40 and set(found) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert found != launcher.name_of(f"other/{workdir}"), "a run of the same name elsewhere is another"
