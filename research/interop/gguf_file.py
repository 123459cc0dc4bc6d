"""A GGUF file of llama.cpp's: what it holds, told as if it were a Hugging Face directory of a Llama. Read with the package `gguf` (extra `gguf`)."""

from collections.abc import Iterator

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from research.core.errors import UserError

try:
    import gguf
except ImportError:  # an extra
    gguf = None  # type: ignore[assignment]

NAMES = {  # of tensors: there -> as Llama's are called by Hugging Face; {} is the layer
    "token_embd.weight": "embed_tokens.weight",
    "output_norm.weight": "norm.weight",
    "output.weight": "lm_head.weight",
    "blk.{}.attn_norm.weight": "layers.{}.input_layernorm.weight",
    "blk.{}.ffn_norm.weight": "layers.{}.post_attention_layernorm.weight",
    "blk.{}.attn_q.weight": "layers.{}.self_attn.q_proj.weight",
    "blk.{}.attn_k.weight": "layers.{}.self_attn.k_proj.weight",
    "blk.{}.attn_v.weight": "layers.{}.self_attn.v_proj.weight",
    "blk.{}.attn_output.weight": "layers.{}.self_attn.o_proj.weight",
    "blk.{}.ffn_gate.weight": "layers.{}.mlp.gate_proj.weight",
    "blk.{}.ffn_up.weight": "layers.{}.mlp.up_proj.weight",
    "blk.{}.ffn_down.weight": "layers.{}.mlp.down_proj.weight",
}
PRE_TOKENIZERS = {  # how text is parted before its bytes are merged
    "gpt-2": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": lambda: pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]),
}
CONTROL = 3  # the type of tokens with a meaning of their own


class GgufFile:
    """`config`, and the tensors by the names that Hugging Face has for them, dequantised to float32 one at a time (see research/interop/directory.py)."""

    def __init__(self, path):
        if gguf is None:
            raise UserError("reading GGUF needs the package gguf: pip install gguf, or EXTRAS=test,gguf launch/local.sh.")
        self.where = str(path)
        try:
            self._reader = gguf.GGUFReader(path)
        except (OSError, ValueError, IndexError) as e:
            raise UserError(f"{path} cannot be read as GGUF ({e}): it is cut off or something else.") from e
        if self._field("general.architecture") != "llama":
            raise UserError(f"{path} is a {self._field('general.architecture')}, which is not known here: of GGUF only llama is.")
        self._tensors = {self._known_as(tensor.name): tensor for tensor in self._reader.tensors}
        self.config = self._config()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(int(size) for size in self._tensors[name].shape[::-1])

    def read(self, name: str) -> np.ndarray:
        tensor = self._tensors[name]
        x = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        heads = {"q_proj": self.config["num_attention_heads"], "k_proj": self.config["num_key_value_heads"]}
        for part, count in heads.items():
            if f".{part}." in name:  # llama.cpp turns neighbouring dimensions, Hugging Face (and we) those half a head apart
                x = x.reshape(count, -1, 2, x.shape[-1]).swapaxes(1, 2).reshape(x.shape)
        return x

    def _field(self, name: str, default=None):
        field = self._reader.get_field(name)
        return default if field is None else field.contents()

    def _config(self) -> dict:
        """As a Llama's config.json."""
        of = lambda name, default=None: self._field(f"llama.{name}", default)
        return {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "vocab_size": self.shape("embed_tokens.weight")[0],
            "max_position_embeddings": of("context_length"),
            "hidden_size": of("embedding_length"),
            "num_hidden_layers": of("block_count"),
            "num_attention_heads": of("attention.head_count"),
            "num_key_value_heads": of("attention.head_count_kv", of("attention.head_count")),
            "intermediate_size": of("feed_forward_length"),
            "rms_norm_eps": float(f"{of('attention.layer_norm_rms_epsilon'):.6g}"),  # stored as float32
            "rope_theta": of("rope.freq_base", 10_000.0),
            "rope_scaling": of("rope.scaling.type"),
            "tie_word_embeddings": "lm_head.weight" not in self._tensors,
            "eos_token_id": self._field("tokenizer.ggml.eos_token_id"),
        }

    def _known_as(self, name: str) -> str:
        layer = name.split(".")[1] if name.startswith("blk.") else None
        pattern = name if layer is None else name.replace(f"blk.{layer}.", "blk.{}.", 1)
        return NAMES.get(pattern, name).format(layer)

    def tokenizer(self) -> tokenizers.Tokenizer:
        """Byte-level BPE, as the metadata tell it. Raises UserError for another kind."""
        kind, before = self._field("tokenizer.ggml.model"), self._field("tokenizer.ggml.pre", "gpt-2")
        if kind != "gpt2" or before not in PRE_TOKENIZERS:
            raise UserError(f"{self.where} has a tokenizer of kind {kind!r}, {before!r}: known are byte-level BPE with {', '.join(PRE_TOKENIZERS)}.")
        tokens, types = self._field("tokenizer.ggml.tokens"), self._field("tokenizer.ggml.token_type")
        merges = [tuple(merge.split(" ")) for merge in self._field("tokenizer.ggml.merges")]
        made = tokenizers.Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
        made.pre_tokenizer, made.decoder = PRE_TOKENIZERS[before](), decoders.ByteLevel()
        made.add_special_tokens([token for token, of_token in zip(tokens, types) if of_token == CONTROL])
        return made
