"""What the clock says of a run, by a clock of our own."""

import pytest

from research.training import progress
from research.training.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """[seconds]: moved by hand."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(progress.time, "time", lambda: now[0])
    return now


def start(before, began=1000.0):
    return Progress(100, 0, lambda batch: (50.0, 10.0), "tokens", 100.0, before, began, show=False)


def steps(bar, clock, n, seconds):
    for _ in range(n):
        bar.dispatched(None)
        clock[0] += seconds
        bar.update(0, {"loss": 1.0})


def test_speed_and_goodput_leave_out_what_is_not_training(clock):
    bar = start({})
    with bar.pause("evaluating"):
        clock[0] += 2
    clock[0] += 4  # starting and compiling
    steps(bar, clock, 4, 0.5)
    with bar.pause("saving"):
        clock[0] += 2
    found = bar.timing()
    assert found["timing/tokens_per_second"] == pytest.approx(4 * 50 / 2) and found["timing/model_flop_utilization"] == pytest.approx(
        4 * 10 / 2 / 100
    )
    assert found["timing/seconds"] == pytest.approx(4) and found["timing/productive_seconds"] == pytest.approx(2)
    assert found["timing/goodput"] == pytest.approx(2 / 10)
    steps(bar, clock, 10, 1.0)
    assert bar.timing()["timing/goodput"] == pytest.approx(12 / 20)


def test_steps_done_again_do_not_count(clock):
    """The first start was killed at second 60, of which the line of its last checkpoint counts 20; the second begins at 80."""
    clock[0] = 1080.0
    bar = start({"timing/seconds": 25.0, "timing/productive_seconds": 20.0})
    steps(bar, clock, 10, 2.0)
    found = bar.timing()
    assert found["timing/goodput"] == pytest.approx((20 + 20) / 100) and found["timing/seconds"] == pytest.approx(45)
