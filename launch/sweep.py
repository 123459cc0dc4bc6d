"""Runs one config with many values of some fields, and tells which did best.

    python -m launch.sweep --config=configs/gpt/tiny.py --sweep=optimizer.learning_rate=1e-4,3e-4,1e-3 --sweep=seed=0:3 --workdir=sweeps/lr [--parallel=2]

--sweep=FIELD=VALUES, any number of times: values with commas between them, `0:3` for 0, 1, 2, or so many draws, `log(1e-5,1e-2,16)` or `uniform(0,0.5,16)`. All
combinations are tried; with --zip the first of each, the second of each, ... (random search over several fields). With no --sweep, what the function sweep() of the
config file yields. --config.FIELD=VALUE holds for all. --parallel: runs at a time, which part the GPUs among them. --halving=METRIC: all for a part of the steps, the best 1 in --eta of them for
--eta times as long, and so on (successive halving, arXiv 1502.07943); --mode=min or max where METRIC is not run.best_metric. --dry_run prints the commands.

--launcher=slurm, tpu_vm or gke: each run is a job there, with what flags of launch/slurm.py and the others are given besides; --workdir lies where both the
machines there and this one see it.

The same command again finishes what is not done, and runs what is new.
"""

import json
import math
import pathlib
import shlex

from absl import flags
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from launch import gke, launcher, pool, slurm, tpu_vm, trials
from launch.pool import Job
from launch.trials import Trial
from research.core import config as config_lib
from research.core.errors import UserError, run_command
from research.core.files import write_atomically

LAUNCHERS = {  # name: (module, the command that a trial is there, what is true of it when the sweep is stopped)
    "local": (None, ["research.train"], "each run is saved"),
    "slurm": (slurm, ["launch.slurm", "--wait"], "the jobs go on there"),
    "tpu_vm": (
        tpu_vm,
        ["launch.tpu_vm", "up"],
        "what runs there goes on, and its TPUs stay until they are deleted, python -m launch.tpu_vm delete; launches/ has their names",
    ),
    "gke": (gke, ["launch.gke", "--apply", "--wait"], "the jobsets go on there"),
}


def main(argv):
    values, passed, of_launcher = arguments(argv)
    workdir, config_file = pathlib.Path(launcher.given(passed, "workdir")), launcher.given(passed, "config")
    passed = [arg for arg in passed if not arg.startswith("--workdir=")] + judged_by(values, passed)
    changes = trials.expanded(values.sweep, values.zip) if values.sweep else trials.generated(config_file.partition(":")[0])
    found = trials.trials(passed, changes, workdir)
    rungs = halving(found, values.eta) if values.halving else [(None, len(found))]
    module, wrapped, left = LAUNCHERS[values.launcher]
    if module:
        check_fits(module, of_launcher, values.skip_preflight or values.dry_run, passed, found)
        wrapped = [*wrapped, "--skip_preflight"]  # asked already
    wrapped = [*wrapped, *of_launcher, *passed]
    jobs = [Job(trial, wrapped, found[0].config.run.best_metric) for trial in found]
    if values.dry_run:
        print("\n".join(shlex.join(["python", *job.command(rungs[0][0])[1:]]) for job in jobs))
        return
    slots = pool.slots(values.parallel or (len(jobs) if module else 1), here=module is None)
    note(workdir, argv, found)
    sign = 1 if found[0].config.run.best_mode == "min" else -1
    try:
        with Live(table(jobs), refresh_per_second=2, console=Console(stderr=True)) as live:
            climb(jobs, rungs, slots, sign, lambda: live.update(table(jobs)))
    except KeyboardInterrupt:
        raise UserError(f"stopped; {left}. The same command goes on.") from None
    Console().print(table(sorted(jobs, key=lambda job: (-job.step, *worth(job.value(), sign)))))
    if failed := [job for job in jobs if job.failed]:
        raise UserError(f"{len(failed)} of {len(jobs)} failed: {failed[0].trial.directory}/log.txt ends with: {failed[0].last_words()}")


