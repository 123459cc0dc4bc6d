"""Learning from pairs of completions of one prompt, of which people chose one and rejected the other.

Batch of all: `chosen/tokens`, `rejected/tokens` (B, T) int32, prompt and completion, padded on the right; `chosen/mask`, `rejected/mask` (B, T) bool,
True at the tokens of the completion, which lie together; `chosen/real`, `rejected/real` (B, T) bool, True at all that is not padding; `valid` (B,)
bool.

Dpo, Ipo and Kto compare the policy with a reference, the policy as it was to begin with. What the completion y of a prompt x is worth to them is the
implicit reward beta log(policy(y|x) / reference(y|x)), of which the metrics tell (arXiv 2305.18290, section 4).
"""

import dataclasses

import jax
import jax.numpy as jnp

from research.core.errors import UserError
from research.core.types import Mean, view
from research.objectives.reference import Policy
from research.objectives.supervised import SequenceRegression

SIDES = "chosen", "rejected"


def pairs(batch_size: int, length: int):
    """The shapes and dtypes of a batch."""
    tokens, flags = jax.ShapeDtypeStruct((batch_size, length), jnp.int32), jax.ShapeDtypeStruct((batch_size, length), bool)
    side = {"tokens": tokens, "mask": flags, "real": flags}
    return {f"{name}/{key}": x for name in SIDES for key, x in side.items()} | {"valid": jax.ShapeDtypeStruct((batch_size,), bool)}


def both(batch, key: str):
    """One array of both sides (2 B, ...), each chosen row followed by the rejected one: no row leaves its device."""
    chosen, rejected = (view(batch, side)[key] for side in SIDES)
    return jnp.stack([chosen, rejected], axis=1).reshape(-1, *chosen.shape[1:])


def apart(x_2B):
    """(chosen, rejected) of what `both` put together: (2, B)."""
    return x_2B.reshape(-1, 2).T


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preference(Policy):
    """What the three share: how much likelier the policy finds a completion than the reference does."""

    beta: float = 0.1

    @property
    def example_batch(self):
        return pairs(self.batch_size, self.length)

    def log_ratios(self, params, batch, rng):
        """(log(policy(y|x) / reference(y|x)), log policy(y|x)), each (2, B) float32: of the chosen y and the rejected, summed over the tokens of y.

        Both sides go through a model in one call. Rows that are not valid have 0. The reference has neither dropout nor a gradient.
        """
        tokens_2BT, mask_2BT = both(batch, "tokens"), both(batch, "mask") & jnp.repeat(batch["valid"], 2)[:, None]
        reference = jax.lax.stop_gradient(params["reference"])
        policy, reference = (
            apart(jnp.sum(self.log_probs(of, tokens_2BT, key), axis=1, where=mask_2BT)) for of, key in ((params, rng), (reference, None))
        )
        return policy - reference, policy

    def compare(self, params, batch, rng):
        """(log_ratio_B of the chosen, log_ratio_B of the rejected, metrics)."""
        (chosen_B, rejected_B), (log_p_B, _) = self.log_ratios(params, batch, rng)
        valid_B = batch["valid"]
        metrics = {
            "reward_margin": Mean.of(self.beta * (chosen_B - rejected_B), valid_B),
            "reward_accuracy": Mean.of(chosen_B > rejected_B, valid_B),
            "chosen_reward": Mean.of(self.beta * chosen_B, valid_B),
            "rejected_reward": Mean.of(self.beta * rejected_B, valid_B),
            "chosen_log_prob": Mean(log_p_B.sum(), Mean.of(batch["chosen/mask"].sum(1), valid_B).total),  # of a token
        }
        return chosen_B, rejected_B, metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dpo(Preference):
    """Direct preference optimization (Rafailov et al., arXiv 2305.18290, eq. 7).

    loss = mean over pairs of -log sigmoid(h), h the implicit reward of the chosen completion less that of the rejected. With label smoothing s a pair
    is taken to be the wrong way round with probability s: -(1 - s) log sigmoid(h) - s log sigmoid(-h), conservative DPO (Mitchell, 2023).
    """

    label_smoothing: float = 0.0

    def loss_fn(self, params, batch, rng):
        chosen_B, rejected_B, metrics = self.compare(params, batch, rng)
        h_B, s = self.beta * (chosen_B - rejected_B), self.label_smoothing
        loss_B = -(1 - s) * jax.nn.log_sigmoid(h_B) - s * jax.nn.log_sigmoid(-h_B)
        return {"dpo_loss": Mean.of(loss_B, batch["valid"])}, metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ipo(Preference):
    """Identity preference optimization (Azar et al., arXiv 2310.12036, eq. 17, whose tau is beta): the margin is to be 1 / (2 beta), and no more.

    loss = mean over pairs of (log ratio of the chosen - log ratio of the rejected - 1 / (2 beta))^2, log ratios summed over tokens as in the paper.
    """

    def loss_fn(self, params, batch, rng):
        chosen_B, rejected_B, metrics = self.compare(params, batch, rng)
        return {"ipo_loss": Mean.of((chosen_B - rejected_B - 1 / (2 * self.beta)) ** 2, batch["valid"])}, metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kto(Preference):
    """Kahneman-Tversky optimization (Ethayarajh et al., arXiv 2402.01306, eq. 8): each completion is desirable, if it was chosen, or undesirable.

    loss = mean over completions of w - w sigmoid(beta (r - z)) for the desirable, w - w sigmoid(beta (z - r)) for the undesirable, r the log ratio
    and w the weight of its kind. The reference point z is the divergence of policy from reference as the mean log ratio of completions of other
    prompts tells it, 0 at least and with no gradient. It makes the loss couple the examples of a batch.
    """

    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    separable = False

    def __post_init__(self):
        super().__post_init__()
        if self.batch_size < 2:
            raise UserError("Kto holds completions against those of other prompts: data.batch_size must be at least 2.")

    def loss_fn(self, params, batch, rng):
        chosen_B, rejected_B, metrics = self.compare(params, batch, rng)
        divergence = self.divergence(params, batch)
        losses = (  # w - w sigmoid(x) = w sigmoid(-x)
            self.desirable_weight * jax.nn.sigmoid(self.beta * (divergence.value - chosen_B)),
            self.undesirable_weight * jax.nn.sigmoid(self.beta * (rejected_B - divergence.value)),
        )
        return {"kto_loss": Mean.of(jnp.stack(losses), jnp.stack([batch["valid"]] * 2))}, metrics | {"reference_kl": divergence}

    def divergence(self, params, batch) -> Mean:
        """z: the mean log ratio of each prompt followed by the completion of the next row, on both sides; 0 where that is less (section 4.1)."""
        batch = mismatched(batch)
        log_ratio, _ = self.log_ratios(jax.lax.stop_gradient(params), batch, None)
        mean = Mean.of(log_ratio, jnp.stack([batch["valid"]] * 2))
        return Mean(jnp.maximum(mean.total, 0), mean.count)


