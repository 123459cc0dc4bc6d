"""Learning from what completions are worth that the policy itself has drawn: policy gradients, token by token.

Batch of all: `tokens` (B, T) int32, prompt and completion, padded on the right; `mask` (B, T) bool, True at the tokens that the policy chose, which
lie together, the end token among them if it chose that, and never the first of a row; `log_probs` (B, T) float32, of the tokens as they were drawn;
`reference_log_probs` (B, T) float32, as the reference finds them, of no account where kl_weight is 0; `advantages` (B, T) float32; `reward` (B,) float32, of
the completion, to be reported; `valid` (B,) bool. What the arrays (B, T) of floats hold where `mask` is False does not matter.

`credit(rewards_B, batch, group) -> {name: (B, T) float32}` makes the advantages of the rewards, one a completion, given at its last token. Of the
batch it reads `mask`, `log_probs` and `reference_log_probs`; `group` completions of one prompt lie together. It is pure, and done once with what was
drawn, which may then be learned from in any order and in parts.

The losses have no dropout: the policy that is trained is the one that drew. Metrics: the mean `reward`, and as means over tokens `entropy`, in nats; how
far, by `k3`, the policy is from the one that drew, `rollout_kl`, and from the reference, `reference_kl`; `clip_fraction`, how often the ratio of policy to the one that
drew was too far out to count as it is.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from research.core import linen
from research.core.types import Mean
from research.models.heads import Head, last
from research.objectives.advantages import gae, group_relative, leave_one_out
from research.objectives.losses import token_entropy, token_log_probs, told_before
from research.objectives.reference import Policy


def k3(log_ratio):
    """KL(p || q) by what p has drawn, log_ratio = log q - log p there: an estimate that is never negative (arXiv 2402.03300, eq. 4)."""
    return jnp.exp(log_ratio) - log_ratio - 1


def clipped(ratio_BT, advantages_BT, clip: float, clip_high: float | None):
    """-min(r A, clip(r, 1 - clip, 1 + clip_high) A) (arXiv 1707.06347, eq. 7), clip_high None: as clip; and where that has no gradient any more."""
    held_BT = jnp.clip(ratio_BT, 1 - clip, 1 + (clip if clip_high is None else clip_high))
    gain_BT, held_gain_BT = ratio_BT * advantages_BT, held_BT * advantages_BT
    return -jnp.minimum(gain_BT, held_gain_BT), held_gain_BT < gain_BT


def value_error(values_BT, old_BT, returns_BT, clip: float | None):
    """(V - returns)^2; with `clip` also that of V held to what it was when the rollout was made +- clip, where that is greater."""
    error_BT = (values_BT - returns_BT) ** 2
    if clip is None:
        return error_BT
    near_BT = old_BT + jnp.clip(values_BT - old_BT, -clip, clip)
    return jnp.maximum(error_BT, (near_BT - returns_BT) ** 2)


class Drawn(NamedTuple):
    """A batch beside what the policy makes of it. Arrays (B, T) are 0 where weights_BT, bool, is False: not even a nan there would count."""

    weights_BT: jax.Array
    valid_B: jax.Array
    reward_B: jax.Array
    advantages_BT: jax.Array
    log_p_BT: jax.Array
    log_ratio_BT: jax.Array  # of the policy to the one that drew
    reference_log_ratio_BT: jax.Array  # of the reference to the policy
    entropy_BT: jax.Array
    hidden_BTD: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyGradient(Policy):
    """What all share. There is a reference where kl_weight is over 0."""

    kl_weight: float = 0.0
    entropy_weight: float = 0.0

    @property
    def has_reference(self) -> bool:
        return self.kl_weight > 0

    @property
    def example_batch(self):
        of = lambda dtype: jax.ShapeDtypeStruct((self.batch_size, self.length), dtype)
        batch = {"tokens": of(jnp.int32), "mask": of(bool), "valid": jax.ShapeDtypeStruct((self.batch_size,), bool)}
        batch["reward"] = jax.ShapeDtypeStruct((self.batch_size,), jnp.float32)
        return batch | dict.fromkeys(("log_probs", "reference_log_probs", "advantages"), of(jnp.float32))

    def token_rewards(self, rewards_B, batch):
        """(B, T) float32: the reward at the last token, less kl_weight log(p / reference) at each (arXiv 2203.02155, eq. 2); 0 outside `mask`."""
        mask_BT = batch["mask"]
        rewards_BT = jnp.where(jnp.arange(mask_BT.shape[1]) == last(mask_BT)[:, None], rewards_B[:, None], 0)
        penalties_BT = self.kl_weight * (batch["log_probs"] - batch["reference_log_probs"]) if self.kl_weight else 0
        return jnp.where(mask_BT, rewards_BT - penalties_BT, 0)

    def measure(self, params, batch) -> Drawn:
        weights_BT = batch["mask"] & batch["valid"][:, None]
        here = lambda x_BT: jnp.where(weights_BT, x_BT, 0)
        hidden_BTD = self.hidden(params, batch["tokens"])
        logits_BTV = self.logits(params, hidden_BTD)
        log_p_BT = token_log_probs(logits_BTV, batch["tokens"], self.vocabulary.size, self.temperature)
        entropy_BT = token_entropy(logits_BTV, self.vocabulary.size, self.temperature)
        return Drawn(
            weights_BT,
            batch["valid"],
            batch["reward"],
            here(batch["advantages"]),
            here(log_p_BT),
            here(log_p_BT - batch["log_probs"]),
            here(batch["reference_log_probs"] - log_p_BT),
            here(entropy_BT),
            hidden_BTD,
        )

    def mean(self, x_BT, drawn: Drawn) -> Mean:
        """How tokens are averaged: all weigh the same."""
        return Mean.of(x_BT, drawn.weights_BT)

    def terms(self, drawn: Drawn, **losses_BT) -> dict[str, Mean]:
        """The means of these losses, and -entropy_weight times the entropy, where that is asked for."""
        if self.entropy_weight:
            losses_BT["entropy_loss"] = -self.entropy_weight * drawn.entropy_BT
        return {name: self.mean(x_BT, drawn) for name, x_BT in losses_BT.items()}

    def metrics(self, drawn: Drawn, held_BT) -> dict[str, Mean]:
        found = {"entropy": drawn.entropy_BT, "rollout_kl": k3(drawn.log_ratio_BT), "clip_fraction": held_BT}
        if self.has_reference:
            found["reference_kl"] = k3(drawn.reference_log_ratio_BT)
        return {name: Mean.of(x_BT, drawn.weights_BT) for name, x_BT in found.items()} | {"reward": Mean.of(drawn.reward_B, drawn.valid_B)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reinforce(PolicyGradient):
    """REINFORCE (Williams, 1992) with the other completions of the prompt for a baseline: RLOO (Ahmadian et al., arXiv 2402.14740).

    loss = mean over tokens of -min(r, importance_cap) A log p, with no gradient but that of log p. A completion is one action: A, the same for all
    its tokens, is its reward less its kl_weight log(p / reference), over the mean of that of the others. r, the ratio of the policy to the one that
    drew, corrects for rollouts that are stale, and the cap bounds its variance (as in arXiv 1802.01561, section 4.1): of each token by itself, a
    biased choice, since the product over a whole completion varies too much to learn from.
    """

    kl_weight: float = 0.03
    importance_cap: float = 2.0

    def credit(self, rewards_B, batch, group: int):
        returns_B = self.token_rewards(rewards_B, batch).sum(1)
        return {"advantages": leave_one_out(returns_B, group)[:, None] * batch["mask"]}

    def loss_fn(self, params, batch, rng):
        drawn = self.measure(params, batch)
        ratio_BT = jax.lax.stop_gradient(jnp.exp(drawn.log_ratio_BT))
        loss_BT = -jnp.minimum(ratio_BT, self.importance_cap) * drawn.advantages_BT * drawn.log_p_BT
        return self.terms(drawn, policy_loss=loss_BT), self.metrics(drawn, ratio_BT > self.importance_cap)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ppo(PolicyGradient):
    """Proximal policy optimization (Schulman et al., arXiv 1707.06347), as of language models (Ouyang et al., arXiv 2203.02155, section 3.5).

    loss = mean over tokens of -min(r A, clip(r, 1 - clip, 1 + clip_high) A) (eq. 7) + value_weight (V - returns)^2 (eq. 9). A is the generalized
    advantage estimate of rewards at each token, the penalty of departing from the reference among them. With value_clip the squared error is also
    that of V held to the rollout's values +- value_clip, where that is greater.

    Beside the batch of all, `values` (B, T) float32, what `values` made of the rollout's tokens, which `credit` reads, and `returns` (B, T) float32,
    which it makes. Parameters: beside those of the model, `value`, a linear head on its hidden states.
    """

    kl_weight: float = 0.02
    clip: float = 0.2
    clip_high: float | None = None
    value_weight: float = 0.5
    value_clip: float | None = None
    discount: float = 1.0
    gae_decay: float = 0.95

    @property
    def value_head(self) -> Head:
        return Head(self.model.config, 1)

    @property
    def heads(self):
        return {"value": linen.Call(self.value_head, (jnp.zeros((1, 1, self.model.width)),))}

    @property
    def example_batch(self):
        batch = super().example_batch
        return batch | {"values": batch["advantages"], "returns": batch["advantages"]}

    def values(self, params, tokens_BT):
        """(B, T) float32: what is yet to come where tokens[t] is chosen, by the tokens before it; 0 at the first."""
        return self._values(params, self.hidden(params, tokens_BT))

    def _values(self, params, hidden_BTD):
        return told_before(linen.apply(self.value_head, params["value"], None, hidden_BTD)[..., 0])

    def credit(self, rewards_B, batch, group: int):
        mask_BT, values_BT = batch["mask"], jnp.where(batch["mask"], batch["values"], 0)
        ahead = lambda x_BT: jnp.pad(x_BT[:, 1:], ((0, 0), (0, 1)))  # what the token after has: after the last of a completion nothing
        advantages_BT = gae(self.token_rewards(rewards_B, batch), values_BT, ahead(values_BT), ahead(mask_BT), self.discount, self.gae_decay)
        advantages_BT = jnp.where(mask_BT, advantages_BT, 0)
        return {"advantages": advantages_BT, "returns": advantages_BT + values_BT}

    def loss_fn(self, params, batch, rng):
        drawn = self.measure(params, batch)
        loss_BT, held_BT = clipped(jnp.exp(drawn.log_ratio_BT), drawn.advantages_BT, self.clip, self.clip_high)
        found = self._values(params, drawn.hidden_BTD), batch["values"], batch["returns"]
        values_BT, old_BT, returns_BT = (jnp.where(drawn.weights_BT, x_BT, 0) for x_BT in found)
        error_BT = value_error(values_BT, old_BT, returns_BT, self.value_clip)
        terms = self.terms(drawn, policy_loss=loss_BT, value_loss=self.value_weight * error_BT)
        return terms, self.metrics(drawn, held_BT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grpo(PolicyGradient):
    """Group relative policy optimization (Shao et al., arXiv 2402.03300, eq. 3), without a value head.

    loss = mean over completions of the mean over their tokens of -min(r A, clip(r, 1 - clip, 1 + clip_high) A) + kl_weight k3, A the reward of the
    completion among those of its prompt, in standard deviations. clip_high over clip: DAPO's (arXiv 2503.14476, eq. 10), which leaves unlikely tokens
    room to grow.
    """

    kl_weight: float = 0.04
    clip: float = 0.2
    clip_high: float | None = None
    normalise = True  # advantages, by the standard deviation of their group

    def credit(self, rewards_B, batch, group: int):
        return {"advantages": group_relative(rewards_B, group, self.normalise)[:, None] * batch["mask"]}

    def mean(self, x_BT, drawn: Drawn) -> Mean:
        """Each completion weighs the same, however long."""
        return Mean.of(x_BT.sum(1) / jnp.maximum(drawn.weights_BT.sum(1), 1), drawn.valid_B)

    def loss_fn(self, params, batch, rng):
        drawn = self.measure(params, batch)
        loss_BT, held_BT = clipped(jnp.exp(drawn.log_ratio_BT), drawn.advantages_BT, self.clip, self.clip_high)
        kl = {"kl_loss": self.kl_weight * k3(drawn.reference_log_ratio_BT)} if self.kl_weight else {}
        return self.terms(drawn, policy_loss=loss_BT, **kl), self.metrics(drawn, held_BT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DrGrpo(Grpo):
    """Grpo without what biases it (Liu et al., arXiv 2503.20783, section 3.2): A is not divided by a standard deviation, nor what is summed over the
    tokens of a completion by their number, which would let long failures weigh less, but by completion_length, the same for all: the most tokens
    there may be; None: T.
    """

    kl_weight: float = 0.0
    completion_length: int | None = None
    normalise = False

    def mean(self, x_BT, drawn: Drawn) -> Mean:
        """The sum over tokens, over completion_length."""
        return Mean.of(x_BT.sum(1) / (self.completion_length or self.length), drawn.valid_B)
