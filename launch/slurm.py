"""Trains on a SLURM cluster, as a job that goes on by itself after preemption and when its time is up (extra `slurm`).

    python -m launch.slurm --nodes=2 --gpus_per_node=8 --device_memory=80 --time=24:00:00 --config=configs/gpt/xl.py --workdir=runs/xl [--partition=...]

One process a GPU. --device_memory: GiB of one GPU, for preflight, which runs first. --time, as sbatch has it: the longest one stretch may take; --grace seconds before
its end, or when told to make room, the run saves and is queued again. scancel stops it, saved. --setup=COMMAND, --sbatch=KEY=VALUE, any number of times: what the
job's script does first, and what else sbatch should know. --wait stays until the job has ended. --dry_run prints the script.

The same command again finds the job that is queued already, or goes on with a run that has ended early.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import time

from absl import flags

try:
    import submitit
except ImportError:
    submitit = None  # type: ignore[assignment]

from launch import launcher
from launch.slurm_task import Training
from research.core.errors import STOPPED, UserError, run_command

WAITING, GOING = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED"}, {"CONFIGURING", "RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "STOPPED"}


def main(argv):
    values, passed, _ = launcher.arguments(argv, define)
    workdir = pathlib.Path(launcher.given(passed, "workdir"))
    launcher.given(passed, "config")
    if submitit is None:
        raise UserError("SLURM needs submitit: pip install 'lodestar-research[slurm]', or EXTRAS=test,slurm launch/local.sh.")
    folder, executor = workdir / "slurm", made(values, workdir)
    if values.dry_run:
        print(executor._make_submission_file_text(executor._submitit_command_str, ""))
        return
    known = json.loads((folder / "job.json").read_text())["id"] if (folder / "job.json").exists() else None
    if known and state(known) in WAITING | GOING:
        print(f"job {known} has this run already: {state(known)}.")
    else:
        if not values.skip_preflight:
            preflight(values, passed)
        known = submitted(executor, Training([sys.executable, *launcher.train(passed, tasks(values) > 1)[1:]]))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "job.json").write_text(json.dumps({"id": known, "command": ["launch.slurm", *argv[1:]]}, indent=2) + "\n")
        print(
            f"job {known} is queued; what it says goes to {folder}/{known}_0_log.out. scancel {known} stops it: the run is saved, and the same command goes on."
        )
    if values.wait:
        wait(known, folder)


def define(values):
    launcher.define_all(
        values,
        ("nodes", flags.DEFINE_integer, 1, "How many."),
        ("gpus_per_node", flags.DEFINE_integer, 0, "GPUs, and processes, of each node."),
        ("tasks_per_node", flags.DEFINE_integer, None, "Processes of each node, where that is not its GPUs."),
        ("cpus_per_task", flags.DEFINE_integer, None, "CPU cores of each process."),
        ("mem_gb", flags.DEFINE_integer, None, "Host memory of a node."),
        ("device_memory", flags.DEFINE_float, None, "GiB of one GPU."),
        ("grace", flags.DEFINE_integer, 120, "Seconds to save in before the time is up."),
        ("time", flags.DEFINE_string, "24:00:00", "Minutes, [D-]HH:MM:SS, or D-HH."),
        ("partition", flags.DEFINE_string, None, "As sbatch has it."),
        ("account", flags.DEFINE_string, None, "As sbatch has it."),
        ("qos", flags.DEFINE_string, None, "As sbatch has it."),
        ("constraint", flags.DEFINE_string, None, "As sbatch has it."),
        ("setup", flags.DEFINE_multi_string, [], "What the script does first, such as module load cuda."),
        ("sbatch", flags.DEFINE_multi_string, [], "KEY=VALUE for sbatch."),
        ("wait", flags.DEFINE_bool, False, "Stay until the job has ended."),
    )


def tasks(values) -> int:
    return values.nodes * (values.tasks_per_node or values.gpus_per_node or 1)


def made(values, workdir: pathlib.Path):
    """submitit's executor for these flags. Raises UserError where there is no SLURM."""
    try:
        # A job is queued again as often as it takes.
        executor = submitit.SlurmExecutor(folder=workdir / "slurm", max_num_timeout=10**6)
    except RuntimeError as e:
        raise UserError("this is no SLURM cluster: there is no srun here. Give the command on a login node.") from e
    unknown = [text for text in values.sbatch if "=" not in text]
    if unknown:
        raise UserError(f"--sbatch={unknown[0]}: say --sbatch=KEY=VALUE.")
    asked = {
        "nodes": values.nodes,
        "ntasks_per_node": values.tasks_per_node or values.gpus_per_node or 1,
        "gpus_per_node": values.gpus_per_node or None,
        "cpus_per_task": values.cpus_per_task,
        "mem": values.mem_gb and f"{values.mem_gb}G",
        "time": minutes(values.time),
        "signal_delay_s": values.grace,
        "setup": values.setup or None,
        # Which srun does not take from the job, SLURM 22.05 and later.
        "srun_args": [f"--cpus-per-task={values.cpus_per_task}"] if values.cpus_per_task else None,
        "job_name": workdir.resolve().name,
        "additional_parameters": {"requeue": True} | dict(text.split("=", 1) for text in values.sbatch),
    } | {name: values[name].value for name in ("partition", "account", "qos", "constraint")}
    executor.update_parameters(**{name: value for name, value in asked.items() if value is not None})
    return executor


