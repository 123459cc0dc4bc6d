"""What stands on top of a Transformer."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from research.core.sharding import constrain
from research.models.layers import ACTIVATIONS, Dense, Dropout, Embedding, TransformerConfig, bias, make_norm


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


class Head(nn.Module):
    """What fine-tuning puts on top: dropout and a linear map, in float32. x (B, ..., D) -> (B, ..., outputs) float32."""

    config: TransformerConfig
    outputs: int
    stddev: float | None = None  # of the initial kernel; None: the config's
    deterministic: bool = True

    @nn.compact
    def __call__(self, x):
        c = dataclasses.replace(self.config, dtype="float32")
        x = Dropout(c.dropout, deterministic=self.deterministic)(x)
        y = Dense(c, (self.outputs,), ("embed", None), self.stddev, use_bias=True, name="out")(x)
        return constrain(y, "batch", *["sequence"] * (y.ndim - 2), None)


class ProjectionHead(nn.Module):
    """Linear maps to `widths` in turn, with ReLU between them: where contrastive losses see an embedding. pooled_BD -> (B, widths[-1])."""

    config: TransformerConfig
    widths: tuple[int, ...]
    deterministic: bool = True

    @nn.compact
    def __call__(self, x_BD):
        for i, width in enumerate(self.widths):
            x_BD = jax.nn.relu(x_BD) if i else x_BD
            x_BD = Dense(self.config, (width,), ("embed", None), x_BD.shape[-1] ** -0.5, name=f"layer_{i}")(constrain(x_BD, "batch", None))
        return x_BD


def last(mask_BT):
    """The place of the last True of each row -> (B,) int32; T - 1 where there is none."""
    return mask_BT.shape[1] - 1 - jnp.argmax(mask_BT[:, ::-1], axis=1)


def pool(hidden_BTD, mask_BT, how: str):
    """One vector for each row, of the tokens in mask_BT: the `first`, the `last` or their `mean` -> pooled_BD."""
    if how == "first":
        return hidden_BTD[:, 0]
    if how == "last":
        return jnp.take_along_axis(hidden_BTD, last(mask_BT)[:, None, None], axis=1)[:, 0]
    weights_BT1 = mask_BT[..., None].astype(hidden_BTD.dtype)
    return (hidden_BTD * weights_BT1).sum(1) / jnp.maximum(weights_BT1.sum(1), 1)


class Cells(nn.Module):
    """Some features of each cell of a board, those of all of them side by side: hidden_BTD -> (B, T * features)."""

    config: TransformerConfig
    features: int

    @nn.compact
    def __call__(self, hidden_BTD):
        dense = Dense(self.config, (self.features,), ("embed", None), hidden_BTD.shape[-1] ** -0.5, use_bias=True, name="features")
        return constrain(jax.nn.relu(dense(hidden_BTD)).reshape(len(hidden_BTD), -1), "batch", None)


class PolicyHead(nn.Module):
    """What an agent makes of a board (Silver et al., 2017, methods): of each cell some features, of all of them together the logits of its moves.

    hidden_BTD -> logits_BA float32.
    """

    config: TransformerConfig
    actions: int
    features: int = 8
    deterministic: bool = True

    @nn.compact
    def __call__(self, hidden_BTD):
        c = dataclasses.replace(self.config, dtype="float32")
        x_BF = Cells(c, self.features, name="cells")(hidden_BTD)
        return Dense(c, (self.actions,), (None, None), 0.1 * x_BF.shape[-1] ** -0.5, use_bias=True, name="out")(x_BF)


class ValueHead(nn.Module):
    """And how it expects the game to end for whoever is to move. hidden_BTD -> value_B float32 in [-1, 1], or any number where not `bounded`."""

    config: TransformerConfig
    bounded: bool = True
    features: int = 4
    hidden: int = 64
    deterministic: bool = True

    @nn.compact
    def __call__(self, hidden_BTD):
        c = dataclasses.replace(self.config, dtype="float32")
        x_BF = Cells(c, self.features, name="cells")(hidden_BTD)
        x_BF = jax.nn.relu(Dense(c, (self.hidden,), (None, None), (2 / x_BF.shape[-1]) ** 0.5, use_bias=True, name="hidden")(x_BF))
        value_B = Dense(c, (1,), (None, None), 0.1 * self.hidden**-0.5, use_bias=True, name="out")(x_BF)[:, 0]
        return jnp.tanh(value_B) if self.bounded else value_B
