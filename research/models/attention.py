"""Attention (Vaswani et al., arXiv 1706.03762, eq. 1): which keys a query sees, and the ways to compute it.

B batch, T query and S key tokens, H heads of queries and G of keys and values, R = H / G, K head width.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from research.core.errors import UserError
from research.core.sharding import constrain, partition_spec, parts


@flax.struct.dataclass
class Mask:
    """Which keys a query sees: those of its own segment; where `causal`, those up to itself; of a band, those less than `window` away.

    `segments_BT`, int32, are those of queries, and of keys where `keys_BS` is None; None: all are of one. `positions_BT`: at which key each query
    stands; None: the t-th at the t-th. `banded`, bool: whether the band counts; None: it does. `pieces`: rows of queries and of keys lie in the order
    that `places` tells. A query that sees no key gets zeros and passes no gradient on.
    """

    segments_BT: jax.Array | None = None
    keys_BS: jax.Array | None = None
    positions_BT: jax.Array | None = None
    banded: jax.Array | None = None
    causal: bool = flax.struct.field(pytree_node=False, default=False)
    window: int | None = flax.struct.field(pytree_node=False, default=None)
    pieces: int = flax.struct.field(pytree_node=False, default=1)

    def allowed(self, T: int, S: int):
        """(B or 1, T, S) bool, True where a query sees a key; None where every one sees all."""
        conditions = []
        if self.segments_BT is not None:
            keys_BS = self.segments_BT if self.keys_BS is None else self.keys_BS
            conditions.append(self.segments_BT[:, :, None] == keys_BS[:, None])
        if self.causal or self.window is not None:
            positions_BT = places(T, self.pieces)[None] if self.positions_BT is None else self.positions_BT
            behind_BTS = positions_BT[:, :, None] - places(S, self.pieces)
            conditions += [behind_BTS >= 0] if self.causal else []
            if self.window is not None:
                band_BTS = abs(behind_BTS) < self.window
                conditions.append(band_BTS if self.banded is None else band_BTS | ~self.banded)
        return functools.reduce(jnp.logical_and, conditions) if conditions else None


def causal_mask(segments_BT, pieces: int = 1) -> Mask:
    """Of packed rows: a token sees the tokens of its own segment up to itself. segments_BT int32, 0 at padding."""
    return Mask(segments_BT, causal=True, pieces=pieces)


def causal_pieces(length: int) -> int:
    """How many pieces a row of a causal model is best cut into: where devices have a part of it each, two a device, which `places` pairs so that causality
    leaves each the same to see (as in arXiv 2407.21783, section 3.3.2)."""
    pieces = 2 * parts("sequence")
    return pieces if pieces > 2 and length % pieces == 0 else 1


def places(length: int, pieces: int) -> np.ndarray:
    """(length,) int: which token is the t-th of a row in equal pieces that lie so: the first, the last, the second, the last but one, ..."""
    return np.arange(length).reshape(pieces, -1)[_order(pieces)].reshape(-1)


def _order(pieces: int) -> np.ndarray:
    return np.stack([np.arange(pieces), pieces - 1 - np.arange(pieces)], 1).reshape(-1)[:pieces]


def _in_order(x_BTxx, pieces: int):
    """Undoes `places`."""
    cut = jnp.split(x_BTxx, pieces, axis=1)
    return jnp.concatenate([cut[i] for i in np.argsort(_order(pieces))], axis=1) if pieces > 1 else x_BTxx


def positions_in_segments(segments_BT):
    """positions_BT int32 of packed rows: each segment counts from 0."""
    index_T = jnp.arange(segments_BT.shape[1])
    begins_BT = segments_BT != jnp.roll(segments_BT, 1, axis=1)
    return index_T - jax.lax.cummax(jnp.where(begins_BT | (index_T == 0), index_T, 0), axis=1)


def padding_mask(mask_BT) -> Mask:
    """Every token sees the real ones: where mask_BT, bool, is True."""
    return Mask(jnp.ones(mask_BT.shape, jnp.int32), mask_BT.astype(jnp.int32))


def attention(q_BTHK, k_BSGK, v_BSGK, mask: Mask = Mask(), implementation: str = "auto", drop=None):
    """softmax(q k^T / sqrt(K)) v -> (B, T, H, K), the softmax in float32.

    Each of the G heads of keys and values serves the H / G heads of queries beside it (arXiv 2305.13245). `drop` is applied to the weights. `implementation`:
    a row of IMPLEMENTATIONS, or auto: splash on a TPU where it can be (128 tokens or more, no dropout, rows and heads that divide over the devices), else
    xla. From a cache, token by token, it is always xla. Raises UserError for splash and cudnn where they cannot be.
    """
    B, T, H, K = q_BTHK.shape
    if mask.positions_BT is not None:
        implementation = "xla"
    divides = not (B % parts("batch") or H % parts("heads") or k_BSGK.shape[2] % parts("heads"))
    can_splash = drop is None and T == k_BSGK.shape[1] and divides
    if implementation == "auto":
        implementation = "splash" if platform() == "tpu" and can_splash and T >= 128 else "xla"
    if implementation == "cudnn" and (drop is not None or (platform() == "gpu" and q_BTHK.dtype == jnp.float32)):
        raise UserError(
            "model.attention=cudnn drops no attention weights and computes in 16 bits: set model.attention_dropout=0 and model.dtype=bfloat16."
        )
    if implementation == "splash" and not can_splash:
        raise UserError(
            "model.attention=splash drops no attention weights, and rows and heads divide over the devices: set model.attention_dropout=0 and config.mesh "
            "so, or leave it at auto."
        )
    return IMPLEMENTATIONS[implementation](q_BTHK * K**-0.5, k_BSGK, v_BSGK, mask, **({} if drop is None else {"drop": drop}))


def platform() -> str:
    """Where the computation will run: on the devices of the mesh in force, which need not be here, else on those that are."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def xla_attention(q_BTHK, k_BSGK, v_BSGK, mask: Mask, drop=lambda weights: weights):
    """As the formula says; the compiler fuses what it can. All T x S weights are in memory."""
    B, T, H, K = q_BTHK.shape
    # Queries may be split by sequence: keys and values then come whole to each part of them, as they do in splash.
    k_BSGK, v_BSGK = (constrain(x, "batch", None, "heads", "head_dim") for x in (k_BSGK, v_BSGK))
    q_BTGRK = q_BTHK.reshape(B, T, k_BSGK.shape[2], -1, K)
    scores_BGRTS = jnp.einsum("BTGRK,BSGK->BGRTS", q_BTGRK, k_BSGK, preferred_element_type=jnp.float32)
    allowed_BTS = mask.allowed(T, k_BSGK.shape[1])
    if allowed_BTS is not None:
        scores_BGRTS = jnp.where(allowed_BTS[:, None, None], scores_BGRTS, jnp.finfo(jnp.float32).min)
    weights_BGRTS = drop(jax.nn.softmax(scores_BGRTS).astype(v_BSGK.dtype))
    out_BTHK = jnp.einsum("BGRTS,BSGK->BTGRK", weights_BGRTS, v_BSGK).reshape(B, T, H, K)
    sequence = None if T % parts("sequence") else "sequence"  # a single query is not split
    out_BTHK = constrain(_zero_where_blind(out_BTHK, mask, k_BSGK.shape[1]), "batch", sequence, "heads", "head_dim")
    return checkpoint_name(out_BTHK, "attention")


