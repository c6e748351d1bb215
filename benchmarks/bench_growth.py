"""How time grows with batch, length, corpus and devices: its slope on doubly logarithmic paper.

1 is proportional; more is superlinear, a finding.
"""

import jax
import numpy as np
import pytest

import minqa
from benchmarks.harness import seconds
from minqa.encoder import Encoder
from minqa.tokens import Tokens

ROUNDS = 5


def texts_of(batch, token):
    nowhere = np.full(token, -1, np.int32), np.zeros((token, 2), np.int32)
    rows = np.random.default_rng(0).integers(1000, 30000, (batch, token)).astype(np.int32)
    return [Tokens("", row, *nowhere, prompt_tokens=0, windows=(token,)) for row in rows]


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
        lambda n: jax.block_until_ready(minqa.match(query, corpora[n], k=10, normalized=True)),
    )


def bench_devices(benchmark, encoder):
    """The same work on more and more devices; -1 is proportionally faster."""
    number = jax.local_device_count()
    if number == 1:
        pytest.skip("there is one device")
    tokens, replicas = texts_of(32, 64), encoder.replicas
    sizes = [n for n in (1, 2, 4, 8) if n <= number]

    def call(n):
        encoder.__dict__["replicas"] = replicas[:n]
        return minqa.embed_pooled(encoder, tokens)

    grow(benchmark, "encode 32 × 64 tokens on n devices", sizes, call)


@pytest.fixture
def encoder() -> Encoder:
    return minqa.load()
