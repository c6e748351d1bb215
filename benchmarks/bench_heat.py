"""Speed of MaxSim and of a heat map, vectors at hand, beside PyTorch and NumPy.

    uv run --group bench pytest benchmarks/bench_heat.py

Peers run in turn with minqa on the same vectors, cosines included; scores are compared before any timing.
"""

import time

import jax
import numpy as np
import pytest

import minqa
from minqa.ask import rank
from minqa.statistics import RANKING
from minqa.tokens import Tokens

ROUNDS = 31
DIM = 384
QUERY, PASSAGES, LENGTH = 16, 50, 150


def text_of(words, rng):
    """A text of so many words, a token each, with random vectors."""
    places = np.array([(2 * i, 2 * i + 1) for i in range(words)], np.int32)
    number = np.arange(words, dtype=np.int32)
    tokens = Tokens("w " * words, number, number, places, prompt_tokens=0, windows=(words,))
    return minqa.Vectors(tokens, rng.normal(size=(words, DIM)).astype(np.float32), np.zeros(DIM, np.float32))


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    return text_of(QUERY, rng), [text_of(LENGTH, rng) for _ in range(PASSAGES)]


@pytest.fixture(scope="module")
def statistics():
    moments = np.zeros((7, DIM), np.float32)
    return minqa.Statistics(1000, {"w": 10}, moments, moments + 1, np.zeros((3, 7), np.float32))


@pytest.mark.benchmark(group=f"MaxSim, {QUERY} × {PASSAGES} × {LENGTH}")
def bench_maxsim(benchmark, texts, capsys):
    torch = pytest.importorskip("torch")
    query, passages = texts[0].array, np.stack([one.array for one in texts[1]])
    weights, mask = np.full(QUERY, 1 / QUERY, np.float32), np.ones(passages.shape[:2], bool)
    on_device = jax.device_put((query, weights, passages, mask))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tensors = [torch.tensor(one, device=device) for one in (query, weights, passages)]

    def ours(**options):
        return np.asarray(minqa.maxsim(*on_device, **options).sum(1))

    def in_pytorch():
        with torch.inference_mode():
            asked, read = (torch.nn.functional.normalize(tensors[i], dim=-1) for i in (0, 2))
            return ((read @ asked.T).amax(1) @ tensors[1]).cpu()

    def in_numpy():
        asked, read = (one / np.linalg.norm(one, axis=-1, keepdims=True) for one in (query, passages))
        return (read @ asked.T).max(1) @ weights

    near = {"window": RANKING.window, "neighbours": RANKING.neighbours}
    for peer in (in_pytorch, in_numpy):
        np.testing.assert_allclose(ours(), peer(), atol=1e-5)
    calls = {"PyTorch": in_pytorch, "NumPy": in_numpy, "as ask ranks": lambda: ours(**near)}
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}

    def time_the_others():
        for name, call in calls.items():
            times[name].append(seconds(call))

    benchmark.pedantic(ours, setup=time_the_others, rounds=ROUNDS)
    median = benchmark.stats.stats.median
    medians = {name: float(np.median(one)) for name, one in times.items()}
    benchmark.extra_info |= medians
    with capsys.disabled():
        said = ", ".join(f"{name} {1000 * one:.2f} ms ({one / median:.2f})" for name, one in medians.items())
        print(f"\nMaxSim {1000 * median:.2f} ms; {said}")


@pytest.mark.benchmark(group=f"rank {PASSAGES} passages of {LENGTH} words")
def bench_rank(benchmark, texts, statistics):
    query, passages = texts
    call = lambda: rank(query, passages, RANKING, statistics)  # noqa: E731
    call()
    benchmark.pedantic(call, rounds=ROUNDS)


@pytest.mark.benchmark(group="a heat map, 16 × 256")
def bench_heat_map(benchmark, statistics):
    rng = np.random.default_rng(0)
    query, passage = text_of(16, rng), text_of(256, rng)
    call = lambda: minqa.heat_map(query, passage, measure=RANKING, statistics=statistics)  # noqa: E731
    call()
    benchmark.pedantic(call, rounds=ROUNDS)