def minutes(text: str) -> int:
    """Of a time as sbatch has it: minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS; rounded up. Raises UserError."""
    if not (found := re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)):
        raise UserError(f"--time={text}: say minutes, HH:MM:SS, or D-HH:MM:SS.")
    days, *rest = found.groups()
    first, second, third = (int(part or 0) for part in rest)
    if days is None and rest[2] is None:  # minutes[:seconds]
        first, second, third = 0, first, second
    return max(1, -(-(int(days or 0) * 86400 + first * 3600 + second * 60 + third) // 60))


def preflight(values, passed: list[str]):
    """Raises UserError for a job that cannot fit."""
    if values.gpus_per_node or values.device_memory:
        launcher.check_fits_gpus(passed, tasks(values), values.device_memory)
    else:
        print("preflight is not asked: --device_memory does not say how much a process may have.", file=sys.stderr)


def submitted(executor, training: Training) -> str:
    """The job's id. Raises UserError with what sbatch said."""
    try:
        return executor.submit(training).job_id
    except submitit.core.utils.FailedJobError as e:
        raise UserError(f"sbatch refused: {str(e).strip().splitlines()[-1]}") from e


def state(job: str) -> str | None:
    """As squeue has it, PENDING, RUNNING, ...; None of a job that it has forgotten. Raises UserError where it cannot be asked."""
    asked = subprocess.run(["squeue", "--noheader", f"--jobs={job}", "--format=%T"], capture_output=True, text=True)
    if asked.returncode and "Invalid job id" not in asked.stderr:
        raise UserError(f"squeue: {asked.stderr.strip()}")
    return asked.stdout.strip() or None


def wait(job: str, folder: pathlib.Path):
    """Until the job has ended. Exits as research.train does for a run that was stopped; raises UserError, with the run's last words, for one that has failed."""
    while (now := launcher.persistently(lambda: state(job))) in WAITING | GOING:
        time.sleep(float(os.environ.get("SLURM_POLL_SECONDS", 5)))
    text = lambda kind: (folder / f"{job}_0_log.{kind}").read_text(errors="replace") if (folder / f"{job}_0_log.{kind}").exists() else ""
    steps = [line for line in text("out").splitlines() if line.startswith("Step ")]
    outcome, told = None, f"see {folder}/{job}_0_log.err"
    if (folder / f"{job}_0_result.pkl").exists():  # written by submitit where __call__ has returned, or could not be called
        outcome, told = submitit.core.utils.pickle_load(folder / f"{job}_0_result.pkl")
    if outcome == "success":
        print(f"job {job} has ended.")
    elif outcome is None and steps and ": stopped" in steps[-1]:
        print(f"job {job} was ended by SLURM. {steps[-1]}")
        sys.exit(STOPPED)
    else:
        last = next((line for line in reversed(text("err").splitlines()) if line.startswith("error:")), str(told).strip().splitlines()[-1])
        raise UserError(f"job {job} did not end well ({now or 'gone from the queue'}): {last.removeprefix('error: ')}")


if __name__ == "__main__":
    run_command(main)
