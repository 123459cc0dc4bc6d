"""The loop alone, with a toy for each of its parts: the order of things is the law."""

import contextlib
import os
import signal

import numpy as np
import pytest

from research.core.errors import UserError
from research.core.types import Mean
from research.training import loop
from research.training.state import TrainState


class Recorder:
    """Plays source, step, checkpoints, writer and progress, and writes down what is called in which order."""

    def __init__(self, losses=None, norms=None, stop_at=None):
        self.log, self.losses, self.norms, self.stop_at, self.latest = [], losses or {}, norms or {}, stop_at, None

    def next(self, params):
        self.log.append("next")
        return {"valid": np.ones(1)}

    def state(self):
        return {"next": 0}

    def step(self, state, batch):
        step = int(state.step) + 1
        self.log.append(f"step {step}")
        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        one = np.float32(1)
        loss, norm = np.float32(self.losses.get(step, 0.5)), np.float32(self.norms.get(step, 1.0))
        return state._replace(step=np.int32(step)), {"loss": {"loss": Mean(loss, one)}, "gradient_norm": Mean(norm, one)}

    def evaluate(self, state):
        self.log.append(f"evaluate {state.step}")
        return {"loss": 1.0}

    def save(self, state, source_state, metrics):
        self.log.append(f"save {state.step}{' with metrics' if metrics else ''}")
        self.latest = int(state.step)

    def write(self, step, scalars):
        self.log.append(f"write {step} {next(iter(scalars))}")

    def write_timing(self, step, scalars):
        pass

    def wait(self):
        self.log.append("wait")

    def dispatched(self, batch):
        pass

    def update(self, step, metrics):
        self.log.append(f"look {step}")

    def timing(self):
        return {}

    @contextlib.contextmanager
    def pause(self, doing):
        yield


def run(recorder, start=0, steps=4, log_every=1, eval_every=2, save_every=2, eval_first=False):
    state = TrainState(np.int32(start), {}, ())
    schedule = loop.Schedule(steps, log_every, eval_every, save_every, eval_first)
    r = recorder
    return loop.train(state, r, r.step, lambda batch: batch, r.evaluate, schedule, r, r, r)


def test_the_order_is_law():
    recorder = Recorder()
    run(recorder)
    assert recorder.log == [
        *("next", "step 1"),
        *("next", "step 2", "look 1", "write 1 train/loss"),
        *("look 2", "write 2 train/loss", "evaluate 2", "write 2 validation/loss", "save 2 with metrics"),
        *("next", "step 3"),
        *("next", "step 4", "look 3", "write 3 train/loss"),
        *("look 4", "write 4 train/loss", "evaluate 4", "write 4 validation/loss", "save 4 with metrics"),
        "wait",
    ]


def test_what_a_run_begins_with_is_measured_where_that_is_asked_for():
    recorder = Recorder()
    run(recorder, eval_first=True)
    assert recorder.log[:4] == ["evaluate 0", "write 0 validation/loss", "next", "step 1"] and "save 0" not in str(recorder.log)
    recorder = Recorder()
    run(recorder, start=2, eval_first=True)
    assert recorder.log[:2] == ["next", "step 3"]


def test_going_on_repeats_nothing():
    recorder = Recorder()
    run(recorder, start=2)
    assert recorder.log[:2] == ["next", "step 3"] and "evaluate 2" not in recorder.log and "save 2" not in str(recorder.log)


def test_a_finished_run_does_nothing():
    recorder = Recorder()
    run(recorder, start=4)
    assert recorder.log == ["wait"]


def test_the_last_step_is_always_evaluated_and_saved():
    recorder = Recorder()
    run(recorder, steps=3, eval_every=100, save_every=100, log_every=100)
    assert recorder.log[-6:] == ["look 3", "write 3 train/loss", "evaluate 3", "write 3 validation/loss", "save 3 with metrics", "wait"]


@pytest.mark.parametrize(
    "losses, norms, what", [({3: np.nan}, {}, "loss is nan"), ({3: np.inf}, {}, "loss is inf"), ({}, {3: np.nan}, "gradient_norm is nan")]
)
def test_a_loss_that_is_not_finite_stops_and_names_the_step(losses, norms, what):
    recorder = Recorder(losses, norms)
    with pytest.raises(UserError, match=f"{what} at step 3: the last good checkpoint is at step 2"):
        run(recorder, save_every=2)
    assert "save 4" not in str(recorder.log) and "write 3" not in str(recorder.log)


def test_a_bad_state_is_not_saved_even_when_saving_is_due_at_once():
    recorder = Recorder({2: np.nan})
    with pytest.raises(UserError, match="at step 2: there is no checkpoint yet"):
        run(recorder)
    assert not any(entry.startswith("save") for entry in recorder.log)


def test_a_second_ctrl_c_does_not_wait(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(recorder, "next", lambda params: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)])
    with pytest.raises(KeyboardInterrupt):
        run(recorder)


def test_a_stop_signal_saves_and_returns():
    recorder, before = Recorder(stop_at=3), signal.getsignal(signal.SIGTERM)
    state = run(recorder, steps=10, eval_every=100, save_every=100)
    assert state.step == 3 and recorder.log[-3:] == ["write 3 train/loss", "save 3", "wait"]
    assert signal.getsignal(signal.SIGTERM) is before
