"""What the chips can do."""

import statistics
import time

import jax
import jax.numpy as jnp

# Dense bfloat16 matrix products, FLOP/s of one device as JAX counts devices. From the makers' pages: Google Cloud's "TPU v4", "v5e", "v5p",
# "v6e" and "TPU7x" system architecture (v4 and v5p chips are one device; a TPU7x chip is two), NVIDIA's A100 and H100 (SXM) data sheets.
PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU7x": 2307e12 / 2,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}


def peak_flops(devices, dtype: str) -> float | None:
    """FLOP/s of all `devices` together at best; None for a chip that is not in the table.

    `dtype` matters on CPUs only, where the peak is what a large matrix product of it reaches now on this machine, since fake devices
    share its cores; a chip's is that of bfloat16.
    """
    kind = devices[0].device_kind
    if devices[0].platform == "cpu":
        return _measured(dtype) * jax.process_count()
    known = [name for name in PEAK_FLOPS if kind == name or kind.startswith(name + " ")]
    return PEAK_FLOPS[max(known, key=len)] * len(devices) if known else None


def _measured(dtype: str, size: int = 1024, repeats: int = 7) -> float:
    x = jax.device_put(jnp.ones((size, size), dtype), jax.local_devices()[0])
    product = jax.jit(jnp.matmul)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        product(x, x).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(seconds)
