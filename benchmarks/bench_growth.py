"""How time grows with batch, length, corpus and devices: its slope on doubly logarithmic paper.

1 is proportional, more is superlinear; with devices, -1 is ideal.
"""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

import minqa
from benchmarks.harness import load_model, seconds, texts_of
from minqa.embedding import hidden_states

ROUNDS = 5


@pytest.fixture
def grow(benchmark):
    """Time `call(size)` for all sizes in turn; note each median and the slope of their logarithms."""

    def measure(what, sizes, call):
        for size in sizes:
            call(size)
        times = [[seconds(lambda size=size: call(size)) for size in sizes] for _ in range(ROUNDS)]
        medians = np.median(times, axis=0)
        slope = float(np.polyfit(np.log(sizes), np.log(medians), 1)[0])
        benchmark.extra_info |= {"growth": what, "sizes": sizes, "medians": medians.tolist(), "slope": slope}
        benchmark.pedantic(lambda: call(sizes[0]))

    return measure


@pytest.fixture
def embed():
    encoder = load_model("minilm", "float32")
    return lambda tokens, mesh=None: hidden_states(encoder, tokens, (), mesh=mesh)


def bench_batch(grow, embed):
    grow("encode n × 64 tokens", [4, 16, 64], lambda n: embed(texts_of(n, 64)))


def bench_length(grow, embed):
    grow("encode 8 × n tokens", [32, 64, 128, 256], lambda n: embed(texts_of(8, n)))


def bench_corpus(grow):
    rng, sizes = np.random.default_rng(0), [10_000, 40_000, 160_000]
    query = rng.standard_normal((1, 384), np.float32)
    corpora = {n: jax.device_put(rng.standard_normal((n, 384), np.float32)) for n in sizes}
    grow(
        "match a query with n vectors",
        sizes,
        lambda n: jax.block_until_ready(minqa.match(query, corpora[n], k=10, similarity=minqa.dot)),
    )


def bench_devices(grow, embed):
    devices = np.array(jax.local_devices())
    if len(devices) == 1:
        pytest.skip("there is one device")
    meshes = {n: Mesh(devices[:n], ("batch",)) for n in (1, 2, 4, 8) if n <= len(devices)}
    tokens = texts_of(32, 64)
    grow("encode 32 × 64 tokens on n devices", [*meshes], lambda n: embed(tokens, meshes[n]))
