"""Our side of a comparison with `transformers`: a directory and inputs -> outputs, hidden states and gradients, in NumPy, under our names."""

import contextlib
import io
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from configs import base
from research import build, convert, restore
from research.core import config as config_lib
from research.core import linen
from research.core.types import view
from research.data.tokenizer import load_tokenizer, vocabulary
from research.interop import directory, weights
from research.models.attention import causal_mask


def loaded(path, **changes):
    """(experiment, parameters) of a Hugging Face directory."""
    return of_tensors(restore.open_directory(path), **changes)


def of_tensors(tensors, **changes):
    """The same of what has been opened already."""
    config = convert.imported(pathlib.Path(tensors.where), tensors.config)
    config.mesh.update(data=1, fsdp=1)
    config.init["from"] = tensors.where
    config.update_from_flattened_dict(changes)
    e = build.experiment(FrozenConfigDict(config), devices=jax.devices()[:1])
    return e, restore.huggingface_params(e, tensors)


def trained(workdir: pathlib.Path):
    """(experiment, parameters, tokenizer) of a run on texts."""
    argv = [f"--workdir={workdir}"]
    config = restore.fitting(config_lib.parse_run(argv, base.get_config())[1], argv)
    tokenizer = load_tokenizer(workdir / "tokenizer.json")
    e = build.experiment(config, vocabulary(tokenizer, config.data.end_token))
    return e, restore.trained_params(e, workdir)[1], tokenizer


def said(command, *arguments) -> str:
    """What a command prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        command.main([command.__name__, *map(str, arguments)])
    return out.getvalue()


def outputs(e, params, inputs):
    """{name: array} of what the model of `e` makes of `inputs`: as the class of `transformers` calls it."""
    o, name = e.objective, e.config.objective.name
    if name == "masked_lm":
        B, T = inputs["tokens"].shape
        every_BT = jnp.broadcast_to(jnp.arange(T), (B, T))
        logits_BTV, next_B2 = linen.apply(o.model, params, None, inputs, every_BT, int(o.next_sentence))
        return {"logits": logits_BTV} | ({} if next_B2 is None else {"next_sentence": next_B2[:, ::-1]})
    if name == "causal_lm":
        tokens_BT, mask_BT = inputs["tokens"], inputs["mask"]
        positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
        return {"logits": linen.apply(o.model, params, None, tokens_BT, positions_BT, causal_mask(mask_BT.astype(jnp.int32)))[0]}
    if name == "clip":
        first_BE, second_BE, log_scale = linen.apply(o.model, params, None, inputs, method="towers")
        return {"image": first_BE, "text": second_BE, "logits": jnp.exp(log_scale) * first_BE @ second_BE.T}
    if name in ("simcse", "nt_xent"):
        return {
            "hidden": linen.apply(o.model, params, None, inputs, method="encode"),
            "pooled": linen.apply(o.model, params, None, inputs, method="embed"),
        }
    return {"logits": o.logits(params, inputs, None)}


def hidden_states(e, params, inputs) -> list[np.ndarray]:
    """What comes out of the first i layers, i from 1 to L, and where the norm comes first of the last norm: each (B, T, D). Of two towers, the
    first's and then the second's."""
    if e.config.model.name == "two_tower":
        groups = ((name, e.config.model[name]) for name in ("first", "second"))
        return [x for name, group in groups for x in _hidden_states(group, params[name], view(inputs, name))]
    return _hidden_states(e.config.model, params, inputs)


def _hidden_states(group, params, inputs):
    stack = next(name for name in ("encoder", "decoder") if name in params)
    found = []
    for layers in range(1, group.layers + 1):
        some = params | {stack: params[stack] | {"blocks": jax.tree.map(lambda x: x[:layers], params[stack]["blocks"])}}  # noqa: B023
        cut = ConfigDict(group)
        cut.layers = layers
        found.append(linen.apply(build.tables.model(FrozenConfigDict(cut)), some, None, inputs, method="encode"))
    return [np.asarray(x) for x in found]


def mask(inputs) -> np.ndarray | None:
    """Where a text is no padding, bool (B, T); None without texts."""
    return inputs.get("mask", inputs.get("second/mask"))


def weighted(found: dict, mask) -> jax.Array:
    """A scalar of all outputs, which no symmetry leaves unchanged: sum of cos(i) x_i over what is not padding."""
    total = 0.0
    for x in (found[name] for name in sorted(found)):
        real = mask.reshape(*mask.shape, *[1] * (x.ndim - 2)) if mask is not None and x.shape[:2] == mask.shape else 1.0
        total = total + jnp.sum(jnp.cos(jnp.arange(x.size, dtype=jnp.float32)).reshape(x.shape) * x * real)
    return total


def gradients(e, params, inputs) -> dict[str, np.ndarray]:
    """Those of `weighted`, laid out and named as the tensors of the directory are, without prefix."""
    real = mask(inputs)
    found = jax.grad(lambda params: weighted(outputs(e, params, inputs), real))(params)
    of = build.tables.FAMILIES[directory.read_config(pathlib.Path(e.config.init["from"]))["model_type"]]
    return weights.export(found, of.rows(e.config.model, e.config.objective.name), "")


class Held(dict):
    """Tensors in memory, read as those of a directory."""

    where = "memory"

    def shape(self, name):
        return self[name].shape

    def read(self, name):
        return self[name]
