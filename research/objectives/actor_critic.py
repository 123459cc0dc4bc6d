"""Proximal policy optimization where an observation is seen and an action chosen at each step (Schulman et al., arXiv 1707.06347)."""

import dataclasses

import jax
import jax.numpy as jnp

from research.core.types import Mean
from research.objectives.advantages import gae
from research.objectives.policy_gradient import clipped, k3, value_error
from research.objectives.policy_value import PolicyValue
from research.objectives.reference import check_limits


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActorCritic(PolicyValue):
    """loss = mean of -min(r A, clip(r, 1 - clip, 1 + clip) A)  [policy_loss]  +  value_weight * mean of (V - R)^2  [value_loss]
    - entropy_weight * mean of the policy's entropy  [entropy_loss]  (eq. 9 and 7)

    where r is the ratio of the policy to the one that acted, A the advantage of the action and R the return, as `credit` makes them. With value_clip
    the squared error is also that of V held to what it was +- value_clip, where that is greater.

    Batch: `image` (B, H, W, C) or `observation` (B, N), as the model takes it; `action` (B,) int32; `log_prob`, `value` (B,) float32, what the policy
    that acted made of them; `advantage`, `return` (B,) float32; `valid` (B,) bool.

    The loss has no dropout: the policy that is trained is the one that acted. Metrics: `entropy`, in nats; `rollout_kl`, how far by `k3` the policy is
    from the one that acted; `clip_fraction`, how often r was too far out to count as it is. Raises UserError for a field outside of LIMITS.
    """

    clip: float = 0.2
    value_weight: float = 0.5
    value_clip: float | None = None
    entropy_weight: float = 0.01
    discount: float = 0.99
    gae_decay: float = 0.95
    bounded = False
    reads = ("image", "observation")

    def __post_init__(self):
        super().__post_init__()
        check_limits(self)

    @property
    def example_batch(self):
        of = lambda dtype: jax.ShapeDtypeStruct((self.batch_size,), dtype)
        numbers = dict.fromkeys(("log_prob", "value", "advantage", "return"), of(jnp.float32))
        return self.observation | {"action": of(jnp.int32)} | numbers | {"valid": of(bool)}

    def credit(self, rewards_GM, values_GM, next_values_GM, continues_GM):
        """{advantage, return} (G, M) float32 of M steps in each of G environments; arguments as of `gae`.

        Advantages are in standard deviations from the mean of them all: done here, once, since over a batch it would couple its rows.
        """
        advantages_GM = gae(rewards_GM, values_GM, next_values_GM, continues_GM, self.discount, self.gae_decay)
        normal_GM = (advantages_GM - advantages_GM.mean()) / (advantages_GM.std() + 1e-8)
        return {"advantage": normal_GM, "return": advantages_GM + values_GM}

    def loss_fn(self, params, batch, rng):
        found, valid = self.predict(params, batch), batch["valid"]
        log_p_BA = jax.nn.log_softmax(found["policy"])
        log_ratio_B = jnp.take_along_axis(log_p_BA, batch["action"][:, None], axis=1)[:, 0] - batch["log_prob"]
        policy_loss_B, held_B = clipped(jnp.exp(log_ratio_B), batch["advantage"], self.clip, None)
        error_B = value_error(found["value"], batch["value"], batch["return"], self.value_clip)
        entropy_B = -(jnp.exp(log_p_BA) * log_p_BA).sum(-1)
        losses = {"policy_loss": policy_loss_B, "value_loss": self.value_weight * error_B, "entropy_loss": -self.entropy_weight * entropy_B}
        metrics = {"entropy": entropy_B, "rollout_kl": k3(log_ratio_B), "clip_fraction": held_B}
        of = lambda named: {name: Mean.of(x_B, valid) for name, x_B in named.items()}
        return of(losses), of(metrics)
