"""Each tiny config trains as its docstring says, and reaches what it states."""

import ast
import pathlib
import re

import numpy as np
import pytest

from configs.gpt import tiny as gpt_tiny
from research import build, measure
from research.core import metrics
from research.core.config import parse
from tests.test_quickstart import command

ROOT = pathlib.Path(__file__).parents[1]
LESS_IS_BETTER = ("loss", "perplexity", "alignment", "uniformity", "error")


def stated(path) -> dict[str, float]:
    """{metric: figure} of the lines `    metric figure (what chance gives)` in a config's docstring."""
    lines = re.findall(r"^    ([a-z]\w*) (-?[\d.]+) \(", ast.get_docstring(ast.parse(path.read_text())), re.MULTILINE)
    return {name: float(figure) for name, figure in lines}


TINY = {str(path.relative_to(ROOT)): figures for path in sorted((ROOT / "configs").rglob("*.py")) if (figures := stated(path))}

SOONEST = {  # of each way to train the one that takes least: of masked language models that is the quickstart, which has tests of its own
    "configs/contrastive/clip_tiny.py",
    "configs/gpt/tiny.py",
    "configs/rl/cartpole.py",
    "configs/rl/tic_tac_toe.py",
    "configs/vit/tiny.py",
}


def test_objectives_have_one():
    trained = {parse(["test", f"--config={name}"])[1].objective.name for name in TINY}
    assert trained >= {"causal_lm", "masked_image", "image_classification", "sequence_classification", "clip", "siglip"}


@pytest.mark.slow
@pytest.mark.parametrize("config", [pytest.param(name, marks=() if name in SOONEST else pytest.mark.long) for name in TINY])
def test_it_reaches_what_its_docstring_states(config, tmp_path):
    command("research.train", f"--config={config}", f"--workdir={tmp_path}/run")
    reached = [line for line in metrics.read_metrics(tmp_path / "run/metrics.jsonl") if any(name.startswith("validation/") for name in line)][-1]
    for name, figure in TINY[config].items():
        found = reached[f"validation/{name}"]
        assert found <= figure if name.endswith(LESS_IS_BETTER) or name.startswith("lost_to") else found >= figure, f"{name} {found}, stated {figure}"


@pytest.mark.slow
@pytest.mark.alone
def test_the_unigram_model_of_gpt_tiny_is_as_its_docstring_says(tmp_path):
    _, config = parse(["test", "--config=configs/gpt/tiny.py"])
    corpus = build.make_corpus(config, tmp_path)

    def predicted(split):
        for row in measure.validation_examples(config, corpus, split):
            segments = row["segments"]
            yield row["tokens"][1:][(segments[1:] == segments[:-1]) & (segments[1:] > 0)]

    counts = np.bincount(np.concatenate(list(predicted("train"))), minlength=config.model.vocab_size) + 1
    nats = -np.log(counts / counts.sum())[np.concatenate(list(predicted("validation")))].mean()
    assert nats == pytest.approx(float(re.search(r"unigram model of the training split ([\d.]+)", gpt_tiny.__doc__)[1]), abs=0.01)
