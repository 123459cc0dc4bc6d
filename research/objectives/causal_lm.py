"""Causal language modelling over packed documents: GPT's pretraining objective (Radford et al., 2018, eq. 1)."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from research.core import linen
from research.core.errors import UserError
from research.core.types import Mean, Vocabulary
from research.models.attention import causal_mask, causal_pieces, places, positions_in_segments
from research.objectives.losses import cross_entropy


@dataclasses.dataclass(frozen=True)
class CausalLM:
    """Predicts each token from those before it in its document.

    loss = mean over tokens of -log p(token | those before) [+ z_loss * log(Z)^2, arXiv 2204.02311, section 5].

    Batch: `tokens` (B, T) int32, `segments` (B, T) int32 (0 at padding; 1, 2, ... the documents of the row), `valid` (B,) bool. A token neither sees
    nor is predicted from another document, and positions count from the beginning of each. With label smoothing the label has 1 - s of the
    probability and all tokens share s; the metric `log_perplexity` is the plain mean of -log p, in nats. Logits are made of one of `loss_chunks` parts
    of the tokens at a time, and made again in the backward pass. Where rows are split over devices the tokens of a row change places, so that each device has
    as much to do; dropout, if there is any, then falls on other tokens.
    """

    model: nn.Module
    vocabulary: Vocabulary
    batch_size: int
    length: int
    z_loss: float = 0.0
    label_smoothing: float = 0.0
    loss_chunks: int = 1
    separable = True
    generates = True  # text, by `model` and its cache: see research/generate.py

    def __post_init__(self):
        if not hasattr(self.model, "cache"):
            raise UserError(f"objective causal_lm trains a decoder such as gpt, not {type(self.model).__name__}: choose model.name=gpt.")
        if self.length % self.loss_chunks:
            raise UserError(f"data.length {self.length} does not divide into objective.loss_chunks={self.loss_chunks}.")

    @property
    def example_batch(self):
        tokens = jax.ShapeDtypeStruct((self.batch_size, self.length), jnp.int32)
        return {"tokens": tokens, "segments": tokens, "valid": jax.ShapeDtypeStruct((self.batch_size,), bool)}

    @property
    def _inputs(self):
        zeros_1T = jnp.zeros((1, self.length), jnp.int32)
        return zeros_1T, zeros_1T, causal_mask(zeros_1T)

    def init(self, rng):
        return linen.init(self.model, rng, *self._inputs)

    @property
    def logical_axes(self):
        return linen.logical_axes(self.model, *self._inputs)

    def loss_fn(self, params, batch, rng):
        tokens_BT, segments_BT = batch["tokens"], batch["segments"]
        positions_BT = positions_in_segments(segments_BT)
        # Logits at t answer for the token at t + 1, where that is of the same document. All T are computed: T shards and tiles, T - 1 does not.
        labels_BT, next_BT = jnp.roll(tokens_BT, -1, axis=1), jnp.roll(segments_BT, -1, axis=1)
        follows_BT = (segments_BT == next_BT) & (segments_BT > 0) & (jnp.arange(tokens_BT.shape[1]) < tokens_BT.shape[1] - 1)
        weights_BT, pieces = follows_BT & batch["valid"][:, None], causal_pieces(tokens_BT.shape[1])
        if pieces > 1:  # for the rest it does not matter where a token lies
            order_T = places(tokens_BT.shape[1], pieces)
            tokens_BT, segments_BT, positions_BT, labels_BT, weights_BT = (
                x[:, order_T] for x in (tokens_BT, segments_BT, positions_BT, labels_BT, weights_BT)
            )
        hidden_BTD, _ = linen.apply(self.model, params, rng, tokens_BT, positions_BT, causal_mask(segments_BT, pieces), method="hidden")
        predictions = hidden_BTD, labels_BT, weights_BT
        if self.loss_chunks == 1:
            return self._measure(params, *predictions)

        def split(x):  # token t goes to chunk t mod n: each chunk then lies on all devices
            return jnp.moveaxis(x.reshape(x.shape[0], -1, self.loss_chunks, *x.shape[2:]), 2, 0)

        measure = jax.checkpoint(lambda chunk: self._measure(params, *chunk), prevent_cse=False)
        return jax.tree.map(lambda x: x.sum(0), jax.lax.map(measure, jax.tree.map(split, predictions)))

    def _measure(self, params, hidden_BTD, labels_BT, weights_BT):
        logits_BTV = linen.apply(self.model, params, None, hidden_BTD, method="logits")
        terms = {"causal_lm_loss": Mean.of(cross_entropy(logits_BTV, labels_BT, self.label_smoothing), weights_BT)}
        if self.z_loss:
            terms["z_loss"] = Mean.of(self.z_loss * jax.nn.logsumexp(logits_BTV, axis=-1) ** 2, weights_BT)
        accuracy = Mean.of(logits_BTV.argmax(-1) == labels_BT, weights_BT)
        return terms, {"log_perplexity": Mean.of(cross_entropy(logits_BTV, labels_BT), weights_BT), "next_token_accuracy": accuracy}
