"""What the chips can do."""

import dataclasses
import functools
import os
import statistics
import time

import jax
import jax.numpy as jnp

from research.core.errors import UserError

GiB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device as JAX counts devices: a chip, or half a TPU7x chip.

    flops: dense bfloat16 matrix products, FLOP/s. hbm: bytes that a program may have. hbm_bandwidth, bytes/s. link: bytes/s one way over one link
    to a neighbour; `dimensions` of the torus, two links in each where it closes; `ring` devices of a dimension, or a multiple, close it.
    core_link: to the other half of the chip. dcn: bytes/s to other slices; None where nothing is published. eight_bit: FLOP/s of those products of
    eight-bit numbers (int8, fp8) that are faster.
    """

    flops: float
    hbm: float
    hbm_bandwidth: float
    link: float
    dimensions: int
    ring: int
    dcn: float | None
    core_link: float | None = None
    eight_bit: dict[str, float] = dataclasses.field(default_factory=dict)


# FLOPs, bandwidths: Google Cloud's pages "TPU v4", "TPU v5e", "TPU v5p", "TPU v6e" and "TPU7x" (docs.cloud.google.com/tpu/docs), whose bidirectional bandwidth of a
# chip is halved and divided over its links; of v4 the links are in arXiv 2304.01433, table 4. TPU7x: "Programming model", whose link between the halves of a chip is six
# times one to a neighbour. What a program may have of the memory is what the compiler says when it has no more (libtpu 0.0.42). GPUs: NVIDIA's data sheets of the
# A100 80GB (SXM), H100 (SXM) and H200; their link is NVLink as a whole.
CHIPS = {
    "TPU v4": Chip(275e12, 30.75 * GiB, 1200e9, 50e9, 3, 4, None),
    "TPU v5 lite": Chip(197e12, 15.75 * GiB, 819e9, 50e9, 2, 16, 3.125e9, eight_bit={"int8": 394e12}),
    "TPU v5": Chip(459e12, 95.74 * GiB, 2765e9, 100e9, 3, 4, 6.25e9, eight_bit={"int8": 918e12}),
    "TPU v6 lite": Chip(918e12, 31.25 * GiB, 1638e9, 100e9, 2, 16, 12.5e9, eight_bit={"int8": 1836e12}),
    "TPU7x": Chip(2307e12 / 2, 94.75 * GiB, 7380e9 / 2, 50e9, 3, 4, 6.25e9, 600e9, {"fp8": 4614e12 / 2}),
    "NVIDIA A100": Chip(312e12, 80e9, 2039e9, 300e9, 1, 1, None, eight_bit={"int8": 624e12}),
    "NVIDIA H100": Chip(989e12, 80e9, 3350e9, 450e9, 1, 1, None, eight_bit={"int8": 1979e12, "fp8": 1979e12}),
    "NVIDIA H200": Chip(989e12, 141e9, 4800e9, 450e9, 1, 1, None, eight_bit={"int8": 1979e12, "fp8": 1979e12}),
}
CHIPS["TPU v5p"] = CHIPS["TPU v5"]


def chip_of(devices, dtype: str) -> Chip | None:
    """What each of `devices` can do; None for a chip that is not in the table.

    On CPUs it is measured now, for `dtype`: fake devices share the machine's cores and memory in equal parts.
    """
    kind = devices[0].device_kind
    if devices[0].platform == "cpu":
        share = jax.process_count() / len(devices)
        memory, bandwidth = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), _measured_bandwidth()
        return Chip(_measured_flops(dtype) * share, memory * share, bandwidth * share, bandwidth * share / 2, 1, 1, None)
    known = [name for name in CHIPS if kind == name or kind.startswith(name + " ")]
    return CHIPS[max(known, key=len)] if known else None


def check_eight_bit(devices, dtype: str | None):
    """Raises UserError where `devices` are known not to be faster in `dtype`, int8 or fp8, than in bfloat16. On CPUs anything is let through, for tests."""
    if dtype is None or devices[0].platform == "cpu":
        return
    chip = chip_of(devices, dtype)
    if chip is not None and dtype not in chip.eight_bit:
        faster = ", ".join(chip.eight_bit) or "none"
        raise UserError(f"model.matmul_dtype={dtype}: {devices[0].device_kind} is no faster so (of the eight-bit products {faster}): leave it out.")


def peak_flops(devices, dtype: str) -> float | None:
    """FLOP/s of all `devices` together at best; None for a chip that is not in the table.

    `dtype` matters on CPUs only, where the peak is what a large matrix product of it reaches; a chip's is that of bfloat16.
    """
    if devices[0].platform == "cpu":
        return _measured_flops(dtype) * jax.process_count()
    chip = chip_of(devices, dtype)
    return None if chip is None else chip.flops * len(devices)


@functools.cache
def _measured_flops(dtype: str, size: int = 1024) -> float:
    x = jax.device_put(jnp.ones((size, size), dtype), jax.local_devices(backend="cpu")[0])
    return 2 * size**3 / _median_seconds(jax.jit(jnp.matmul), x, x)


@functools.cache
def _measured_bandwidth(size: int = 2**26) -> float:
    x = jax.device_put(jnp.ones(size, "uint8"), jax.local_devices(backend="cpu")[0])
    return 2 * size / _median_seconds(jax.jit(lambda x: x + 1), x)


def _median_seconds(function, *args, repeats: int = 7) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function(*args).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
