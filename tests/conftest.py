"""Eight fake devices, and caches of its own: of data, and of compiled programs, which all processes of the session share."""

import atexit
import gc
import importlib.metadata
import os
import shutil
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
if importlib.metadata.version("jaxlib").startswith("0.10."):  # which newer ones do not know, and stop at
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # else the first process of the session has made it
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp()
    os.environ |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import pytest

gc.set_threshold(200_000, 20, 100)  # a tenth of the time that tracing takes went into looking through what stays

@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """$LODESTAR_CACHE for the session: what one test prepares another finds."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("LODESTAR_CACHE")
    os.environ["LODESTAR_CACHE"] = str(folder)
    yield folder
    os.environ.pop("LODESTAR_CACHE") if before is None else os.environ.update(LODESTAR_CACHE=before)