def mismatched(batch):
    """The batch with the prompt of each row followed by the completion of the next, the last by that of the first; cut off where the row ends.

    Valid is what is made of two valid rows.
    """
    made = {"valid": batch["valid"] & jnp.roll(batch["valid"], -1)}
    for side in SIDES:
        tokens_BT, mask_BT = batch[f"{side}/tokens"], batch[f"{side}/mask"]
        T, begins_B1 = tokens_BT.shape[1], jnp.argmax(mask_BT, axis=1, keepdims=True)
        other_BT, other_begins_B1, length_B1 = (jnp.roll(x, -1, axis=0) for x in (tokens_BT, begins_B1, mask_BT.sum(1, keepdims=True)))
        place_BT = jnp.arange(T) - begins_B1  # in the completion
        completion_BT = jnp.take_along_axis(other_BT, jnp.clip(other_begins_B1 + place_BT, 0, T - 1), axis=1)
        made[f"{side}/tokens"] = jnp.where(place_BT < 0, tokens_BT, completion_BT)
        made[f"{side}/mask"] = (place_BT >= 0) & (place_BT < length_B1)
    return made


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardModel(SequenceRegression):
    """A score of prompt and completion, such that what was chosen has the greater (Ouyang et al., arXiv 2203.02155, eq. 1; Bradley and Terry, 1952).

    loss = mean over pairs of -log sigmoid(score of the chosen - score of the rejected). All that is `real` is read; where the completion begins does
    not matter.
    """

    @property
    def example_batch(self):
        return pairs(self.batch_size, self.length)

    def loss_fn(self, params, batch, rng):
        tokens_2BT = both(batch, "tokens")
        inputs = {"tokens": tokens_2BT, "token_types": jnp.zeros_like(tokens_2BT), "mask": both(batch, "real")}
        chosen_B, rejected_B = apart(self.logits(params, inputs, rng)[:, 0])
        margin_B, valid_B = chosen_B - rejected_B, batch["valid"]
        metrics = {
            "score_margin": Mean.of(margin_B, valid_B),
            "score_accuracy": Mean.of(margin_B > 0, valid_B),
            "chosen_score": Mean.of(chosen_B, valid_B),
            "rejected_score": Mean.of(rejected_B, valid_B),
        }
        return {"reward_loss": Mean.of(-jax.nn.log_sigmoid(margin_B), valid_B)}, metrics
