"""Layers in stages, each on devices of its own along the mesh axis `pipeline`, through which microbatches go one behind the other (GPipe, arXiv 1811.06965).

S stages, M microbatches, B rows of one, L layers. As in GSPMD (arXiv 2105.04663, section 3.3) the stages are one more dimension of every array: all do the same
at each tick, each on the microbatch that has come to it, and then hand it on. A stage waits for (S - 1) / (M + S - 1) of the time.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from research.core.sharding import PIPELINE, constrain, within_stage


def pipelined(layer, params_L, x_BTD, per_row, stages: int, microbatches: int):
    """`layer` applied L times, to microbatches of the rows -> x_BTD.

    layer(params, x_BTD, per_row, m, i): the i-th, on microbatch m; `params_L` is a tree of arrays (L, ...), a stage having L / S of them one after another;
    `per_row` is a tree of arrays (B, ...) that each layer sees. The microbatches divide the rows.
    """

    def cut(x):  # row r is of microbatch r mod M: each lies on all devices of a stage
        return jnp.moveaxis(x.reshape(-1, microbatches, *x.shape[1:]), 1, 0)

    staged = jax.tree.map(lambda x: x.reshape(stages, -1, *x.shape[1:]), params_L)
    depth = jax.tree.leaves(staged)[0].shape[1]
    lies_SBTD = lambda x: constrain(x, "layers", "batch", "sequence", "embed")
    lie = lambda x, axis: constrain(x, axis, "batch", *[None] * (x.ndim - 2))
    with nn.logical_axis_rules(within_stage(nn.get_logical_axis_rules())):  # each stage sees all rows, in turn
        waiting_MBTD = constrain(cut(x_BTD), None, "batch", "sequence", "embed")
        per_row_MB = jax.tree.map(lambda x: lie(cut(x), None), per_row)

    @functools.partial(jax.vmap, spmd_axis_name=PIPELINE)
    def work(params, x_BTD, per_row, m, stage):
        def one(x_BTD, params_and_i):
            params, i = params_and_i
            return layer(params, x_BTD, per_row, m, stage * depth + i), None

        with nn.logical_axis_rules(within_stage(nn.get_logical_axis_rules())):
            return jax.lax.scan(one, x_BTD, (params, jnp.arange(depth)))[0]

    def tick(state_SBTD, t):
        m_S = jnp.clip(t - jnp.arange(stages), 0, microbatches - 1)
        first_S = (jnp.arange(stages) == 0)[:, None, None, None]
        state_SBTD = lies_SBTD(jnp.where(first_S, waiting_MBTD[m_S[0]], jnp.roll(state_SBTD, 1, axis=0)))
        seen = jax.tree.map(lambda x: lie(x[m_S], "layers"), per_row_MB)
        done_SBTD = lies_SBTD(work(staged, state_SBTD, seen, m_S, jnp.arange(stages)))
        return done_SBTD, done_SBTD

    nothing = jnp.zeros((stages, *waiting_MBTD.shape[1:]), x_BTD.dtype)
    _, done_USBTD = jax.lax.scan(tick, nothing, jnp.arange(microbatches + stages - 1))  # U ticks
    out_BMTD = jnp.moveaxis(done_USBTD[stages - 1 :, -1], 0, 1)
    return constrain(out_BMTD.reshape(x_BTD.shape), "batch", "sequence", "embed")
