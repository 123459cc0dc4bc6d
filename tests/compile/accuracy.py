"""What preflight predicts for a step, beside what the step then takes on this machine's CPU.

    python -m tests.compile.accuracy [--config.FIELD=VALUE ...]     # of configs/gpt/small.py, cut to 4 layers

Memory is the growth of the process's resident peak from before the state is made to after the steps, the program apart. Time is the median of five steps.
"""

import os
import resource
import statistics
import sys
import time

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp

from research import build, preflight
from research.compile import chips
from research.core import config as config_lib

FIELDS = ("model.layers=4", "model.dropout=0.0", "model.remat=matmuls", "model.dtype=float32", "data.batch_size=16", "data.length=512", "mesh.fsdp=1")


def main():
    argv = ["accuracy", "--config=configs/gpt/small.py", *(f"--config.{field}" for field in FIELDS), *sys.argv[1:]]
    e = build.experiment(config_lib.parse(argv)[1], devices=jax.devices()[:1])
    predicted = preflight.examine(e, ("train",), chips.chip_of(jax.devices(), e.config.model.dtype))["steps"]["train"]
    batch = {name: jnp.ones(x.shape, x.dtype) for name, x in e.trained.example_batch.items()}
    with e.in_force():
        step = e.train_step.lower(e.shapes, e.trained.example_batch).compile()
        init = jax.jit(e.init, out_shardings=e.shardings).lower().compile()
        before = peak_bytes()
        state, seconds = init(), []
        for _ in range(6):
            begin = time.perf_counter()
            state, means = step(state, batch)
            jax.block_until_ready((state, means))
            seconds.append(time.perf_counter() - begin)
    needed, measured = sum(predicted["memory"].values()), peak_bytes() - before
    took = statistics.median(seconds[1:])
    print(f"memory: predicted {needed / 2**30:.2f} GiB, measured {measured / 2**30:.2f}: {needed / measured - 1:+.1%}")
    for name in ("bound", "step"):
        print(f"time, {name}: predicted {predicted['seconds'][name]:.2f} s, measured {took:.2f}: {predicted['seconds'][name] / took - 1:+.1%}")


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
