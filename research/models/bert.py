"""BERT (Devlin et al., arXiv 1810.04805) as published: post-LN, learned positions, segment embeddings, erf GELU, pooler, tied head."""

import jax.numpy as jnp
from flax import linen as nn

from research.core.sharding import constrain
from research.models.heads import MaskedLMHead
from research.models.transformer import Dense, Embedding, Transformer, TransformerConfig, layer_norm


class Bert(nn.Module):
    """The encoder with its two pretraining heads.

    `encode`: tokens_BT int32, token_types_BT int32 (which of the two segments), mask_BT bool (False at padding) -> hidden_BTD.
    `pool`: hidden_BTD -> pooled_BD, a tanh layer over the first token, [CLS].
    Calling it: the same and positions_BP int32, the tokens to predict -> logits_BPV, next_sentence_logits_B2, float32.
    """

    config: TransformerConfig
    deterministic: bool = True

    def setup(self):
        c = self.config
        self.word = Embedding(c, c.vocab_size, "vocab")
        self.position = Embedding(c, c.max_length, None)
        self.token_type = Embedding(c, c.token_types, None)
        self.norm = layer_norm(c)
        self.dropout = nn.Dropout(c.dropout, deterministic=self.deterministic)
        self.encoder = Transformer(c, self.deterministic)
        self.pooler = Dense(c, (c.width,), ("embed", None))
        self.masked_lm = MaskedLMHead(c)
        self.next_sentence = Dense(c, (2,), ("embed", None))

    def encode(self, tokens_BT, token_types_BT, mask_BT):
        x_BTD = constrain(self.word(tokens_BT), "batch", "sequence", "embed")
        x_BTD = x_BTD + self.position(jnp.arange(tokens_BT.shape[1])) + self.token_type(token_types_BT)
        x_BTD = constrain(self.dropout(self.norm(x_BTD)), "batch", "sequence", "embed")
        mask_BTT = jnp.broadcast_to(mask_BT[:, None], (*tokens_BT.shape, tokens_BT.shape[1]))
        return self.encoder(x_BTD, mask_BTT)

    def pool(self, hidden_BTD):
        first_BD = constrain(hidden_BTD[:, 0], "batch", "embed")
        return constrain(jnp.tanh(self.pooler(first_BD)), "batch", None)

    def __call__(self, tokens_BT, token_types_BT, mask_BT, positions_BP):
        hidden_BTD = self.encode(tokens_BT, token_types_BT, mask_BT)
        # Only the tokens to predict reach the vocabulary: P is 15 % of T.
        hidden_BPD = constrain(jnp.take_along_axis(hidden_BTD, positions_BP[..., None], axis=1), "batch", None, "embed")
        logits_BPV = self.masked_lm(hidden_BPD, self.word)
        return logits_BPV, self.next_sentence(self.pool(hidden_BTD)).astype(jnp.float32)
