"""The quickstart as the README gives it, held to the figures its docstring states, loosely."""

import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from configs import quickstart
from research import build, measure
from research.core import metrics
from research.core.config import parse
from research.data import sources

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = "--config=configs/quickstart.py"


def command(*arguments, **environment):
    env = os.environ | {"XLA_FLAGS": ""} | environment
    return subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, env=env, check=True, capture_output=True, text=True).stdout


def last(workdir):
    return [line for line in metrics.read_metrics(workdir / "metrics.jsonl") if "validation/loss" in line][-1]


def stated(name) -> float:
    """The figure that the config's docstring states."""
    return float(re.search(rf"{name} ([\d.]+)", quickstart.__doc__)[1])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The real thing, with the data in the user's own cache."""
    workdir = tmp_path_factory.mktemp("runs") / "quickstart"
    return workdir, command("research.train", CONFIG, f"--workdir={workdir}")


def most_common_token_accuracy(workdir) -> float:
    """How often the most common hidden token is the right guess, on the validation pairs as evaluation masks them."""
    _, config = parse(["test", CONFIG])
    corpus = build.make_corpus(config, workdir)
    objective = build.objective(config, corpus.vocabulary)
    hidden = []
    examples = measure.validation_examples(config, corpus, config.data.validation_split)
    for batch in sources.batches_of(examples, 64, list(range(64)), None):
        _, positions, chosen = jax.device_get(objective.hide(batch["tokens"], jax.random.key(0)))
        labels = np.take_along_axis(batch["tokens"], positions, axis=1)
        hidden.append(labels[chosen & batch["valid"][:, None]])
    return np.bincount(np.concatenate(hidden)).max() / len(np.concatenate(hidden))


@pytest.mark.slow
@pytest.mark.alone
def test_it_reaches_what_its_docstring_states(run):
    workdir, printed = run
    reached = last(workdir)
    assert reached["step"] == parse(["test", CONFIG])[1].run.steps
    assert reached["validation/masked_accuracy"] == pytest.approx(stated("masked accuracy"), abs=0.03)
    assert reached["validation/next_sentence_accuracy"] == pytest.approx(stated("next-sentence accuracy"), abs=0.08)
    baseline = most_common_token_accuracy(workdir)
    assert baseline == pytest.approx(stated("most common token"), abs=0.01)
    assert reached["validation/masked_accuracy"] > 3 * baseline
    assert reached["validation/next_sentence_accuracy"] > 0.6
    assert "validation split" in printed


@pytest.mark.slow
@pytest.mark.alone
def test_its_checkpoint_reads_and_predicts(run):
    workdir, _ = run
    assert json.loads(command("research.evaluate", f"--workdir={workdir}")) == last(workdir)
    fills = command("research.predict", f"--workdir={workdir}", "--text=London is the [MASK] of England.")
    assert len(fills.split("  ")) == 5


@pytest.mark.slow
@pytest.mark.alone
def test_eight_devices_reach_the_same_losses(tmp_path):
    """The first steps side by side: later ones part as any two orders of summation do."""
    short = ["--config.run.steps=20", "--config.run.log_every=1", "--config.optimizer.warmup_steps=5", "--config.optimizer.decay_steps=5"]
    eight = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    command("research.train", CONFIG, f"--workdir={tmp_path}/run", "--config.mesh.fsdp=4", "--config.mesh.tensor=2", *short, **eight)
    command("research.train", CONFIG, f"--workdir={tmp_path}/one", *short)
    one, eight = (metrics.read_metrics(tmp_path / name / "metrics.jsonl") for name in ("one", "run"))
    assert last(tmp_path / "run")["validation/loss"] == pytest.approx(last(tmp_path / "one")["validation/loss"], rel=1e-3)
    for a, b in zip(one, eight, strict=True):
        assert a["step"] == b["step"] and all(b[name] == pytest.approx(value, rel=1e-3) for name, value in a.items() if name.endswith("loss"))
