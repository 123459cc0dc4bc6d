"""How pipelines run: Apache Beam on this machine's processors, or wherever its options say, with a progress bar and errors in one line."""

import argparse
import contextlib
import io
import logging
import pathlib
import shlex
import sys
import threading
from collections.abc import Callable, Iterator

from tqdm import tqdm

from research.core.errors import UserError, disk_full, is_disk_full
from research.core.files import write_atomically
from research.curation.beam import FnApiRunner, PipelineOptions, PortableRunner, StandardOptions, SubprocessSDKEnvironment, beam, create_runner

EVERY = 0.2  # seconds between two looks at how far it is
GRACE = 10  # seconds for the other workers to end what they do
GONE = "a worker was killed, as a rule for want of memory: give fewer --workers, or a smaller input.part_size; what is done is kept."
ERROR = "error.txt"  # in the folder of a pipeline: what the user did wrong, since Beam makes of any exception one of its own


class Engine:
    """Runs Beam pipelines whose tasks are numbered and leave a file each in a folder that all workers see.

    Args:
      workers: processes on this machine, where `options` name no runner.
      options: of Beam, "--runner=DataflowRunner" and so on.
    """

    def __init__(self, workers: int, options: list[str]):
        self._workers, self._options = workers, options
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)  # of an error each worker would print all it knows
        _check(options)

    def each(self, task: Callable[[int], None], folder: pathlib.Path, tasks: int, what: str):
        """Calls `task(n)` for each n of `tasks` whose file NNNNN.json is not in `folder` yet, which it leaves there.

        Raises UserError where a task did, the disk is full, or a worker is gone.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ERROR).unlink(missing_ok=True)
        waiting = [n for n in range(tasks) if not done(folder, n).exists()]
        if not waiting:
            return
        workers = min(self._workers, len(waiting))  # each takes seconds to start
        raised: list[Exception] = []

        def run():
            try:
                options = PipelineOptions(["--auto_unique_labels", f"--direct_num_workers={workers}", *self._options])
                with beam.Pipeline(self._runner(workers, folder), options) as p:
                    _ = p | "Numbers" >> beam.Create(waiting) | "Task" >> beam.Map(task)  # Create spreads them over the workers
            except Exception as e:
                raised.append(e)

        thread = threading.Thread(target=run, daemon=True)  # Beam waits for ever for a worker that is gone; this process does not wait for Beam then
        thread.start()
        with tqdm(total=tasks, desc=what, unit=" parts", delay=1) as bar:
            while thread.is_alive() and not told(folder):
                thread.join(EVERY)
                if now := sum(1 for _ in folder.glob("[0-9]*.json")) - bar.n:
                    bar.update(now)
        if error := told(folder):
            thread.join(GRACE)
            raise UserError(error) from next(iter(raised), None)
        if raised:
            raise raised[0]

    def _runner(self, workers: int, folder: pathlib.Path) -> FnApiRunner | None:
        """Beam's runner of this machine, in this process or with workers; None: the one that the options name.

        What workers raise comes back by Beam, which would wait for ever for one that is gone: of that its shell tells.
        """
        if any(option.startswith("--runner") for option in self._options):
            return None
        if workers == 1:
            return FnApiRunner()
        worker = f"{shlex.quote(sys.executable)} -m apache_beam.runners.worker.sdk_worker_main 2> /dev/null"
        return FnApiRunner(SubprocessSDKEnvironment.from_command_string(f"{worker} || echo {shlex.quote(GONE)} > {shlex.quote(str(folder / ERROR))}"))


def _check(options: list[str]):
    """Raises UserError for a runner that there is not, a wrong value, and an option that Beam would pass over."""
    said, parsers = io.StringIO(), list[argparse.ArgumentParser]()
    try:
        with contextlib.redirect_stderr(said):
            parsed = PipelineOptions(options)
            parsed.get_all_options(add_extra_args_fn=parsers.append)
            _, unknown = parsers[0].parse_known_args(options)
            named = parsed.view_as(StandardOptions).runner
        runner = create_runner(named) if named else None
    except SystemExit as e:  # with which argparse ends, having said how all options are used
        raise UserError(f"--beam: {said.getvalue().strip().rpartition('error: ')[2]}.") from e
    except (ValueError, ImportError) as e:
        raise UserError(f"--beam=--runner={named}: {e}") from e
    if unknown and not isinstance(runner, PortableRunner):  # of which the server that it sends its jobs to knows others
        raise UserError(f"--beam: Beam knows no option {', '.join(unknown)}: give those of its runner, each as --beam=--OPTION=VALUE.")


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


def told(folder: pathlib.Path) -> str:
    """What a task of the pipeline of a folder has to say to the user; "" as long as nothing."""
    return (folder / ERROR).read_text() if (folder / ERROR).exists() else ""
