"""A pretrained run taken into a supervised one: a new head, frozen parameters, low-rank updates."""

import json
import pathlib

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from research import evaluate, train
from research.core import metrics
from research.core.sharding import path_name
from tests.test_train import MESH, TINY, call, error

CLASSIFY = ["--config.objective.name=sequence_classification", "--config.data.source=labelled_text", "--config.data.name=tests.tiny_text:TinyTopics"]
NEW = "--config.init.allow_new=^(head|masked_lm|next_sentence)/"


def leaves(workdir: pathlib.Path, item="params"):
    """{path: array} of what the last checkpoint of a run holds."""
    last = max((path for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    tree = ocp.StandardCheckpointer().restore(last.absolute() / item)
    return {path_name(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def validation(workdir: pathlib.Path):
    return metrics.read_metrics(workdir / "metrics.jsonl")[-1]


@pytest.fixture(scope="module")
def pretrained(cache, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "pretrained"
    call(train, "--config=tests/tiny.py:3", *MESH, f"--workdir={workdir}")
    return workdir


@pytest.fixture(scope="module")
def adapted(pretrained):
    """Low-rank updates and a new head, on eight devices, with everything that could touch the base."""
    workdir = pretrained.parent / "adapted"
    trained = ["--config.lora.rank=2", "--config.lora.alpha=8.0", "--config.lora.trained=^head/", "--config.optimizer.ema_decay=0.5"]
    call(train, TINY, *MESH, *CLASSIFY, *trained, NEW, f"--config.init.from={pretrained}", "--config.optimizer.accumulate=2", f"--workdir={workdir}")
    return workdir


@pytest.mark.slow
def test_a_new_head_on_frozen_layers(pretrained, tmp_path):
    start = [TINY, *MESH, *CLASSIFY, f"--config.init.from={pretrained}", f"--workdir={tmp_path}/run", "--config.optimizer.weight_decay=0.1"]
    assert "head/out/bias is missing there" in error(train, *start)
    assert "masked_lm/bias is float32[64] there, not in this model" in error(train, *start, "--config.init.allow_new=^head/")
    assert "init.allow_new '^top/' matches no parameter, here or there" in error(train, *start, "--config.init.allow_new=^top/")
    call(train, *start, NEW, "--config.optimizer.frozen=^(word|position|encoder/blocks/attention)/")
    before, after = leaves(pretrained), leaves(tmp_path / "run")
    frozen = [name for name in after if name.startswith(("word/", "position/", "encoder/blocks/attention/"))]
    assert len(frozen) == 10
    for name in after.keys() - {"head/out/kernel", "head/out/bias"}:
        assert (before[name].tobytes() == after[name].tobytes()) == (name in frozen), name
    assert not [name for name in leaves(tmp_path / "run", "optimizer") if any(name.endswith(other) for other in frozen)]


def test_low_rank_updates_leave_the_base_as_it_was(pretrained, adapted):
    before = leaves(pretrained)
    for item in ("params", "ema"):
        after = leaves(adapted, item)
        assert {name.split("/")[0] for name in after} == {"base", "lora"}
        for name in before.keys() & {name.removeprefix("base/") for name in after}:
            assert before[name].tobytes() == after[f"base/{name}"].tobytes(), name
        assert np.any(after["lora/encoder/blocks/attention/query/kernel/b"]) and np.any(after["base/head/out/bias"])
    moments = {name for name in leaves(adapted, "optimizer") if "/base/" in name}
    assert moments and all("/base/head/" in name for name in moments)


def test_an_adapted_run_is_evaluated_like_any_other(adapted):
    assert json.loads(call(evaluate, f"--workdir={adapted}")) == validation(adapted)


@pytest.mark.slow
def test_a_run_starts_from_the_merged_parameters_of_an_adapted_one(adapted, tmp_path):
    start = ["--config=tests/tiny.py:1", *MESH, *CLASSIFY, f"--config.init.from={adapted}", "--config.optimizer.learning_rate=1e-12"]
    call(train, *start, "--config.lora.rank=3", "--config.optimizer.warmup_steps=0", f"--workdir={tmp_path}/run")
    loss = "validation/loss"
    assert validation(tmp_path / "run")[loss] == pytest.approx(validation(adapted)[loss], rel=1e-5)
    kernel = "encoder/blocks/attention/query/kernel"
    here, there = leaves(tmp_path / "run")[f"base/{kernel}"], leaves(adapted, "ema")
    update = 8 / 2 * np.einsum("ldr,lrhk->ldhk", *(there[f"lora/{kernel}/{x}"] for x in "ab"))
    np.testing.assert_allclose(here, there[f"base/{kernel}"] + update, rtol=1e-4, atol=1e-6)
    assert abs(update).max() > 1e-4


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--config.optimizer.frozen=^top/"], "optimizer.frozen '^top/' matches no parameter"),
        (["--config.optimizer.frozen=."], "optimizer.frozen '.' freezes every parameter"),
        (["--config.optimizer.frozen=("], "optimizer.frozen is '(', which is no regular expression"),
        (["--config.optimizer.layer_decay=1.5"], "optimizer.layer_decay is 1.5: it must lie between 0 and 1"),
        (["--config.lora.rank=0"], "lora.rank is 0: it must be at least 1"),
        (["--config.lora.rank=2", "--config.lora.pattern=attn"], "lora.pattern 'attn' matches no parameter"),
        (["--config.lora.rank=2", "--config.lora.pattern=query/"], "matches encoder/blocks/attention/query/bias, which is no kernel"),
        (["--config.lora.rank=2", "--config.lora.trained=^head/"], "lora.trained '^head/' matches no parameter"),
        (["--config.lora.rank=2", "--config.optimizer.frozen=^lora/"], "freezes every parameter"),
    ],
)
def test_what_cannot_be_trained_is_refused(tmp_path, flags, message):
    assert message in error(train, TINY, *MESH, *flags, f"--workdir={tmp_path}/run")
    assert not (tmp_path / "run").exists()
