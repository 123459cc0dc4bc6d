"""Every config builds, without data and without memory."""

import ast
import pathlib
import re
import subprocess
import sys

import jax
import pytest

from configs import base
from configs.bert import finetune_sentiment
from research import build
from research.core import config as config_lib
from research.core.errors import UserError
from research.core.sharding import MESH_AXES

ROOT = pathlib.Path(__file__).parents[1]
CONFIGS = [path for path in sorted((ROOT / "configs").rglob("*.py")) if path.parent.name != "data"]  # where recipes are: tests/test_prepare.py

# Millions of parameters as published; of the heads only what the papers count.
PUBLISHED = {
    "bert/base.py": 110,
    "bert/large.py": 336,  # the paper rounds to 340
    "gpt/small.py": 124,
    "gpt/medium.py": 355,
    "gpt/large.py": 774,
    "gpt/xl.py": 1558,
    "gpt/modern.py": 134.5,
    "vit/s16.py": 22.0,
    "vit/b16.py": 86.6,
    "vit/b16.py:Ti/16": 5.7,
    "vit/b16.py:H/14": 632,
    "vit/b16.py:So400m/14": 429,  # 428 and the head
    "vit/l16.py": 304.3,
} | {
    f"gpt/gpt3.py:{size}": millions
    for size, millions in (
        ("125m", 125), ("350m", 356), ("760m", 760), ("1.3b", 1316), ("2.7b", 2650), ("6.7b", 6660), ("13b", 12850), ("175b", 174_600),
    )
}
BUILT = [str(path.relative_to(ROOT / "configs")) for path in CONFIGS] + [name for name in PUBLISHED if name.startswith("vit/") and ":" in name]
BUILT += [f"bert/finetune_sentiment.py:{way}" for way in finetune_sentiment.WAYS]


def load(name, *overrides):
    return config_lib.parse(["test", f"--config={ROOT / 'configs'}/{name}", *overrides])[1]


@pytest.mark.parametrize("name", PUBLISHED)
def test_models_have_the_published_number_of_parameters(name):
    objective = build.objective(load(name))
    shapes = jax.eval_shape(objective.init, jax.random.key(0))
    shapes = {key: leaf for key, leaf in shapes.items() if key not in ("masked_lm", "next_sentence")}
    assert sum(x.size for x in jax.tree.leaves(shapes)) / 1e6 == pytest.approx(PUBLISHED[name], rel=5e-3)


@pytest.mark.short
@pytest.mark.parametrize("name", BUILT)
def test_every_config_builds(name):
    one_device = [f"--config.mesh.{axis}=1" for axis in MESH_AXES]  # some are laid out for a pod
    config = load(name, *one_device)
    e = build.experiment(config, devices=jax.devices()[:1])
    state, means = jax.eval_shape(e.train_step, e.shapes, e.objective.example_batch)
    assert jax.tree.map(lambda a, b: a.shape == b.shape and a.dtype == b.dtype or pytest.fail(f"{a} {b}"), state, e.shapes)
    assert means["loss"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_config_says_what_it_is_and_how_to_run_it(path):
    doc = ast.get_docstring(ast.parse(path.read_text()))
    assert doc
    if path.name != "base.py" or path.parent.name != "configs":
        assert f"--config={path.relative_to(ROOT)}" in doc and "python -m research.train" in doc


def test_reading_a_config_leaves_jax_alone():
    """Processes join their job, and preflight says what devices there are, before JAX is first used."""
    names = ", ".join(f"'{name}'" for name in BUILT if not name.startswith("base"))
    code = f"""
from jax._src import xla_bridge
from research import build
from tests.test_configs import load
for name in [{names}]:
    load(name)
    assert not xla_bridge.backends_are_initialized(), name
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_every_field_of_the_base_has_a_comment():
    lines = [line for line in (ROOT / "configs/base.py").read_text().splitlines() if line.strip().startswith(("c.", "m.")) and "ConfigDict()" not in line]
    assert len(lines) > 50 and [line for line in lines if "#" not in line and not line.rstrip().endswith("(")] == []


def test_every_field_of_the_base_is_read_somewhere():
    source = "\n".join(path.read_text() for path in (ROOT / "research").rglob("*.py"))
    called = {"data": "d", "optimizer": "o|config|c", "run": "r", "model": "c|config|self|group", "mesh": "mesh", "init": "init", "objective": "self", "probe": "p|probe|settings"}

    def is_read(name):
        name = re.sub(r"^model\.(first|second)\.", "model.", name)  # a tower is a model
        group, _, field = name.rpartition(".")
        return re.search(rf'\b({group}|{called.get(group, "c|config")})\.{field}\b|\b{name}\b|"{field}"|^    {field}: ', source, re.MULTILINE)  # or filled by from_fields

    assert [name for name in config_lib.flatten(base.get_config()) if not is_read(name)] == []
    assert not is_read("run.breadth") and not is_read("data.furrow")


def test_nothing_asks_a_config_for_a_field_that_may_not_be_there():
    asked = [
        (path.name, call.lineno)
        for path in (ROOT / "research").rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "get" and len(call.args) > 1
        if re.match(r"(config|cfg|[cdor])\b", ast.unparse(call.func.value))
    ]
    assert asked == []


@pytest.mark.parametrize(
    "name, field, message",
    [
        ("gpt/tiny.py", "data.eda_alpha=0.1", "config.data.eda_alpha is 0.1, of which data.source=packed_text knows nothing: labelled_text, text_pairs, text_views do"),
        ("gpt/tiny.py", "data.augmix_severity=3.0", "config.data.augmix_severity is 3.0, of which data.source=packed_text knows nothing"),
        ("vit/tiny.py", "data.span_corruption=0.2", "config.data.span_corruption is 0.2, of which data.source=labelled_images knows nothing"),
    ],
)
def test_an_augmentation_that_nothing_does_is_refused(name, field, message):
    with pytest.raises(UserError, match=message):
        build.experiment(load(name, f"--config.{field}"))
