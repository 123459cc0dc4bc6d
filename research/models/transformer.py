"""The one Transformer (Vaswani et al., arXiv 1706.03762) under BERT, GPT and ViT.

B batch, T query and S key tokens, D model width, H heads of queries and G of keys and values, K head width, F mlp width, L layers. Parameters are
float32 and stacked over layers whether or not the stack is scanned, so that a checkpoint does not know the difference.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from research.core.errors import UserError
from research.core.sharding import constrain

ACTIVATIONS = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),  # erf, as in BERT and ViT
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),  # as in GPT-2
    "gelu_sigmoid": lambda x: x * jax.nn.sigmoid(1.702 * x),  # arXiv 1606.08415, section 2; as in CLIP
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,  # gated: SwiGLU (arXiv 2002.05202), as in Llama
}

POOLERS = {"tanh": jnp.tanh, "relu": jax.nn.relu}

REMAT_POLICIES = {
    "full": jax.checkpoint_policies.nothing_saveable,  # keep the input of each block, compute the rest again
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # keep the results of the weight matmuls
}


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """The scalars that shape a model: a `model` group of the config leaves it here. configs/base.py says what each is."""

    vocab_size: int
    max_length: int
    token_types: int
    width: int
    layers: int
    heads: int
    kv_heads: int | None
    mlp_width: int
    gated_mlp: bool
    activation: str
    use_bias: bool
    norm: str  # "post": normalise after the residual (BERT); "pre": before the branch (GPT-2, ViT)
    norm_type: str
    norm_epsilon: float
    positions: str
    rotary_base: float
    attention_pattern: tuple[str, ...]
    attention_window: int
    dropout: float
    layer_scale: float | None
    stochastic_depth: float
    initializer_stddev: float
    scale_residual_initializer: bool
    dtype: str  # of the computation
    scan_layers: bool
    remat: str  # "none" or one of REMAT_POLICIES
    pool: str
    pooler: str
    tied_head: bool

    def __post_init__(self):
        if self.width % self.heads:
            raise UserError(f"model.width {self.width} does not divide over model.heads {self.heads}.")
        if self.heads % self.key_heads:
            raise UserError(f"model.heads {self.heads} do not divide over model.kv_heads {self.kv_heads}.")
        if self.positions == "rotary" and self.head_width % 2:
            raise UserError(f"rotary positions turn pairs of dimensions: heads of {self.head_width} (model.width / model.heads) are not even.")
        for field, choices in (
            ("norm", ("post", "pre")),
            ("norm_type", ("layer", "rms")),
            ("positions", ("learned", "rotary", "sincos")),
            ("activation", ACTIVATIONS),
            ("dtype", ("float32", "bfloat16")),
            ("remat", ("none", *REMAT_POLICIES)),
            ("pool", ("first", "mean", "last", "attention")),
            ("pooler", POOLERS),
        ):
            if getattr(self, field) not in choices:
                raise UserError(f"model.{field} is {getattr(self, field)!r}: choose one of {', '.join(choices)}.")
        if not self.attention_pattern or set(self.attention_pattern) - {"dense", "local"}:
            raise UserError(f"model.attention_pattern is {self.attention_pattern!r}: name the layers in turn, each dense or local.")

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def key_heads(self) -> int:
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def residual_stddev(self) -> float:
        """Of the kernels that end a residual branch: GPT-2 divides by the square root of the number of branches (its section 2.3)."""
        return self.initializer_stddev / ((2 * self.layers) ** 0.5 if self.scale_residual_initializer else 1)


def check_choice(model: str, field: str, value: str, choices: tuple[str, ...]):
    """Raises UserError for a value that the Transformer knows and this model cannot have."""
    if value not in choices:
        raise UserError(f"model.{field} is {value!r}, which {model} cannot have: choose one of {', '.join(choices)}.")


def kernel(stddev, *axes):
    return nn.with_logical_partitioning(nn.initializers.truncated_normal(stddev), axes)


def bias(*axes):
    return nn.with_logical_partitioning(nn.initializers.zeros, axes)


class Dense(nn.Module):
    """A linear map. `axes` names the dimensions of the kernel: the inputs, which end the shape of x, then the `outputs`."""

    config: TransformerConfig
    outputs: tuple[int, ...]
    axes: tuple[str | None, ...]
    stddev: float | None = None  # of the initial kernel; None: the config's
    use_bias: bool | None = None  # None: as the config says
    out_dtype: str | None = None  # None: that of the computation

    @nn.compact
    def __call__(self, x):
        c, inputs = self.config, len(self.axes) - len(self.outputs)
        initializer = kernel(c.initializer_stddev if self.stddev is None else self.stddev, *self.axes)
        weight = self.param("kernel", initializer, (*x.shape[x.ndim - inputs :], *self.outputs))
        out_dtype = self.out_dtype or c.dtype
        y = jnp.tensordot(x.astype(c.dtype), weight.astype(c.dtype), inputs, preferred_element_type=out_dtype)
        if c.use_bias if self.use_bias is None else self.use_bias:
            y = y + self.param("bias", bias(*self.axes[inputs:]), self.outputs).astype(out_dtype)
        return y


def make_norm(config, name=None):
    """Layer norm (arXiv 1607.06450) or RMS norm (arXiv 1910.07467), over the last dimension."""
    scale = nn.with_logical_partitioning(nn.initializers.ones, ("embed",))
    if config.norm_type == "rms":
        return nn.RMSNorm(config.norm_epsilon, dtype=config.dtype, scale_init=scale, name=name)
    return nn.LayerNorm(config.norm_epsilon, dtype=config.dtype, use_bias=config.use_bias, scale_init=scale, bias_init=bias("embed"), name=name)


class Embedding(nn.Module):
    """A table (size, D). `axis` is the logical name of its rows, None where they are too few to split.

    Called with ids (...) int32 -> (..., D); `attend`: h (..., D) -> h table^T (..., size) float32, for a head that shares the table.
    """

    config: TransformerConfig
    size: int
    axis: str | None

    def setup(self):
        self.embedding = self.param("embedding", kernel(self.config.initializer_stddev, self.axis, "embed"), (self.size, self.config.width))

    @property
    def table_VD(self):
        # Gathered along D before use: looking up in a table split both ways, the partitioner would replicate what it finds.
        return constrain(self.embedding.astype(self.config.dtype), self.axis, None)

    def __call__(self, ids):
        return self.table_VD[ids]

    def attend(self, h):
        return jnp.matmul(h.astype(self.config.dtype), self.table_VD.T, preferred_element_type=jnp.float32)


def rotate(x_BTHK, positions_BT, base: float):
    """Rotary positions (arXiv 2104.09864, eq. 34): dimension i and i + K/2 turn by position * base^(-2i/K)."""
    half = x_BTHK.shape[-1] // 2
    angles_BTK = positions_BT[..., None] * base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    cos, sin = jnp.cos(angles_BTK)[:, :, None], jnp.sin(angles_BTK)[:, :, None]
    a, b = x_BTHK[..., :half].astype(jnp.float32), x_BTHK[..., half:].astype(jnp.float32)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x_BTHK.dtype)


def attention(q_BTHK, k_BSGK, v_BSGK, mask_BTS=None, drop=lambda weights: weights):
    """softmax(q k^T / sqrt(K)) v (eq. 1), the softmax in float32. mask_BTS is True where a query may see a key; None: everywhere.

    Each of the G heads of keys and values serves the H / G heads of queries beside it (arXiv 2305.13245).
    """
    B, T, H, K = q_BTHK.shape
    q_BTGRK = (q_BTHK * K**-0.5).reshape(B, T, k_BSGK.shape[2], -1, K)
    scores_BGRTS = jnp.einsum("BTGRK,BSGK->BGRTS", q_BTGRK, k_BSGK, preferred_element_type=jnp.float32)
    if mask_BTS is not None:
        scores_BGRTS = jnp.where(mask_BTS[:, None, None], scores_BGRTS, jnp.finfo(jnp.float32).min)
    weights_BGRTS = drop(jax.nn.softmax(scores_BGRTS).astype(v_BSGK.dtype))
    return jnp.einsum("BGRTS,BSGK->BTGRK", weights_BGRTS, v_BSGK).reshape(B, T, H, K)


class Attention(nn.Module):
    """Multi-head self-attention.

    With a cache (this layer's: key and value, each (B, S, G, K)) the tokens' own keys and values are written at the slots `positions_BT`
    first, and mask_BTS speaks of all S slots.
    """

    config: TransformerConfig
    deterministic: bool

    @nn.compact
    def __call__(self, x_BTD, mask_BTS, positions_BT, cache=None):
        c = self.config

        def project(name, heads):
            x_BTHK = Dense(c, (heads, c.head_width), ("embed", "heads", "head_dim"), name=name)(x_BTD)
            return constrain(x_BTHK, "batch", "sequence", "heads", "head_dim")

        q_BTHK, k_BSGK, v_BSGK = project("query", c.heads), project("key", c.key_heads), project("value", c.key_heads)
        if c.positions == "rotary":
            q_BTHK, k_BSGK = (rotate(x, positions_BT, c.rotary_base) for x in (q_BTHK, k_BSGK))
        if cache is not None:
            rows_B1 = jnp.arange(x_BTD.shape[0])[:, None]
            k_BSGK = cache["key"].at[rows_B1, positions_BT].set(k_BSGK.astype(cache["key"].dtype))
            v_BSGK = cache["value"].at[rows_B1, positions_BT].set(v_BSGK.astype(cache["value"].dtype))
            cache = {"key": k_BSGK, "value": v_BSGK}
        drop = nn.Dropout(c.dropout, deterministic=self.deterministic)
        out_BTHK = attention(q_BTHK, k_BSGK, v_BSGK, mask_BTS, drop)
        return Dense(c, (c.width,), ("heads", "head_dim", "embed"), c.residual_stddev, name="out")(out_BTHK), cache


class Mlp(nn.Module):
    config: TransformerConfig

    @nn.compact
    def __call__(self, x_BTD):
        c = self.config
        h_BTF = ACTIVATIONS[c.activation](Dense(c, (c.mlp_width,), ("embed", "mlp"), name="gate" if c.gated_mlp else "up")(x_BTD))
        if c.gated_mlp:
            h_BTF = h_BTF * Dense(c, (c.mlp_width,), ("embed", "mlp"), name="up")(x_BTD)
        return Dense(c, (c.width,), ("mlp", "embed"), c.residual_stddev, name="down")(constrain(h_BTF, "batch", "sequence", "mlp"))


class Block(nn.Module):
    """Attention, then the MLP, each a residual branch with its norm.

    `layer` is what this layer has of its own: `local` (bool: see the band alone), `skip` (rate of stochastic depth) and `cache`, where in use.
    """

    config: TransformerConfig
    deterministic: bool

    @nn.compact
    def __call__(self, x_BTD, mask_BTS, band_BTS, positions_BT, layer):
        c = self.config
        drop = nn.Dropout(c.dropout, deterministic=self.deterministic)
        if "local" in layer:
            mask_BTS = mask_BTS & (band_BTS | ~layer["local"])

        def branch_of(y_BTD, name):
            if c.layer_scale is not None:  # arXiv 2103.17239, eq. 4
                initial = nn.with_logical_partitioning(nn.initializers.constant(c.layer_scale), ("embed",))
                y_BTD = y_BTD * self.param(f"{name}_scale", initial, (c.width,)).astype(y_BTD.dtype)
            y_BTD = drop(y_BTD)
            if "skip" not in layer:
                return y_BTD
            keep = 1 - layer["skip"]  # stochastic depth (arXiv 1603.09382), scaled in training as dropout is
            return y_BTD * (jax.random.bernoulli(self.make_rng("dropout"), keep, (len(y_BTD), 1, 1)) / keep).astype(y_BTD.dtype)

        def residual(x_BTD, branch, name):
            norm = make_norm(c, f"{name}_norm")
            if c.norm == "post":
                x_BTD = norm(x_BTD + branch_of(branch(x_BTD), name))
            else:
                x_BTD = x_BTD + branch_of(branch(norm(x_BTD)), name)
            return constrain(x_BTD, "batch", "sequence", "embed")

        cache = None

        def attend(x_BTD):
            nonlocal cache
            y_BTD, cache = Attention(c, self.deterministic, name="attention")(x_BTD, mask_BTS, positions_BT, layer.get("cache"))
            return y_BTD

        x_BTD = residual(x_BTD, attend, "attention")
        x_BTD = residual(x_BTD, Mlp(c, name="mlp"), "mlp")
        return x_BTD, cache


class Transformer(nn.Module):
    """L blocks; with pre-norm a last norm.

    x_BTD, mask_BTS bool (None: all see all), positions_BT int32 (None: 0, 1, ...), cache (key and value, each (L, B, S, G, K), or None) ->
    (x_BTD, cache). With a cache S is its slots, and slot s holds the token of position s.
    """

    config: TransformerConfig
    deterministic: bool

    @nn.compact
    def __call__(self, x_BTD, mask_BTS=None, positions_BT=None, cache=None):
        c = self.config
        if positions_BT is None:
            positions_BT = jnp.broadcast_to(jnp.arange(x_BTD.shape[1]), x_BTD.shape[:2])
        layer, band_BTS = {} if cache is None else {"cache": cache}, None
        if "local" in c.attention_pattern:
            layer["local"] = jnp.array([c.attention_pattern[i % len(c.attention_pattern)] == "local" for i in range(c.layers)])
            keys_BS = positions_BT if cache is None else jnp.arange(cache["key"].shape[2])[None]
            band_BTS = abs(positions_BT[:, :, None] - keys_BS[:, None]) < c.attention_window
            mask_BTS = jnp.ones_like(band_BTS) if mask_BTS is None else mask_BTS
        if c.stochastic_depth and not self.deterministic:
            layer["skip"] = jnp.linspace(0, c.stochastic_depth, c.layers)
        block = Block
        if c.remat != "none":
            # Inside a loop the compiler cannot undo remat by common-subexpression elimination; unrolled, it can.
            block = nn.remat(Block, policy=REMAT_POLICIES[c.remat], prevent_cse=not c.scan_layers)
        stack = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(nn.broadcast, nn.broadcast, nn.broadcast, 0),
            length=c.layers,
            unroll=1 if c.scan_layers else c.layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        x_BTD, cache = stack(c, self.deterministic, name="blocks")(x_BTD.astype(c.dtype), mask_BTS, band_BTS, positions_BT, layer)
        return make_norm(c, "norm")(x_BTD) if c.norm == "pre" else x_BTD, cache
