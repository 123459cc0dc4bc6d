"""Devices by name: of a TPU pod that is not here, of this machine's GPUs, or fake ones of its CPU."""

import importlib.util
import os
import re

import jax
from jax.experimental import topologies

from research.core.errors import UserError

# What the TPU compiler would ask of a machine that it runs on. There is none: these answers keep it from looking for one.
_NO_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5p-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_STDERR_LOG_LEVEL": "2",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}

TPUS = ("v4", "v5e", "v5p", "v6e", "tpu7x")


def prepare(name: str):
    """Readies JAX for a topology; before JAX looks at devices for the first time, since the number of fake ones is settled then."""
    platform, _, shape = name.partition(":")
    if platform in TPUS:
        os.environ.update({key: value for key, value in _NO_TPU.items() if key not in os.environ})
        jax.config.update("jax_platforms", "cpu")
    elif platform == "cpu":
        if not re.fullmatch(r"[1-9]\d*", shape):
            raise UserError(f"--topology={name}: say how many CPU devices, cpu:8 for instance.")
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", int(shape))


def devices(name: str, slices: int = 1) -> list:
    """The devices of `v5p:8x8x16` and its like (of each of `slices`), of `cpu:8`, or of `gpu`: all that are here.

    Raises UserError for a name that stands for nothing, and where the compiler for TPUs is not installed.
    """
    platform, _, shape = name.partition(":")
    if platform in ("cpu", "gpu") and slices != 1:
        raise UserError(f"--slices={slices}: only TPUs have slices.")
    if platform == "cpu":
        return jax.devices("cpu")
    if platform == "gpu":
        try:
            return jax.devices("gpu")
        except RuntimeError as e:
            raise UserError(f"--topology=gpu: there is none here ({e}).") from e
    if platform not in TPUS or not re.fullmatch(r"\d+(x\d+)+", shape):
        raise UserError(f"--topology={name} stands for nothing: it is one of {', '.join(TPUS)} and its shape (v5p:8x8x16), or cpu:8, or gpu.")
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("the TPU compiler is not installed: EXTRAS=test,tpu launch/local.sh installs it, on Linux x86-64; no TPU is needed.")
    # A v4 chip has two cores, which work as one device in every job.
    more = {"chip_config_name": "megacore"} if platform == "v4" else {}
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=name, num_slices=slices, **more).devices
    except RuntimeError as e:
        raise UserError(f"--topology={name} is no shape that {platform} has ({str(e).splitlines()[0]}).") from e
