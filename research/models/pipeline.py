"""Layers in stages, each on devices of its own along the mesh axis `pipeline`, through which microbatches go one behind the other (GPipe, arXiv 1811.06965).

S stages, M microbatches of B rows, L layers, U = M + S - 1 ticks. At each tick every stage works on the microbatch that has come to it and hands it on: a stage
waits for S - 1 of the ticks.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import PartitionSpec

from research.core.sharding import PIPELINE, constrain, within_stage


def pipelined(layer, params_L, x_BTD, per_row, microbatches: int, unroll: int):
    """`layer` applied L times, to microbatches of the rows -> x_BTD.

    layer(params, x_BTD, per_row, m, i): the i-th, on microbatch m; `params_L` is a tree of arrays (L, ...), a stage having L / S of them one after another;
    `per_row` is a tree of arrays (B, ...) that each layer sees. The microbatches divide the rows. `unroll`: layers in a round of the loop over them.
    """
    stages, layers = jax.sharding.get_abstract_mesh().shape[PIPELINE], len(jax.tree.leaves(params_L)[0])
    ticks = microbatches + stages - 1

    def cut(x):  # row r is of microbatch r mod M: each lies on all devices of a stage
        return jnp.moveaxis(x.reshape(-1, microbatches, *x.shape[1:]), 1, 0)

    def work(stage, params_L, x_MBTD, per_row_M):
        """What one stage does; of the mesh axes only `pipeline` is in its own hands."""
        first, numbers = stage[0] == 0, stage[0] * (layers // stages) + jnp.arange(layers // stages)

        def tick(x_BTD, t):
            m = jnp.clip(t - stage[0], 0, microbatches - 1)
            x_BTD = constrain(jnp.where(first, x_MBTD[m], x_BTD), "batch", "sequence", "embed")
            seen = jax.tree.map(lambda x: x[m], per_row_M)
            one = lambda x_BTD, params_and_i: (layer(params_and_i[0], x_BTD, seen, m, params_and_i[1]), None)
            x_BTD, _ = jax.lax.scan(one, x_BTD, (params_L, numbers), unroll=min(unroll, len(numbers)))
            return jax.lax.ppermute(x_BTD, PIPELINE, [(s, (s + 1) % stages) for s in range(stages)]), x_BTD

        return jax.lax.scan(tick, jnp.zeros_like(x_MBTD[0]), jnp.arange(ticks))[1][None]

    of_stages, whole = PartitionSpec(PIPELINE), PartitionSpec()
    with nn.logical_axis_rules(within_stage(nn.get_logical_axis_rules())):
        lie = lambda x: constrain(x, None, "batch", *[None] * (x.ndim - 2))
        arrays = constrain(cut(x_BTD), None, "batch", "sequence", "embed"), jax.tree.map(lambda x: lie(cut(x)), per_row)
        run = jax.shard_map(work, in_specs=(of_stages, of_stages, whole, whole), out_specs=of_stages, axis_names={PIPELINE}, check_vma=False)
        out_SUBTD = run(jnp.arange(stages), params_L, *arrays)
    out_BMTD = jnp.moveaxis(out_SUBTD[-1, stages - 1 :], 0, 1)
    return constrain(out_BMTD.reshape(x_BTD.shape), "batch", "sequence", "embed")
