"""What every benchmark shares: sizes to sweep, the machine's ceilings, and a race of minqa with its peers."""

import re
import resource
import sys
import time
import tomllib
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
from flax import nnx
from tokenizers.models import WordLevel

import minqa
from minqa.batches import cut
from minqa.bert import Bert, BertConfig
from minqa.clock import Clock, step
from minqa.devices import by_device
from minqa.tokens import Tokens, tokens_of_words

# With --quick and without: the seconds that all rounds of a race may take, and the fewest and most rounds.
BUDGET_SECONDS = {True: 1.5, False: 10.0}
ROUNDS = {True: (3, 15), False: (5, 31)}
# Between two calls, so that no library's threads are still spinning when the next begins.
PAUSE_SECONDS = 0.02
# Calls that take less than this together are called once more before each is timed: a pause cools caches.
SHORT_SECONDS = 0.5
# Hidden size, layers, heads and feed-forward size of models with random weights, which cost the same.
MODELS = {"minilm": (384, 6, 12, 1536), "bert-base": (768, 12, 12, 3072), "bert-large": (1024, 24, 16, 4096)}
PEAK_TFLOPS = tomllib.loads(Path(__file__).with_name("peaks.toml").read_text("utf-8"))
# What a row is unless it says otherwise.
ROW = {"dtype": "float32", "operations": 0.0, "read": 0.0, "devices": 1}


class LeftOut(Exception):
    """Why a peer does not take part."""


def sweep(quick: Mapping[str, Sequence] | None = None, **values: Sequence) -> Callable:
    """Run a benchmark with all combinations of these values, or of fewer with --quick, or of the user's."""

    def mark(benchmark):
        benchmark.sweep = values, values | (quick or {})
        return benchmark

    return mark


def judge(row: Mapping[str, Any], ceilings: Mapping[str, Any]) -> dict[str, Any]:
    """The least time that a row's work takes by what bounds it, as a share of the time that it took.

    A share above 1 is none: that ceiling was measured too low.
    """
    if not (row["operations"] or row["read"]):
        return {"share": None, "bound": None}
    bounds = {
        "matrix product": row["operations"] / row["devices"] / ceilings["products"][row["computed_in"]],
        "memory": row["read"] / ceilings["memory"],
        "dispatch": ceilings["dispatch"],
    }
    bound = max(bounds, key=lambda name: bounds[name])
    share = bounds[bound] / (row["device"] or row["median"])
    return {"share": share if share <= 1 else None, "bound": bound}


def measure_ceilings(*, quick: bool) -> dict[str, Any]:
    """What one device can do at best.

    Operations per second of the fastest matrix `products`, by dtype; bytes per second of reading `memory`;
    seconds of a compiled call that has nothing to do (`dispatch`).
    """
    rounds = 5 if quick else 15

    def best(call: Callable) -> float:
        jax.block_until_ready(call())
        return min(device_seconds(call) for _ in range(rounds))

    # Rows, inputs and outputs as they occur in MiniLM, BERT-base and BERT-large, and a square.
    shapes = [(512, 384, 1536), (512, 1536, 384), (512, 768, 3072), (512, 1024, 4096), (2048, 2048, 2048)]
    if jax.default_backend() != "cpu":
        shapes = [(12288, 1024, 4096), (12288, 4096, 1024), (8192, 8192, 8192)]
    product = jax.jit(lambda x, y: jnp.matmul(x, y.T, precision="highest"))

    def rate(dtype: str, rows: int, inputs: int, outputs: int) -> float:
        x, y = jnp.ones((rows, inputs), dtype), jnp.ones((outputs, inputs), dtype)
        return 2 * rows * inputs * outputs / best(lambda: product(x, y))

    products = {dtype: max(rate(dtype, *shape) for shape in shapes) for dtype in ("float32", "bfloat16")}
    array = jnp.ones((2**18, 1024))  # 1 GiB: some caches hold half of that
    reads = (jax.jit(lambda x: x.max(0)), jax.jit(lambda x: x @ x[0]))
    memory = max(array.nbytes / best(lambda read=read: read(array)) for read in reads)
    nothing, small = jax.jit(lambda x: x + 1), jnp.zeros(8)
    dispatch = float(np.median([seconds(lambda: nothing(small).block_until_ready()) for _ in range(200)]))
    return {"products": products, "memory": memory, "dispatch": dispatch}


