"""An objective and a source of a paper's own, named in the config as "tests.line_fit:…": no text, no tokenizer, no model of ours."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from research.core.types import Mean

SLOPE = np.arange(8.0)


@dataclasses.dataclass(frozen=True)
class LineFit:
    """Least squares: loss = mean over examples of (slope . x - y)^2."""

    batch_size: int
    separable = True

    def init(self, rng):
        return {"slope": jnp.zeros(8)}

    @property
    def logical_axes(self):
        return {"slope": ("embed",)}

    @property
    def example_batch(self):
        shape = lambda *sizes: jax.ShapeDtypeStruct((self.batch_size, *sizes), "float32")
        return {"x": shape(8), "y": shape(), "valid": jax.ShapeDtypeStruct((self.batch_size,), bool)}

    def loss_fn(self, params, batch, rng):
        error = batch["x"] @ params["slope"] - batch["y"]
        return {"squared_error": Mean.of(error**2, batch["valid"])}, {"absolute_error": Mean.of(abs(error), batch["valid"])}


class Points:
    """y = SLOPE . x without noise."""

    manifest = {"made_from": "nothing"}

    def __init__(self, config, corpus, split, length, training):
        self._seed = split == "train"

    def __len__(self):
        return 64

    def example(self, i, rng):
        x = np.random.default_rng([self._seed, i]).normal(size=8)
        return {"x": np.float32(x), "y": np.float32(x @ SLOPE)}