def _zero_where_blind(out_BTHK, mask: Mask, S: int):
    if mask.keys_BS is None:
        return out_BTHK  # every query sees itself at least
    return jnp.where(mask.allowed(out_BTHK.shape[1], S).any(-1)[..., None, None], out_BTHK, 0)


def splash_attention(q_BTHK, k_BTGK, v_BTGK, mask: Mask):
    """Pallas's kernel for TPUs (after FlashAttention-2, arXiv 2307.08691): weights are never in memory, blocks that causality or band empty are left out.

    Elsewhere than on a TPU it is interpreted, which is slow and for tests. Each device has its own rows and heads, and its part of the queries.
    """
    T = q_BTHK.shape[1]
    padding = -T % (128 * parts("sequence"))  # a block has 128 tokens or a multiple
    segments_BT, keys_BT = mask.segments_BT, mask.segments_BT if mask.keys_BS is None else mask.keys_BS
    if padding and segments_BT is None:
        segments_BT = keys_BT = jnp.zeros(q_BTHK.shape[:2], jnp.int32)
    out_BTHK = _splash_on_devices(_padded(q_BTHK, padding), k_BTGK, v_BTGK, _padded(segments_BT, padding, -1), keys_BT, mask)
    return _zero_where_blind(out_BTHK[:, :T], mask, T)


