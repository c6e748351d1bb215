"""How time grows with batch, length, corpus and devices: its slope on doubly logarithmic paper.

1 is proportional, more is superlinear.
"""

import jax
import numpy as np
import pytest

import minqa
from benchmarks.harness import seconds, texts_of
from minqa import embedding

ROUNDS = 5


def grow(benchmark, what, sizes, call):
    """Time `call(size)` for all sizes in turn; note each median and the slope of their logarithms."""
    times: dict[int, list[float]] = {size: [] for size in sizes}
    for size in sizes:
        call(size)
    for _ in range(ROUNDS):
        for size in sizes:
            times[size].append(seconds(lambda size=size: call(size)))
    medians = [float(np.median(times[size])) for size in sizes]
    slope = float(np.polyfit(np.log(sizes), np.log(medians), 1)[0])
    benchmark.extra_info |= {"growth": what, "sizes": list(sizes), "medians": medians, "slope": slope}
    benchmark.pedantic(lambda: call(sizes[0]))


def bench_batch(benchmark, encoder):
    grow(
        benchmark, "encode n × 64 tokens", [4, 16, 64], lambda n: minqa.embed_pooled(encoder, texts_of(n, 64))
    )


def bench_length(benchmark, encoder):
    grow(
        benchmark,
        "encode 8 × n tokens",
        [32, 64, 128, 256],
        lambda n: minqa.embed_pooled(encoder, texts_of(8, n)),
    )


def bench_corpus(benchmark):
    rng = np.random.default_rng(0)
    query, sizes = rng.standard_normal((1, 384), np.float32), [10_000, 40_000, 160_000]
    corpora = {n: jax.device_put(rng.standard_normal((n, 384), np.float32)) for n in sizes}
    grow(
        benchmark,
        "match a query with n vectors",
        sizes,
        lambda n: jax.block_until_ready(minqa.match(query, corpora[n], k=10, similarity=minqa.dot)),
    )


def bench_devices(benchmark, encoder, monkeypatch):
    """The same work on more and more devices; a slope of -1 is ideal."""
    number = jax.local_device_count()
    if number == 1:
        pytest.skip("there is one device")
    tokens, copies = texts_of(32, 64), embedding._copies(encoder.model)
    sizes = [n for n in (1, 2, 4, 8) if n <= number]

    def call(n):
        monkeypatch.setattr(embedding, "_copies", lambda model: copies[:n])
        return minqa.embed_pooled(encoder, tokens)

    grow(benchmark, "encode 32 × 64 tokens on n devices", sizes, call)


@pytest.fixture
def encoder():
    return minqa.load()
