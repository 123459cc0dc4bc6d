"""Where parameters come from: a run's own checkpoint, another run's or a Hugging Face directory (`init.from`), or nothing but a seed."""

import copy
import dataclasses
import json
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict, FrozenConfigDict
from tokenizers import Tokenizer
from tqdm import tqdm

from research import tables
from research.build import Experiment, experiment, has_vocabulary, objective_class
from research.core import config as config_lib
from research.core import sharding
from research.core.errors import UserError
from research.core.types import Source
from research.data.text_inputs import text_inputs
from research.data.tokenizer import load_tokenizer, vocabulary
from research.interop import directory, published, weights
from research.interop.family import PLAIN, Family
from research.models import lora
from research.training import state
from research.training.checkpoint import Checkpoints, existing

STEP = 32  # tokens: texts are read at a multiple of it that is long enough for all of a batch, so much faster where they are short


def starting_state(e: Experiment, checkpoints: Checkpoints, source: Source) -> state.TrainState:
    """The state a run begins or goes on from, by the resume policy of research/training/checkpoint.py; puts `source` in its place."""
    if checkpoints.latest is not None:
        found, position = checkpoints.restore(e.shapes, e.shardings, source.state())
        source.restore(position)
        return found
    fresh = jax.jit(e.init, out_shardings=e.shardings)()  # made where it will live: no device and no host holds it whole
    if e.config.init["from"] is None:
        return fresh
    params = e.begin(jax.tree.map(lambda new, old: new if old is None else old, e.loaded(fresh.params), pretrained(e)))
    params = params if e.trained is e.objective else fresh.params | {"base": params}
    return fresh._replace(params=params, ema=None if fresh.ema is None else jax.tree.map(jax.numpy.copy, params))


def pretrained(e: Experiment):
    """The objective's parameters in the run or the Hugging Face directory that `init.from` names, low-rank updates of a run merged; None for
    one that `init.allow_new` lets be new."""
    path = published.resolve(e.config.init["from"])
    if directory.is_directory(path):
        return huggingface_params(e, open_directory(path))
    there, shapes, shardings = existing(path), e.loaded(e.shapes.params), e.loaded(e.shardings.params)
    adapter = getattr(tables.model(e.config.model), "adapter", lambda name, shape: None)
    stored, allow_new = there.stored_params(), e.config.init.allow_new
    if "reference" in stored:  # of what that run began with: this one holds its own
        allow_new = f"({allow_new})|^reference/" if allow_new else "^reference/"
    how = {"allow_new": allow_new, "adapter": adapter}
    if stored.keys() != {"base", "lora"}:
        return there.restore_params(shapes, shardings, **how)
    base = there.restore_params(shapes, shardings, under="base", **how)
    whole = jax.sharding.NamedSharding(e.mesh, jax.sharding.PartitionSpec())
    pairs = there.restore_params(stored["lora"], jax.tree.map(lambda _: whole, stored["lora"]), under="lora")
    without = {name for name in flatten_dict(pairs, sep="/") if flatten_dict(base, sep="/").get(name.rpartition("/")[0]) is None}
    alpha = config_lib.read(there.directory.parent / "config.json", ConfigDict(e.config)).lora.alpha
    return jax.jit(lora.merge, static_argnums=2, donate_argnums=0)(base, state.split(pairs, without)[0], alpha)


def open_directory(path) -> directory.Directory:
    """A Hugging Face directory, with its tensors under the names of its family."""
    stored = directory.read_config(pathlib.Path(path))
    of = family(stored, path)
    return directory.Directory(path, of.prefix, of.tied(stored))


