"""The progress bar of a run, and what the clock says of it."""

import contextlib
import sys
import time

from tqdm import tqdm

BAR = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


class Progress:
    """Shows step, loss, speed, model-FLOP utilization and time left.

    Args:
      steps: of the whole run. start: where this process begins.
      work: a function batch -> (units, model FLOPs) of a step on it, such as (tokens, FLOPs).
      unit: what the units are, such as "tokens".
      peak: FLOP/s of all devices at best, None if not known.
      before: the last line of timing.jsonl, by earlier starts of the run; {} of a new one.
      began: when the run was first started, in seconds of Unix time.
      show: False in all processes but one.
    """

    def __init__(self, steps: int, start: int, work, unit: str, peak: float | None, before: dict, began: float, show: bool = True):
        self._work, self._unit, self._peak = work, unit, peak
        self._bar = tqdm(
            total=steps,
            initial=start,
            desc="training",
            unit="step",
            disable=not show,
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 20,
            file=sys.stderr,
            bar_format=BAR,
        )
        self._in_flight: list[tuple[int, float]] = []
        self._begun: float | None = None
        self._window: float | None = None
        self._seconds_before = before.get("timing/seconds", 0.0)
        self._productive = before.get("timing/productive_seconds", 0.0)
        self._since = began
        self._units = self._flops = self._paused = 0.0
        self._shown: dict[str, str] = {}

    def dispatched(self, batch):
        """A step on `batch` has been sent to the devices."""
        self._in_flight.append(self._work(batch))
        if self._window is None:  # the first dispatch returns when the step has been compiled
            self._begun = self._window = time.perf_counter()

    def update(self, step: int, metrics: dict[str, float]):
        """The oldest step in flight is done."""
        units, flops = self._in_flight.pop(0)
        self._units += units
        self._flops += flops
        self._bar.set_postfix({"loss": f"{metrics['loss']:.3f}"} | self._shown, refresh=False)
        self._bar.update(step - self._bar.n)

    def timing(self) -> dict[str, float]:
        """Speeds since the last call, and over all starts: the seconds since the first step, those of them that went into steps which count, and their share of all
        time since the run was first started (goodput: what starting, compiling, evaluating, saving, standing still and steps done again leave)."""
        assert self._begun is not None and self._window is not None  # a step has been dispatched
        productive = time.perf_counter() - self._window - self._paused
        self._productive += productive
        speeds = self._speeds(productive)
        self._shown = {f"{self._unit}/s": f"{speeds[f'{self._unit}_per_second']:,.0f}"}
        if self._peak:
            self._shown["MFU"] = f"{speeds['model_flop_utilization']:.0%}"
        self._window, self._units, self._flops, self._paused = time.perf_counter(), 0.0, 0.0, 0.0
        spent = {
            "seconds": self._seconds_before + self._window - self._begun,
            "productive_seconds": self._productive,
            "goodput": self._productive / max(time.time() - self._since, self._productive),
        }
        return {f"timing/{name}": value for name, value in (speeds | spent).items()}

    @contextlib.contextmanager
    def pause(self, doing: str):
        """Time spent within does not count as training."""
        start = time.perf_counter()
        self._bar.set_description(doing)
        yield
        self._bar.set_description("training")
        if self._window is not None:  # before the first step nothing counts as training
            self._paused += time.perf_counter() - start

    def close(self):
        self._bar.close()

    def _speeds(self, seconds: float) -> dict[str, float]:
        speeds = {f"{self._unit}_per_second": self._units / seconds}
        return speeds | ({"model_flop_utilization": self._flops / seconds / self._peak} if self._peak else {})
