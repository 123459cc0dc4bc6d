"""What is done on the hosts of TPU VMs, over ssh: set up, start, look. All of it can be done again."""

import shlex
import subprocess
import tempfile

from launch import launcher
from launch.gcloud import Gcloud, patiently, poll
from research.core.errors import UserError

# On a host, in the directory of the code: whether what was started there since it was last booted still runs.
ALIVE = '[ "$(cat boot 2>/dev/null)" = "$(cat /proc/sys/kernel/random/boot_id)" ] && kill -0 "$(cat pid)" 2>/dev/null'


def setup(cloud: Gcloud, job: dict, nodes: list[str]):
    """Brings the commit to all hosts, mounts the file system, and installs; what is done already costs little."""
    mount = shlex.quote(job["mount"])
    steps = ["set -e", "command -v python3.11 >/dev/null || { sudo apt-get update -qq; sudo apt-get install -y -qq python3.11 python3.11-venv; }"]
    if job["nfs"]:
        steps += [
            "command -v mount.nfs >/dev/null || { sudo apt-get update -qq; sudo apt-get install -y -qq nfs-common; }",
            f"sudo mkdir -p {mount}",
            f"mountpoint -q {mount} || sudo mount -t nfs {shlex.quote(job['nfs'])} {mount}",
        ]
    steps += ["git init -q lodestar", "cd lodestar", "git fetch -q ../lodestar.bundle refs/lodestar", "git checkout -q FETCH_HEAD"]
    steps += ["PYTHON=python3.11 EXTRAS=tpu launch/local.sh true"]
    with tempfile.TemporaryDirectory() as folder:
        bundle = f"{folder}/lodestar.bundle"
        if not cloud.dry:
            bundled(job["commit"], bundle)
        for node in nodes:
            patiently(lambda: cloud.copy(bundle, node, "lodestar.bundle"), waits())
            patiently(lambda: cloud.ssh(node, "all", "; ".join(steps)), waits())


def bundled(commit: str, path: str):
    """A file that git fetches the commit from, as refs/lodestar."""
    git = lambda *command: subprocess.run(["git", *command], check=True)
    git("update-ref", "refs/lodestar", commit)
    try:
        git("bundle", "create", "--quiet", path, "refs/lodestar")
    finally:
        git("update-ref", "-d", "refs/lodestar")


def waits() -> list[float]:
    """Seconds between tries: a machine just made takes a while to let one in."""
    return [poll() * n for n in (0.5, 1, 2, 4)]


def run(cloud: Gcloud, job: dict, nodes: list[str], distributed: bool):
    """Starts training on all hosts, where it is not going on already; it goes on when we leave. Raises UserError where another run is."""
    train = shlex.join(launcher.train(job["train"], distributed))
    cache = " ".join(f"{name}={shlex.quote(value)}" for name, value in launcher.cache_beside(launcher.given(job["train"], "workdir")).items())
    inner = f"{cache} PYTHON=python3.11 EXTRAS=tpu launch/local.sh {train} > log.txt 2>&1; echo $? > exit_code"
    begin = f"setsid nohup bash -c {shlex.quote(inner)} > /dev/null 2>&1 < /dev/null & echo $! > pid"
    command = (
        f"cd lodestar 2>/dev/null || {{ echo 'it is not set up yet: python -m launch.tpu_vm setup' >&2; exit 1; }}; if {ALIVE}; then cat train; "
        f"else rm -f exit_code; cat /proc/sys/kernel/random/boot_id > boot; echo {shlex.quote(train)} > train; {begin}; fi"
    )
    for node in nodes:
        there = patiently(lambda: cloud.ssh(node, "all", command), waits()).splitlines()
        if other := next((line for line in there if line and line != train), None):
            raise UserError(f"{node} trains another run, {other}: wait for it, take another --name, or delete it first.")
        if not cloud.dry:
            print(f"{node}: {'goes on already' if there else 'started'}")


def seen(cloud: Gcloud, node: str) -> str:
    """The exit code of the run on its first host, or alive or gone."""
    return cloud.ssh(node, "0", f"cd lodestar; cat exit_code 2>/dev/null || {{ {ALIVE} && echo alive || echo gone; }}").strip()
