"""Trains on TPUs of Google Kubernetes Engine, as a JobSet: rendered here, and applied with kubectl.

    python -m launch.gke --type=v5p-128 [--slices=2] [--spot] --image=REGISTRY/lodestar --claim=CLAIM --config=configs/gpt/xl.py --workdir=/mnt/lodestar/xl [--apply] [--wait]

Prints the manifest; --apply gives it to the cluster that kubectl knows, and --wait stays until it has ended. --image: made by launch/Dockerfile. --claim: a
PersistentVolumeClaim that all hosts write (ReadWriteMany), mounted at --mount, where the run goes. What is taken away or fails is started again, --restarts times at
most, and goes on from its last checkpoint. --queue: of Kueue, if the cluster has it.

The same command again finds the JobSet that is there; one that has failed is made anew.
"""

import json
import os
import subprocess
import time

from absl import flags

from launch import launcher, tpu_types
from research.core.errors import UserError, run_command

JOBSET = "jobset.x-k8s.io/v1alpha2"


def main(argv):
    values, passed, _ = launcher.arguments(argv, define)
    found = manifest(values, passed)
    if values.apply and not values.dry_run:
        if not values.skip_preflight:
            preflight(values, passed)
        apply(found)
        if values.wait:
            wait(found["metadata"]["name"], found["metadata"]["namespace"])
    else:
        print(launcher.as_yaml(found), end="")


def define(values):
    launcher.define_all(
        values,
        *launcher.SLICES,
        ("image", flags.DEFINE_string, None, "Of launch/Dockerfile."),
        ("claim", flags.DEFINE_string, None, "A PersistentVolumeClaim."),
        ("mount", flags.DEFINE_string, "/mnt/lodestar", "Where it is mounted."),
        ("namespace", flags.DEFINE_string, "default", "Of the cluster."),
        ("queue", flags.DEFINE_string, None, "Of Kueue."),
        ("restarts", flags.DEFINE_integer, 100, "At most."),
        ("apply", flags.DEFINE_bool, False, "Give it to the cluster."),
        ("wait", flags.DEFINE_bool, False, "Stay until it has ended."),
    )


def preflight(values, passed: list[str]):
    launcher.check_fits_tpus(passed, values.type, values.slices)


def manifest(values, passed: list[str]) -> dict:
    """The JobSet: a job a slice, a pod a host. Raises UserError for what it lacks."""
    launcher.given(passed, "config")
    workdir = launcher.given(passed, "workdir")
    if not values.image:
        raise UserError("say --image=REGISTRY/lodestar for instance.")
    if not launcher.lasts(workdir, values.claim, values.mount):
        raise UserError(f"--workdir={workdir}: a pod's own files end with it; say --claim=CLAIM and --workdir={values.mount}/NAME.")
    kind, name = tpu_types.named(values.type), values.name or launcher.name_of(workdir)
    command = launcher.train(passed, kind.hosts * values.slices > 1)
    return {
        "apiVersion": JOBSET,
        "kind": "JobSet",
        "metadata": {
            "name": name,
            "namespace": values.namespace,
            "labels": {"kueue.x-k8s.io/queue-name": values.queue} if values.queue else {},
            "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"},  # a slice is one pool of nodes
        },
        "spec": {
            "failurePolicy": {
                "maxRestarts": values.restarts,
                "rules": [{"name": "wrong", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
            },
            "replicatedJobs": [{"name": "slice", "replicas": values.slices, "template": {"spec": job(values, kind, workdir, command)}}],
        },
    }


def job(values, kind: tpu_types.Slice, workdir: str, command: list[str]) -> dict:
    """Of one slice, as batch/v1 has it. What fails, fails as a whole, and the JobSet starts it again; but not where research.train itself says that something is wrong."""
    container = {
        "name": "train",
        "image": values.image,
        "command": command,
        "env": [{"name": name, "value": value} for name, value in launcher.cache_beside(workdir).items()],
        "ports": [{"containerPort": port, "protocol": "TCP"} for port in (8471, 8080)],  # of libtpu, and between slices
        "resources": {"limits": {"google.com/tpu": kind.chips // kind.hosts}},
        "volumeMounts": [{"name": "runs", "mountPath": values.mount}],
    }
    chosen = {"cloud.google.com/gke-tpu-accelerator": kind.family.gke, "cloud.google.com/gke-tpu-topology": kind.shape}
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 120,  # to save in
        "nodeSelector": chosen | ({"cloud.google.com/gke-spot": "true"} if values.spot else {}),
        "containers": [container],
        "volumes": [{"name": "runs", "persistentVolumeClaim": {"claimName": values.claim}}],
    }
    wrong = {"rules": [{"action": "FailJob", "onExitCodes": {"containerName": "train", "operator": "In", "values": [1]}}]}
    size = {"parallelism": kind.hosts, "completions": kind.hosts, "completionMode": "Indexed"}
    return size | {"backoffLimit": 0, "podFailurePolicy": wrong, "template": {"spec": pod}}


def apply(found: dict):
    """Raises UserError where a JobSet of this name trains another run."""
    name, namespace = found["metadata"]["name"], found["metadata"]["namespace"]
    there = described(name, namespace)
    if there is not None and state(there) == "running":
        command = lambda jobset: jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0]["command"]
        if command(there) != command(found):
            raise UserError(
                f"jobset {name} trains another run, {' '.join(command(there))}: take another --name, or kubectl delete jobset {name} first."
            )
        print(f"jobset {name} is there already.")
        return
    if there is not None:
        kubectl("delete", "jobset", name, f"--namespace={namespace}")
    kubectl("apply", "--filename=-", given=json.dumps(found))
    print(f"jobset {name} is given to the cluster. kubectl logs --follow job/{name}-slice-0 --namespace={namespace} shows what it says.")


def described(name: str, namespace: str) -> dict | None:
    """None where it is not there."""
    said = kubectl("get", "jobset", name, f"--namespace={namespace}", "--ignore-not-found", "--output=json")
    return json.loads(said) if said.strip() else None


def state(jobset: dict | None) -> str | None:
    """running, Completed or Failed."""
    if jobset is None:
        return None
    conditions = jobset.get("status", {}).get("conditions", [])
    return next((c["type"] for c in conditions if c["type"] in ("Completed", "Failed") and c["status"] == "True"), "running")


def wait(name: str, namespace: str):
    """Raises UserError, with the run's last words, for a JobSet that has failed or is gone."""
    while (now := state(launcher.persistently(lambda: described(name, namespace)))) == "running":
        time.sleep(float(os.environ.get("GKE_POLL_SECONDS", 15)))
    if now != "Completed":
        last = kubectl("logs", f"job/{name}-slice-0", f"--namespace={namespace}", "--tail=1").strip() if now else "it is gone"
        raise UserError(f"jobset {name} did not end well: {last}")
    print(f"jobset {name} has ended.")


def kubectl(*arguments: str, given: str | None = None) -> str:
    """What it prints. Raises UserError with its own words."""
    try:
        done = subprocess.run(["kubectl", *arguments], input=given, capture_output=True, text=True)
    except FileNotFoundError as e:
        raise UserError("there is no kubectl here: install it, and give `gcloud container clusters get-credentials CLUSTER` once.") from e
    if done.returncode:
        raise UserError(f"kubectl: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    run_command(main)
