"""Live against `transformers` (the extra `parity`): every family and head with random weights, gradients too, and back into its own classes."""

import json
import re

import numpy as np
import pytest

from research import convert, train
from research.data.text_inputs import text_inputs
from research.data.tokenizer import vocabulary
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
        close(mine[key], outputs[key].detach(), ours.mask(inputs))
    for x, y in zip(ours.hidden_states(e, params, inputs), hidden, strict=True):
        close(x, y.detach(), ours.mask(inputs))


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
            close(outputs[key].detach(), expected[key].detach(), ours.mask(inputs))


TRAINED = {  # class -> what of tests/tiny.py is changed
    "BertForPreTraining": {},
    "BertForSequenceClassification": {
        "objective.name": "sequence_classification",
        "data.source": "labelled_text",
        "data.name": "tests.tiny_text:TinyTopics",
    },
    "GPT2LMHeadModel": {
        "model.name": "gpt",
        "model.norm": "pre",
        "model.vocab_size": 300,
        "objective.name": "causal_lm",
        "data.source": "packed_text",
        "data.tokenizer_type": "byte_bpe",
    },
}


@pytest.mark.parametrize("kind", TRAINED)
def test_a_run_trained_here_goes_out_with_its_tokenizer(kind, theirs, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    changes = {"run.best_metric": "validation/loss", "mesh.fsdp": 8} | TRAINED[kind]
    ours.said(train, "--config=tests/tiny.py:3", f"--workdir={run}", *[f"--config.{field}={value}" for field, value in changes.items()])
    assert kind in ours.said(convert, f"--from={run}", f"--to={out}")
    e, params, found = ours.trained(run)
    texts = ("Aa ab ac. Ba bb bc?", "ka kb!", "LB")
    rows = [text_inputs([text], found, vocabulary(found), 24) for text in texts]
    inputs = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    tokenizer, model = theirs.transformers.AutoTokenizer.from_pretrained(out), getattr(theirs.transformers, kind).from_pretrained(out).eval()
    for text, row in zip(texts, rows):
        ids = tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] * (e.config.model.name == "gpt")  # which GPT-2's tokenizer does not add
        assert ids == row["tokens"][row["mask"]].tolist()
    expected, mine = theirs.called(model, inputs)[0], ours.outputs(e, params, inputs)
    assert mine.keys() == expected.keys()
    for key in expected:
        close(mine[key], expected[key].detach(), inputs["mask"])
