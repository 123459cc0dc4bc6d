"""BERT's pretraining objective: masked language modelling and next-sentence prediction (arXiv 1810.04805, section 3.1)."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from research.core import linen
from research.core.errors import UserError
from research.core.types import Mean, Vocabulary
from research.objectives.losses import cross_entropy


@dataclasses.dataclass(frozen=True)
class MaskedLM:
    """Predicts hidden tokens, and whether the second segment follows the first.

    loss = mean over masked tokens of -log p(token) + mean over pairs of -log p(is_next).

    Batch: `tokens` (B, T) int32 = [CLS] a [SEP] b [SEP] then padding, `token_types` (B, T) int32, `is_next` (B,) int32,
    `valid` (B,) bool. With `pairs_per_row` N > 1 rows are packed: also `segments` (B, T) int32, 0 at padding and 1, 2, ... the pairs of the row,
    and `is_next` (B, N), -1 where there are fewer; a pair sees itself alone, and each counts as much as if it had a row to itself. Masking happens here, on the device: 15 % of the tokens, of which 80 % become [MASK], 10 % a random
    token and 10 % stay. The draws of an example are keyed by the step, the microbatch and the example's own tokens: where in the
    batch it stands and which device holds it do not matter, and in evaluation it has one fixed mask.
    """

    model: nn.Module
    vocabulary: Vocabulary
    batch_size: int
    length: int
    mask_rate: float = 0.15
    whole_word: bool = False
    next_sentence: bool = True
    pairs_per_row: int = 1
    separable = True
    predicts = "masked words"

    def __post_init__(self):
        self.vocabulary.require("masked_lm", "pad", "cls", "sep", "mask")
        if "token_types" not in self.model.inputs(1, self.length):
            raise UserError(f"objective masked_lm trains an encoder such as bert, not {type(self.model).__name__}: choose model.name=bert.")

    @property
    def example_batch(self):
        tokens = jax.ShapeDtypeStruct((self.batch_size, self.length), jnp.int32)
        of_rows = lambda dtype, *shape: jax.ShapeDtypeStruct((self.batch_size, *shape), dtype)
        batch = {"tokens": tokens, "token_types": tokens, "valid": of_rows(bool)}
        if self.pairs_per_row == 1:
            return batch | {"is_next": of_rows(jnp.int32)}
        return batch | {"is_next": of_rows(jnp.int32, self.pairs_per_row), "segments": tokens}

    @property
    def _sequences(self) -> int:
        """Of a row, those about which the model is asked whether the second segment follows."""
        return self.pairs_per_row if self.next_sentence else 0

    @property
    def _inputs(self):
        return linen.zeros(self.model.inputs(1, self.length)), jnp.zeros((1, self.predictions(self.length)), jnp.int32)

    def init(self, rng):
        return linen.init(self.model, rng, *self._inputs, int(self.next_sentence))

    @property
    def logical_axes(self):
        return linen.logical_axes(self.model, *self._inputs, int(self.next_sentence))

    def predictions(self, length: int) -> int:
        """P, the most tokens ever hidden in a sequence of `length`."""
        return max(1, math.ceil(self.mask_rate * length))

    def loss_fn(self, params, batch, rng):
        tokens_BT, valid_B = batch["tokens"], batch["valid"]
        mask_rng, dropout_rng = (jax.random.key(0), None) if rng is None else jax.random.split(rng)
        masked_BT, positions_BP, chosen_BP = self.hide(tokens_BT, mask_rng)
        labels_BP = jnp.take_along_axis(tokens_BT, positions_BP, axis=1)
        seen = {"mask": tokens_BT != self.vocabulary.pad} if self.pairs_per_row == 1 else {"segments": batch["segments"]}
        inputs = {"tokens": masked_BT, "token_types": batch["token_types"]} | seen
        logits_BPV, next_logits_Bx2 = linen.apply(self.model, params, dropout_rng, inputs, positions_BP, self._sequences)
        terms = {"masked_lm_loss": Mean.of(cross_entropy(logits_BPV, labels_BP), chosen_BP & valid_B[:, None])}
        metrics = {"masked_accuracy": Mean.of(logits_BPV.argmax(-1) == labels_BP, chosen_BP & valid_B[:, None])}
        if self.next_sentence:
            is_next_Bx = batch["is_next"]
            asked_Bx = (is_next_Bx >= 0) & valid_B.reshape(-1, *[1] * (is_next_Bx.ndim - 1))
            terms["next_sentence_loss"] = Mean.of(cross_entropy(next_logits_Bx2, jnp.maximum(is_next_Bx, 0)), asked_Bx)
            metrics["next_sentence_accuracy"] = Mean.of(next_logits_Bx2.argmax(-1) == is_next_Bx, asked_Bx)
        return terms, metrics

    def hide(self, tokens_BT, rng):
        """tokens_BT -> (the same with some hidden, positions_BP int32, chosen_BP bool: which of the P positions count)."""
        # 0x9E3779B1 is 2^32 over the golden ratio: a multiplicative hash that tells the order of the tokens as well.
        weights_T = (jnp.arange(1, tokens_BT.shape[1] + 1, dtype=jnp.uint32) * jnp.uint32(0x9E3779B1)) | 1
        hash_B = jnp.sum(tokens_BT.astype(jnp.uint32) * weights_T, axis=1, dtype=jnp.uint32)
        return jax.vmap(self._hide_one)(tokens_BT, jax.vmap(jax.random.fold_in, (None, 0))(rng, hash_B))

    def _hide_one(self, tokens_T, rng):
        v, length = self.vocabulary, tokens_T.shape[0]
        choose, replace, word = jax.random.split(rng, 3)
        maskable_T = (tokens_T != v.pad) & (tokens_T != v.cls) & (tokens_T != v.sep)
        budget = jnp.clip(jnp.round(self.mask_rate * maskable_T.sum()), 1, self.predictions(length)).astype(jnp.int32)
        # Each unit, a token or a word, draws one score; `start_T` is where the unit of a token begins.
        index_T = jnp.arange(length)
        continues_T = jnp.asarray(np.array(v.continues))[tokens_T] & maskable_T & jnp.roll(maskable_T, 1)
        begins_T = ~continues_T if self.whole_word else jnp.ones(length, bool)
        start_T = jax.lax.cummax(jnp.where(begins_T, index_T, 0))
        score_T = jnp.where(maskable_T, jax.random.uniform(choose, (length,))[start_T], 2.0)
        order_T = jnp.argsort(score_T, stable=True)
        hidden_T = self._fitting(order_T, start_T, begins_T, budget) & maskable_T
        order_P = jnp.argsort(jnp.where(hidden_T, score_T, 3.0), stable=True)[: self.predictions(length)]
        chosen_P = hidden_T[order_P]
        kind_P = jax.random.uniform(replace, order_P.shape)
        random_P = jax.random.randint(word, order_P.shape, 0, v.size)
        original_P = tokens_T[order_P]
        shown_P = jnp.where(kind_P < 0.8, v.mask, jnp.where(kind_P < 0.9, random_P, original_P))
        return tokens_T.at[order_P].set(jnp.where(chosen_P, shown_P, original_P)), order_P, chosen_P

    def _fitting(self, order_T, start_T, begins_T, budget):
        """Which tokens belong to a unit that is taken, in order, as long as all of it fits in the budget."""
        zeros_T = jnp.zeros(order_T.shape, jnp.int32)
        if not self.whole_word:
            return zeros_T.at[order_T].set(jnp.arange(len(order_T))) < budget
        pieces_T = zeros_T.at[start_T].add(1)

        def take(used, i):
            fits = begins_T[i] & (used + pieces_T[i] <= budget)
            return used + fits * pieces_T[i], fits

        _, fits = jax.lax.scan(take, 0, order_T)
        return zeros_T.at[order_T].set(fits)[start_T].astype(bool)

    def predict(self, params, inputs):
        """probabilities (B, P, V) float32 of the tokens at `positions` (B, P) int32, given all others."""
        logits_BPV, _ = linen.apply(self.model, params, None, inputs, inputs["positions"], 0)
        return {"probabilities": jax.nn.softmax(logits_BPV)}
