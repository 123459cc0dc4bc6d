"""Eight fake devices, and a cache of its own."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"

import pytest


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """$LODESTAR_CACHE for the session: what one test prepares another finds."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("LODESTAR_CACHE")
    os.environ["LODESTAR_CACHE"] = str(folder)
    yield folder
    os.environ.pop("LODESTAR_CACHE") if before is None else os.environ.update(LODESTAR_CACHE=before)
