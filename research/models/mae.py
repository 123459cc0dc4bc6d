"""The decoder of masked autoencoders (He et al., arXiv 2111.06377, section 3); the encoder is a ViT."""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn

from research.core.sharding import constrain
from research.models.layers import Dense, kernel
from research.models.transformer import Transformer
from research.models.vit import VitConfig, sincos


def decoder_config(config: VitConfig, width: int, layers: int, heads: int) -> VitConfig:
    """That of the encoder, but narrow and shallow, with fixed positions."""
    return dataclasses.replace(config, width=width, layers=layers, heads=heads, kv_heads=None, mlp_width=4 * width, positions="sincos")


class MaeDecoder(nn.Module):
    """hidden of the K visible patches (after that of the class token, if there is one), order_BN int32: the visible patches, then the hidden ones
    -> (B, N - K, P * P * C) float32: the values of the hidden patches, in that order."""

    config: VitConfig
    deterministic: bool = True

    @nn.compact
    def __call__(self, hidden, order_BN):
        c = self.config
        mask_token = self.param("mask_token", kernel(c.initializer_stddev, "embed"), (c.width,)).astype(c.dtype)
        # The encoder's width has no name here: `embed`, that of the decoder, may be split.
        x = Dense(c, (c.width,), (None, "embed"), hidden.shape[-1] ** -0.5, use_bias=True, name="embed")(hidden)
        first, visible = x[:, : int(c.class_token)], x[:, int(c.class_token) :]
        masked = jnp.broadcast_to(mask_token, (len(x), c.patches - visible.shape[1], c.width))
        x_BND = jnp.concatenate([visible, masked], axis=1) + sincos(c.grid, c.width, False)[order_BN].astype(c.dtype)
        x_BTD = constrain(jnp.concatenate([first, x_BND], axis=1), "batch", "sequence", "embed")
        x_BTD, _ = Transformer(c, self.deterministic, name="decoder")(x_BTD)
        last = x_BTD[:, x_BTD.shape[1] - masked.shape[1] :]
        return Dense(c, (c.patch_size**2 * c.channels,), ("embed", None), use_bias=True, name="pixels")(last).astype(jnp.float32)
