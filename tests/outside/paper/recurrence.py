"""A language model without attention: gated linear recurrence, minGRU (Feng et al., arXiv 2410.01201, section 3.1)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from research.core.sharding import constrain
from research.tables import from_fields


@dataclasses.dataclass(frozen=True)
class RecurrenceConfig:
    """The fields of the config's `model` group that this model reads."""

    vocab_size: int
    width: int
    mlp_width: int
    layers: int


def recurrence(group: Any) -> "Recurrence":
    """What `model.name="paper.recurrence:recurrence"` calls."""
    return Recurrence(from_fields(RecurrenceConfig, group))


def dense(features: int, axes: tuple[str, str], name: str) -> nn.Dense:
    return nn.Dense(features, use_bias=False, kernel_init=nn.with_logical_partitioning(nn.initializers.lecun_normal(), axes), name=name)


class Recurrence(nn.Module):
    """tokens_BT, segments_BT int32 -> logits_BTV float32. Nothing is carried from one segment into the next."""

    config: RecurrenceConfig
    deterministic: bool = True

    @nn.compact
    def __call__(self, tokens_BT: jax.Array, segments_BT: jax.Array) -> jax.Array:
        c = self.config
        table_VD: Any = self.param("word", nn.with_logical_partitioning(nn.initializers.normal(0.02), ("vocab", "embed")), (c.vocab_size, c.width))
        x_BTD = constrain(table_VD[tokens_BT], "batch", "stream", "embed")
        begins_BT = jnp.pad(segments_BT[:, 1:] != segments_BT[:, :-1], ((0, 0), (1, 0)), constant_values=True)
        for layer in range(c.layers):
            norm = nn.RMSNorm(name=f"norm_{layer}", scale_init=nn.with_logical_partitioning(nn.initializers.ones, ("embed",)))
            y_BTD = norm(x_BTD)
            gate_BTF = jax.nn.sigmoid(dense(c.mlp_width, ("embed", "mlp"), f"gate_{layer}")(y_BTD))
            candidate_BTF = dense(c.mlp_width, ("embed", "mlp"), f"candidate_{layer}")(y_BTD)
            hidden_BTF = scan(jnp.where(begins_BT[..., None], 0.0, 1.0 - gate_BTF), gate_BTF * candidate_BTF)
            x_BTD = x_BTD + dense(c.width, ("mlp", "embed"), f"out_{layer}")(jax.nn.silu(hidden_BTF))
        return jnp.einsum("btd,vd->btv", x_BTD, table_VD).astype(jnp.float32)


def scan(keep_BTF: jax.Array, add_BTF: jax.Array) -> jax.Array:
    """h_t = keep_t h_{t-1} + add_t along T, in parallel (Blelloch, 1990)."""

    def after(first: tuple[jax.Array, jax.Array], second: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return first[0] * second[0], first[1] * second[0] + second[1]

    return jax.lax.associative_scan(after, (keep_BTF, add_BTF), axis=1)[1]
