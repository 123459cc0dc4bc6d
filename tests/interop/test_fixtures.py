"""Our models with the weights of `transformers`' give what those gave: small directories of each family and head, written by theirs.py."""

import contextlib
import dataclasses
import json
import pathlib
import shutil
import types

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict, FrozenConfigDict
from PIL import Image
from safetensors.numpy import load_file, save_file

from research import build, convert, predict, restore, tables
from research.core.errors import UserError
from research.interop import directory, weights
from research.training.checkpoint import Checkpoints
from tests.interop import ours

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
NAMES = sorted(path.name for path in FIXTURES.iterdir())


def close(found, expected, mask):
    """Equal to 1e-5 wherever there is no padding."""
    found, expected = (np.asarray(x)[mask] if mask is not None and np.shape(x)[:2] == mask.shape else np.asarray(x) for x in (found, expected))
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


def read(name):
    stored = np.load(FIXTURES / name / "expected.npz")
    return tuple(
        {key.removeprefix(f"{kind}/"): stored[key] for key in stored if key.startswith(f"{kind}/")} for kind in ("inputs", "outputs", "hidden")
    )


@pytest.mark.parametrize("name", NAMES)
def test_outputs_and_every_hidden_state(name):
    inputs, outputs, hidden = read(name)
    e, params = ours.loaded(FIXTURES / name)
    found = ours.outputs(e, params, inputs)
    assert found.keys() == outputs.keys()
    for key in outputs:
        close(found[key], outputs[key], ours.mask(inputs))
    for x, (_, y) in zip(ours.hidden_states(e, params, inputs), sorted(hidden.items(), key=lambda item: int(item[0])), strict=True):
        close(x, y, ours.mask(inputs))


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
    again = weights.load(ours.Held(exported), rows, e.shapes.params, e.shardings.params, None)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), params, again)


def planted(of, mistake: str):
    """A family with a mistake in its map."""

    def rows(model, objective):
        found = of.rows(model, objective)
        if mistake == "transposed":
            right = next(row.layout for row in found if row.ours.endswith("attention/out/kernel"))
            wrong = weights.Layout(lambda x, shape: right.ours(x.T, shape), right.theirs)
            return [row._replace(layout=wrong) if row.ours.endswith("attention/out/kernel") else row for row in found]
        names = {row.ours: row.theirs for row in found}
        swap = lambda ours: ours.replace("attention_norm", "#").replace("mlp_norm", "attention_norm").replace("#", "mlp_norm")
        return [row._replace(theirs=names[swap(row.ours)]) for row in found]

    def fields(stored):
        return {name: 1e-3 if name.endswith("norm_epsilon") else value for name, value in of.fields(stored).items()}

    return dataclasses.replace(of, fields=fields) if mistake == "epsilon" else dataclasses.replace(of, rows=rows)


@pytest.mark.parametrize("mistake", ["transposed", "swapped norms", "epsilon"])
@pytest.mark.parametrize("name", ["bert_masked_lm", "roberta_token", "distilbert_question", "gpt2", "llama_tied", "vit", "dinov2", "clip"])
def test_a_planted_mistake_is_seen(name, mistake, monkeypatch):
    inputs, outputs, _ = read(name)
    model_type = directory.read_config(FIXTURES / name)["model_type"]
    monkeypatch.setitem(tables.FAMILIES, model_type, planted(tables.FAMILIES[model_type], mistake))
    e, params = ours.loaded(FIXTURES / name)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        for key, x in ours.outputs(e, params, inputs).items():
            close(x, outputs[key], ours.mask(inputs))


@pytest.fixture
def copied(tmp_path):
    """(a copy of a directory, what changes its tensors)"""
    path = tmp_path / "there"
    shutil.copytree(FIXTURES / "bert_sequence", path)

    def change(edit):
        tensors = load_file(path / "model.safetensors")
        edit(tensors)
        save_file(tensors, path / "model.safetensors")

    return path, change


