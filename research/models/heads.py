"""What stands on top of a Transformer."""

from flax import linen as nn

from research.core.sharding import constrain
from research.models.transformer import ACTIVATIONS, Dense, Embedding, TransformerConfig, bias, layer_norm


class MaskedLMHead(nn.Module):
    """BERT's masked-language-model head: dense, activation, layer norm, then the word table transposed plus a bias of its own.

    hidden_BPD, the word embedding -> logits_BPV float32.
    """

    config: TransformerConfig

    @nn.compact
    def __call__(self, hidden_BPD, word: Embedding):
        c = self.config
        h_BPD = ACTIVATIONS[c.activation](Dense(c, (c.width,), ("embed", None), name="transform")(hidden_BPD))
        h_BPD = layer_norm(c, "norm")(h_BPD)
        bias_V = self.param("bias", bias("vocab"), (c.vocab_size,))
        logits_BPV = constrain(word.attend(h_BPD), "batch", None, "vocab")
        return logits_BPV + bias_V
