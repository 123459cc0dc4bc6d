"""Manifests against the schema of Kubernetes and the models made of JobSet's; the cluster is a stand-in."""

import functools
import json
import operator
import os
import pathlib

import kubernetes_validate
import pytest
import yaml
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet

from launch import gke
from research.core.errors import UserError

RUN = ["--config=tests/tiny.py", "--workdir=/mnt/lodestar/tiny", "--skip_preflight"]
WHERE = ["--type=v5p-128", "--image=registry/lodestar", "--claim=runs"]


def rendered(capsys, *arguments) -> dict:
    gke.main(["gke", *RUN, *arguments])
    return yaml.safe_load(capsys.readouterr().out)


def check(found: dict):
    """Raises where the JobSet is none, has a field that there is not, or the Job of a slice in it is none."""
    assert JobsetV1alpha2JobSet.from_dict(found).to_dict() == found
    for job in found["spec"]["replicatedJobs"]:
        kubernetes_validate.validate({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}, **job["template"]}, "1.31", strict=True)


def test_a_manifest_is_what_the_cluster_takes(capsys):
    found = rendered(capsys, *WHERE, "--slices=2", "--spot", "--queue=team", "--name=x")
    check(found)
    (slices,) = found["spec"]["replicatedJobs"]
    job = slices["template"]["spec"]
    pod = job["template"]["spec"]
    assert (slices["replicas"], job["parallelism"], job["completions"], job["backoffLimit"]) == (2, 16, 16, 0)
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5p-slice",
        "cloud.google.com/gke-tpu-topology": "4x4x4",
        "cloud.google.com/gke-spot": "true",
    }
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["google.com/tpu"] == 4 and container["volumeMounts"][0]["mountPath"] == "/mnt/lodestar"
    assert {"name": "JAX_COMPILATION_CACHE_DIR", "value": "/mnt/lodestar/compilation_cache"} in container["env"]
    assert container["command"] == ["python", "-m", "research.train", *RUN[:2], "--distributed"]
    assert found["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "team"}


def test_one_host_is_a_job_of_one_process(capsys):
    found = rendered(capsys, "--type=v6e-8", *WHERE[1:])
    check(found)
    job = found["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["parallelism"] == 1 and job["template"]["spec"]["containers"][0]["resources"]["limits"]["google.com/tpu"] == 8
    assert "--distributed" not in job["template"]["spec"]["containers"][0]["command"]


@pytest.mark.parametrize(
    "where, field",
    [
        ([], "spek"),
        (["spec", "failurePolicy"], "maxRestart"),
        (["spec", "replicatedJobs", 0], "replica"),
        (["spec", "replicatedJobs", 0, "template", "spec"], "completion"),
    ],
)
def test_a_field_that_there_is_not_is_seen(capsys, where, field):
    found = rendered(capsys, *WHERE)
    check(found)
    functools.reduce(operator.getitem, where, found)[field] = 1
    with pytest.raises(Exception):
        check(found)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (WHERE[1:], "say the TPUs"),
        ([WHERE[0], WHERE[2]], "say --image"),
        (WHERE[:2], "say --claim"),
        ([*WHERE, "--workdir=runs/x"], "--workdir=/mnt/lodestar/NAME"),
        ([*WHERE, "--type=v5p-9"], "v5p-8, v5p-16"),
    ],
)
def test_what_a_user_can_get_wrong(arguments, message):
    with pytest.raises(UserError, match=message):
        gke.main(["gke", *RUN, *arguments])


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A kubectl that answers `get` with the states in states.json, one after the other, and keeps what it is asked."""
    (tmp_path / "kubectl").write_text(
        f"""#!/bin/bash
echo "$@" >> {tmp_path}/calls
case $1 in
  get) head -n 1 {tmp_path}/states; sed -i '1{{$!d}}' {tmp_path}/states;;
  apply) cat > {tmp_path}/applied;;
  logs) echo "error: loss is nan at step 7";;
esac
"""
    )
    (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("GKE_POLL_SECONDS", "0.05")
    return tmp_path


def states(folder: pathlib.Path, jobset: dict, *conditions):
    """The jobset with each condition in turn; None: it is not there."""
    told = {c: json.dumps(jobset | {"status": {"conditions": [{"type": c, "status": "True"}]}}) for c in ("running", "Completed", "Failed")}
    (folder / "states").write_text("\n".join(told.get(condition, "") for condition in conditions) + "\n")


@pytest.mark.parametrize("before, done", [(None, ["apply"]), ("Failed", ["delete", "apply"]), ("Completed", ["delete", "apply"]), ("running", [])])
def test_what_is_there_already_is_not_made_twice(cluster, capsys, before, done):
    states(cluster, rendered(capsys, *WHERE), before, "running", "Completed")
    gke.main(["gke", *RUN, *WHERE, "--apply", "--wait"])
    assert [line.split()[0] for line in (cluster / "calls").read_text().splitlines() if not line.startswith("get")] == done
    if done:
        check(json.loads((cluster / "applied").read_text()))


def test_a_failed_run_has_its_last_words(cluster, capsys):
    states(cluster, rendered(capsys, *WHERE), None, "running", "Failed")
    with pytest.raises(UserError, match="tiny-.* did not end well: error: loss is nan at step 7"):
        gke.main(["gke", *RUN, *WHERE, "--apply", "--wait"])


def test_another_run_of_the_same_name_is_let_be(cluster, capsys):
    states(cluster, rendered(capsys, *WHERE, "--name=x"), "running")
    with pytest.raises(UserError, match="x trains another run, .*--workdir=/mnt/lodestar/tiny --distributed: take another --name"):
        gke.main(["gke", *RUN, *WHERE, "--name=x", "--workdir=/mnt/lodestar/other", "--apply"])


def test_an_outage_of_the_cluster_is_waited_out(cluster, capsys, monkeypatch):
    monkeypatch.setenv("LAUNCH_PAUSES", "0.01")
    states(cluster, rendered(capsys, *WHERE), "running", "Completed")
    kubectl = (cluster / "kubectl").read_text()
    (cluster / "kubectl").write_text(kubectl.replace("case", f"[ -e {cluster}/back ] || {{ touch {cluster}/back; echo refused >&2; exit 1; }}\ncase"))
    gke.wait("x", "default")
    assert "x has ended" in capsys.readouterr().out
