"""What stands on top of a Transformer."""

import jax.numpy as jnp
from flax import linen as nn

from research.core.sharding import constrain
from research.models.transformer import ACTIVATIONS, Dense, Embedding, TransformerConfig, bias, make_norm


class MaskedLMHead(nn.Module):
    """BERT's masked-language-model head: dense, activation, layer norm, then the word table transposed plus a bias of its own.

    hidden_BPD, the word embedding -> logits_BPV float32.
    """

    config: TransformerConfig

    @nn.compact
    def __call__(self, hidden_BPD, word: Embedding):
        c = self.config
        h_BPD = ACTIVATIONS[c.activation](Dense(c, (c.width,), ("embed", None), name="transform")(hidden_BPD))
        h_BPD = make_norm(c, "norm")(h_BPD)
        bias_V = self.param("bias", bias("vocab"), (c.vocab_size,))
        logits_BPV = constrain(word.attend(h_BPD), "batch", None, "vocab")
        return logits_BPV + bias_V


def pool(hidden_BTD, mask_BT, how: str):
    """One vector for each row, of the tokens in mask_BT: the `first`, the `last` or their `mean` -> pooled_BD."""
    if how == "first":
        return hidden_BTD[:, 0]
    if how == "last":
        last_B = hidden_BTD.shape[1] - 1 - jnp.argmax(mask_BT[:, ::-1], axis=1)
        return jnp.take_along_axis(hidden_BTD, last_B[:, None, None], axis=1)[:, 0]
    weights_BT1 = mask_BT[..., None].astype(hidden_BTD.dtype)
    return (hidden_BTD * weights_BT1).sum(1) / jnp.maximum(weights_BT1.sum(1), 1)
