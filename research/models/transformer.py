"""The one Transformer (Vaswani et al., arXiv 1706.03762) under BERT, GPT and ViT.

B batch, T tokens, S slots of a cache, D model width, H heads of queries and G of keys and values, K head width, F mlp width, L layers. Parameters are
float32 and stacked over layers whether or not the stack is scanned, so that a checkpoint does not know the difference.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from research.core.sharding import constrain, parts
from research.models.attention import Mask, attention
from research.models.layers import ACTIVATIONS, ALL_BUT_KERNELS, REMAT_POLICIES, Dense, Dropout, TransformerConfig, make_norm
from research.models.pipeline import pipelined


def rotate(x_BTHK, positions_BT, base: float):
    """Rotary positions (arXiv 2104.09864, eq. 34): dimension i and i + K/2 turn by position * base^(-2i/K)."""
    half = x_BTHK.shape[-1] // 2
    angles_BTK = positions_BT[..., None] * base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    cos, sin = jnp.cos(angles_BTK)[:, :, None], jnp.sin(angles_BTK)[:, :, None]
    a, b = x_BTHK[..., :half].astype(jnp.float32), x_BTHK[..., half:].astype(jnp.float32)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x_BTHK.dtype)


class Attention(nn.Module):
    """Multi-head self-attention.

    With a cache (this layer's: key and value, each (B, S, G, K)) the tokens' own keys and values are written at the slots `positions_BT`
    first, and the mask speaks of all S slots.
    """

    config: TransformerConfig
    deterministic: bool

    @nn.compact
    def __call__(self, x_BTD, mask: Mask, positions_BT, cache=None):
        c = self.config

        def project(name, heads):
            x_BTHK = Dense(c, (heads, c.head_width), ("embed", "heads", "head_dim"), matmul_dtype=c.matmul_dtype, name=name)(x_BTD)
            return checkpoint_name(constrain(x_BTHK, "batch", "sequence", "heads", "head_dim"), "projection")

        q_BTHK, k_BSGK, v_BSGK = project("query", c.heads), project("key", c.key_heads), project("value", c.key_heads)
        if c.positions == "rotary":
            q_BTHK, k_BSGK = (rotate(x, positions_BT, c.rotary_base) for x in (q_BTHK, k_BSGK))
        if cache is not None:
            rows_B1 = jnp.arange(x_BTD.shape[0])[:, None]
            k_BSGK = cache["key"].at[rows_B1, positions_BT].set(k_BSGK.astype(cache["key"].dtype))
            v_BSGK = cache["value"].at[rows_B1, positions_BT].set(v_BSGK.astype(cache["value"].dtype))
            cache = {"key": k_BSGK, "value": v_BSGK}
        rate = c.dropout if c.attention_dropout is None else c.attention_dropout
        drop = Dropout(rate, deterministic=False) if rate and not self.deterministic else None
        out_BTHK = attention(q_BTHK, k_BSGK, v_BSGK, mask, c.attention, drop)
        out = Dense(c, (c.width,), ("heads", "head_dim", "embed"), c.residual_stddev, matmul_dtype=c.matmul_dtype, name="out")
        return out(out_BTHK), cache


class Mlp(nn.Module):
    config: TransformerConfig

    @nn.compact
    def __call__(self, x_BTD):
        c = self.config

        def project(name):
            h_BTF = Dense(c, (c.mlp_width,), ("embed", "mlp"), matmul_dtype=c.matmul_dtype, name=name)(x_BTD)
            return checkpoint_name(constrain(h_BTF, "batch", "sequence", "mlp"), "up")

        h_BTF = ACTIVATIONS[c.activation](project("gate" if c.gated_mlp else "up"))
        if c.gated_mlp:
            h_BTF = h_BTF * project("up")
        return Dense(c, (c.width,), ("mlp", "embed"), c.residual_stddev, matmul_dtype=c.matmul_dtype, name="down")(h_BTF)


class Block(nn.Module):
    """Attention, then the MLP, each a residual branch with its norm.

    `layer` is what this layer has of its own: `local` (bool: see the band alone), `skip` (rate of stochastic depth) and `cache`, where in use.
    """

    config: TransformerConfig
    deterministic: bool

    @nn.compact
    def __call__(self, x_BTD, mask: Mask, positions_BT, layer):
        c = self.config
        drop = Dropout(c.dropout, deterministic=self.deterministic)
        if "local" in layer:
            mask = dataclasses.replace(mask, window=c.attention_window, banded=layer["local"])

        def branch_of(y_BTD, name):
            if c.layer_scale is not None:  # arXiv 2103.17239, eq. 4
                initial = nn.with_logical_partitioning(nn.initializers.constant(c.layer_scale), ("embed",))
                y_BTD = y_BTD * self.param(f"{name}_scale", initial, (c.width,)).astype(y_BTD.dtype)
            y_BTD = drop(y_BTD)
            if "skip" not in layer:
                return y_BTD
            keep = 1 - layer["skip"]  # stochastic depth (arXiv 1603.09382), scaled in training as dropout is
            return y_BTD * (jax.random.bernoulli(self.make_rng("dropout"), keep, (len(y_BTD), 1, 1)) / keep).astype(y_BTD.dtype)

        stream = "sequence" if x_BTD.shape[1] % parts("stream") else "stream"
        between = lambda x_BTD: constrain(x_BTD, "batch", stream, "embed")
        within = lambda x_BTD: constrain(x_BTD, "batch", "sequence", "embed")
        result = lambda x_BTD: checkpoint_name(between(x_BTD), "branch")

        def residual(x_BTD, branch, name):
            norm = make_norm(c, f"{name}_norm")
            if c.norm == "post":
                return between(norm(x_BTD + branch_of(result(branch(within(x_BTD))), name)))
            return between(x_BTD + branch_of(result(branch(within(norm(x_BTD)))), name))

        cache = None

        def attend(x_BTD):
            nonlocal cache
            y_BTD, cache = Attention(c, self.deterministic, name="attention")(x_BTD, mask, positions_BT, layer.get("cache"))
            return y_BTD

        x_BTD = residual(x_BTD, attend, "attention")
        x_BTD = residual(x_BTD, Mlp(c, name="mlp"), "mlp")
        return x_BTD, cache


class Transformer(nn.Module):
    """L blocks; with pre-norm a last norm.

    x_BTD, mask (by default all see all), positions_BT int32 (None: 0, 1, ...), cache (key and value, each (L, B, S, G, K), or None) ->
    (x_BTD, cache). Slot s of a cache holds the token of position s.
    """

    config: TransformerConfig
    deterministic: bool

    @nn.compact
    def __call__(self, x_BTD, mask: Mask = Mask(), positions_BT=None, cache=None):
        c = self.config
        if positions_BT is None:
            positions_BT = jnp.broadcast_to(jnp.arange(x_BTD.shape[1]), x_BTD.shape[:2])
        layer = {} if cache is None else {"cache": cache}
        if "local" in c.attention_pattern:
            layer["local"] = jnp.array([c.attention_pattern[i % len(c.attention_pattern)] == "local" for i in range(c.layers)])
        if c.stochastic_depth and not self.deterministic:
            layer["skip"] = jnp.linspace(0, c.stochastic_depth, c.layers)
        block = Block
        if c.remat != "none":
            # Inside a loop the compiler cannot undo remat by common-subexpression elimination; unrolled, it can.
            block = nn.remat(Block, policy=REMAT_POLICIES[c.remat], prevent_cse=not c.scan_layers)
        stack = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True, "stochastic_rounding": True},
            in_axes=(nn.broadcast, nn.broadcast, 0),
            length=c.layers,
            unroll=c.unroll,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        x_BTD = x_BTD.astype(c.dtype)
        if parts("layers") > 1 and cache is None and not self.is_initializing():
            x_BTD = self._in_stages(x_BTD, (mask, positions_BT), layer)
        else:
            x_BTD, cache = stack(c, self.deterministic, name="blocks")(x_BTD, mask, positions_BT, layer)
        return constrain(make_norm(c, "norm")(x_BTD) if c.norm == "pre" else x_BTD, "batch", "sequence", "embed"), cache

    def _in_stages(self, x_BTD, mask_and_positions, layer):
        c = self.config
        keys = {name: self.make_rng(name) for name in ("dropout", "stochastic_rounding") if self.has_rng(name)}

        # Kernels are the same at each tick: JAX would gather those of all layers before the first, and keep them, were it not for the barrier and the name.
        @functools.partial(jax.checkpoint, policy=REMAT_POLICIES.get(c.remat, ALL_BUT_KERNELS), prevent_cse=False)
        def apply(params_and_layer, x_BTD, mask_and_positions, m, i):
            (params, layer), x_BTD = jax.lax.optimization_barrier((params_and_layer, x_BTD))
            params = jax.tree.map(lambda x: checkpoint_name(x, "kernel"), params)
            rngs = {name: jax.random.fold_in(jax.random.fold_in(key, m), i) for name, key in keys.items()}
            return Block(c, self.deterministic).apply({"params": params}, x_BTD, *mask_and_positions, layer, rngs=rngs)[0]

        microbatches = math.gcd(c.microbatches, len(x_BTD) * parts("layers") // parts("batch"))  # an evaluation may have fewer rows
        return pipelined(apply, (self.variables["params"]["blocks"], layer), x_BTD, mask_and_positions, microbatches, c.unroll)
