"""GPT: GPT-2 (Radford et al., 2019) and GPT-3 (Brown et al., arXiv 2005.14165), and the decoders that came of them, all as options of the one Transformer."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from research.core.sharding import constrain
from research.models.attention import Mask, causal_mask
from research.models.heads import pool
from research.models.layers import Dense, Dropout, Embedding, TransformerConfig, check_choice
from research.models.transformer import Transformer


class Gpt(nn.Module):
    """A decoder and its language-model head.

    `inputs`: tokens (B, T) int32, mask (B, T) bool (False at padding).
    `encode`: inputs -> hidden_BTD, each token seeing those before it and itself.
    `embed`: inputs -> pooled_BD.
    `hidden` and `logits`: what calling it does, in its two steps.
    Calling it: tokens_BT and positions_BT int32, mask, cache or None -> (logits_BTV float32, cache).
    Logits at t are for the token after t. With a cache S is its slots and slot s holds the token of position s (see Attention).
    """

    config: TransformerConfig
    deterministic: bool = True

    def __post_init__(self):
        check_choice("gpt", "positions", self.config.positions, ("learned", "rotary"))
        super().__post_init__()

    def setup(self):
        c = self.config
        self.word = Embedding(c, c.vocab_size, "vocab")
        if c.positions == "learned":
            self.position = Embedding(c, c.max_length, None)
        self.dropout = Dropout(c.dropout, deterministic=self.deterministic)
        self.decoder = Transformer(c, self.deterministic)
        if not c.tied_head:
            self.head = Dense(c, (c.vocab_size,), ("embed", "vocab"), use_bias=False, out_dtype="float32")

    @property
    def width(self) -> int:
        return self.config.width

    def inputs(self, batch_size: int, length: int):
        return {
            "tokens": jax.ShapeDtypeStruct((batch_size, length), jnp.int32),
            "mask": jax.ShapeDtypeStruct((batch_size, length), bool),
        }

    def cache(self, batch_size: int, slots: int):
        """An empty cache: keys and values, each (L, B, S, G, K) of the computation's dtype."""
        c = self.config
        empty = constrain(jnp.zeros((c.layers, batch_size, slots, c.key_heads, c.head_width), c.dtype), "layers", "batch", None, "heads", "head_dim")
        return {"key": empty, "value": empty}

    def encode(self, inputs):
        tokens_BT, mask_BT = inputs["tokens"], inputs["mask"]
        positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
        return self.hidden(tokens_BT, positions_BT, causal_mask(mask_BT.astype(jnp.int32)))[0]

    def embed(self, inputs):
        check_choice("gpt", "pool", self.config.pool, ("last", "mean"))  # the first token sees itself alone
        return constrain(pool(self.encode(inputs), inputs["mask"], self.config.pool), "batch", "embed")

    def hidden(self, tokens_BT, positions_BT, mask: Mask, cache=None):
        x_BTD = constrain(self.word(tokens_BT), "batch", "sequence", "embed")
        if self.config.positions == "learned":
            x_BTD = x_BTD + self.position(positions_BT)
        return self.decoder(constrain(self.dropout(x_BTD), "batch", "sequence", "embed"), mask, positions_BT, cache)

    def __call__(self, tokens_BT, positions_BT, mask: Mask, cache=None):
        hidden_BTD, cache = self.hidden(tokens_BT, positions_BT, mask, cache)
        return self.logits(hidden_BTD), cache

    def logits(self, hidden_BTD):
        logits_BTV = self.word.attend(hidden_BTD) if self.config.tied_head else self.head(hidden_BTD)
        return constrain(logits_BTV, "batch", "sequence", "vocab")
