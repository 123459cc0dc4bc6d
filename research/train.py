"""Trains what a config says: config file -> run directory.

    python -m research.train --config=configs/quickstart.py --workdir=runs/quickstart [--config.FIELD=VALUE ...] [--until=STEP]

The same command again goes on from the last checkpoint; so does --workdir alone. Ctrl-C or SIGTERM saves first; --until stops, measured and saved, at a step
before the end. Stopped otherwise the exit code is 75: to be started again. --rerun=RUN in place of --config: what a run directory holds once more, in another; says what differs from then, in code, packages, hardware and data.
"""

import contextlib
import functools
import pathlib
import sys
import time

import jax
from absl import flags

from configs import base
from research import build, measure, restore
from research.core import config as config_lib
from research.core import sharding
from research.core.errors import STOPPED, UserError, run_command
from research.core.metrics import MetricWriter, read_metrics
from research.training import loop, run_directory
from research.training.checkpoint import Checkpoints
from research.training.plots import plot_curves
from research.training.progress import Progress


def main(argv):
    config, workdir, values = arguments(argv)
    build.experiment(config)  # whatever cannot work is refused before data is fetched or the run directory touched
    run_directory.check_config(workdir, config, base.get_config())
    corpus = build.make_corpus(config, workdir)
    e = build.experiment(config, corpus.vocabulary)
    lived = build.experience(e, corpus, functools.partial(restore.judge, defaults=base.get_config()))
    source = build.training_source(e, corpus, lived)
    evaluate = measure.evaluator(e, corpus, config.data.validation_split, config.run.eval_batches, lived)
    r, speaks = config.run, jax.process_index() == 0
    with contextlib.ExitStack() as closing:
        if speaks:
            closing.enter_context(run_directory.claim(workdir))
        checkpoints = Checkpoints(workdir, r.keep, r.best_metric, r.best_mode)
        closing.callback(checkpoints.close)
        state = restore.starting_state(e, checkpoints, source)
        start = int(state.step)
        run_directory.check_data(workdir, corpus.manifest)
        if speaks:
            if values.rerun:
                tell_differences(pathlib.Path(values.rerun), config, corpus.manifest)
            labels = corpus.labels if build.tells_classes(config) else None
            run_directory.write(workdir, config, corpus.tokenizer, labels, argv, corpus.manifest)
            for name, made in corpus.manifest.items():
                if "packing_efficiency" in made:
                    print(f"{name}: {made['number_of_rows']:,} packed rows, of which {made['packing_efficiency']:.2%} is text")
        writer = MetricWriter(workdir, start, active=speaks, trackers=build.trackers(config, workdir) if speaks else ())
        closing.callback(writer.close)
        began = run_directory.first_start(workdir) if speaks else time.time()
        progress = Progress(r.steps, start, e.work(), e.unit, e.peak_flops(), last_timing(workdir), began, show=speaks)
        closing.callback(progress.close)
        closing.enter_context(e.in_force())
        state = loop.train(
            state,
            source,
            e.train_step,
            lambda batch: e.place(batch, config.data.batch_size),
            lambda state: evaluate(e.merged(state.params if state.ema is None else state.ema)),
            loop.Schedule(r.steps, r.log_every, r.eval_every, r.save_every, r.eval_first, values.until),
            checkpoints,
            writer,
            progress,
        )
        best = checkpoints.best
    if speaks:
        summarise(workdir, int(state.step), r.steps, r.best_metric, best, "match" if config.rl.experience == "self_play" else "evaluate")
    if int(state.step) < min(r.steps, values.until or r.steps):
        sys.exit(STOPPED)


def arguments(argv):
    """(config, workdir, flags): the config given, or the one that the run to be made again or the run directory holds."""

    def define(values):
        config_lib.define_distributed(values)
        flags.DEFINE_integer("until", None, "The step to stop at, for now.", lower_bound=1, flag_values=values)

    values, config = config_lib.parse_any(argv, base.get_config(), define)
    if not values.workdir:
        raise UserError("say where the run goes: --workdir=runs/NAME.")
    sharding.join_processes(values.distributed)
    workdir = pathlib.Path(values.workdir)
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir} is a file: choose another.")
    if values.rerun is not None:
        if workdir.resolve() == pathlib.Path(values.rerun).resolve():
            raise UserError(f"--rerun={values.rerun}: the run made again goes to another --workdir.")
        run_directory.starts(pathlib.Path(values.rerun))  # which can be compared with
    return config, workdir, values


def tell_differences(run: pathlib.Path, config, manifest: dict):
    found = run_directory.what_differs(run, config, base.get_config(), manifest)
    print(
        f"What differs from {run}:\n  " + "\n  ".join(found)
        if found
        else f"Nothing differs from {run}: config, code, packages, hardware and data are the same."
    )


def last_timing(workdir: pathlib.Path) -> dict[str, float]:
    """What the clock said last, over all starts of the run; {} at the beginning."""
    return (read_metrics(workdir / "timing.jsonl") or [{}])[-1]


def summarise(workdir: pathlib.Path, step: int, steps: int, metric: str, best: int | None, then: str):
    """Prints what the run reached and where everything is."""
    plots = plot_curves(workdir)
    lines = read_metrics(workdir / "metrics.jsonl")
    reached = next((line for line in reversed(lines) if any(name.startswith("validation/") for name in line)), {})
    minutes = last_timing(workdir).get("timing/seconds", 0.0) / 60
    print(
        f"\nStep {step} of {steps}"
        + (f", {minutes:.1f} minutes of training." if step == steps else ": stopped. The same command goes on from there.")
    )
    if reached:
        print(f"Measured on the validation split at step {reached['step']}:")
        for name, value in reached.items():
            if name != "step":
                print(f"  {name.removeprefix('validation/'):24} {value:8.4f}")
    if best is not None:
        print(f"Best by {metric} of the checkpoints kept: --step={best}")
    print(f"In {workdir}: metrics.jsonl, timing.jsonl, tensorboard/, checkpoints/, " + ", ".join(str(path.relative_to(workdir)) for path in plots))
    print(f"Next: python -m research.{then} --workdir={workdir}")


if __name__ == "__main__":
    run_command(main)
