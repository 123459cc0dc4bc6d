"""What a family of Hugging Face models is to us: see bert.py, gpt.py, vit.py and clip.py, which have one table each."""

import dataclasses
from collections.abc import Callable
from typing import Any

from research.core.errors import UserError
from research.interop.weights import Row

ACTIVATIONS = {  # theirs -> ours
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "gelu_sigmoid",
    "relu": "relu",
    "silu": "silu",
}


PLAIN = {  # of a model group, where a family says nothing else
    "kv_heads": None,
    "gated_mlp": False,
    "use_bias": True,
    "norm": "post",
    "norm_type": "layer",
    "positions": "learned",
    "rotary_base": 10_000.0,
    "attention_pattern": ("dense",),
    "attention_window": 256,
    "layer_scale": None,
    "pooler": "tanh",
    "tied_head": True,
    "image_width": None,
    "class_token": True,
    "patch_bias": True,
    "embedding_norm": False,
    "pixel_mean": (0.5,),
    "pixel_stddev": (0.5,),
}


@dataclasses.dataclass(frozen=True)
class Family:
    """Fields of a model's config, names of its tensors, and what its heads are, for one `model_type`."""

    model: str  # the name of a model of ours
    prefix: str  # of backbone names, in models with a head
    architectures: dict[str, dict[str, Any]]  # a class of transformers -> {field of ours: value}: objective.name and what else the head decides
    fields: Callable[
        [dict], dict[str, Any]
    ]  # config.json -> {field of a model group: value} over PLAIN; raises UserError for what we have no option for
    config: Callable[[Any, dict], dict]  # (a model group, {eos_token_id: ..., ...} of its tokenizer) -> config.json, but for architectures
    rows: Callable[[Any, str], list[Row]]  # (a model group, the name of the objective) -> the weight map
    tied: Callable[[dict], dict[str, str]] = lambda stored: {}  # stored.json -> {name of a tensor: that of the one it repeats}
    ignored: Callable[[Any], str] = lambda config: r"position_ids$"  # a config of ours -> names of tensors, by pattern, that it has no use for


def choose(stored: dict, name: str, table: dict, default=None):
    """What a value of config.json is with us. Raises UserError for one that has no counterpart."""
    value = stored.get(name, default)
    if value not in table:
        raise UserError(f"config.json says {name} {value!r}, which has no counterpart here: known are {', '.join(map(repr, table))}.")
    return table[value]


def named(stored: dict, names: dict[str, str], usual: dict[str, Any]) -> dict[str, Any]:
    """{field of ours: value} of a config.json by `names`, {theirs: ours}; what it leaves out is `usual`, by their name."""
    return {ours: stored.get(name, usual[name]) if name in usual else stored[name] for name, ours in names.items()}


def written(model, names: dict[str, str]) -> dict[str, Any]:
    """The way back: {theirs: value} of a model group."""
    return {name: model[ours] for name, ours in names.items()}


def only(stored: dict, **wanted):
    """Raises UserError where config.json asks for what we do not have; a value that it leaves out is the one wanted."""
    for name, value in wanted.items():
        if stored.get(name, value) not in (value, None):
            raise UserError(f"config.json says {name} {stored[name]!r}: of this only {value!r} is known here.")


def theirs(table: dict, value):
    """The key of a value: the first where several stand for it. Raises UserError where none does."""
    if value not in table.values():
        raise UserError(f"{value!r} has no counterpart there: {', '.join(map(repr, table.values()))} have.")
    return next(key for key, of_key in table.items() if of_key == value)
