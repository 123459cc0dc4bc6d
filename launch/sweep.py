"""Runs one config with many values of some fields, and tells which did best.

    python -m launch.sweep --config=configs/gpt/tiny.py --sweep=optimizer.learning_rate=1e-4,3e-4,1e-3 --sweep=seed=0:3 --workdir=sweeps/lr [--parallel=2]

--sweep=FIELD=VALUES, any number of times: values with commas between them, `0:3` for 0, 1, 2, or so many draws, `log(1e-5,1e-2,16)` or `uniform(0,0.5,16)`. All
combinations are tried; with --zip the first of each, the second of each, ... (random search over several fields). With no --sweep, what the function sweep() of the
config file yields. --config.FIELD=VALUE holds for all. --parallel: runs at a time. --halving=METRIC: all for a part of the steps, the best 1 in --eta of them for
--eta times as long, and so on (successive halving, arXiv 1502.07943). --dry_run prints the commands.

--launcher=slurm, tpu_vm or gke: each run is a job there, with what flags of launch/slurm.py and the others are given besides; --workdir lies where both the
machines there and this one see it.

The same command again finishes what is not done, and runs what is new.
"""

import dataclasses
import json
import math
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time

from absl import flags
from rich.console import Console
from rich.live import Live
from rich.table import Table

from launch import launcher, slurm, trials
from launch.trials import Trial
from research.core import config as config_lib
from research.core.errors import UserError, run_command
from research.core.metrics import read_metrics


LAUNCHERS = {"local": None, "slurm": slurm}
COMMANDS = {"local": ["research.train"], "slurm": ["launch.slurm", "--wait"]}


def main(argv):
    values, passed, of_launcher = arguments(argv)
    workdir, config_file = pathlib.Path(launcher.given(passed, "workdir")), launcher.given(passed, "config")
    passed = [arg for arg in passed if not arg.startswith("--workdir=")]
    changes = trials.expanded(values.sweep, values.zip) if values.sweep else trials.generated(config_file.partition(":")[0])
    found = trials.trials(passed, changes, workdir)
    rungs = halving(found, values.eta) if values.halving else [(None, len(found))]
    wrapped = [*COMMANDS[values.launcher], *of_launcher, *passed]
    if LAUNCHERS[values.launcher]:
        check_fits(LAUNCHERS[values.launcher], of_launcher, values.skip_preflight or values.dry_run, passed, found)
        wrapped.insert(1, "--skip_preflight")
    if values.dry_run:
        print("\n".join(shlex.join(["python", *command(trial, wrapped, rungs[0][0])[1:]]) for trial in found))
        return
    workdir.mkdir(parents=True, exist_ok=True)
    metric, mode = values.halving or found[0].config.run.best_metric, values.mode or found[0].config.run.best_mode
    note = {"command": ["launch.sweep", *argv[1:]], "metric": metric, "mode": mode}
    (workdir / "sweep.json").write_text(json.dumps(note | {"trials": {t.directory.name: t.changes for t in found}}, indent=2) + "\n")
    jobs = [Job(trial, wrapped, metric) for trial in found]
    best_first = lambda job: (job.value is None, (job.value or 0.0) * (1 if mode == "min" else -1))
    going = jobs
    for until, keep in rungs:
        run(jobs, going[:keep], until, values.parallel or (1 if values.launcher == "local" else len(jobs)))
        going = sorted((job for job in going[:keep] if not job.failed), key=best_first)
    Console().print(table(sorted(jobs, key=best_first)))
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
        flags.DEFINE_enum("mode", None, ["min", "max"], "Which values of the metric are better; absent: as run.best_mode says.", flag_values=values)
        flags.DEFINE_enum("launcher", "local", list(LAUNCHERS), "Where the runs go.", flag_values=values)

    values, passed, others = launcher.arguments(argv, define, others=True)
    if values.launcher == "local":
        launcher.arguments(["sweep", *others], lambda values: None)  # which has no flags of its own
    return values, passed, others


def check_fits(module, of_launcher: list[str], skip: bool, passed: list[str], found: list[Trial]):
    """Reads the launcher's flags, and asks preflight of one trial of each layout, which no seed and no rate changes. Raises UserError."""
    theirs, *_ = launcher.arguments(["sweep", *of_launcher], module.define)
    same = lambda name, value: name == "seed" or (name.startswith("optimizer.") and isinstance(value, float))
    layouts = {}
    for trial in found:
        fields = {name: value for name, value in config_lib.flatten(trial.config).items() if not same(name, value)}
        layouts.setdefault(json.dumps(fields), trial)
    for trial in () if skip else layouts.values():
        module.preflight(theirs, [*passed, *trial.flags])


