"""The layers under the Transformer, and the scalars that shape it. Parameters are float32; `dtype` is that of the computation.

B batch, T tokens, D model width.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from research.core.errors import UserError
from research.core.sharding import gathered, parts
from research.models import quantized


def activation(function):
    """`function` in float32, computed again in the backward pass: of all it computes x alone is kept for it."""
    return jax.checkpoint(lambda x: function(x.astype(jnp.float32)).astype(x.dtype), prevent_cse=False)


ACTIVATIONS = {
    "gelu": activation(lambda x: 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))),  # arXiv 1606.08415, eq. 1; as in BERT and ViT
    "gelu_tanh": activation(functools.partial(jax.nn.gelu, approximate=True)),  # as in GPT-2
    "gelu_sigmoid": activation(lambda x: x * jax.nn.sigmoid(1.702 * x)),  # section 2 there; as in CLIP
    "relu": activation(jax.nn.relu),
    "silu": activation(jax.nn.silu),  # gated: SwiGLU (arXiv 2002.05202), as in Llama
    "tanh": activation(jnp.tanh),  # as in PPO for control (arXiv 1707.06347, section 6.1)
}

POOLERS = {"tanh": jnp.tanh, "relu": jax.nn.relu}

_keep = jax.checkpoint_policies.save_only_these_names

# What of a block is kept for the backward pass besides its input; the rest is computed again. Names are given where the values arise (`checkpoint_name`).
REMAT_POLICIES = {
    "full": jax.checkpoint_policies.nothing_saveable,  # nothing
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # the results of the weight matmuls, as they come
    "attention": _keep("attention"),  # what attention gives
    "projections": _keep("attention", "projection", "branch"),  # queries, keys, values too, and the results of the branches, split as the stream is
    "matmuls": _keep("attention", "projection", "branch", "up"),  # all matmuls: what is between them is computed again
    "offload": jax.checkpoint_policies.save_and_offload_only_these_names(  # as `projections`, most of it in the memory of the host
        names_which_can_be_saved=["attention"],
        names_which_can_be_offloaded=["projection", "branch"],
        offload_src="device",
        offload_dst="pinned_host",
    ),
}
# Of a layer in a pipeline, with no policy.
ALL_BUT_KERNELS = jax.checkpoint_policies.save_anything_except_these_names("kernel")


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
    attention: str  # "auto" or one of attention.IMPLEMENTATIONS
    attention_pattern: tuple[str, ...]
    attention_window: int
    dropout: float
    attention_dropout: float | None
    layer_scale: float | None
    stochastic_depth: float
    initializer_stddev: float
    scale_residual_initializer: bool
    dtype: str  # of the computation
    matmul_dtype: str | None  # of a block's products with its kernels: one of quantized.DTYPES, or None: `dtype`
    scan_layers: bool
    scan_unroll: int
    microbatches: int  # that go through a pipeline's stages one behind the other
    remat: str  # "none" or one of REMAT_POLICIES
    pool: str
    pooler: str
    tied_head: bool

    def __post_init__(self):
        quantized.check(self.matmul_dtype)
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
            ("attention", ("auto", "xla", "splash", "cudnn")),
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
    def unroll(self) -> int:
        """Layers in a round of the loop over layers."""
        return self.scan_unroll if self.scan_layers else self.layers

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
    """A linear map. `axes` names the dimensions of the kernel: the inputs, which end the shape of x, then the `outputs`.

    `matmul_dtype`: what both are rounded to for the product, one of quantized.DTYPES; None: they are not.
    """

    config: TransformerConfig
    outputs: tuple[int, ...]
    axes: tuple[str | None, ...]
    stddev: float | None = None  # of the initial kernel; None: the config's
    use_bias: bool | None = None  # None: as the config says
    out_dtype: str | None = None  # None: that of the computation
    matmul_dtype: str | None = None

    @nn.compact
    def __call__(self, x):
        c, inputs = self.config, len(self.axes) - len(self.outputs)
        initializer = kernel(c.initializer_stddev if self.stddev is None else self.stddev, *self.axes)
        weight = self.param("kernel", initializer, (*x.shape[x.ndim - inputs :], *self.outputs))
        out_dtype, leading = self.out_dtype or c.dtype, x.shape[: x.ndim - inputs]
        if parts("sequence") == 1:  # a product with one row a token: its gradients need no transposed copy, of which XLA makes many on CPUs
            x = x.reshape(-1, *x.shape[x.ndim - inputs :])
        x, weight = x.astype(c.dtype), checkpoint_name(gathered(weight.astype(c.dtype), "embed", *self.axes), "kernel")
        if self.matmul_dtype is None:
            y = jnp.tensordot(x, weight, inputs, preferred_element_type=out_dtype)
        else:
            y = quantized.matmul(x, weight, inputs, self.matmul_dtype, training=self.has_rng("stochastic_rounding"))
        y = y.astype(out_dtype).reshape(*leading, *self.outputs)
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
        # Looking up in a table split both ways, the partitioner would replicate what it finds.
        return gathered(self.embedding.astype(self.config.dtype), "embed", self.axis, "embed")

    def __call__(self, ids):
        return self.table_VD[ids]

    def attend(self, h):
        return jnp.matmul(h.astype(self.config.dtype), self.table_VD.T, preferred_element_type=jnp.float32)


class Dropout(nn.Module):
    """Zeroes elements of x, each with probability `rate`, and scales the others so that the mean stays (Srivastava et al., 2014).

    One draw of 32 bits decides for two elements: the rate is met to 2^-17, the scale is that of the rate met.
    """

    rate: float
    deterministic: bool

    @nn.compact
    def __call__(self, x):
        keep = round((1 - self.rate) * 2**16)
        if self.deterministic or keep == 2**16:
            return x
        *leading, size = x.shape
        bits = jax.random.bits(self.make_rng("dropout"), (*leading, -(-size // 2)), jnp.uint32)
        kept = jnp.concatenate([bits >> 16, bits & 0xFFFF], -1)[..., :size] < jnp.uint32(keep)
        return jnp.where(kept, x * jnp.asarray(2**16 / keep, x.dtype), 0)
