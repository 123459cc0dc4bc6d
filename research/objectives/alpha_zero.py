"""AlphaZero (Silver et al., arXiv 1712.01815): the network learns what the search found, and how the game ended."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from research.core.errors import UserError
from research.core.types import Mean
from research.objectives.policy_value import PolicyValue
from research.objectives.symmetry import SYMMETRIES, transform


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlphaZero(PolicyValue):
    """loss = mean of -pi . log p  [policy_loss]  +  value_weight * mean of (z - v)^2  [value_loss]  (eq. 1; its weight decay is the optimizer's)

    where pi is the policy that the search came to at a position and z how its game ended, for whoever was to move there: 1 won, 0 drawn, -1 lost.

    Batch: `image` (B, H, W, C), the position as its player sees it, in whatever dtype the game has it,
    `policy` (B, A) float32, `legal` (B, A) bool, `value` (B,) float32, `valid` (B,) bool.
    In training each position is seen under one of the `symmetry`'s transformations, drawn by the step's key.
    """

    value_weight: float = 1.0
    symmetry: str = "none"

    def __post_init__(self):
        super().__post_init__()
        if self.symmetry not in SYMMETRIES:
            raise UserError(f"objective.symmetry is {self.symmetry!r}: choose one of {', '.join(SYMMETRIES)}.")
        _, H, W, _ = self.observation["image"].shape
        if self.symmetry == "dihedral" and H != W:
            raise UserError(f"objective.symmetry=dihedral turns a board of {H} x {W}: it must be square.")

    @property
    def example_batch(self):
        numbers = jax.ShapeDtypeStruct((self.batch_size, self.actions), jnp.float32)
        valid = jax.ShapeDtypeStruct((self.batch_size,), bool)
        targets = {"policy": numbers, "legal": jax.ShapeDtypeStruct(numbers.shape, bool), "value": jax.ShapeDtypeStruct(valid.shape, jnp.float32)}
        return self.observation | targets | {"valid": valid}

    def loss_fn(self, params, batch, rng):
        if rng is not None and self.symmetry != "none":
            symmetry_rng, rng = jax.random.split(rng)
            which_B = jax.random.randint(symmetry_rng, batch["valid"].shape, 0, len(SYMMETRIES[self.symmetry]))
            batch = batch | jax.vmap(functools.partial(transform, self.symmetry))(
                which_B, {name: batch[name] for name in ("image", "policy", "legal")}
            )
        found = self.predict(params, batch, rng)
        log_p_BA = jax.nn.log_softmax(jnp.where(batch["legal"], found["policy"], -1e9))
        policy_BA, valid = batch["policy"], batch["valid"]
        cross_entropy_B = -(policy_BA * jnp.where(batch["legal"], log_p_BA, 0)).sum(-1)
        error_B = (found["value"] - batch["value"]) ** 2
        entropy_B = -(policy_BA * jnp.log(jnp.maximum(policy_BA, 1e-9))).sum(-1)
        terms = {"policy_loss": Mean.of(cross_entropy_B, valid), "value_loss": Mean.of(self.value_weight * error_B, valid)}
        agrees_B = (found["value"] * batch["value"] > 0) | (batch["value"] == 0)
        return terms, {
            "policy_divergence": Mean.of(cross_entropy_B - entropy_B, valid),  # what is left to learn of the search, in nats
            "move_accuracy": Mean.of(log_p_BA.argmax(-1) == policy_BA.argmax(-1), valid),
            "value_sign_accuracy": Mean.of(agrees_B, valid & (batch["value"] != 0)),
        }
