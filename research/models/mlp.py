"""A multilayer perceptron over observations that are a few numbers, as PPO has it for control (Schulman et al., arXiv 1707.06347, section 6.1).

B batch, N numbers of an observation, D width.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from research.core.sharding import constrain
from research.models.layers import ACTIVATIONS, Dense, TransformerConfig


@dataclasses.dataclass(frozen=True)
class PerceptronConfig(TransformerConfig):
    observation_size: int


class Perceptron(nn.Module):
    """L layers of D units, each a linear map and the activation.

    `inputs`: observation (B, N) float32.
    `encode`: inputs -> hidden (B, 1, D): for the heads, an observation is one token.
    `embed`: inputs -> pooled_BD.
    """

    config: PerceptronConfig
    deterministic: bool = True

    @property
    def width(self) -> int:
        return self.config.width

    def inputs(self, batch_size: int, length: int):
        return {"observation": jax.ShapeDtypeStruct((batch_size, self.config.observation_size), jnp.float32)}

    @nn.compact
    def encode(self, inputs):
        c, x = self.config, inputs["observation"]
        for i in range(c.layers):
            dense = Dense(c, (c.width,), ("embed" if i else None, None if i else "embed"), x.shape[-1] ** -0.5, name=f"layer_{i}")
            x = constrain(ACTIVATIONS[c.activation](dense(x)), "batch", "embed")
        return x[:, None]

    def embed(self, inputs):
        return self.encode(inputs)[:, 0]