def huggingface_params(e: Experiment, tensors):
    """The objective's parameters among the tensors of a Hugging Face directory, or a GGUF file; None for one that `init.allow_new` lets be new.

    Raises UserError for a model that the config does not describe, and tensors that do not fit, by name.
    """
    of, allow_new = family(tensors.config, tensors.where), e.config.init.allow_new
    check_model(described(of, tensors.config, e.config.model), e.config.model, tensors.where)
    _check_head(of, tensors, e.config)
    what: Any = e.objective  # of a model
    adapter = getattr(what.model, "adapter", lambda name, shape: None)
    rows = of.rows(e.config.model, e.config.objective.name)
    return weights.load(tensors, rows, e.loaded(e.shapes.params), e.loaded(e.shardings.params), allow_new, of.ignored(e.config), adapter)


def _check_head(of: Family, tensors, config):
    """Raises UserError where a trained head would stand on another pooling than it was trained on."""
    for name in tensors.config.get("architectures") or ():
        for field, value in of.architectures.get(name, {}).items():
            found = config_lib.flatten(config)[field]
            if field.startswith("model.") and found != value and not re.search(config.init.allow_new or "$^", "head/out/kernel"):
                raise UserError(f"{tensors.where} is a {name}, whose head stands on {field}={value}, not {found}: set it so, or let the head be new.")


def family(stored: dict, path) -> Family:
    """The family of a config.json. Raises UserError for one that we do not know."""
    if stored.get("model_type") not in tables.FAMILIES:
        known = ", ".join(tables.FAMILIES)
        raise UserError(f"{path} is of model_type {stored.get('model_type')!r}, which is not known here: known are {known}.")
    return tables.FAMILIES[stored["model_type"]]


def described(of: Family, stored: dict, group) -> ConfigDict:
    """The model group that a config.json stands for; `group` has the fields of which it says nothing, such as the dtype."""
    group, plain = copy.deepcopy(ConfigDict(group)), [f"{view}{name}" for view in ("", "first.", "second.") for name in PLAIN]
    group.update_from_flattened_dict({name: PLAIN[name.rpartition(".")[2]] for name in plain})
    try:
        group.update_from_flattened_dict({"name": of.model} | of.fields(stored))
    except (KeyError, TypeError) as e:
        raise UserError(f"the config.json of a {stored['model_type']} does not say all of its model, or not as it should: {e}.") from e
    return group


# What a config may choose for itself: how to compute and to train, and what becomes of the hidden states; what differs in size is refused by tensor.
FREE = {"dtype", "scan_layers", "remat", "dropout", "layer_scale", "stochastic_depth", "initializer_stddev", "scale_residual_initializer", "pool"}
FREE |= {"vocab_size", "max_length", "image_size", "image_width", "pixel_mean", "pixel_stddev", "attention", "attention_dropout"}
FREE |= {"matmul_dtype", "microbatches", "scan_unroll"}
IN_USE = {  # fields that matter only where something else is so
    "attention_window": lambda group: "local" in group["attention_pattern"],
    "rotary_base": lambda group: group["positions"] == "rotary",
    "pooler": lambda group: group["name"] == "bert" and group["pool"] == "first",
}


def check_model(there, here, where, free: set[str] = FREE):
    """Raises UserError where two model groups stand for different functions of the same parameters."""
    differ = []
    for (view, a, module), (_, b, _) in zip(tables.towers(there), tables.towers(here), strict=False):
        a, b = (group.to_dict() | {"kv_heads": group.kv_heads or group.heads} for group in (a, b))
        names = [field.name for field in dataclasses.fields(module.config) if field.name not in free and IN_USE.get(field.name, bool)(b)]
        differ += [f"model{'.' * bool(view)}{view}.{name} is {a[name]!r} there, {b[name]!r} here" for name in ("name", *names) if a[name] != b[name]]
    if differ:
        raise UserError(f"{where} is another model: {'; '.join(differ[:5])}. Set these fields as they are there.")


