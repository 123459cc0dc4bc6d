"""BERT (Devlin et al., arXiv 1810.04805) as published: post-LN, learned positions, segment embeddings, erf GELU, pooler, tied head."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from research.core.sharding import constrain
from research.models.attention import padding_mask
from research.models.heads import MaskedLMHead, pool
from research.models.layers import POOLERS, Dense, Dropout, Embedding, TransformerConfig, check_choice, make_norm
from research.models.transformer import Transformer


class Bert(nn.Module):
    """The encoder with its two pretraining heads.

    `inputs`: tokens (B, T) int32, token_types (B, T) int32 (which of the two segments), mask (B, T) bool (False at padding).
    `encode`: inputs -> hidden_BTD.
    `embed`: inputs -> pooled_BD; with pool "first" a layer over the first token, [CLS], with a tanh (or `pooler`).
    Calling it: inputs and positions_BP int32, the tokens to predict -> logits_BPV, next_sentence_logits_B2 (None where not
    asked for), float32.
    """

    config: TransformerConfig
    deterministic: bool = True

    def __post_init__(self):
        check_choice("bert", "positions", self.config.positions, ("learned", "rotary"))
        check_choice("bert", "pool", self.config.pool, ("first", "last", "mean"))
        super().__post_init__()

    def setup(self):
        c = self.config
        self.word = Embedding(c, c.vocab_size, "vocab")
        if c.positions == "learned":
            self.position = Embedding(c, c.max_length, None)
        if c.token_types:
            self.token_type = Embedding(c, c.token_types, None)
        self.norm = make_norm(c)
        self.dropout = Dropout(c.dropout, deterministic=self.deterministic)
        self.encoder = Transformer(c, self.deterministic)
        self.pooler = Dense(c, (c.width,), ("embed", None))
        self.masked_lm = MaskedLMHead(c)
        self.next_sentence = Dense(c, (2,), ("embed", None))

    @property
    def width(self) -> int:
        return self.config.width

    def inputs(self, batch_size: int, length: int):
        tokens = jax.ShapeDtypeStruct((batch_size, length), jnp.int32)
        return {"tokens": tokens, "token_types": tokens, "mask": jax.ShapeDtypeStruct((batch_size, length), bool)}

    def encode(self, inputs):
        tokens_BT, mask_BT = inputs["tokens"], inputs["mask"]
        x_BTD = constrain(self.word(tokens_BT), "batch", "sequence", "embed")
        if self.config.token_types:
            x_BTD = x_BTD + self.token_type(jnp.minimum(inputs["token_types"], self.config.token_types - 1))
        if self.config.positions == "learned":
            x_BTD = x_BTD + self.position(jnp.arange(tokens_BT.shape[1]))
        x_BTD = constrain(self.dropout(self.norm(x_BTD)), "batch", "sequence", "embed")
        return self.encoder(x_BTD, padding_mask(mask_BT))[0]

    def embed(self, inputs):
        return self._pool(self.encode(inputs), inputs["mask"])

    def _pool(self, hidden_BTD, mask_BT):
        pooled_BD = constrain(pool(hidden_BTD, mask_BT, self.config.pool), "batch", "embed")
        return constrain(POOLERS[self.config.pooler](self.pooler(pooled_BD)), "batch", None) if self.config.pool == "first" else pooled_BD

    def __call__(self, inputs, positions_BP, next_sentence: bool = True):
        hidden_BTD = self.encode(inputs)
        # Only the tokens to predict reach the vocabulary: P is 15 % of T.
        hidden_BPD = constrain(jnp.take_along_axis(hidden_BTD, positions_BP[..., None], axis=1), "batch", None, "embed")
        logits_BPV = self.masked_lm(hidden_BPD, self.word)
        if not next_sentence:
            return logits_BPV, None
        return logits_BPV, self.next_sentence(self._pool(hidden_BTD, inputs["mask"])).astype(jnp.float32)
