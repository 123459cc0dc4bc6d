"""GPT-2 (Radford et al., 2019), and decoders in the style of Llama (arXiv 2302.13971)."""

from research.interop.family import ACTIVATIONS, Family, choose, only, theirs
from research.interop.weights import SAME, VECTOR, Row, conv1d, dense, linear, norm

BLOCK = "decoder/blocks"


def gpt2_fields(stored: dict) -> dict:
    only(stored, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    return {
        "vocab_size": stored["vocab_size"],
        "max_length": stored["n_positions"],
        "width": stored["n_embd"],
        "layers": stored["n_layer"],
        "heads": stored["n_head"],
        "mlp_width": stored.get("n_inner") or 4 * stored["n_embd"],
        "activation": choose(stored, "activation_function", ACTIVATIONS, "gelu_new"),
        "norm": "pre",
        "norm_epsilon": stored.get("layer_norm_epsilon", 1e-5),
        "dropout": stored.get("resid_pdrop", 0.1),
        "initializer_stddev": stored.get("initializer_range", 0.02),
        "scale_residual_initializer": True,
        "pool": "last",
    }


def gpt2_config(model, ids: dict) -> dict:
    return {
        **ids,
        "model_type": "gpt2",
        "vocab_size": model.vocab_size,
        "n_positions": model.max_length,
        "n_embd": model.width,
        "n_layer": model.layers,
        "n_head": model.heads,
        "n_inner": model.mlp_width,
        "activation_function": theirs(ACTIVATIONS, model.activation),
        "layer_norm_epsilon": model.norm_epsilon,
        "resid_pdrop": model.dropout,
        "embd_pdrop": model.dropout,
        "attn_pdrop": model.dropout,
        "initializer_range": model.initializer_stddev,
    }


def gpt2_rows(model, objective: str) -> list[Row]:
    layer = "h.{}"
    rows = [Row("word/embedding", "wte.weight", SAME), Row("position/embedding", "wpe.weight", SAME), *norm("decoder/norm", "ln_f")]
    rows += norm(f"{BLOCK}/attention_norm", f"{layer}.ln_1") + norm(f"{BLOCK}/mlp_norm", f"{layer}.ln_2")
    for i, part in enumerate(("query", "key", "value")):  # one map there
        rows.append(Row(f"{BLOCK}/attention/{part}/kernel", f"{layer}.attn.c_attn.weight", conv1d(), part=(i, 3)))
        rows.append(Row(f"{BLOCK}/attention/{part}/bias", f"{layer}.attn.c_attn.bias", VECTOR, part=(i, 3)))
    for ours, name, inputs in (("attention/out", "attn.c_proj", 2), ("mlp/up", "mlp.c_fc", 1), ("mlp/down", "mlp.c_proj", 1)):
        rows.append(Row(f"{BLOCK}/{ours}/kernel", f"{layer}.{name}.weight", conv1d(inputs)))
        rows.append(Row(f"{BLOCK}/{ours}/bias", f"{layer}.{name}.bias", VECTOR))
    return rows


GPT2 = Family(
    model="gpt",
    prefix="transformer.",
    architectures={"GPT2LMHeadModel": {"objective.name": "causal_lm"}, "GPT2Model": {"objective.name": "causal_lm"}},
    fields=gpt2_fields,
    config=gpt2_config,
    rows=gpt2_rows,
    tied=lambda stored: {"lm_head.weight": "wte.weight"},
    ignored=lambda config: r"\.attn\.(masked_)?bias$",  # the causal mask, which old checkpoints hold
)


def llama_fields(stored: dict) -> dict:
    only(stored, attention_bias=False, mlp_bias=False, rope_scaling=None, sliding_window=None)
    rotary = stored.get("rope_parameters") or {}
    only(rotary, rope_type="default")
    only(stored, head_dim=stored["hidden_size"] // stored["num_attention_heads"])
    return {
        "vocab_size": stored["vocab_size"],
        "max_length": stored["max_position_embeddings"],
        "width": stored["hidden_size"],
        "layers": stored["num_hidden_layers"],
        "heads": stored["num_attention_heads"],
        "kv_heads": stored.get("num_key_value_heads") or stored["num_attention_heads"],
        "mlp_width": stored["intermediate_size"],
        "gated_mlp": True,
        "activation": choose(stored, "hidden_act", ACTIVATIONS, "silu"),
        "use_bias": False,
        "norm": "pre",
        "norm_type": "rms",
        "norm_epsilon": stored.get("rms_norm_eps", 1e-6),
        "positions": "rotary",
        "rotary_base": float(rotary.get("rope_theta") or stored.get("rope_theta") or 10_000.0),
        "dropout": 0.0,
        "initializer_stddev": stored.get("initializer_range", 0.02),
        "tied_head": bool(stored.get("tie_word_embeddings", False)),
        "pool": "last",
    }


def llama_config(model, ids: dict) -> dict:
    return {
        **ids,
        "model_type": "llama",
        "vocab_size": model.vocab_size,
        "max_position_embeddings": model.max_length,
        "hidden_size": model.width,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads or model.heads,
        "intermediate_size": model.mlp_width,
        "hidden_act": theirs(ACTIVATIONS, model.activation),
        "rms_norm_eps": model.norm_epsilon,
        "rope_theta": model.rotary_base,
        "initializer_range": model.initializer_stddev,
        "tie_word_embeddings": model.tied_head,
        "attention_bias": False,
        "mlp_bias": False,
    }


def llama_rows(model, objective: str) -> list[Row]:
    layer = "layers.{}"
    names = {"query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj"}
    rows = [Row("word/embedding", "embed_tokens.weight", SAME), Row("head/kernel", "lm_head.weight", dense(), head=True)]
    rows += norm("decoder/norm", "norm", bias=False) + norm(f"{BLOCK}/attention_norm", f"{layer}.input_layernorm", bias=False)
    rows += norm(f"{BLOCK}/mlp_norm", f"{layer}.post_attention_layernorm", bias=False)
    for part, name in names.items():
        rows += linear(f"{BLOCK}/attention/{part}", f"{layer}.{name}", bias=False)
    rows += linear(f"{BLOCK}/attention/out", f"{layer}.self_attn.o_proj", inputs=2, bias=False)
    for part in ("gate", "up", "down"):
        rows += linear(f"{BLOCK}/mlp/{part}", f"{layer}.mlp.{part}_proj", bias=False)
    return rows


LLAMA = Family(
    model="gpt",
    prefix="model.",
    architectures={"LlamaForCausalLM": {"objective.name": "causal_lm"}},
    fields=llama_fields,
    config=llama_config,
    rows=llama_rows,
    tied=lambda stored: {"lm_head.weight": "embed_tokens.weight"} if stored.get("tie_word_embeddings") else {},
    ignored=lambda config: r"rotary_emb\.inv_freq$",
)
