"""Unlikelihood training: a language model that is also told what not to say (Welleck et al., arXiv 1908.04319, equation 5)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from research.core import linen
from research.core.types import Batch, BatchSpec, Mean, Means, Params, Vocabulary


@dataclasses.dataclass(frozen=True)
class Unlikelihood:
    """loss = mean over tokens of -log p(token) + alpha * mean over tokens of -sum log(1 - p(c)), c the tokens before it in its row that it is not.

    Batch: as causal_lm's, tokens and segments (B, T) int32, valid (B,) bool.
    """

    model: nn.Module
    vocabulary: Vocabulary
    batch_size: int
    length: int
    alpha: float
    separable = True

    @property
    def example_batch(self) -> BatchSpec:
        tokens = jax.ShapeDtypeStruct((self.batch_size, self.length), jnp.int32)
        return {"tokens": tokens, "segments": tokens, "valid": jax.ShapeDtypeStruct((self.batch_size,), bool)}

    @property
    def _zeros(self) -> jax.Array:
        return jnp.zeros((1, self.length), jnp.int32)

    def init(self, rng: jax.Array) -> Params:
        return linen.init(self.model, rng, self._zeros, self._zeros)

    @property
    def logical_axes(self) -> Any:
        return linen.logical_axes(self.model, self._zeros, self._zeros)

    def loss_fn(self, params: Params, batch: Batch, rng: jax.Array | None) -> tuple[Means, Means]:
        tokens_BT, segments_BT = batch["tokens"], batch["segments"]
        logits_BTV = linen.apply(self.model, params, rng, tokens_BT, segments_BT)[:, :-1]
        labels_BT = tokens_BT[:, 1:]
        weights_BT = (segments_BT[:, 1:] == segments_BT[:, :-1]) & (segments_BT[:, 1:] > 0) & batch["valid"][:, None]
        log_p_BTV = jax.nn.log_softmax(logits_BTV)
        one_hot_BTV = jax.nn.one_hot(tokens_BT[:, :-1], logits_BTV.shape[-1])
        seen_BTV = jnp.cumsum(one_hot_BTV, axis=1) > 0
        wrong_BTV = seen_BTV & (jnp.arange(logits_BTV.shape[-1]) != labels_BT[..., None])
        unlikelihood_BT = -jnp.sum(jnp.where(wrong_BTV, jnp.log1p(-jnp.exp(jnp.minimum(log_p_BTV, -1e-5))), 0.0), axis=-1)
        likelihood_BT = -jnp.take_along_axis(log_p_BTV, labels_BT[..., None], axis=-1)[..., 0]
        terms = {"likelihood_loss": Mean.of(likelihood_BT, weights_BT), "unlikelihood_loss": Mean.of(self.alpha * unlikelihood_BT, weights_BT)}
        return terms, {"next_token_accuracy": Mean.of(logits_BTV.argmax(-1) == labels_BT, weights_BT)}
