"""The one Transformer (Vaswani et al., arXiv 1706.03762) under BERT, GPT and ViT.

B batch, T query and S key tokens, D model width, H heads, K head width, F mlp width, L layers. Parameters are float32
and stacked over layers whether or not the stack is scanned, so that a checkpoint does not know the difference.
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
    "relu": jax.nn.relu,
}

REMAT_POLICIES = {
    "full": jax.checkpoint_policies.nothing_saveable,  # keep the input of each block, compute the rest again
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # keep the results of the weight matmuls
}


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """The scalars that shape a model: `config.model` leaves the config here."""

    vocab_size: int
    max_length: int  # learned positions
    token_types: int  # BERT's segment embeddings
    width: int
    layers: int
    heads: int
    mlp_width: int
    dropout: float
    norm: str  # "post": normalise after the residual (BERT); "pre": before the branch (GPT-2, ViT)
    norm_epsilon: float
    activation: str
    initializer_stddev: float
    dtype: str  # of the computation
    scan_layers: bool
    remat: str  # "none" or one of REMAT_POLICIES

    def __post_init__(self):
        if self.width % self.heads:
            raise UserError(f"model.width {self.width} does not divide over model.heads {self.heads}.")
        for field, choices in (
            ("norm", ("post", "pre")),
            ("activation", ACTIVATIONS),
            ("dtype", ("float32", "bfloat16")),
            ("remat", ("none", *REMAT_POLICIES)),
        ):
            if getattr(self, field) not in choices:
                raise UserError(f"model.{field} is {getattr(self, field)!r}: choose one of {', '.join(choices)}.")


def kernel(config, *axes):
    return nn.with_logical_partitioning(nn.initializers.truncated_normal(config.initializer_stddev), axes)


def bias(*axes):
    return nn.with_logical_partitioning(nn.initializers.zeros, axes)


class Dense(nn.Module):
    """A linear map. `axes` names the dimensions of the kernel: the inputs, which end the shape of x, then the `outputs`."""

    config: TransformerConfig
    outputs: tuple[int, ...]
    axes: tuple[str | None, ...]

    @nn.compact
    def __call__(self, x):
        dtype, inputs = self.config.dtype, len(self.axes) - len(self.outputs)
        weight = self.param("kernel", kernel(self.config, *self.axes), (*x.shape[x.ndim - inputs :], *self.outputs))
        offset = self.param("bias", bias(*self.axes[inputs:]), self.outputs)
        return jnp.tensordot(x.astype(dtype), weight.astype(dtype), inputs) + offset.astype(dtype)


def layer_norm(config, name=None):
    return nn.LayerNorm(
        config.norm_epsilon,
        dtype=config.dtype,
        scale_init=nn.with_logical_partitioning(nn.initializers.ones, ("embed",)),
        bias_init=bias("embed"),
        name=name,
    )


class Embedding(nn.Module):
    """A table (size, D). `axis` is the logical name of its rows, None where they are too few to split.

    Called with ids (...) int32 -> (..., D); `attend`: h (..., D) -> h table^T (..., size) float32, for a head that shares the table.
    """

    config: TransformerConfig
    size: int
    axis: str | None

    def setup(self):
        self.embedding = self.param("embedding", kernel(self.config, self.axis, "embed"), (self.size, self.config.width))

    @property
    def table_VD(self):
        # Gathered along D before use: looking up in a table split both ways, the partitioner would replicate what it finds.
        return constrain(self.embedding.astype(self.config.dtype), self.axis, None)

    def __call__(self, ids):
        return self.table_VD[ids]

    def attend(self, h):
        return jnp.matmul(h.astype(self.config.dtype), self.table_VD.T, preferred_element_type=jnp.float32)


def attention(q_BTHK, k_BSHK, v_BSHK, mask_BTS, drop=lambda weights: weights):
    """softmax(q k^T / sqrt(K)) v (eq. 1), the softmax in float32. mask_BTS is True where a query may see a key."""
    scale = q_BTHK.shape[-1] ** -0.5
    scores_BHTS = jnp.einsum("BTHK,BSHK->BHTS", q_BTHK * scale, k_BSHK, preferred_element_type=jnp.float32)
    scores_BHTS = jnp.where(mask_BTS[:, None], scores_BHTS, jnp.finfo(jnp.float32).min)
    weights_BHTS = drop(jax.nn.softmax(scores_BHTS).astype(v_BSHK.dtype))
    return jnp.einsum("BHTS,BSHK->BTHK", weights_BHTS, v_BSHK)


class Attention(nn.Module):
    """Multi-head self-attention."""

    config: TransformerConfig
    deterministic: bool

    @nn.compact
    def __call__(self, x_BTD, mask_BTS):
        c = self.config

        def project(name):
            heads = Dense(c, (c.heads, c.width // c.heads), ("embed", "heads", "head_dim"), name=name)(x_BTD)
            return constrain(heads, "batch", "sequence", "heads", "head_dim")

        q_BTHK, k_BTHK, v_BTHK = project("query"), project("key"), project("value")
        drop = nn.Dropout(c.dropout, deterministic=self.deterministic)
        out_BTHK = attention(q_BTHK, k_BTHK, v_BTHK, mask_BTS, drop)
        return Dense(c, (c.width,), ("heads", "head_dim", "embed"), name="out")(out_BTHK)


class Mlp(nn.Module):
    config: TransformerConfig

    @nn.compact
    def __call__(self, x_BTD):
        c = self.config
        h_BTF = Dense(c, (c.mlp_width,), ("embed", "mlp"), name="up")(x_BTD)
        h_BTF = constrain(ACTIVATIONS[c.activation](h_BTF), "batch", "sequence", "mlp")
        return Dense(c, (c.width,), ("mlp", "embed"), name="down")(h_BTF)


class Block(nn.Module):
    """Attention, then the MLP, each a residual branch with its layer norm."""

    config: TransformerConfig
    deterministic: bool

    @nn.compact
    def __call__(self, x_BTD, mask_BTS):
        c = self.config
        drop = nn.Dropout(c.dropout, deterministic=self.deterministic)

        def residual(x_BTD, branch, norm):
            if c.norm == "post":
                x_BTD = norm(x_BTD + drop(branch(x_BTD)))
            else:
                x_BTD = x_BTD + drop(branch(norm(x_BTD)))
            return constrain(x_BTD, "batch", "sequence", "embed")

        attend = Attention(c, self.deterministic, name="attention")
        x_BTD = residual(x_BTD, lambda x_BTD: attend(x_BTD, mask_BTS), layer_norm(c, "attention_norm"))
        x_BTD = residual(x_BTD, Mlp(c, name="mlp"), layer_norm(c, "mlp_norm"))
        return x_BTD, None


class Transformer(nn.Module):
    """L blocks; with pre-norm a last layer norm. x_BTD, mask_BTS bool -> x_BTD."""

    config: TransformerConfig
    deterministic: bool

    @nn.compact
    def __call__(self, x_BTD, mask_BTS):
        c = self.config
        block = Block
        if c.remat != "none":
            # Inside a loop the compiler cannot undo remat by common-subexpression elimination; unrolled, it can.
            block = nn.remat(Block, policy=REMAT_POLICIES[c.remat], prevent_cse=not c.scan_layers)
        stack = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=nn.broadcast,
            length=c.layers,
            unroll=1 if c.scan_layers else c.layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        x_BTD, _ = stack(c, self.deterministic, name="blocks")(x_BTD.astype(c.dtype), mask_BTS)
        return layer_norm(c, "norm")(x_BTD) if c.norm == "pre" else x_BTD