def arguments(argv):
    """(our flags, the arguments of research.train that hold for all trials, those of the launcher)."""

    def define(values):
        flags.DEFINE_multi_string("sweep", [], "FIELD=VALUES.", flag_values=values)
        flags.DEFINE_bool("zip", False, "Pair values in place of all combinations.", flag_values=values)
        flags.DEFINE_integer("parallel", None, "Runs at a time; absent: 1 here, all elsewhere.", lower_bound=1, flag_values=values)
        flags.DEFINE_string("halving", None, "A metric, such as validation/loss, by which the best are run for longer.", flag_values=values)
        flags.DEFINE_integer("eta", 3, "Of so many trials one goes on, for as many times the steps.", lower_bound=2, flag_values=values)
        flags.DEFINE_enum("mode", None, ["min", "max"], "Which values of the metric are better.", flag_values=values)
        flags.DEFINE_enum("launcher", "local", list(LAUNCHERS), "Where the runs go.", flag_values=values)

    values, passed, others = launcher.arguments(argv, define, others=True)
    if values.launcher == "local":
        launcher.arguments(["sweep", *others], lambda values: None)  # which has no flags of its own
    return values, passed, others


def judged_by(values, passed: list[str]) -> list[str]:
    """The trials are told the metric by which they are chosen: each refuses at once one that it does not measure. Raises UserError where it is not said what is better."""
    if values.halving is None:
        return []
    _, config = config_lib.parse(["sweep", *passed])
    if values.mode is None and values.halving != config.run.best_metric:
        raise UserError(f"--halving={values.halving}: say which values are better, --mode=min or --mode=max.")
    return [f"--config.run.best_metric={values.halving}", f"--config.run.best_mode={values.mode or config.run.best_mode}"]


def check_fits(module, of_launcher: list[str], skip: bool, passed: list[str], found: list[Trial]):
    """Reads the launcher's flags, and asks preflight of one trial of each layout, which no seed and no rate changes. Raises UserError."""
    theirs, *_ = launcher.arguments(["sweep", *of_launcher], module.define)
    if "name" in theirs and theirs.name is not None:
        raise UserError("each trial has a name of its own: leave --name out.")
    same = lambda name, value: name == "seed" or (name.startswith("optimizer.") and isinstance(value, float))
    layouts: dict[str, Trial] = {}
    for trial in found:
        fields = {name: value for name, value in config_lib.flatten(trial.config).items() if not same(name, value)}
        layouts.setdefault(json.dumps(fields), trial)
    for trial in () if skip else layouts.values():
        module.preflight(theirs, [*passed, *trial.flags])


def note(workdir: pathlib.Path, argv: list[str], found: list[Trial]):
    """sweep.json: the trials of all commands given for this directory so far, and the last command."""
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / "sweep.json"
    before = json.loads(path.read_text())["trials"] if path.exists() else {}
    told = before | {trial.directory.name: trial.changes for trial in found}
    write_atomically(path, json.dumps({"command": ["launch.sweep", *argv[1:]], "trials": told}, indent=2) + "\n")


def halving(found: list[Trial], eta: int) -> list[tuple[int, int]]:
    """[(steps, trials), ...]: each time 1 in eta of the trials, the last time for all steps. Raises UserError where their steps differ."""
    if len({trial.config.run.steps for trial in found}) > 1:
        raise UserError("--halving compares trials at the same step: they cannot differ in run.steps.")
    steps, rounds = found[0].config.run.steps, int(math.log(len(found), eta) + 1e-9)
    return [(max(1, steps // eta ** (rounds - r)), math.ceil(len(found) / eta**r)) for r in range(rounds + 1)]


def climb(jobs: list[Job], rungs: list[tuple[int | None, int]], slots: list[dict], sign: int, show):
    """Each rung's best, by what they reached at its end, go on to the next: the same ones each time the command is given."""
    going = jobs
    for until, keep in rungs:
        going = going[:keep]
        pool.run(going, until, slots, show)
        going = sorted((job for job in going if not job.failed), key=lambda job: worth(job.value(until), sign))
        if short := [job for job in going if job.step < min(until or job.steps, job.steps)]:
            raise UserError(
                f"{len(short)} of {len(jobs)} were stopped before their end: {short[0].trial.directory} at step {short[0].step}. The same command goes on."
            )
    show()


def worth(value: float | None, sign: int) -> tuple[bool, float]:
    """A key by which the best comes first, and what was not measured or is not finite last."""
    return (False, sign * value) if value is not None and math.isfinite(value) else (True, 0.0)


def table(jobs: list[Job]) -> Table:
    """What each trial has changed, how far it is, and what it has reached."""
    fields = list(dict.fromkeys(name for job in jobs for name in job.trial.changes))
    found = Table(*fields, "step", jobs[0].metric, "")
    for job in jobs:
        changed = [Text(job.trial.changes.get(name, "")) for name in fields]
        value = job.value()
        found.add_row(*changed, f"{job.step:,} of {job.steps:,}", "" if value is None else f"{value:.4f}", job.state())
    return found


if __name__ == "__main__":
    run_command(main)
