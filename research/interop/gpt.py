"""GPT-2 (Radford et al., 2019), and decoders in the style of Llama (arXiv 2302.13971)."""

from research.interop.family import ACTIVATIONS, Family, choose, named, only, theirs, written
from research.interop.weights import SAME, VECTOR, Row, conv1d, dense, linear, norm

BLOCK = "decoder/blocks"


GPT2_NAMES = {  # in config.json -> with us
    "vocab_size": "vocab_size",
    "n_positions": "max_length",
    "n_embd": "width",
    "n_layer": "layers",
    "n_head": "heads",
    "layer_norm_epsilon": "norm_epsilon",
    "resid_pdrop": "dropout",
    "initializer_range": "initializer_stddev",
}
GPT2_USUAL = {"layer_norm_epsilon": 1e-5, "resid_pdrop": 0.1, "initializer_range": 0.02}


def gpt2_fields(stored: dict) -> dict:
    only(stored, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    more = {"norm": "pre", "scale_residual_initializer": True, "pool": "last", "mlp_width": stored.get("n_inner") or 4 * stored["n_embd"]}
    return named(stored, GPT2_NAMES, GPT2_USUAL) | more | {"activation": choose(stored, "activation_function", ACTIVATIONS, "gelu_new")}


def gpt2_config(model, ids: dict) -> dict:
    more = {"model_type": "gpt2", "n_inner": model.mlp_width, "activation_function": theirs(ACTIVATIONS, model.activation)}
    return ids | written(model, GPT2_NAMES) | more | {"embd_pdrop": model.dropout, "attn_pdrop": model.dropout}


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


LLAMA_NAMES = {
    "vocab_size": "vocab_size",
    "max_position_embeddings": "max_length",
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "mlp_width",
    "rms_norm_eps": "norm_epsilon",
    "initializer_range": "initializer_stddev",
    "tie_word_embeddings": "tied_head",
}
LLAMA_USUAL = {"rms_norm_eps": 1e-6, "initializer_range": 0.02, "tie_word_embeddings": False}


def llama_fields(stored: dict) -> dict:
    only(stored, attention_bias=False, mlp_bias=False, rope_scaling=None, sliding_window=None)
    rotary = stored.get("rope_parameters") or {}
    only(rotary, rope_type="default")
    only(stored, head_dim=stored["hidden_size"] // stored["num_attention_heads"])
    return named(stored, LLAMA_NAMES, LLAMA_USUAL) | {
        "kv_heads": stored.get("num_key_value_heads") or stored["num_attention_heads"],
        "gated_mlp": True,
        "activation": choose(stored, "hidden_act", ACTIVATIONS, "silu"),
        "use_bias": False,
        "norm": "pre",
        "norm_type": "rms",
        "positions": "rotary",
        "rotary_base": float(rotary.get("rope_theta") or stored.get("rope_theta") or 10_000.0),
        "dropout": 0.0,
        "pool": "last",
    }


def llama_config(model, ids: dict) -> dict:
    more = {"model_type": "llama", "num_key_value_heads": model.kv_heads or model.heads, "hidden_act": theirs(ACTIVATIONS, model.activation)}
    return ids | written(model, LLAMA_NAMES) | more | {"rope_theta": model.rotary_base, "attention_bias": False, "mlp_bias": False}


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