def judge(run: str, defaults) -> Callable[[Sequence[str]], np.ndarray]:
    """What a run makes of texts, as a function texts -> (N,) float32: of a classifier the probability of the last class, of others the score.

    `defaults`: a config with the fields that came after the run was made. A text that is too long is cut. Raises UserError for a run of another kind.
    """
    workdir = pathlib.Path(run)
    config = fitting(config_lib.read(workdir / "config.json", ConfigDict(defaults)), [])
    predicts = getattr(objective_class(config), "predicts", None)
    if predicts not in ("label", "score") or not has_vocabulary(config):
        raise UserError(f"rl.judge={run} was trained for {config.objective.name}, which gives no text a label or a score: name a run that does.")
    tokenizer = load_tokenizer(workdir / "tokenizer.json")
    e = experiment(config, vocabulary(tokenizer, config.data.end_token))
    what: Any = e.objective
    _, params = trained_params(e, workdir)
    told = {"label": lambda outputs: outputs["probabilities"][:, -1], "score": lambda outputs: outputs["score"]}[predicts]
    return reader(e, tokenizer, params, lambda params, inputs: told(what.predict(params, inputs)))


def reader(e: Experiment, tokenizer: Tokenizer, params, of: Callable) -> Callable[[Sequence[str]], np.ndarray]:
    """A function texts -> (N, ...) float32: what `of`, (parameters, arrays of B texts) -> (B, ...), makes of each. A text that is too long is cut."""
    what: Any = e.objective
    size, length = e.config.data.eval_batch_size, e.config.data.length
    step = jax.jit(of, out_shardings=jax.sharding.NamedSharding(e.mesh, jax.sharding.PartitionSpec()))

    def read(texts):
        found = []
        for begin in tqdm(range(0, len(texts), size), desc="reading texts", unit=" batches", delay=2, disable=None, leave=False):
            some = list(texts[begin : begin + size])
            filled = some + some[-1:] * (size - len(some))  # one number of texts is compiled
            laid_out = [text_inputs([text], tokenizer, what.vocabulary, length) for text in filled]
            inputs = {name: np.stack([x[name] for x in laid_out]) for name in laid_out[0]}
            used = -(-int(inputs["mask"].any(0).sum()) // STEP) * STEP  # of few lengths
            with e.in_force():
                rows = jax.device_get(step(params, {name: x_BT[:, :used] for name, x_BT in inputs.items()}))
            found.append(np.asarray(rows, np.float32)[: len(some)])
        return np.concatenate(found)

    return read


def label_names(workdir: pathlib.Path) -> list[str] | None:
    """The names of the labels of a run; None where it has none."""
    path = workdir / "labels.json"
    return json.loads(path.read_text()) if path.is_file() else None


def lineage(workdir: pathlib.Path, defaults) -> dict[pathlib.Path, ConfigDict]:
    """{a run and, one after the other, those that init.from says it was begun from: the config in its folder, over `defaults`}."""
    runs, place = {}, workdir
    while place not in runs and (place / "config.json").is_file() and not directory.is_directory(place):
        runs[place] = config_lib.read(place / "config.json", copy.deepcopy(defaults))
        place = pathlib.Path(runs[place].init["from"] or place)
    if not place.exists() and str(place) not in published.PUBLISHED:
        print(f"{[*runs][-1]} was begun from {place}, which is not here: what that was trained on is not left out.")
    return runs


def fitting(config, argv: list[str]):
    """The config of a run for reading it here: where its mesh is not for the devices at hand, and the command line names no other, all of them."""
    if not any(arg.startswith("--config.mesh.") for arg in argv):
        try:
            sharding.make_mesh(config.mesh)
        except UserError:
            config = config_lib.changed(config, {"mesh.pipeline": 1, "mesh.data": 1, "mesh.fsdp": -1, "mesh.context": 1, "mesh.tensor": 1})
    return FrozenConfigDict(config)


def trained_params(e: Experiment, workdir: pathlib.Path, at_step: int | None = None):
    """(step, parameters) of a run: its latest checkpoint, or the one asked for; the moving average where it kept one."""
    checkpoints = existing(workdir)
    found = checkpoints.find(at_step)
    return found, e.merged(checkpoints.restore_params(e.shapes.params, e.shardings.params, found))
