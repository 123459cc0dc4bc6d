"""A Hugging Face checkpoint, or a GGUF file of a Llama -> a run, and a run -> a Hugging Face checkpoint.

    python -m research.convert --from=all-MiniLM-L6-v2 --to=runs/minilm [--config.FIELD=VALUE ...]
    python -m research.convert --from=SmolLM2.gguf --to=runs/smollm2
    python -m research.convert --from=runs/sentiment --to=exported [--step=N] [--model_type=roberta]

Which way it goes is told by what --from holds. A name of research/interop/published.py stands for a checkpoint that a published package carries.
`predict`, `generate` and `evaluate` then read the run, and `--config.init.from=runs/minilm` trains on; a config may also name the directory itself,
as `init.from`. Only safetensors are read, never a pickle. What has no class in `transformers`, such as a head on the mean of all tokens, is refused.
"""

import json
import pathlib
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict

from configs import base
from research import build, restore, tables
from research.core import config as config_lib
from research.core.config import look_up
from research.core.errors import UserError, run_command
from research.data.tokenizer import load_tokenizer, vocabulary
from research.interop import directory, published, weights
from research.interop.family import Family
from research.interop.gguf_file import GgufFile
from research.training import run_directory
from research.training.checkpoint import Checkpoints

TRAINED_FROM = {  # objective -> data.source
    "masked_lm": "sentence_pairs",
    "causal_lm": "packed_text",
    "simcse": "text_views",
    "clip": "image_text",
    "nt_xent": "image_views",
    "image_classification": "labelled_images",
    "sequence_classification": "labelled_text",
    "sequence_regression": "labelled_text",
    "token_classification": "token_labels",
    "question_answering": "answers",
}
PROBLEMS = {"single_label_classification": "sequence_classification", "regression": "sequence_regression"}  # problem_type -> what it is trained for


def main(argv):
    source, target = (config_lib.given(flag, argv) for flag in ("from", "to"))
    if not source or not target:
        raise UserError("say what becomes what: --from=DIRECTORY --to=runs/NAME, or --from=runs/NAME --to=DIRECTORY.")
    path = published.resolve(source)
    if directory.is_directory(path) or path.suffix == ".gguf":
        into_run(argv, path, pathlib.Path(target))
    elif (path / "checkpoints").is_dir():
        out_of_run(argv, path, pathlib.Path(target))
    else:
        raise UserError(f"--from={source} is neither a run, a GGUF file nor a Hugging Face directory: that has a config.json with a model_type.")


def define(values):
    flags.DEFINE_string("from", None, "What to convert.", flag_values=values)
    flags.DEFINE_string("to", None, "What it becomes.", flag_values=values)
    flags.DEFINE_integer("step", None, "Which checkpoint of a run; absent: the latest.", flag_values=values)
    flags.DEFINE_string("model_type", None, "The family to write a run as; absent: the first that can hold it.", flag_values=values)


def into_run(argv: list[str], path: pathlib.Path, workdir: pathlib.Path):
    """Makes a run directory with the parameters of a Hugging Face directory or a GGUF file, as of step 0."""
    directory.check_new(workdir)
    if unused := [flag for flag in ("step", "model_type") if config_lib.given(flag, argv)]:
        raise UserError(f"--{unused[0]} is of a run that is written out; {path} comes in: leave it out.")
    tensors = GgufFile(path) if path.suffix == ".gguf" else restore.open_directory(path)
    config, tokenizer = imported(path, tensors.config), None
    if build.has_vocabulary(config):
        file = directory.tokenizer_file(path)
        tokenizer = tensors.tokenizer() if isinstance(tensors, GgufFile) else load_tokenizer(file) if file else None
        config.data.end_token = end_token(tensors.config, tokenizer)
    _, config = config_lib.parse_over(argv, config, define)
    e = build.experiment(config, vocabulary(tokenizer, config.data.end_token) if tokenizer else None)
    params = restore.huggingface_params(e, tensors)
    labels = labels_of(tensors.config) if build.tells_classes(config) else None
    run_directory.write(workdir, config, tokenizer, labels, argv, {"parameters": str(path)})
    checkpoints = Checkpoints(workdir)
    checkpoints.save_params(params)
    checkpoints.close()
    print(f"{workdir} holds {sum(x.size for x in jax.tree.leaves(params)):,} parameters of {path}, trained for {config.objective.name}.")