def halving(found: list[Trial], eta: int) -> list[tuple[int, int]]:
    """[(steps, trials), ...]: each time 1 in eta of the trials, the last time for all steps."""
    steps, rounds = found[0].config.run.steps, int(math.log(len(found), eta) + 1e-9)
    return [(max(1, steps // eta ** (rounds - r)), math.ceil(len(found) / eta**r)) for r in range(rounds + 1)]


def command(trial: Trial, wrapped: list[str], until: int | None) -> list[str]:
    """wrapped: the launcher, its flags, and the arguments that hold for all."""
    stop = [] if until in (None, trial.config.run.steps) else [f"--until={until}"]
    return [sys.executable, "-m", *wrapped, *trial.flags, f"--workdir={trial.directory}", *stop]


@dataclasses.dataclass
class Job:
    """A trial on its way. Where it stands is read from its run directory, so that another start of the sweep knows it too."""

    trial: Trial
    wrapped: list[str]
    metric: str
    process: subprocess.Popen | None = None
    failed: bool = False

    def start(self, until: int | None):
        self.trial.directory.mkdir(parents=True, exist_ok=True)
        cache = {"JAX_COMPILATION_CACHE_DIR": str((self.trial.directory.parent / "compilation_cache").absolute())}
        with open(self.trial.directory / "log.txt", "a") as log:
            # In a session of its own: Ctrl-C is ours to pass on, once.
            self.process = subprocess.Popen(
                command(self.trial, self.wrapped, until), stdout=log, stderr=subprocess.STDOUT, env=cache | os.environ, start_new_session=True
            )

    def poll(self) -> bool:
        """Whether it is still running."""
        if self.process is not None and self.process.poll() is not None:
            self.failed, self.process = self.process.returncode != 0, None
        return self.process is not None

    @property
    def step(self) -> int:
        """Of the last checkpoint."""
        return max((int(path.name) for path in (self.trial.directory / "checkpoints").glob("*") if path.name.isdigit()), default=0)

    @property
    def value(self) -> float | None:
        """Of the metric, where it was last measured."""
        lines = read_metrics(self.trial.directory / "metrics.jsonl")
        return next((line[self.metric] for line in reversed(lines) if self.metric in line), None)

    def last_words(self) -> str:
        lines = (self.trial.directory / "log.txt").read_text(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "nothing")


def run(jobs: list[Job], chosen: list[Job], until: int | None, parallel: int):
    """Brings the chosen ones to the step `until`, all of its steps by default, so many at a time. Ctrl-C lets those that run save, and stops."""
    goal = lambda job: until or job.trial.config.run.steps
    waiting = [job for job in chosen if job.step < goal(job)]
    with Live(table(jobs), refresh_per_second=2, console=Console(stderr=True)) as live:
        try:
            while waiting or any(job.poll() for job in chosen):
                while waiting and sum(job.poll() for job in chosen) < parallel:
                    waiting.pop(0).start(until)
                time.sleep(0.5)
                live.update(table(jobs))
        except KeyboardInterrupt:
            for job in chosen:
                if job.poll():
                    os.killpg(job.process.pid, signal.SIGTERM)
            while any(job.poll() for job in chosen):
                time.sleep(0.2)
            raise UserError("stopped; each run is saved. The same command goes on.") from None
        live.update(table(jobs))


def table(jobs: list[Job]) -> Table:
    """What each trial has changed, how far it is, and what it has reached."""
    fields = list(dict.fromkeys(name for job in jobs for name in job.trial.changes))
    found = Table(*fields, "step", jobs[0].metric, "")
    for job in jobs:
        steps, value = job.trial.config.run.steps, job.value
        state = "failed" if job.failed else "running" if job.process else "done" if job.step >= steps else "stopped" if job.step else "waiting"
        changed = [job.trial.changes.get(name, "") for name in fields]
        found.add_row(*changed, f"{job.step:,} of {steps:,}", "" if value is None else f"{value:.4f}", state)
    return found


if __name__ == "__main__":
    run_command(main)
