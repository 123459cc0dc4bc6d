"""What the objectives share whose model says at once what to do and what will come of it."""

import dataclasses
from typing import ClassVar

import jax
from flax import linen as nn

from research.core import linen
from research.core.errors import UserError
from research.models.heads import PolicyHead, ValueHead

TAKERS = {"image": ("vit", "resnet"), "observation": ("mlp",)}  # what models take -> those that do, by their names in a config


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyValue:
    """A backbone and upon the hidden states of its tokens two heads, `policy` and `value`. Parameters: those of the model, and these two."""

    model: nn.Module
    batch_size: int
    actions: int = 1
    separable = True
    bounded = True  # values lie in [-1, 1]
    reads: ClassVar[tuple[str, ...]] = ("image",)  # what an observation may be: of TAKERS

    def __post_init__(self):
        if not set(self.reads) & set(getattr(self.model, "inputs", lambda *_: ())(1, 1)):
            kinds, models = [f"{kind}s" for kind in self.reads], [model for kind in self.reads for model in TAKERS[kind]]
            raise UserError(f"{type(self).__name__} reads {' or '.join(kinds)}, not text: choose model.name {' or '.join(models)}.")

    @property
    def heads(self):
        return {"policy": PolicyHead(self.model.config, self.actions), "value": ValueHead(self.model.config, self.bounded)}

    @property
    def observation(self):
        return self.model.inputs(self.batch_size, 0)

    @property
    def _calls(self):
        inputs = linen.zeros(self.model.inputs(1, 0))
        hidden = jax.eval_shape(lambda rng: self.model.init_with_output(rng, inputs, method="encode")[0], jax.random.key(0))
        zeros = jax.numpy.zeros(hidden.shape, hidden.dtype)
        return {"": linen.Call(self.model, (inputs,), "encode")} | {name: linen.Call(head, (zeros,)) for name, head in self.heads.items()}

    def init(self, rng):
        return linen.init_all(self._calls, rng)

    @property
    def logical_axes(self):
        return linen.all_logical_axes(self._calls)

    def predict(self, params, inputs, rng=None):
        """policy (B, A) float32, logits of all actions, the illegal ones too; value (B,) float32, of whoever is to move."""
        hidden_BTD = linen.apply(self.model, params, rng, inputs, method="encode")
        return {name: linen.apply(head, params[name], None, hidden_BTD) for name, head in self.heads.items()}
