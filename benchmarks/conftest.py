"""Options and fixtures of the benchmarks; see README, "Speed"."""

import os
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import jax
import pytest

from benchmarks.harness import measure_ceilings, race

PACKAGES = (
    "minqa jax jaxlib flax numpy torch transformers sentence-transformers onnxruntime faiss-cpu"
).split()

# The load of the machine before the run, in cores.
LOAD = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0

if not jax.config.jax_platforms or "cpu" in jax.config.jax_platforms:
    jax.config.update("jax_num_cpu_devices", min(os.cpu_count() or 1, 8))  # as the command line does


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="few sizes and rounds: 5 minutes on 2 cores")


@pytest.fixture(scope="session")
def quick(request):
    return request.config.getoption("quick")


@pytest.fixture(scope="session")
def ceilings(request, quick):
    """Measured before anything else."""
    request.config.ceilings = measure_ceilings(quick=quick)
    return request.config.ceilings


@pytest.fixture
def compare(benchmark, ceilings, quick):
    """`harness.race` with this run's ceilings."""
    return partial(race, benchmark, ceilings=ceilings, quick=quick)


def pytest_benchmark_update_machine_info(config, machine_info):
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    machine_info |= {
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
        "devices": jax.device_count(),
        "cores": os.cpu_count(),
        "load": LOAD,
        "versions": versions,
        "settings": {name: os.environ.get(name) for name in ("XLA_FLAGS", "OMP_NUM_THREADS")},
        "quick": config.getoption("quick"),
    }


def pytest_benchmark_update_json(config, benchmarks, output_json):
    if hasattr(config, "ceilings"):
        output_json["ceilings"] = asdict(config.ceilings)
