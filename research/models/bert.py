"""BERT (Devlin et al., arXiv 1810.04805) as published: post-LN, learned positions, segment embeddings, erf GELU, pooler, tied head."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from research.core.sharding import constrain
from research.models.attention import Mask, padding_mask, positions_in_segments
from research.models.heads import MaskedLMHead, pool
from research.models.layers import POOLERS, Dense, Dropout, Embedding, TransformerConfig, check_choice, make_norm
from research.models.transformer import Transformer


class Bert(nn.Module):
    """The encoder with its two pretraining heads.

    `inputs`: tokens (B, T) int32, token_types (B, T) int32 (which of the two texts), mask (B, T) bool (False at padding). Of packed rows there is
    segments (B, T) int32 in place of mask: 1, 2, ... the sequences of a row, 0 at padding; each sees itself alone and its positions count from 0.
    `encode`: inputs -> hidden_BTD.
    `embed`: inputs -> pooled_BD; with pool "first" a layer over the first token, [CLS], with a tanh (or `pooler`).
    Calling it: inputs and positions_BP int32, the tokens to predict -> logits_BPV and next_sentence_logits_B2, float32; of packed rows that is
    (B, N, 2) for N = `sequences`, the first ones of a row, whatever stands where it has fewer; None where `sequences` is 0.
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
        tokens_BT, packed = inputs["tokens"], "segments" in inputs
        mask = Mask(inputs["segments"]) if packed else padding_mask(inputs["mask"])
        positions_BT = positions_in_segments(inputs["segments"]) if packed else None
        x_BTD = constrain(self.word(tokens_BT), "batch", "sequence", "embed")
        if self.config.token_types:
            x_BTD = x_BTD + self.token_type(jnp.minimum(inputs["token_types"], self.config.token_types - 1))
        if self.config.positions == "learned":
            x_BTD = x_BTD + self.position(positions_BT if packed else jnp.arange(tokens_BT.shape[1]))
        x_BTD = constrain(self.dropout(self.norm(x_BTD)), "batch", "sequence", "embed")
        return self.encoder(x_BTD, mask, positions_BT)[0]

    def embed(self, inputs):
        return self._pool(self.encode(inputs), inputs["mask"])

    def _pool(self, hidden_BTD, mask_BT):
        pooled_BD = constrain(pool(hidden_BTD, mask_BT, self.config.pool), "batch", "embed")
        return self._pooled(pooled_BD) if self.config.pool == "first" else pooled_BD

    def _pooled(self, first_BxD):
        between = [None] * (first_BxD.ndim - 1)
        return constrain(POOLERS[self.config.pooler](self.pooler(first_BxD)), "batch", *between)

    def _pool_each(self, hidden_BTD, segments_BT, sequences: int):
        """pooled (B, N, D) of the first token of each sequence of packed rows."""
        check_choice("bert with packed rows", "pool", self.config.pool, ("first",))
        firsts_BN = jnp.argmax(segments_BT[:, None] == jnp.arange(1, sequences + 1)[:, None], -1)
        return self._pooled(constrain(jnp.take_along_axis(hidden_BTD, firsts_BN[..., None], axis=1), "batch", None, "embed"))

    def __call__(self, inputs, positions_BP, sequences: int = 1):
        hidden_BTD = self.encode(inputs)
        # Only the tokens to predict reach the vocabulary: P is 15 % of T.
        hidden_BPD = constrain(jnp.take_along_axis(hidden_BTD, positions_BP[..., None], axis=1), "batch", None, "embed")
        logits_BPV = self.masked_lm(hidden_BPD, self.word)
        if not sequences:
            return logits_BPV, None
        packed = "segments" in inputs
        pooled = self._pool_each(hidden_BTD, inputs["segments"], sequences) if packed else self._pool(hidden_BTD, inputs["mask"])
        return logits_BPV, self.next_sentence(pooled).astype(jnp.float32)
