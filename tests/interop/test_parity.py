"""Live against `transformers` (the extra `parity`): every family and head with random weights, gradients too, and back into its own classes."""

import json
import re

import numpy as np
import pytest

from research import convert
from tests.interop import ours
from tests.interop.test_fixtures import NAMES, close

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def theirs():
    return pytest.importorskip("tests.interop.theirs", reason="the extra `parity` is not installed", exc_type=ImportError)


@pytest.fixture(scope="module", params=NAMES)
def case(request, theirs, tmp_path_factory):
    """(directory, model of transformers, inputs) of a model of other weights than the fixtures have."""
    path = tmp_path_factory.mktemp(request.param)
    found = theirs.model(request.param, seed=5)
    found.save_pretrained(path)
    return path, found, theirs.inputs_of(found, seed=5)


def test_every_case_has_a_fixture(theirs):
    assert sorted(theirs.CASES) == NAMES


def test_outputs_and_hidden_states(case, theirs):
    path, found, inputs = case
    e, params = ours.loaded(path)
    outputs, hidden = theirs.called(found, inputs)
    mine = ours.outputs(e, params, inputs)
    assert mine.keys() == outputs.keys()
    for key in outputs:
        close(mine[key], outputs[key].detach(), inputs.get("mask"))
    for x, y in zip(ours.hidden_states(e, params, inputs) if hidden else [], hidden, strict=True):
        close(x, y.detach(), inputs.get("mask"))


def test_gradients(case, theirs):
    """To 1e-4 of the greatest of each tensor, and of what is nothing but rounding, as that of a bias of keys is, to 1e-6 of the greatest of all."""
    path, found, inputs = case
    e, params = ours.loaded(path)
    expected, mine = theirs.gradients(found, inputs), ours.gradients(e, params, inputs)
    assert len(mine) > 15 and mine.keys() - expected.keys() == set()
    rounding = 1e-6 * max(abs(gradient).max() for gradient in expected.values())
    for name, gradient in mine.items():
        np.testing.assert_allclose(gradient, expected[name], atol=1e-4 * abs(expected[name]).max() + rounding, rtol=0, err_msg=name)


def test_what_is_written_loads_and_gives_the_same(case, theirs, tmp_path):
    """A directory -> a run -> a directory -> `from_pretrained`, through the commands."""
    path, found, inputs = case
    convert.main(["convert", f"--from={path}", f"--to={tmp_path}/run", "--config.mesh.rules=dp"])
    model_type = found.config.model_type
    convert.main(["convert", f"--from={tmp_path}/run", f"--to={tmp_path}/back", f"--model_type={model_type}"])
    kind = json.loads((tmp_path / "back/config.json").read_text())["architectures"][0]
    assert kind == type(found).__name__
    again, notes = getattr(theirs.transformers, kind).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not notes["unexpected_keys"] and not notes["mismatched_keys"]
    assert not [key for key in notes["missing_keys"] if not re.search("pooler|mask_token", key)]
    outputs, expected = (theirs.called(model.eval(), inputs)[0] for model in (again, found))
    assert outputs.keys() == expected.keys()
    for key in expected:
        if key != "pooled" or kind == "BertModel":  # the others' poolers have no place here
            close(outputs[key].detach(), expected[key].detach(), inputs.get("mask"))