def _padded(x_BTxx, padding: int, fill=0):
    return None if x_BTxx is None else jnp.pad(x_BTxx, ((0, 0), (0, padding), *[(0, 0)] * (x_BTxx.ndim - 2)), constant_values=fill)


def _splash_on_devices(q_BTHK, k_BSGK, v_BSGK, segments_BT, keys_BS, mask: Mask):
    """Each device runs the kernel on its rows, heads and queries, which may be padded; it gathers all keys and values, as they lie.

    Gathered in here, their gradients are scattered as they are summed. Where a band may be on or off there are two kernels, and nothing is exchanged once one
    is chosen: in another stage of a pipeline it may be the other.
    """
    masks = [mask] if mask.banded is None else [mask, dataclasses.replace(mask, window=None)]
    (_, length, heads, _), used, across = q_BTHK.shape, k_BSGK.shape[1], None  # across: the mesh axes over which keys are split

    def run(kernels, banded, q_BTHK, k_BSGK, v_BSGK, segments_BT, keys_BS):
        def all_keys(x_BSxx, fill=0):  # padding is of a segment that no query has
            if x_BSxx is None:
                return None
            whole = jax.lax.all_gather(x_BSxx, across, axis=1, tiled=True) if across else x_BSxx
            return _padded(_in_order(whole, mask.pieces), length - used, fill)

        by_head = lambda x: x.swapaxes(1, 2)
        segments = None if segments_BT is None else splash.SegmentIds(segments_BT, all_keys(keys_BS, -2))
        arrays = by_head(q_BTHK), by_head(all_keys(k_BSGK)), by_head(all_keys(v_BSGK)), segments

        def attend(kernel, mask):
            visited = _visited(used, length - used, mask)
            with jax.named_scope(f"visited_{visited:.4f}"):  # by which research/compile/kernels.py knows what the kernels cost
                return jax.vmap(kernel)(*arrays)

        choices = [functools.partial(attend, *pair) for pair in zip(kernels, masks)]
        return by_head(choices[0]() if banded is None else jax.lax.cond(banded, *choices))

    arrays = mask.banded, q_BTHK, k_BSGK, v_BSGK, segments_BT, keys_BS
    rules, mesh = nn.get_logical_axis_rules(), jax.sharding.get_abstract_mesh()
    if not rules:
        return run([_splash_kernel(heads, length, 1, used, mask) for mask in masks], *arrays)
    spec = lambda *axes: partition_spec(axes, rules)
    of_queries = spec("batch", "sequence", "heads", "head_dim")
    if used % parts("sequence") == 0:
        across = spec("sequence")[0]
    along = "sequence" if across else None
    of_keys = spec("batch", along, "heads", "head_dim")
    of_segments = (None, None) if segments_BT is None else (spec("batch", "sequence"), spec("batch", along))
    kernels = [_splash_kernel(heads // parts("heads"), length, parts("sequence"), used, mask) for mask in masks]
    sizes = AbstractMesh(mesh.axis_sizes, mesh.axis_names)
    of_masks = [NamedSharding(sizes, PartitionSpec(None, spec("sequence")[0] if _by_place(mask) else None)) for mask in masks]
    of_kernels = [kernel.manual_sharding_spec(of_mask) for kernel, of_mask in zip(kernels, of_masks)]
    specs = (of_kernels, None if mask.banded is None else PartitionSpec(), of_queries, of_keys, of_keys, *of_segments)
    axes = frozenset(mesh.axis_names) - frozenset(mesh.manual_axes)  # within a stage `pipeline` is not to be split any more
    return jax.shard_map(run, in_specs=specs, out_specs=of_queries, axis_names=axes, check_vma=False)(kernels, *arrays)


def _splash_kernel(heads: int, length: int, parts: int, used: int, mask: Mask):
    """The kernel for so many heads, and tokens of which those after `used` are padding; its queries are to be split in `parts`."""
    block = _block(length // parts)
    one: splash.FullMask | splash.LocalMask | splash.CausalMask
    if not _by_place(mask):  # each part is a kernel of its own
        one, parts = splash.FullMask((length // parts, length)), 1
    elif mask.window is not None:
        one = splash.LocalMask((length, length), (mask.window - 1, 0 if mask.causal else mask.window - 1), 0)
    else:
        one = splash.CausalMask((length, length))
    if not isinstance(one, splash.FullMask):
        one.q_sequence = _padded_places(used, length - used, mask)
    sizes: dict[str, Any] = dict.fromkeys(("block_q", "block_kv", "block_q_dkv", "block_kv_dkv", "block_q_dq", "block_kv_dq"), block)
    return splash.make_splash_mha(
        splash.MultiHeadMask([one] * heads),
        block_sizes=splash.BlockSizes(**sizes),
        head_shards=1,
        q_seq_shards=parts,
        residual_checkpoint_name="attention",
        interpret=platform() != "tpu",
    )


def _padded_places(length: int, padding: int, mask: Mask) -> np.ndarray:
    return np.concatenate([places(length, mask.pieces), np.arange(length, length + padding)]).astype(np.int32)


def _by_place(mask: Mask) -> bool:
    """Whether what a query sees depends on where it stands."""
    return mask.causal or mask.window is not None


def _visited(length: int, padding: int, mask: Mask) -> float:
    """The share of all blocks in which causality and band leave something to see."""
    block = _block(length + padding)
    queries = _padded_places(length, padding, mask).reshape(-1, block)
    first, last = queries.min(1)[:, None], queries.max(1)[:, None]  # of a block of queries
    keys = np.arange(0, length + padding, block)  # the first of a block
    seen = keys <= last if mask.causal else np.ones((len(queries), len(keys)), bool)
    if mask.window is not None:
        seen &= (keys + block - 1 > first - mask.window) & (keys < last + mask.window)
    return seen.mean()


def _block(length: int) -> int:
    return next(size for size in (512, 256, 128) if length % size == 0)


def cudnn_attention(q_BTHK, k_BSGK, v_BSGK, mask: Mask):
    """cuDNN's flash attention on NVIDIA GPUs, in 16 bits, by JAX, which shards it; elsewhere what JAX has in its place, for tests.

    Causality as such leaves blocks out; all else of a mask is added to the scores, for which it lies in memory, T x S for each row.
    """
    plain = mask.causal and mask.pieces == 1
    allowed_BTS = (dataclasses.replace(mask, causal=False) if plain else mask).allowed(q_BTHK.shape[1], k_BSGK.shape[1])
    implementation: Literal["cudnn", "xla"] = "cudnn" if platform() == "gpu" else "xla"
    allowed_B1TS = None if allowed_BTS is None else allowed_BTS[:, None]
    out_BTHK = jax.nn.dot_product_attention(q_BTHK, k_BSGK, v_BSGK, mask=allowed_B1TS, scale=1.0, is_causal=plain, implementation=implementation)
    return checkpoint_name(_zero_where_blind(out_BTHK, mask, k_BSGK.shape[1]), "attention")


IMPLEMENTATIONS: dict[str, Callable] = {"xla": xla_attention, "splash": splash_attention, "cudnn": cudnn_attention}