@pytest.mark.parametrize(
    "edit, message",
    [
        (lambda x: x.pop("bert.encoder.layer.1.output.dense.bias"), "encoder.layer.1.output.dense.bias is missing"),
        (
            lambda x: x.update({"bert.encoder.layer.2.output.dense.bias": np.zeros(15, np.float32)}),
            "layer.2.output.dense.bias is there, not in this model",
        ),
        (
            lambda x: x.update({"classifier.weight": np.zeros((4, 15), np.float32)}),
            r"classifier.weight is \[4, 15\], head/out/kernel wants \[3, 15\]",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(copied, edit, message):
    path, change = copied
    change(edit)
    with pytest.raises(UserError, match=message):
        ours.loaded(path)


def test_all_that_is_wrong_is_known_before_anything_is_read(copied, monkeypatch):
    path, change = copied
    change(lambda x: [x.pop("classifier.bias"), x.pop("bert.pooler.dense.bias")])
    monkeypatch.setattr(directory.Directory, "read", lambda *_: pytest.fail("a tensor was read"))
    with pytest.raises(UserError, match="pooler.dense.bias is missing") as refused:
        ours.loaded(path)
    assert "classifier.bias is missing" in str(refused.value)


def test_what_may_be_new_is(copied):
    path, change = copied
    change(lambda x: [x.pop("classifier.weight"), x.update({"classifier.bias": np.zeros(7, np.float32), "bert.odd": np.zeros(1)})])
    _, params = ours.loaded(path, **{"init.allow_new": "^head/|^odd$"})
    assert params["head"]["out"] == {"kernel": None, "bias": None} and params["pooler"]["kernel"].shape == (15, 15)


def test_a_head_is_not_put_on_another_pooling(copied):
    path, _ = copied
    with pytest.raises(UserError, match="is a BertForSequenceClassification, whose head stands on model.pool=first, not mean"):
        ours.loaded(path, **{"model.pool": "mean"})
    assert ours.loaded(path, **{"model.pool": "mean", "init.allow_new": "^head/"})[1]["head"]["out"]["kernel"].shape == (15, 3)


def test_a_published_bert_has_more_than_its_class(tmp_path):
    """As bert-base-uncased: said to be for masked-language modelling, with the pooler and the next-sentence head in it."""
    shutil.copytree(FIXTURES / "bert_pretraining", tmp_path / "there")
    (tmp_path / "there/config.json").write_text(json.dumps(directory.read_config(tmp_path / "there") | {"architectures": ["BertForMaskedLM"]}))
    inputs, outputs, _ = read("bert_pretraining")
    e, params = ours.loaded(tmp_path / "there")
    assert "pooler" not in params
    close(ours.outputs(e, params, inputs)["logits"], outputs["logits"], inputs["mask"])


def test_the_statistics_of_pixels_are_read(tmp_path):
    shutil.copytree(FIXTURES / "vit", tmp_path / "there")
    (tmp_path / "there/preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 2]}))
    assert ours.loaded(tmp_path / "there")[0].config.model.pixel_mean == (0.1, 0.2, 0.3)


def test_an_allow_list_that_matches_nothing_is_refused():
    with pytest.raises(UserError, match="'\\^hed/' matches no parameter"):
        ours.loaded(FIXTURES / "bert_model", **{"init.allow_new": "^hed/"})


@pytest.mark.parametrize(
    "config, message",
    [
        ({"problem_type": "multi_label_classification"}, "trained for multi_label_classification, which is not known here: known are single_label"),
        ({"num_hidden_layers": "two"}, "does not say all of its model, or not as it should"),
        ({"model_type": "t5"}, "model_type 't5', which is not known here: known are bert, roberta"),
        ({"architectures": ["BertForMultipleChoice"]}, "is a BertForMultipleChoice, which is not known here: of bert known are BertForPreTraining"),
        ({"hidden_act": "mish"}, "hidden_act 'mish', which has no counterpart here: known are 'gelu'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key': of this only 'absolute' is known"),
    ],
)
def test_a_model_that_we_do_not_have_is_refused(copied, config, message):
    path, _ = copied
    (path / "config.json").write_text(json.dumps(directory.read_config(path) | config))
    with pytest.raises(UserError, match=message):
        ours.loaded(path)


def test_a_config_of_another_model_is_refused():
    with pytest.raises(UserError, match="is another model: model.activation is 'gelu' there, 'relu' here"):
        e, _ = ours.loaded(FIXTURES / "bert_model")
        group = ConfigDict(e.config.model)
        group.activation = "relu"
        restore.check_model(e.config.model, group, "bert_model")


def test_a_pickle_is_not_read_and_a_damaged_file_is_named(copied):
    path, _ = copied
    whole = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(whole[:1000])
    with pytest.raises(UserError, match="model.safetensors cannot be read"):
        ours.loaded(path)
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    with pytest.raises(UserError, match="pytorch_model.bin is a pickle, which may run any code and is not read"):
        ours.loaded(path)


def test_tied_tensors_that_differ_are_refused(tmp_path):
    shutil.copytree(FIXTURES / "gpt2", tmp_path / "there")
    tensors = load_file(tmp_path / "there/model.safetensors")
    for other, refused in ((tensors["transformer.wte.weight"], False), (tensors["transformer.wte.weight"] + 1, True)):
        save_file(tensors | {"lm_head.weight": other}, tmp_path / "there/model.safetensors")
        with pytest.raises(UserError, match="lm_head.weight differs from wte.weight") if refused else contextlib.nullcontext():
            ours.loaded(tmp_path / "there")


def test_shards_are_read_as_one(tmp_path):
    path = tmp_path / "there"
    shutil.copytree(FIXTURES / "llama", path)
    tensors = load_file(path / "model.safetensors")
    parts = {f"model-0000{i + 1}-of-00002.safetensors": dict(list(tensors.items())[i::2]) for i in range(2)}
    for name, part in parts.items():
        save_file(part, path / name)
    (path / "model.safetensors").unlink()
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {key: name for name, part in parts.items() for key in part}}))
    jax.tree.map(np.testing.assert_array_equal, ours.loaded(path)[1], ours.loaded(FIXTURES / "llama")[1])


def test_each_device_reads_its_own_part():
    """Five devices, parameters split over all: the same as on one."""
    e, whole = ours.loaded(FIXTURES / "gpt2")
    config = ConfigDict(e.config)
    config.mesh.update(data=1, fsdp=5, tensor=1)
    config.data.update(batch_size=5, eval_batch_size=5)
    split = build.experiment(FrozenConfigDict(config), devices=jax.devices()[:5])
    params = restore.huggingface_params(split, restore.open_directory(FIXTURES / "gpt2"))
    kernel = params["decoder"]["blocks"]["mlp"]["up"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (2, 3, 19) and kernel.shape == (2, 15, 19)
    jax.tree.map(np.testing.assert_array_equal, whole, params)


def test_a_directory_becomes_a_run_that_predicts_and_goes_out_again(tmp_path):
    """Through the commands: an image classifier with its labels and the statistics of its pixels."""
    run, back, picture = tmp_path / "run", tmp_path / "back", tmp_path / "picture.png"
    ours.said(convert, f"--from={FIXTURES / 'vit'}", f"--to={run}", "--config.mesh.rules=dp")
    inputs, outputs, _ = read("vit")
    Image.fromarray(inputs["image"][1]).save(picture)
    told = json.loads(ours.said(predict, f"--workdir={run}", f"--image={picture}", "--json"))
    expected = np.exp(outputs["logits"][1]) / np.exp(outputs["logits"][1]).sum()
    assert {x["label"]: x["probability"] for x in told["labels"]} == pytest.approx(dict(zip("abc", expected)), abs=1e-5)
    with pytest.raises(UserError, match="has parameters and no optimizer to go on with: train a new run from it, --config.init.from="):
        restore.starting_state(build.experiment(ours.loaded(FIXTURES / "vit")[0].config, devices=jax.devices()[:1]), Checkpoints(run), types.SimpleNamespace(state=dict))
    ours.said(convert, f"--from={run}", f"--to={back}")
    before, after = (directory.read_config(path) for path in (FIXTURES / "vit", back))
    assert after["id2label"] == before["id2label"] == {"0": "a", "1": "b", "2": "c"} and after["architectures"] == ["ViTForImageClassification"]
    assert after["image_mean"] == [0.5] * 3
    stored = [load_file(path / "model.safetensors") for path in (FIXTURES / "vit", back)]
    assert stored[0].keys() == stored[1].keys() and all((stored[0][name] == x).all() for name, x in stored[1].items())
    for refused, message in ((back, "exists and is not empty"), (picture, "exists and is not empty")):
        with pytest.raises(UserError, match=message):
            convert.main(["convert", f"--from={run}", f"--to={refused}"])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model.pool": "mean"}, "has no class in transformers: what can be written are .*ForSequenceClassification"),
        ({"model.norm": "pre"}, "cannot be written as any of bert, .*model.norm is 'post' there, 'pre' here"),
    ],
)
def test_what_transformers_cannot_hold_is_said(changes, message):
    config = ConfigDict(ours.loaded(FIXTURES / "bert_sequence")[0].config)
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=message):
        convert.architecture(convert.format_of(config, None)[1], config)
