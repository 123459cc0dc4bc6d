"""How pipelines run: Apache Beam on this machine's processors, or wherever its options say, with a progress bar and errors in one line."""

import contextlib
import logging
import pathlib
import shlex
import sys
import threading
from collections.abc import Callable, Iterator

from tqdm import tqdm

from research.core.errors import UserError, disk_full, is_disk_full
from research.core.files import write_atomically
from research.curation.beam import FnApiRunner, PipelineOptions, SubprocessSDKEnvironment, beam

EVERY = 0.2  # seconds between two looks at how far it is
ERROR = "error.txt"  # in the folder of a pipeline: what the user did wrong, since Beam makes of any exception one of its own


class Engine:
    """Runs Beam pipelines whose tasks are numbered and leave a file each in a folder that all workers see.

    Args:
      workers: processes on this machine, where `options` name no runner.
      options: of Beam, "--runner=DataflowRunner" and so on.
    """

    def __init__(self, workers: int, options: list[str]):
        self._workers, self._options = workers, options

    def each(self, task: Callable[[int], None], folder: pathlib.Path, tasks: int, what: str):
        """Calls `task(n)` for each n of `tasks` whose file NNNNN.json is not in `folder` yet, which it leaves there."""
        waiting = [n for n in range(tasks) if not done(folder, n).exists()]
        if waiting:
            self.run(lambda numbers: numbers | "Task" >> beam.Map(task), folder, waiting, tasks, what)

    def run(self, pipeline: Callable, folder: pathlib.Path, waiting: list[int], tasks: int, what: str):
        """Runs `pipeline(a PCollection of the numbers)`. Raises UserError where a task did, or the disk is full."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ERROR).unlink(missing_ok=True)
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)  # of an error each worker would print all it knows
        with _bar(folder, tasks, what):
            try:
                workers = min(self._workers, len(waiting))  # each takes seconds to start
                options = PipelineOptions(["--auto_unique_labels", f"--direct_num_workers={workers}", *self._options])
                with beam.Pipeline(self._runner(workers), options) as p:
                    pipeline(p | "Numbers" >> beam.Create(waiting) | beam.Reshuffle())
            except Exception as e:
                if (folder / ERROR).exists() and (folder / ERROR).stat().st_size:
                    raise UserError((folder / ERROR).read_text()) from e
                raise

    def _runner(self, workers: int) -> FnApiRunner | None:
        """Beam's runner of this machine, in this process or with workers, whose errors come back by Beam; None: the one that the options name."""
        if any(option.startswith("--runner") for option in self._options):
            return None
        if workers == 1:
            return FnApiRunner()
        worker = f"{shlex.quote(sys.executable)} -m apache_beam.runners.worker.sdk_worker_main 2> /dev/null"
        return FnApiRunner(SubprocessSDKEnvironment.from_command_string(worker))


@contextlib.contextmanager
def reporting(folder: pathlib.Path) -> Iterator[None]:
    """In a worker: what the user can mend is written down for the one who waits."""
    try:
        yield
    except UserError as e:
        write_atomically(folder / ERROR, str(e))
        raise
    except Exception as e:
        if is_disk_full(e):
            (folder / ERROR).write_text(disk_full(getattr(e, "filename", None)))
        raise


def done(folder: pathlib.Path, n: int) -> pathlib.Path:
    """The file that says that task `n` is done."""
    return folder / f"{n:05}.json"


@contextlib.contextmanager
def _bar(folder: pathlib.Path, tasks: int, what: str) -> Iterator[None]:
    stop = threading.Event()

    def watch():
        with tqdm(total=tasks, desc=what, unit=" parts", delay=1) as bar:
            while True:
                last = stop.wait(EVERY)
                if now := sum(1 for _ in folder.glob("[0-9]*.json")) - bar.n:
                    bar.update(now)
                if last:
                    return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
