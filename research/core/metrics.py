"""What a run writes about itself: metrics.jsonl, timing.jsonl and TensorBoard."""

import json
import pathlib
import time

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2, summary_pb2

from research.core.files import write_atomically


class MetricWriter:
    """Writes each scalar to `metrics.jsonl` (one object a line: `step`, then names) and to TensorBoard.

    What was measured goes to metrics.jsonl, which is the same figure for figure each time a run is made; what the clock said goes to
    timing.jsonl. A run that goes on from step s first drops the lines after s, which it will write again. `trackers` are told all of it too.
    """

    def __init__(self, workdir: pathlib.Path, resume_step: int, active: bool = True, trackers=()):
        self._active, self._trackers = active, trackers  # one process of a run writes
        if not active:
            return
        for name in ("metrics.jsonl", "timing.jsonl"):
            drop_lines_after(workdir / name, resume_step)
        self._metrics = open(workdir / "metrics.jsonl", "a", buffering=1)
        self._timing = open(workdir / "timing.jsonl", "a", buffering=1)
        # Written at once and not by tensorboardX's thread, which a full disk would end with the run none the wiser.
        (workdir / "tensorboard").mkdir(exist_ok=True)
        self._tensorboard = EventsWriter(str(workdir / "tensorboard" / "events"))
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)  # TensorBoard forgets what came after this step
        self._tensorboard.write_event(event_pb2.Event(wall_time=time.time(), step=resume_step + 1, session_log=start))

    def write(self, step: int, scalars: dict[str, float]):
        if self._active:
            self._write(self._metrics, step, scalars)

    def write_timing(self, step: int, scalars: dict[str, float]):
        if self._active:
            self._write(self._timing, step, scalars)

    def _write(self, file, step, scalars):
        file.write(json.dumps({"step": step} | scalars) + "\n")
        values = [summary_pb2.Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._tensorboard.write_event(event_pb2.Event(wall_time=time.time(), step=step, summary=summary_pb2.Summary(value=values)))
        self._tensorboard.flush()
        for tracker in self._trackers:
            tracker.write(step, scalars)

    def close(self):
        if not self._active:
            return
        self._metrics.close()
        self._timing.close()
        self._tensorboard.close()
        for tracker in self._trackers:
            tracker.close()


def read_metrics(path: pathlib.Path) -> list[dict[str, float]]:
    """The lines of a metrics.jsonl; a last line cut short by a kill is left out."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def drop_lines_after(path: pathlib.Path, step: int):
    kept = [line for line in read_metrics(path) if line["step"] <= step]
    if path.exists():
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept))
