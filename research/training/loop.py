"""The one loop. Its order is law: evaluate, save, next batch, dispatch the step, log the step before.

The loop never waits for the step just dispatched: while the devices compute it, the host logs the one before and prepares
the next batch. A loss or gradient that is not finite stops the run, names the step, and leaves the last good checkpoint.
"""

import contextlib
import dataclasses
import math
import os
import signal
import threading
from collections.abc import Callable

import jax
from jax.experimental import multihost_utils

from research.core.errors import UserError
from research.core.metrics import MetricWriter
from research.core.types import Source
from research.training.checkpoint import Checkpoints
from research.training.evaluate import to_host
from research.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When things happen, in steps: the config's `run` group. until: where to stop for now, evaluated and saved, if before the end."""

    steps: int
    log_every: int
    eval_every: int
    save_every: int
    eval_first: bool = False
    until: int | None = None

    def due(self, every: int, step: int) -> bool:
        return self.over(step) or (step > 0 and step % every == 0)

    def over(self, step: int) -> bool:
        return step == self.steps or (self.until is not None and step >= self.until)


def train(
    state: TrainState,
    source: Source,
    train_step: Callable,  # (state, batch) -> (state, Means), compiled
    place: Callable,  # the source's rows -> global arrays
    evaluate: Callable[[TrainState], dict[str, float]],
    schedule: Schedule,
    checkpoints: Checkpoints,
    writer: MetricWriter,
    progress,
) -> TrainState:
    """Trains from `state` to `schedule.steps`, or for now to `schedule.until`. Returns the last state, earlier if the process was told to stop (SIGTERM, Ctrl-C)."""
    step = started = int(state.step)
    pending = None  # (step, Means) dispatched and not yet looked at

    def look():
        nonlocal pending
        if pending is not None:
            done, means = pending
            pending = None
            metrics = to_host(means)
            _check_finite(done, metrics, checkpoints)
            progress.update(done, metrics)
            if schedule.due(schedule.log_every, done):
                writer.write(done, {f"train/{name}": value for name, value in metrics.items()})
                writer.write_timing(done, progress.timing())

    with _stop_signals() as told_to_stop:
        while True:
            validation, stopping, moved = None, told_to_stop(step), step > started
            if (moved and schedule.due(schedule.eval_every, step)) or (schedule.eval_first and step == 0):
                look()
                with progress.pause("evaluating"):
                    validation = {f"validation/{name}": value for name, value in evaluate(state).items()}
                writer.write(step, validation)
            if moved and (schedule.due(schedule.save_every, step) or stopping):
                look()  # only a state whose loss was finite is saved
                with progress.pause("saving"):
                    checkpoints.save(state, source.state(), validation)
            if schedule.over(step) or stopping:
                break
            batch = place(source.next(state.params))
            state, means = train_step(state, batch)
            progress.dispatched(batch)
            step += 1
            look()
            pending = (step, means)
    checkpoints.wait()
    return state


def _check_finite(step: int, metrics: dict[str, float], checkpoints: Checkpoints):
    for name in ("loss", "gradient_norm"):
        if not math.isfinite(metrics[name]):
            checkpoints.wait()
            last = f"the last good checkpoint is at step {checkpoints.latest}" if checkpoints.latest else "there is no checkpoint yet"
            raise UserError(
                f"{name} is {metrics[name]} at step {step}: {last}. In another --workdir, lower optimizer.learning_rate or set optimizer.clip_norm."
            )


@contextlib.contextmanager
def _stop_signals():
    """Gives a function step -> whether to stop, which says yes once SIGTERM or Ctrl-C came: the loop then saves and returns.

    Of several processes each may be told at another step; JAX's preemption service makes them agree on one.
    """
    if jax.process_count() > 1:
        before = signal.signal(signal.SIGINT, lambda *_: os.kill(os.getpid(), signal.SIGTERM))  # which the service listens for
        try:
            yield multihost_utils.reached_preemption_sync_point
        finally:
            signal.signal(signal.SIGINT, before)
        return
    told = threading.Event()

    def stop(number, _):
        if told.is_set() and number == signal.SIGINT:  # whoever asks twice does not want to wait
            raise KeyboardInterrupt
        told.set()

    numbers = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield lambda step: told.is_set()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
