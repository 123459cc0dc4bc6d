"""A paper's own project, tests/outside: it trains from its own directory, and what it imports is typed."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from research.core.metrics import read_metrics

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path):
    return pathlib.Path(shutil.copytree(ROOT / "tests/outside", tmp_path / "project"))


def run(project, *arguments, **environment):
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=project, env=os.environ | environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_it_trains_from_its_own_directory(project, cache):
    """On eight devices, over which its model and its objective are split by the names of their axes."""
    code, said = run(project, "research.train", "--config=configs/tiny.py", "--workdir=runs/tiny", "--config.mesh.fsdp=4", "--config.mesh.tensor=2")
    assert code == 0, said
    reached = read_metrics(project / "runs/tiny/metrics.jsonl")[-1]
    assert reached["validation/next_token_accuracy"] >= 0.5 and reached["validation/unlikelihood_loss"] > 0
    code, said = run(project, "research.evaluate", "--workdir=runs/tiny")
    assert code == 0 and json.loads(said.splitlines()[-1])["validation/likelihood_loss"] == pytest.approx(
        reached["validation/likelihood_loss"], rel=1e-4
    )


@pytest.mark.slow
def test_types_of_the_package_and_of_what_imports_it_are_checked(project):
    code, said = run(ROOT, "mypy")
    assert code == 0, said
    code, said = run(project, "mypy", MYPYPATH=str(ROOT))  # as if the package were installed: an editable one's finder is not asked
    assert code == 0, said
    module = project / "paper/unlikelihood.py"
    module.write_text(module.read_text().replace("return linen.init(self.model, rng,", "return linen.init(rng, self.model,"))
    code, said = run(project, "mypy", MYPYPATH=str(ROOT))
    assert code == 1 and "arg-type" in said, "a wrong call of ours is seen from outside"
