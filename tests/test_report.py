"""The benchmarks' arithmetic and options: who wins by how much, what bounds a call, what the table says."""

import time
from argparse import ArgumentTypeError, Namespace
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import conftest, harness
from benchmarks.harness import LeftOut, judge, peak_flops, race
from benchmarks.report import draw, markdown
from minqa.files import extras
from minqa.text import InputError

CEILINGS = {"products": {"float32": 1e9, "bfloat16": 2e9}, "memory": 1e8, "dispatch": 1e-5}
OPTIONS = dict(quick=True, peers=True, peak_tflops=None, profile=None, hlo=None)


class Stopwatch:
    """Stands in for pytest-benchmark's fixture."""

    name = "bench_rest[1]"

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


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch):
    monkeypatch.setattr(harness, "ROUNDS", {True: (3, 5), False: (5, 7)})


def rest(seconds, answer=None):
    """What makes a call that takes so long."""

    def call():
        time.sleep(seconds)
        return answer

    return lambda: call


def left_out():
    raise LeftOut("on the CPU alone")


def run(options=None, **facts):
    stopwatch = Stopwatch()
    peers = {"slow": rest(0.06, 1), "slower": rest(0.1, 1), "absent": left_out}
    facts = {"what": "rest", "size": "1", "rate": 1, "rate_of": "rests", "peers": peers} | facts
    given = Namespace(**OPTIONS | (options or {}))
    race(stopwatch, given, rest(0.03, 1)(), agree=harness.agree_to(atol=0), **facts)
    return stopwatch.extra_info | judge(stopwatch.extra_info, CEILINGS)


def test_a_race_is_against_the_best_peer_and_the_nearest_ceiling():
    row = run(operations=1e6, read=1e6)
    assert row["best_peer"] == "slow" and row["absent"] == ["absent (on the CPU alone)"]
    assert row["ratio"] == pytest.approx(2, rel=0.2)
    assert row["bound"] == "memory"  # 10 ms, where the products take 1
    assert row["share"] == pytest.approx(1 / 3, rel=0.2)
    assert row["first"] > 0.03 > row["compile"]
    assert row["device"] is None and row["mfu"] is None and row["peak_memory"] > 2**20


def test_the_device_is_timed_apart_and_its_rate_is_compared_with_a_peak(monkeypatch):
    with monkeypatch.context() as context:
        context.setattr(jax, "default_backend", lambda: "gpu")
        context.setattr(harness, "by_device", lambda cpu, accelerator: cpu)
        row = run({"peak_tflops": 1e-6, "peers": False}, device=rest(0.01)(), operations=5e3, devices=2)
    assert row["devices"] == 2 and run({"peers": False}, devices=2)["devices"] == 1
    assert row["device"] == pytest.approx(0.01, rel=0.5) and row["median"] > 0.03
    assert row["mfu"] == pytest.approx(0.25, rel=0.5)  # 5,000 operations in 10 ms, of 2 × 1 MFLOP/s
    assert not row["peers"] and not row["absent"]


def test_a_peer_with_another_answer_stops_the_race():
    with pytest.raises(AssertionError):
        run(peers={"slow": rest(0, 1), "wrong": rest(0, 2)})


def test_what_was_compiled_is_written(tmp_path):
    double = jax.jit(lambda x: x + x)
    run({"hlo": tmp_path, "peers": False}, device=lambda: double(np.ones(123, np.float32)))
    assert "f32[123]" in (tmp_path / "bench_rest[1].txt").read_text("utf-8")


@pytest.mark.parametrize(
    ("operations", "read", "dtype", "device", "expected"),
    [
        (2e9, 0, "float32", 4, (0.5, "matrix product")),
        (2e9, 0, "bfloat16", 4, (0.25, "matrix product")),
        (1e6, 1e8, "float32", 2, (0.5, "memory")),
        (1, 1, "float32", 1e-4, (0.1, "dispatch")),
        (2e9, 0, "float32", 1.9, (None, "matrix product")),  # faster than possible
        (0, 0, "float32", 1, (None, None)),
    ],
)
def test_the_share_is_that_of_what_bounds(operations, read, dtype, device, expected):
    row = dict(operations=operations, read=read, computed_in=dtype, device=device, devices=1, median=9)
    assert tuple(judge(row, CEILINGS).values()) == (pytest.approx(expected[0]), expected[1])


def test_peaks_are_those_of_the_very_device():
    assert peak_flops("NVIDIA A100-SXM4-80GB", "bfloat16") == 312e12
    assert peak_flops("NVIDIA H100 80GB HBM3", "bfloat16") == 989e12
    assert peak_flops("NVIDIA H100 PCIe", "float32") == 51e12
    assert peak_flops("TPU v5 lite", "bfloat16") == 197e12
    assert peak_flops("TPU v5", "bfloat16") == 459e12
    unknown = [
        ("NVIDIA L40S", "bfloat16"),
        ("Tesla T4", "bfloat16"),
        ("TPU v4", "float32"),
        ("cpu", "float32"),
    ]
    assert not any(peak_flops(*known) for known in unknown)


def test_peers_run_where_minqa_does_or_not_at_all(monkeypatch):
    assert harness.torch_device() == "cpu" and harness.needs_cpu() is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(LeftOut, match="no CUDA"):
        harness.torch_device()
    with pytest.raises(LeftOut, match="on the CPU alone"):
        harness.needs_cpu()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert harness.torch_device() == "cuda"
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    with pytest.raises(LeftOut, match="not on TPU"):
        harness.torch_device()


