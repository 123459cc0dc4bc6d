"""ResNet (He et al., arXiv 1512.03385) over the cells of a board, as AlphaGo Zero has it (Silver et al., 2017), with layer norm for batch norm.

B batch, H rows, W columns, D width; as a ViT with one cell a patch, it gives a vector for each cell.
"""

import jax
from flax import linen as nn

from research.core.sharding import constrain
from research.models.layers import ACTIVATIONS, bias, kernel, make_norm
from research.models.vit import VitConfig, pixels


class Convolution(nn.Module):
    """3 x 3, of stride 1, padded with zeros: x_BHWC -> (B, H, W, D)."""

    config: VitConfig

    @nn.compact
    def __call__(self, x_BHWC):
        c, channels = self.config, x_BHWC.shape[-1]
        weight = self.param(
            "kernel", kernel((2 / (9 * channels)) ** 0.5, None, None, None, "embed"), (3, 3, channels, c.width)
        )  # arXiv 1502.01852, eq. 10
        y_BHWD = jax.lax.conv_general_dilated(
            x_BHWC.astype(c.dtype), weight.astype(c.dtype), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return constrain(y_BHWD + self.param("bias", bias("embed"), (c.width,)).astype(c.dtype), "batch", None, None, "embed")


class ResNet(nn.Module):
    """A convolution, then L residual blocks of two each, with the norm first (arXiv 1603.05027).

    `inputs`: image (B, H, W, C) uint8.
    `encode`: inputs -> hidden_BTD, a cell a token, row by row.
    `embed`: inputs -> pooled_BD, their mean.
    """

    config: VitConfig
    deterministic: bool = True

    @property
    def width(self) -> int:
        return self.config.width

    def inputs(self, batch_size: int, length: int):
        return self.config.images(batch_size)

    @nn.compact
    def encode(self, inputs):
        c = self.config

        def activated(x_BHWD, name):
            return ACTIVATIONS[c.activation](make_norm(c, name)(x_BHWD))

        x_BHWD = Convolution(c, name="stem")(pixels(inputs["image"], c))
        for i in range(c.layers):
            y_BHWD = Convolution(c, name=f"block_{i}_first")(activated(x_BHWD, f"block_{i}_first_norm"))
            x_BHWD = x_BHWD + Convolution(c, name=f"block_{i}_second")(activated(y_BHWD, f"block_{i}_second_norm"))
        x_BHWD = activated(x_BHWD, "norm")
        return x_BHWD.reshape(len(x_BHWD), -1, c.width)

    def embed(self, inputs):
        return constrain(self.encode(inputs).mean(1), "batch", "embed")