def peak_flops(device_kind: str, dtype: str) -> float | None:
    """Operations per second of a device, as its vendor states them; None if they are not known."""
    peaks = [peaks for name, peaks in PEAK_TFLOPS.items() if re.fullmatch(name, device_kind)]
    return peaks[0][dtype] * 1e12 if peaks and dtype in peaks[0] else None


def load_model(name: str, dtype: str) -> minqa.Encoder:
    """One of `MODELS` with random weights, or the encoder in a folder or on the hub."""
    if name not in MODELS:
        return minqa.load(name, dtype=dtype)
    config = BertConfig(30522, *MODELS[name], max_position_embeddings=512, type_vocab_size=2)
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        scale = "scale" in jax.tree_util.keystr(path)  # of a layer norm
        return jnp.asarray(scale + rng.standard_normal(leaf.shape, np.float32) / 50, dtype)

    model = jax.eval_shape(lambda: Bert(config, rngs=nnx.Rngs(0)))
    tokenizer = minqa.TextTokenizer(tokenizers.Tokenizer(WordLevel({"[UNK]": 0}, "[UNK]")), 512)
    return minqa.Encoder(jax.tree_util.tree_map_with_path(fill, model), tokenizer, name=name)


def texts_of(batch: int, token: int, vocabulary: int = 30000) -> list[Tokens]:
    """Texts of so many random tokens for a BERT."""
    rows = np.random.default_rng(0).integers(0, vocabulary, (batch, token)).astype(np.int32)
    return [replace(tokens_of_words(["w"] * token), ids=row) for row in rows]


def padding(encoder: minqa.Encoder, tokens: Sequence[Tokens], devices: int) -> float:
    """How many more tokens the batches of these texts compute, relative to the texts' own."""
    shapes = [shape for _, shape in cut(encoder.model, encoder.tokenizer, tokens, devices)]
    return sum(rows * width for rows, width in shapes) / sum(sum(text.windows) for text in tokens) - 1


def torch_device() -> str:
    """PyTorch's name for the device that JAX uses. Raises LeftOut if PyTorch cannot use it."""
    import torch

    torch.backends.cudnn.allow_tf32 = False  # full float32 on both sides
    backend = jax.default_backend()
    if backend == "gpu" and not torch.cuda.is_available():
        raise LeftOut("this build of PyTorch has no CUDA")
    if backend not in ("cpu", "gpu"):
        raise LeftOut(f"not on {backend.upper()}")
    return "cuda" if backend == "gpu" else "cpu"


def needs_cpu() -> None:
    """For peers that know no accelerator: raises LeftOut if minqa uses one."""
    if jax.default_backend() != "cpu":
        raise LeftOut("on the CPU alone")


def gather(peers: Mapping[str, Callable[[], Callable]]) -> tuple[dict[str, Callable], list[str]]:
    """The calls that peers make, and the peers that are left out, with their reasons."""
    calls, absent = {}, []
    for name, make in peers.items():
        try:
            calls[name] = make()
        except (LeftOut, ImportError) as reason:
            absent.append(f"{name} ({reason if isinstance(reason, LeftOut) else 'not installed'})")
    return calls, absent


def agree_to(*, atol: float) -> Callable[[Any, Any], None]:
    return lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=atol)


def agree_on_directions(ours: Any, theirs: Any) -> None:
    """Vectors of length 1, computed in 16 bits."""
    np.testing.assert_allclose(np.sum(np.asarray(ours) * np.asarray(theirs), 1), 1, atol=2e-4)


def seconds(call: Callable) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def device_seconds(call: Callable) -> float:
    """Seconds of a call whose inputs and results stay on the device: an accelerator gets several in a row."""
    number = by_device(cpu=1, accelerator=8)
    return seconds(lambda: jax.block_until_ready([call() for _ in range(number)][-1])) / number


