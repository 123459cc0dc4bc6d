"""Trials as processes: so many at a time, each in its run directory, all stopped when the sweep is."""

import contextlib
import dataclasses
import glob
import os
import signal
import subprocess
import sys
import threading
import time

from launch.trials import Trial
from research.core.errors import STOPPED, UserError
from research.core.metrics import read_metrics


@dataclasses.dataclass
class Job:
    """A trial on its way. Where it stands is read from its run directory, so that another start of the sweep knows it too.

    wrapped: the launcher, its flags, and the arguments that hold for all trials.
    """

    trial: Trial
    wrapped: list[str]
    metric: str
    process: subprocess.Popen | None = None
    slot: dict | None = None
    failed: bool = False
    _read: tuple = (None, [])  # (the state of metrics.jsonl, its lines) when last looked at

    def start(self, until: int | None, slot: dict):
        """slot: environment variables that say which of the devices here are its own."""
        self.trial.directory.mkdir(parents=True, exist_ok=True)
        env = {"JAX_COMPILATION_CACHE_DIR": str((self.trial.directory.parent / "compilation_cache").absolute())} | os.environ | slot
        with open(self.trial.directory / "log.txt", "a") as log:
            # In a session of its own: Ctrl-C is ours to pass on, once.
            self.process = subprocess.Popen(self.command(until), stdout=log, stderr=subprocess.STDOUT, env=env, start_new_session=True)
        self.slot = slot

    def command(self, until: int | None) -> list[str]:
        stop = [] if until in (None, self.steps) else [f"--until={until}"]
        return [sys.executable, "-m", *self.wrapped, *self.trial.flags, f"--workdir={self.trial.directory}", *stop]

    def poll(self) -> bool:
        """Whether it is still running."""
        if self.process is not None and self.process.poll() is not None:
            self.failed, self.process = self.process.returncode not in (0, STOPPED), None
        return self.process is not None

    @property
    def steps(self) -> int:
        return self.trial.config.run.steps

    @property
    def step(self) -> int:
        """Of the last checkpoint."""
        return max((int(path.name) for path in (self.trial.directory / "checkpoints").glob("*") if path.name.isdigit()), default=0)

    def value(self, at: int | None = None) -> float | None:
        """Of the metric: at that step, else where it was last measured."""
        path = self.trial.directory / "metrics.jsonl"
        if not path.exists():
            return None
        state = path.stat()
        if self._read[0] != (state.st_mtime_ns, state.st_size):
            lines = [line for line in read_metrics(path) if self.metric in line]
            self._read = (state.st_mtime_ns, state.st_size), lines
        return next((line[self.metric] for line in reversed(self._read[1]) if at in (None, line["step"])), None)

    def state(self) -> str:
        if self.failed or self.process:
            return "failed" if self.failed else "running"
        return "done" if self.step >= self.steps else "stopped" if self.step else "waiting"

    def last_words(self) -> str:
        lines = (self.trial.directory / "log.txt").read_text(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "nothing")


def slots(parallel: int, here: bool) -> list[dict]:
    """Environment variables of each of `parallel` trials that run at once: of a machine's GPUs each has its part. Raises UserError where there are too few."""
    cpu = os.environ.get("JAX_PLATFORMS") == "cpu"
    if parallel == 1 or not here or cpu:
        return [{}] * parallel
    if glob.glob("/dev/accel[0-9]*") + glob.glob("/dev/vfio/[0-9]*"):
        raise UserError(f"--parallel={parallel}: one process has all of a machine's TPUs; leave it out.")
    gpus = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    gpus = gpus or sorted(path.removeprefix("/dev/nvidia") for path in glob.glob("/dev/nvidia[0-9]*"))
    if not gpus:
        return [{}] * parallel
    if len(gpus) < parallel:
        raise UserError(f"--parallel={parallel}: there are {len(gpus)} GPUs here, and two trials cannot share one.")
    each = len(gpus) // parallel
    return [{"CUDA_VISIBLE_DEVICES": ",".join(gpus[i * each : (i + 1) * each])} for i in range(parallel)]


def run(chosen: list[Job], until: int | None, slots: list[dict], show):
    """Brings each to the step `until`, by default to its end, one a slot at a time; calls `show()` now and then. Whatever ends it, no process is left behind.

    Raises KeyboardInterrupt on Ctrl-C, SIGTERM and a closed terminal, when those that ran have saved.
    """
    waiting, free = [job for job in chosen if job.step < min(until or job.steps, job.steps)], list(slots)
    with _interrupts():
        try:
            while waiting or any(job.poll() for job in chosen):
                for job in chosen:
                    if job.slot is not None and not job.poll():
                        free.append(job.slot)
                        job.slot = None
                while waiting and free:
                    waiting.pop(0).start(until, free.pop(0))
                time.sleep(0.5)
                show()
        finally:
            for job in chosen:
                if job.poll():
                    assert job.process is not None  # as it runs
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(job.process.pid, signal.SIGTERM)
            while any(job.poll() for job in chosen):
                time.sleep(0.2)
            for job in chosen:
                job.slot = None


@contextlib.contextmanager
def _interrupts():
    """SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does; once, so that what they began is not interrupted."""
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()

    def stop(number, frame):
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
