"""Fixtures of the benchmarks, and what they write of the machine; see README.md in this folder."""

import os
from functools import partial
from importlib.metadata import distributions
from pathlib import Path

import jax
import pytest

from benchmarks.__main__ import MEASURED, SWEPT
from benchmarks.harness import judge, measure_ceilings, race
from minqa.files.extras import check_accelerator
from minqa.text import InputError

PACKAGES = (
    "minqa jax jaxlib flax numpy torch transformers sentence-transformers onnxruntime faiss-cpu".split()
)
# The load of the machine before the run, in cores.
LOAD = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def pytest_addoption(parser):
    group = parser.getgroup("minqa")
    for name, how in (SWEPT | MEASURED).items():
        group.addoption(f"--{name}", **how)


def pytest_configure():
    if not jax.config.jax_platforms or "cpu" in jax.config.jax_platforms:
        jax.config.update("jax_num_cpu_devices", min(os.cpu_count() or 1, 8))  # as the command line does


def pytest_sessionstart():
    try:
        check_accelerator()
    except InputError as error:
        pytest.exit(str(error), returncode=1)


def pytest_generate_tests(metafunc):
    option = metafunc.config.getoption
    for name, values in getattr(metafunc.function, "sweep", ({}, {}))[option("quick")].items():
        given = option(name) if name in SWEPT else None
        metafunc.parametrize(name, given or values, ids=label)


def label(value):
    return "x".join(map(str, value)) if isinstance(value, tuple) else Path(str(value)).name


def pytest_collection_modifyitems(config, items):
    swept = {name for item in items if hasattr(item, "callspec") for name in item.callspec.params}
    for name in SWEPT:
        if items and config.getoption(name) and name not in swept:
            raise pytest.UsageError(f"--{name} is nothing that these benchmarks sweep.")


@pytest.fixture
def compare(benchmark, request):
    """`harness.race` of one combination of what is swept, measured as the options ask for it."""
    swept = request.node.callspec.params
    sizes = swept.get("shape") or [swept[name] for name in ("queries", "passages") if name in swept]
    known = {"size": " × ".join(f"{size:,}" for size in sizes), "dtype": swept.get("dtype", "float32")}
    return partial(race, benchmark, request.config.option, **known)


def pytest_benchmark_update_machine_info(config, machine_info):
    installed = {each.name: each.version for each in distributions()}
    machine_info |= {
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
        "devices": jax.device_count(),
        "cores": os.cpu_count(),
        "versions": {name: installed[name] for name in PACKAGES if name in installed},
        "settings": {name: os.environ.get(name) for name in ("XLA_FLAGS", "OMP_NUM_THREADS")},
        "quick": config.getoption("quick"),
    }
    # What differs from run to run would make every saved run one of another machine.
    machine_info["cpu"] = {key: value for key, value in machine_info["cpu"].items() if "hz" not in key}


def pytest_benchmark_update_json(config, output_json):
    """Measure the ceilings last, so that no row's peak of memory is theirs."""
    if not hasattr(config, "ceilings"):
        config.ceilings = measure_ceilings(quick=config.getoption("quick"))
    output_json |= {"ceilings": config.ceilings, "load": LOAD}
    for row in output_json["benchmarks"]:
        row["extra_info"] |= judge(row["extra_info"], config.ceilings)
