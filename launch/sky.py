"""Trains on GPUs of any cloud, through SkyPilot: prints the task file, which `sky launch` or, for what can be taken away, `sky jobs launch` runs.

    python -m launch.sky --gpus=H100:8 [--nodes=2] [--spot] --device_memory=80 --bucket=NAME --config=configs/gpt/xl.py --workdir=/mnt/lodestar/xl > task.yaml
    sky jobs launch task.yaml

One process a node. --device_memory: GiB of one GPU, for preflight, which runs first. --bucket: mounted at --mount, where the run goes; made if it is not there.
"""

import shlex

from absl import flags

from launch import launcher
from research.core.errors import STOPPED, UserError, run_command


def main(argv):
    values, passed, _ = launcher.arguments(argv, define)
    found = task(values, passed)
    if not values.skip_preflight and not values.dry_run:
        preflight(values, passed)
    print(launcher.as_yaml(found), end="")


def define(values):
    launcher.define_all(
        values,
        launcher.NAMED,
        ("gpus", flags.DEFINE_string, None, "Of each node: a name and a number, H100:8."),
        ("nodes", flags.DEFINE_integer, 1, "How many."),
        ("spot", flags.DEFINE_bool, False, "Cheaper, and can be taken away."),
        ("device_memory", flags.DEFINE_float, None, "GiB of one GPU."),
        ("bucket", flags.DEFINE_string, None, "What is mounted."),
        ("mount", flags.DEFINE_string, "/mnt/lodestar", "Where it is mounted."),
    )


def task(values, passed: list[str]) -> dict:
    """As SkyPilot's task files have it. Raises UserError for what it lacks."""
    launcher.given(passed, "config")
    workdir = launcher.given(passed, "workdir")
    number = (values.gpus or "").partition(":")[2]
    if not number.isdigit():
        raise UserError("say the GPUs of a node, a name and how many: --gpus=H100:8.")
    if not launcher.lasts(workdir, values.bucket, values.mount) and (values.nodes > 1 or values.spot):
        raise UserError(f"--workdir={workdir}: a node's own files end with it; say --bucket=NAME and --workdir={values.mount}/NAME.")
    join = [
        'export JAX_COORDINATOR_ADDRESS="$(echo "$SKYPILOT_NODE_IPS" | head -n 1):8476"',
        'export JAX_NUM_PROCESSES="$SKYPILOT_NUM_NODES" JAX_PROCESS_ID="$SKYPILOT_NODE_RANK"',
    ]
    distributed = values.nodes > 1
    train = shlex.join(["launch/local.sh", *launcher.train(passed, distributed)])
    return {
        "name": values.name or launcher.name_of(workdir),
        "num_nodes": values.nodes,
        "resources": {"accelerators": values.gpus, "job_recovery": {"recover_on_exit_codes": [STOPPED]}}
        | ({"use_spot": True} if values.spot else {}),
        "workdir": ".",
        **({"file_mounts": {values.mount: {"name": values.bucket, "mode": "MOUNT"}}} if values.bucket else {}),
        "setup": "EXTRAS=gpu launch/local.sh true\n",
        "run": "\n".join([*(join if distributed else []), f"EXTRAS=gpu {train}"]) + "\n",
    }


def preflight(values, passed: list[str]):
    launcher.check_fits_gpus(passed, int(values.gpus.partition(":")[2]) * values.nodes, values.device_memory)


if __name__ == "__main__":
    run_command(main)
