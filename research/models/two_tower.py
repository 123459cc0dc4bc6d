"""Two towers that meet in one space: image and text (CLIP, arXiv 2103.00020, section 2.3), image and image, text and text."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from research.core.errors import UserError
from research.core.sharding import constrain
from research.core.types import view
from research.models.layers import Dense

VIEWS = ("first", "second")


class TwoTower(nn.Module):
    """Any two models that embed, each under a linear map without bias into E dimensions, and a temperature that is learned.

    `inputs`: what the towers take, named first/... and second/...
    `towers`: inputs -> (first_BE, second_BE, log_scale): embeddings of length 1, and the logarithm of what to multiply their
      similarities by, all float32.
    `embed`: the inputs of one tower, named as that tower does -> embedding_BE of length 1. Where both would take them, the first does.
    """

    first_tower: nn.Module
    second_tower: nn.Module
    embedding_width: int
    temperature: float = 0.07  # to begin with: log_scale starts at -log of it
    deterministic: bool = True

    def setup(self):
        for name, tower in zip(VIEWS, (self.first_tower, self.second_tower)):
            # Named by its view in the parameters; dropout is for this module to say.
            setattr(self, name, tower.clone(parent=None, name=None, deterministic=self.deterministic))
            axes = ("embed", None)
            setattr(self, f"{name}_projection", Dense(tower.config, (self.embedding_width,), axes, tower.width**-0.5, use_bias=False))
        self.log_scale = self.param("log_scale", nn.with_logical_partitioning(nn.initializers.constant(-math.log(self.temperature)), ()), ())

    @property
    def width(self) -> int:
        return self.embedding_width

    @property
    def kinds(self) -> tuple[str, str]:
        """What the towers see, such as ("image", "text"); ("first", "second") where both see the same."""
        first, second = ("image" if "image" in tower.inputs(1, 1) else "text" for tower in (self.first_tower, self.second_tower))
        return (first, second) if first != second else VIEWS

    def inputs(self, batch_size: int, length: int):
        towers = zip(VIEWS, (self.first_tower, self.second_tower))
        return {f"{name}/{key}": x for name, tower in towers for key, x in tower.inputs(batch_size, length).items()}

    def towers(self, inputs):
        return self._embed("first", view(inputs, "first")), self._embed("second", view(inputs, "second")), self.log_scale

    def embed(self, inputs):
        taken = {name: getattr(self, name).inputs(1, 1) for name in VIEWS}
        for name in VIEWS:
            if taken[name].keys() <= inputs.keys():
                return self._embed(name, inputs)
        raise UserError(f"no tower takes {', '.join(inputs)}: the first takes {', '.join(taken['first'])}, the second {', '.join(taken['second'])}.")

    def _embed(self, name, inputs):
        return unit(getattr(self, f"{name}_projection")(getattr(self, name).embed(inputs)))


def unit(x_BE):
    """Each row divided by its length, in float32; the zero row stays."""
    x_BE = constrain(x_BE, "batch", None).astype(jnp.float32)
    return x_BE * jax.lax.rsqrt(jnp.maximum(jnp.sum(x_BE**2, -1, keepdims=True), 1e-12))
