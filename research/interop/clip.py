"""CLIP (arXiv 2103.00020): a ViT and a GPT as two towers."""

from research.interop.family import ACTIVATIONS, Family, choose, named, theirs, written
from research.interop.vit import statistics
from research.interop.weights import SAME, Row, linear, norm, patch

STATISTICS = {"pixel_mean": (0.48145466, 0.4578275, 0.40821073), "pixel_stddev": (0.26862954, 0.26130258, 0.27577711)}  # of CLIP's images
TEXT = {"vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8}
TEXT |= {"max_position_embeddings": 77}
VISION = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "image_size": 224, "patch_size": 32}


NAMES = {  # of a tower, in config.json -> with us
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "mlp_width",
    "layer_norm_eps": "norm_epsilon",
    "attention_dropout": "dropout",
}


def tower_fields(stored: dict) -> dict:
    activation = choose(stored, "hidden_act", ACTIVATIONS, "quick_gelu")
    return named(stored, NAMES, {"layer_norm_eps": 1e-5, "attention_dropout": 0.0}) | {"activation": activation, "norm": "pre"}


def fields(stored: dict) -> dict:
    text, vision = TEXT | stored.get("text_config", {}), VISION | stored.get("vision_config", {})  # what is at its default is left out there
    image = {"name": "vit", "image_size": vision["image_size"], "patch_size": vision["patch_size"], "channels": vision.get("num_channels", 3)}
    image |= {"class_token": True, "pool": "first", "patch_bias": False, "embedding_norm": True} | statistics(stored, STATISTICS)
    words = {"name": "gpt", "vocab_size": text["vocab_size"], "max_length": text["max_position_embeddings"], "pool": "last"}
    towers = {"first": image | tower_fields(vision), "second": words | tower_fields(text)}
    nested = {f"{tower}.{name}": value for tower, of_tower in towers.items() for name, value in of_tower.items()}
    return {"embedding_width": stored.get("projection_dim", 512)} | nested


def tower_config(model) -> dict:
    return written(model, NAMES) | {"hidden_act": theirs(ACTIVATIONS, model.activation)}


def config(model, ids: dict) -> dict:
    image, text = model.first, model.second
    vision = tower_config(image) | {"image_size": image.image_size, "patch_size": image.patch_size, "num_channels": image.channels}
    ids = {"eos_token_id": text.vocab_size - 1} | ids  # which the text is pooled at; the last, where nothing else is known, as OpenAI's is
    words = tower_config(text) | ids | {"vocab_size": text.vocab_size, "max_position_embeddings": text.max_length}
    both = {"projection_dim": model.embedding_width}
    return {"model_type": "clip", "vision_config": vision | both, "text_config": words | both} | both


def blocks(ours: str, theirs: str) -> list[Row]:
    layer = f"{theirs}.encoder.layers.{{}}"
    rows = norm(f"{ours}/attention_norm", f"{layer}.layer_norm1") + norm(f"{ours}/mlp_norm", f"{layer}.layer_norm2")
    for part, name in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
        rows += linear(f"{ours}/attention/{part}", f"{layer}.self_attn.{name}")
    rows += linear(f"{ours}/attention/out", f"{layer}.self_attn.out_proj", inputs=2)
    return rows + linear(f"{ours}/mlp/up", f"{layer}.mlp.fc1") + linear(f"{ours}/mlp/down", f"{layer}.mlp.fc2")


def rows(model, objective: str) -> list[Row]:
    vision, text = "vision_model", "text_model"
    return [
        Row("first/class_token", f"{vision}.embeddings.class_embedding", SAME),
        Row("first/position/embedding", f"{vision}.embeddings.position_embedding.weight", SAME),
        Row("first/patch/kernel", f"{vision}.embeddings.patch_embedding.weight", patch(model.first.patch_size, model.first.channels)),
        *norm("first/embedding_norm", f"{vision}.pre_layrnorm"),
        *blocks("first/encoder/blocks", vision),
        *norm("first/encoder/norm", f"{vision}.post_layernorm"),
        *linear("first_projection", "visual_projection", bias=False),
        Row("second/word/embedding", f"{text}.embeddings.token_embedding.weight", SAME),
        Row("second/position/embedding", f"{text}.embeddings.position_embedding.weight", SAME),
        *blocks("second/decoder/blocks", text),
        *norm("second/decoder/norm", f"{text}.final_layer_norm"),
        *linear("second_projection", "text_projection", bias=False),
        Row("log_scale", "logit_scale", SAME),
    ]


CLIP = Family(
    model="two_tower",
    prefix="",
    architectures={"CLIPModel": {"objective.name": "clip", "model.first.pool": "first", "model.second.pool": "last"}},
    fields=fields,
    config=config,
    rows=rows,
)