def imported(path: pathlib.Path, stored: dict) -> ConfigDict:
    """The config of the run that a Hugging Face directory becomes. Raises UserError for an architecture that we do not know."""
    of, config = restore.family(stored, path), base.get_config()
    name = (stored.get("architectures") or ["none"])[0]
    if name not in of.architectures:
        raise UserError(f"{path} is a {name}, which is not known here: of {stored['model_type']} known are {', '.join(of.architectures)}.")
    config.model = restore.described(of, stored, config.model)
    config.model.dtype = config.model.first.dtype = config.model.second.dtype = "float32"
    config.update_from_flattened_dict(of.architectures[name])
    objective, labels = config.objective.name, labels_of(stored)
    config.objective.classes = max(2, len(labels))
    if objective == "sequence_classification":
        kind = stored.get("problem_type") or ("regression" if len(labels) == 1 else "single_label_classification")
        if kind not in PROBLEMS:
            raise UserError(f"{path} is trained for {kind}, which is not known here: known are {', '.join(PROBLEMS)}.")
        config.objective.name = objective = PROBLEMS[kind]
    if objective == "simcse":
        config.model.pool = pooling(path, config.model.pool)
    config.data.update(source=TRAINED_FROM[objective], length=longest(path, config))
    if of.model == "gpt" or objective == "clip":
        config.data.tokenizer_type = "byte_bpe"
    return config


def end_token(stored: dict, tokenizer) -> str | None:
    """The token that ends a text, by its id in config.json; None where that says nothing, or what our own tokenizers have anyway."""
    ids = stored.get("eos_token_id")
    first = ids[0] if isinstance(ids, list) else ids
    if tokenizer is None or first is None or first == vocabulary(tokenizer).end:
        return None
    return tokenizer.id_to_token(first)


def labels_of(stored: dict) -> list[str]:
    names = stored.get("id2label") or {}
    return [names[key] for key in sorted(names, key=int)] or [f"LABEL_{i}" for i in range(stored.get("num_labels", 2))]


def longest(path: pathlib.Path, config) -> int:
    """Tokens of an example: as sentence-transformers has it, else all positions there are."""
    settings = path / "sentence_bert_config.json"
    positions = build.word_table(config)[1]
    return min(positions, json.loads(settings.read_text()).get("max_seq_length") or positions) if settings.is_file() else positions


def pooling(path: pathlib.Path, usual: str) -> str:
    """How a bare encoder pools: as sentence-transformers has it, else as usual. Raises UserError for a way that we have not."""
    settings = path / "1_Pooling" / "config.json"
    if not settings.is_file():
        return usual
    asked = [name for name, value in json.loads(settings.read_text()).items() if name.startswith("pooling_mode_") and value is True]
    if asked != ["pooling_mode_mean_tokens"]:
        raise UserError(f"{settings} asks for {', '.join(asked)}: of these only pooling_mode_mean_tokens is known here.")
    return "mean"


def out_of_run(argv: list[str], workdir: pathlib.Path, path: pathlib.Path):
    """Writes a Hugging Face directory that `transformers` loads, with the parameters of a run, low-rank updates merged."""
    argv = [*argv, f"--workdir={workdir}"]
    values, config = config_lib.parse_run(argv, base.get_config(), define)
    config = restore.fitting(config, argv)
    file = directory.tokenizer_file(workdir)
    tokenizer = load_tokenizer(file) if file and build.has_vocabulary(config) else None
    e = build.experiment(config, vocabulary(tokenizer, config.data.end_token) if tokenizer else None)
    model_type, of = format_of(config, values.model_type)
    name = architecture(of, config)
    step, params = restore.trained_params(e, workdir, values.step)
    what: Any = e.objective
    params = what.of_model(params) if hasattr(what, "of_model") else params  # without a reference, or a head that only training has
    tensors = weights.export(params, of.rows(config.model, config.objective.name), "" if name.endswith("Model") else of.prefix)
    tokens = special_tokens(tokenizer, config) if tokenizer else {}
    ids = {f"{token}_id": tokenizer.token_to_id(text) for token, text in tokens.items()} if tokenizer else {}
    files = {"config.json": of.config(config.model, ids) | head_config(workdir, config) | {"architectures": [name]}}
    if tokenizer:
        pairs = config.model.name == "bert" and config.model.token_types > 1
        reads = ["input_ids", *["token_type_ids"] * pairs, "attention_mask"]
        files["tokenizer_config.json"] = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": reads, **tokens}
    directory.write(path, files | beside(config), tensors, file)
    print(f"{path} holds step {step} of {workdir} as a {name} ({model_type}).")


