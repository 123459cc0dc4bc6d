"""ViT (arXiv 2010.11929) and DINOv2 (arXiv 2304.07193), which has layer scale."""

from research.core.errors import UserError
from research.interop.family import ACTIVATIONS, Family, choose, named, only, theirs, written
from research.interop.weights import SAME, TABLE, Layout, Row, linear, norm, patch

HALF = {"pixel_mean": (0.5,), "pixel_stddev": (0.5,)}
IMAGENET = {"pixel_mean": (0.485, 0.456, 0.406), "pixel_stddev": (0.229, 0.224, 0.225)}  # as DINOv2's image processor has it
BLOCK = "encoder/blocks"
TOKEN = Layout(lambda x, shape: x.reshape(shape), lambda x: x[None, None])  # one for all of a batch there


def statistics(stored: dict, usual: dict) -> dict:
    """Those of preprocessor_config.json, else the usual ones of the family."""
    if "image_mean" not in stored:
        return usual
    return {"pixel_mean": tuple(stored["image_mean"]), "pixel_stddev": tuple(stored["image_std"])}


NAMES = {  # in config.json -> with us
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "layer_norm_eps": "norm_epsilon",
    "hidden_dropout_prob": "dropout",
    "initializer_range": "initializer_stddev",
    "image_size": "image_size",
    "patch_size": "patch_size",
    "num_channels": "channels",
}
USUAL = {"layer_norm_eps": 1e-12, "hidden_dropout_prob": 0.0, "initializer_range": 0.02, "num_channels": 3}


def common(stored: dict) -> dict:
    activation = choose(stored, "hidden_act", ACTIVATIONS, "gelu")
    return named(stored, NAMES, USUAL) | {"activation": activation, "norm": "pre", "class_token": True, "pool": "first"}


def common_config(model) -> dict:
    return written(model, NAMES) | {"hidden_act": theirs(ACTIVATIONS, model.activation)}


def vit_fields(stored: dict) -> dict:
    only(stored, qkv_bias=True)
    return common(stored) | {"mlp_width": stored["intermediate_size"]} | statistics(stored, HALF)


def vit_config(model, ids: dict) -> dict:
    return common_config(model) | {"model_type": "vit", "intermediate_size": model.mlp_width}


def embeddings(model) -> list[Row]:
    return [
        Row("class_token", "embeddings.cls_token", TOKEN),
        Row("position/embedding", "embeddings.position_embeddings", TABLE),
        Row("patch/kernel", "embeddings.patch_embeddings.projection.weight", patch(model.patch_size, model.channels)),
        Row("patch/bias", "embeddings.patch_embeddings.projection.bias", SAME),
        *norm("encoder/norm", "layernorm"),
    ]


def attention() -> list[Row]:
    rows = linear(f"{BLOCK}/attention/out", "encoder.layer.{}.attention.output.dense", inputs=2)
    for part in ("query", "key", "value"):
        rows += linear(f"{BLOCK}/attention/{part}", f"encoder.layer.{{}}.attention.attention.{part}")
    return rows


def head(objective: str) -> list[Row]:
    return linear("head/out", "classifier", head=True) if objective == "image_classification" else []


def vit_rows(model, objective: str) -> list[Row]:
    layer = "encoder.layer.{}"
    rows = norm(f"{BLOCK}/attention_norm", f"{layer}.layernorm_before") + norm(f"{BLOCK}/mlp_norm", f"{layer}.layernorm_after")
    rows += linear(f"{BLOCK}/mlp/up", f"{layer}.intermediate.dense") + linear(f"{BLOCK}/mlp/down", f"{layer}.output.dense")
    return embeddings(model) + attention() + rows + head(objective)


def dinov2_fields(stored: dict) -> dict:
    only(stored, qkv_bias=True, use_swiglu_ffn=False)
    more = {"mlp_width": int(stored["hidden_size"] * stored.get("mlp_ratio", 4)), "layer_scale": stored.get("layerscale_value", 1.0)}
    more |= {"norm_epsilon": stored.get("layer_norm_eps", 1e-6), "stochastic_depth": stored.get("drop_path_rate", 0.0)}
    return common(stored) | more | statistics(stored, IMAGENET)


def dinov2_config(model, ids: dict) -> dict:
    if model.mlp_width % model.width:
        raise UserError(f"DINOv2's MLP is a multiple of the width: model.mlp_width {model.mlp_width} is none of {model.width}.")
    more = {"model_type": "dinov2", "mlp_ratio": model.mlp_width // model.width, "layerscale_value": model.layer_scale}
    return common_config(model) | more | {"drop_path_rate": model.stochastic_depth, "reshape_hidden_states": True}


def dinov2_rows(model, objective: str) -> list[Row]:
    layer = "encoder.layer.{}"
    rows = norm(f"{BLOCK}/attention_norm", f"{layer}.norm1") + norm(f"{BLOCK}/mlp_norm", f"{layer}.norm2")
    rows += [Row(f"{BLOCK}/attention_scale", f"{layer}.layer_scale1.lambda1", SAME), Row(f"{BLOCK}/mlp_scale", f"{layer}.layer_scale2.lambda1", SAME)]
    rows += linear(f"{BLOCK}/mlp/up", f"{layer}.mlp.fc1") + linear(f"{BLOCK}/mlp/down", f"{layer}.mlp.fc2")
    return embeddings(model) + attention() + rows


VIT = Family(
    model="vit",
    prefix="vit.",
    architectures={
        "ViTForImageClassification": {"objective.name": "image_classification", "model.pool": "first"},
        "ViTModel": {"objective.name": "nt_xent", "objective.projection_width": 0},
    },
    fields=vit_fields,
    config=vit_config,
    rows=vit_rows,
    ignored=lambda config: r"^pooler\.dense\.|mask_token$",  # a tanh layer that its classifier does not use; the token of masked training
)
DINOV2 = Family(
    model="vit",
    prefix="dinov2.",
    architectures={"Dinov2Model": {"objective.name": "nt_xent", "objective.projection_width": 0}},
    fields=dinov2_fields,
    config=dinov2_config,
    rows=dinov2_rows,
    ignored=lambda config: r"mask_token$",
)