def test_an_accelerator_that_is_asked_for_and_missing_is_noticed(monkeypatch):
    extras.check_accelerator()
    monkeypatch.setattr(extras, "find_spec", lambda name: name == "jax_cuda12_plugin")
    with pytest.raises(InputError, match=r"^minqa\[cuda12\] is installed.*JAX_PLATFORMS=cpu"):
        extras.check_accelerator()
    with pytest.raises(pytest.exit.Exception, match="no such device"):
        conftest.pytest_sessionstart()
    with monkeypatch.context() as context:
        context.setattr(jax, "default_backend", lambda: "gpu")
        extras.check_accelerator()
    monkeypatch.setattr(jax, "config", SimpleNamespace(jax_platforms="cpu"))
    extras.check_accelerator()


def commands(monkeypatch, *arguments):
    """What a command line runs."""
    ran = []
    monkeypatch.setattr(
        command.subprocess, "run", lambda line, **_: ran.append(line) or Namespace(returncode=0)
    )
    assert command.main(arguments) == 1  # as nothing is measured
    return ran[0]


def test_options_become_those_of_pytest(monkeypatch, tmp_path, capsys):
    line = commands(
        monkeypatch,
        *("encode", "--model", "bert-large", "--shape", "1x128,32x384", "--dtype", "bfloat16"),
        *("--save", "mine", "--compare", "--profile", str(tmp_path), "--peak-tflops", "0.5"),
    )
    assert line[3].endswith("bench_encode.py")
    expected = {"--model=bert-large", "--shape=1x128,32x384", "--dtype=bfloat16", "--peak-tflops=0.5"}
    expected |= {"--benchmark-save=mine", "--benchmark-compare", f"--profile={tmp_path}"}
    assert expected <= {*line} and "--peers" not in line
    assert "earlier figures stay" in capsys.readouterr().err


def test_all_of_it_is_raced_with_peers(monkeypatch, tmp_path):
    line = commands(monkeypatch, "all", "--quick", "--only", "match", "--out", str(tmp_path / "report"))
    assert {"--quick", "--peers", "-k", "match"} <= {*line} and line[3].endswith("benchmarks")


@pytest.mark.parametrize(
    ("option", "given", "reason"),
    [
        ("shape", "32y384", "must be batch x length"),
        ("shape", "1x128,0x3", "must be batch x length"),
        ("dtype", "float64", "must be float32, bfloat16"),
        ("passages", "many", "must be how many are searched, a whole number"),
        ("peak-tflops", "0", "must be a number above 0"),
        ("hlo", __file__, "cannot be a folder"),
    ],
)
def test_what_cannot_be_measured_is_refused(option, given, reason):
    with pytest.raises(ArgumentTypeError, match=reason):
        (command.SWEPT | command.MEASURED)[option]["type"](given)


def test_what_is_not_swept_is_refused():
    item = SimpleNamespace(callspec=SimpleNamespace(params={"shape": (1, 2), "stored": True}))
    options = dict.fromkeys(command.SWEPT) | {"shape": [(1, 2)]}
    conftest.pytest_collection_modifyitems(SimpleNamespace(getoption=options.get), [item])
    options["model"] = ["minilm"]
    with pytest.raises(pytest.UsageError, match="--model is nothing"):
        conftest.pytest_collection_modifyitems(SimpleNamespace(getoption=options.get), [item])


def test_a_sweep_is_the_users_or_the_quick_one_or_all():
    @harness.sweep(shape=[(1, 2), (3, 4)], dtype=["float32"], quick={"shape": [(1, 2)]})
    def bench(shape, dtype):
        pass

    def generated(**given):
        drawn = {}
        options = {**dict.fromkeys(command.SWEPT), "quick": False, **given}
        config = SimpleNamespace(getoption=options.get)
        metafunc = SimpleNamespace(
            function=bench, config=config, parametrize=lambda name, values, ids: drawn.update({name: values})
        )
        conftest.pytest_generate_tests(metafunc)
        return drawn

    assert generated() == {"shape": [(1, 2), (3, 4)], "dtype": ["float32"]}
    assert generated(quick=True) == {"shape": [(1, 2)], "dtype": ["float32"]}
    assert generated(quick=True, shape=[(5, 6)])["shape"] == [(5, 6)]


def test_the_table_names_everything(tmp_path):
    machine = {
        "quick": True,
        "cpu": {"brand_raw": "A processor"},
        "device": "cpu",
        "cores": 2,
        "devices": 2,
        "backend": "cpu",
        "versions": {"jax": "1", "x": None},
    }
    shown = {"what": "too fast", "operations": 1e9, "peers": None}
    rows = [run(operations=1e6, read=1e6, recalls=[0.9951, 1]), run(**shown)]
    swept = {"what": "search"}
    rows += [rows[0] | swept | {"operations": n, "median": n**1.3 / 1e9} for n in (1e6, 1e7, 1e8)]
    report = {"machine_info": machine, "load": 1.5, "benchmarks": [{"extra_info": row} for row in rows]}
    report["ceilings"] = CEILINGS
    report["datetime"] = "2026-11-25T03:00:00"
    table = markdown(report)
    assert "1 GFLOP/s in float32" in table and "| rest | 1 | float32, recall 0.995 |" in table
    assert "- search, float32: time grows as operations^1.30 (superlinear)" in table
    assert "2026-11-25, --quick: A processor, 2 cores" in table and "busy" in table
    assert "Peers left out: absent (on the CPU alone)." in table
    [slow, fast] = [line for line in table.splitlines() if line.startswith(("| rest", "| too fast"))]
    assert "% of memory" in slow and "faulty ceiling: matrix product" in fast and "% of" not in fast
    draw(report, tmp_path / "roofline.png")
    assert (tmp_path / "roofline.png").read_bytes().startswith(b"\x89PNG")