def beside(config) -> dict[str, dict | list]:
    """{file: what it says} of the pixels' statistics, and of the pooling where sentences are embedded."""
    files: dict[str, dict | list] = {}
    images = tables.reading(config.model, "image")
    if images:
        group = images[0][1]
        spread = lambda values: [*values] * (group.channels if len(values) == 1 else 1)
        size = {"height": group.image_size, "width": group.image_size}
        statistics = {"image_mean": spread(group.pixel_mean), "image_std": spread(group.pixel_stddev)}
        steps = {"do_resize": True, "size": size, "do_rescale": True, "do_normalize": True}
        files["preprocessor_config.json"] = {"image_processor_type": "ViTImageProcessor"} | steps | statistics
    if config.objective.name == "simcse" and config.model.pool == "mean":
        kind = "sentence_transformers.models"
        parts = enumerate((("", "Transformer"), ("1_Pooling", "Pooling")))
        modules = [{"idx": i, "name": str(i), "path": path, "type": f"{kind}.{name}"} for i, (path, name) in parts]
        files |= {"modules.json": modules, "sentence_bert_config.json": {"max_seq_length": config.data.length, "do_lower_case": False}}
        files["1_Pooling/config.json"] = {"word_embedding_dimension": config.model.width, "pooling_mode_mean_tokens": True}
    return files


def format_of(config, asked: str | None) -> tuple[str, Family]:
    """(model_type, family) that can hold the model: the one asked for, else the first. Raises UserError, saying what is in the way, for none."""
    families = {asked: look_up(tables.FAMILIES, asked, "model_type")} if asked else tables.FAMILIES
    reasons = {}
    for model_type, of in families.items():
        if of.model != config.model.name:
            reasons[model_type] = f"it holds a {of.model}"
            continue
        try:
            there = restore.described(of, of.config(config.model, {}), config.model)
            restore.check_model(there, config.model, model_type, restore.FREE - {"layer_scale"})
            return model_type, of
        except UserError as e:
            reasons[model_type] = str(e)
    tried = [reason for reason in reasons.values() if not reason.startswith("it holds")] or [*reasons.values()]
    raise UserError(f"config.model.name={config.model.name} cannot be written as {asked or 'any of ' + ', '.join(tables.FAMILIES)}: {tried[0]}")


def architecture(of: Family, config) -> str:
    """The class of `transformers` for what a run was trained for; the bare model where it has no head there."""
    flat = config_lib.flatten(config)
    name = {"sequence_regression": "sequence_classification"}.get(config.objective.name, config.objective.name)
    name = "causal_lm" if getattr(build.objective_class(config), "generates", False) else name
    for architecture, asked in of.architectures.items():
        if all((name if field == "objective.name" else flat[field]) == value for field, value in asked.items()):
            return architecture
    raise UserError(
        f"a run of {config.objective.name} with model.pool={config.model.pool} has no class in transformers: what can be written are "
        + "; ".join(f"{name} ({', '.join(f'{field}={value}' for field, value in asked.items())})" for name, asked in of.architectures.items())
    )


def head_config(workdir: pathlib.Path, config) -> dict:
    """What config.json says of a supervised head."""
    if config.objective.name == "sequence_regression":
        return {"num_labels": 1, "problem_type": "regression", "id2label": {"0": "LABEL_0"}}
    names = workdir / "labels.json"
    if not build.tells_classes(config):
        return {}
    labels = json.loads(names.read_text()) if names.is_file() else [f"LABEL_{i}" for i in range(config.objective.classes)]
    return {"id2label": {str(i): name for i, name in enumerate(labels)}, "label2id": {name: i for i, name in enumerate(labels)}}


def special_tokens(tokenizer, config) -> dict[str, str]:
    """What tokenizer_config.json says of the tokens with a meaning of their own."""
    known = vocabulary(tokenizer, config.data.end_token)
    ids = {"pad_token": known.pad, "cls_token": known.cls, "sep_token": known.sep, "mask_token": known.mask, "eos_token": known.end}
    return {name: tokenizer.id_to_token(i) for name, i in ids.items() if i is not None}


if __name__ == "__main__":
    run_command(main)
