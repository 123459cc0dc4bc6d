"""Our models with the weights of `transformers`' give what those gave: small directories of each family and head, written by theirs.py."""

import pathlib

import jax
import numpy as np
import pytest

from research import convert, tables
from research.core.errors import UserError
from research.interop import directory, weights
from tests.interop import ours

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
NAMES = sorted(path.name for path in FIXTURES.iterdir())


def close(found, expected, mask):
    """Equal to 1e-5 wherever there is no padding."""
    found, expected = (np.asarray(x)[mask] if mask is not None and np.shape(x)[:2] == mask.shape else np.asarray(x) for x in (found, expected))
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


def read(name):
    stored = np.load(FIXTURES / name / "expected.npz")
    return tuple({key.removeprefix(f"{kind}/"): stored[key] for key in stored if key.startswith(f"{kind}/")} for kind in ("inputs", "outputs", "hidden"))


@pytest.mark.parametrize("name", NAMES)
def test_outputs_and_every_hidden_state(name):
    inputs, outputs, hidden = read(name)
    e, params = ours.loaded(FIXTURES / name)
    found = ours.outputs(e, params, inputs)
    assert found.keys() == outputs.keys()
    for key in outputs:
        close(found[key], outputs[key], inputs.get("mask"))
    if hidden:
        for i, x in enumerate(ours.hidden_states(e, params, inputs)):
            close(x, hidden[str(i)], inputs.get("mask"))


@pytest.mark.parametrize("name", NAMES)
def test_there_and_back_is_byte_equal(name):
    """Theirs -> ours -> theirs has the same tensors, and back again ours the same bytes."""
    e, params = ours.loaded(FIXTURES / name)
    stored = directory.read_config(FIXTURES / name)
    of = tables.FAMILIES[stored["model_type"]]
    rows = of.rows(e.config.model, e.config.objective.name)
    exported = weights.export(params, rows, "")
    there = directory.Directory(FIXTURES / name, of.prefix, of.tied(stored))
    for key, x in exported.items():
        if "position_embeddings" in key and stored["model_type"] == "roberta":
            np.testing.assert_array_equal(x[2:], there.read(key)[2:])
        else:
            np.testing.assert_array_equal(x, there.read(key), strict=True)
    again = weights.load(Held(exported), rows, e.shapes.params, e.shardings.params, None)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), params, again)


class Held(dict):
    """Tensors in memory, read as those of a directory."""

    where = "memory"

    def shape(self, name):
        return self[name].shape

    def read(self, name):
        return self[name]
