"""The benchmarks' arithmetic: who wins by how much, what bounds a call, what the table says."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.harness import Ceilings, race
from benchmarks.report import draw, markdown

CEILINGS = Ceilings({"float32": 1e9, "bfloat16": 2e9}, memory=1e8, dispatch=1e-5)


class Stopwatch:
    """Stands in for pytest-benchmark's fixture."""

    def __init__(self):
        self.extra_info = {}

    def pedantic(self, call, *, setup, rounds):
        times = []
        for _ in range(rounds):
            setup()
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        low, median, high = np.percentile(times, [25, 50, 75])
        self.stats = SimpleNamespace(stats=SimpleNamespace(median=float(median), iqr=float(high - low)))


def run(**options):
    stopwatch = Stopwatch()
    peers = {"slow": lambda: time.sleep(0.06), "slower": lambda: time.sleep(0.1)}
    shown = {"what": "rest", "size": "1", "rate": 1, "rate_of": "rests"}
    race(stopwatch, lambda: time.sleep(0.03), peers, ceilings=CEILINGS, quick=True, **shown | options)
    return stopwatch.extra_info


def test_a_race_is_against_the_best_peer_and_the_nearest_ceiling():
    facts = run(operations=1e6, read=1e6)
    assert facts["best_peer"] == "slow"
    assert facts["ratio"] == pytest.approx(2, rel=0.2)
    assert facts["bound"] == "memory"  # 10 ms, where the products take 1
    assert facts["share"] == pytest.approx(1 / 3, rel=0.2)
    assert facts["first"] > 0.03 > facts["compile"]


@pytest.mark.parametrize(
    ("operations", "read", "dtype", "least"),
    [
        (2e9, 0, "float32", (2, "matrix product")),
        (2e9, 0, "bfloat16", (1, "matrix product")),
        (1e6, 1e8, "float32", (1, "memory")),
        (1, 1, "float32", (1e-5, "dispatch")),
    ],
)
def test_the_least_time_is_that_of_what_bounds(operations, read, dtype, least):
    assert CEILINGS.least_seconds(operations, read, dtype) == least


def test_the_table_names_everything(tmp_path):
    machine = {
        "quick": True,
        "load": 1.5,
        "cpu": {"brand_raw": "A processor"},
        "device": "cpu",
        "cores": 2,
        "devices": 2,
        "backend": "cpu",
        "versions": {"jax": "1", "x": None},
    }
    growth = {"growth": "search", "sizes": [1, 10], "medians": [0.1, 2.0], "slope": 1.3}
    rows = [run(operations=1e6, read=1e6, absent=["FAISS (not installed)"], recall=0.9951), growth]
    report = {"machine_info": machine, "benchmarks": [{"extra_info": row} for row in rows]}
    report["ceilings"] = {"products": CEILINGS.products, "memory": 1e8, "dispatch": 1e-5}
    report["datetime"] = "2026-11-25T03:00:00"
    table = markdown(report)
    assert "1 GFLOP/s in float32" in table and "| rest | 1 | float32, recall 0.995 |" in table
    assert "n^1.30 (superlinear); 1: 100 ms, 10: 2.00 s" in table
    assert "2026-11-25, --quick: A processor, 2 cores" in table and "busy" in table
    assert "Peers left out: FAISS (not installed)." in table
    draw(report, tmp_path / "roofline.png")
    assert (tmp_path / "roofline.png").read_bytes().startswith(b"\x89PNG")