def peak_memory() -> int:
    """Bytes: the most that a device held so far; on CPU, the most of the process."""
    held = [(device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in jax.local_devices()]
    unit = 1 if sys.platform == "darwin" else 1024
    return max(held) or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def record(call: Callable, options: Namespace, name: str) -> None:
    """Write a profiler's trace of a call, and the programs that it was compiled to."""
    if options.profile:
        with jax.profiler.trace(str(options.profile / name)):
            jax.block_until_ready([call() for _ in range(3)])
    if options.hlo:
        jax.clear_caches()
        jax.block_until_ready(call())
        programs = jax.local_devices()[0].client.live_executables()
        texts = [module.to_string() for program in programs for module in program.hlo_modules()]
        (options.hlo / f"{name}.txt").write_text("\n\n".join(texts), "utf-8")


def race(
    benchmark: Any,
    options: Namespace,
    ours: Callable[[], Any],
    peers: Mapping[str, Callable[[], Callable]] | None = None,
    *,
    device: Callable[[], Any] | None = None,
    agree: Callable[[Any, Any], Any] | None = None,
    **row: Any,
) -> None:
    """Time a call in turn with its peers, and record what the report shows.

    Args:
        benchmark: pytest-benchmark's fixture.
        options: the user's; see `benchmarks.__main__`.
        ours: what is measured, end to end: it takes and returns what lies in the host's memory.
        peers: by name, what makes a call that does the same by other means, or raises LeftOut.
        device: the same without moving anything to or from the device; its result need not be waited for.
        agree: raises AssertionError if a peer's answer is not ours.
        row: what is known before, and has defaults in `ROW`: `what`, `size`, how many (`rate`) of what
            (`rate_of`) it computes, the `dtype` of vectors or weights in memory, the one they are multiplied
            in (`computed_in`), the `operations` of matrix products, the bytes that each device must `read`,
            how many `devices` share the operations.
    """
    if jax.default_backend() == "cpu":
        row["devices"] = 1  # however it is divided
    row = ROW | {"computed_in": row.get("dtype", "float32")} | row
    jax.clear_caches()  # of programs that prepared the inputs
    peak_before = peak_memory()
    with Clock() as clock, step("first"):
        first = seconds(ours)
    calls, absent = gather(peers or {}) if options.peers else ({}, [])
    for call in calls.values():
        agree(ours(), call())
    once = seconds(ours) + sum(map(seconds, calls.values()))
    rounds = int(np.clip(BUDGET_SECONDS[options.quick] / once, *ROUNDS[options.quick]))
    times: dict[str, list[float]] = {name: [] for name in calls}

    def wake(call: Callable) -> None:
        time.sleep(PAUSE_SECONDS)
        if once < SHORT_SECONDS:
            call()

    def in_turn() -> None:
        for name, call in calls.items():
            wake(call)
            times[name].append(seconds(call))
        wake(ours)

    benchmark.pedantic(ours, setup=in_turn, rounds=rounds)
    median, spread = benchmark.stats.stats.median, benchmark.stats.stats.iqr
    # The first of these may still be compiled.
    on_device = [device_seconds(device) for _ in range(rounds + 1)][1:] if device else []
    rate = row["operations"] / np.median(on_device or median)
    peak = (options.peak_tflops or 0) * 1e12 or peak_flops(jax.devices()[0].device_kind, row["computed_in"])
    benchmark.extra_info |= row | {
        **dict(rounds=rounds, first=first, compile=clock.seconds["compile"], median=median),
        "spread": spread / median,
        "device": float(np.median(on_device)) if device else None,
        "peak_memory": peak_memory(),
        "earlier_peak": peak_before,
        "flops": rate or None,
        "mfu": rate / peak / row["devices"] if rate and peak else None,
        "peers": {name: float(np.median(each)) for name, each in times.items()},
        "absent": absent,
    }
    if times:
        best = min(times, key=lambda name: np.median(times[name]))
        low, middle, high = np.percentile(times[best], [25, 50, 75])
        spread = float((high - low) / middle)
        benchmark.extra_info |= dict(best_peer=best, peer_spread=spread, ratio=float(middle / median))
    record(device or ours, options, benchmark.name)
