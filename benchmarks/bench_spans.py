"""Speed of decoding beside the outer product in NumPy, and of the span head, vectors at hand.

    uv run --group bench pytest benchmarks/bench_spans.py

Both decoders run in turn on the same scores; their spans are compared before any timing.
"""

import time

import jax
import numpy as np
import pytest
from flax import nnx

from benchmarks.bench_heat import DIM, text_of
from minqa.span_head import SpanHead, read_answers
from minqa.spans import best_spans

ROUNDS = 21
BATCH, TOKENS, K, LENGTH = 32, 384, 20, 30
PASSAGES, WORDS = 50, 150


@pytest.mark.benchmark(group=f"the best {K} spans of {BATCH} × {TOKENS} tokens")
def bench_best_spans(benchmark, capsys):
    start, end = np.random.default_rng(0).normal(size=(2, BATCH, TOKENS)).astype(np.float32)
    mask = np.ones((BATCH, TOKENS), bool)

    def ours():
        return jax.block_until_ready(best_spans(start, end, mask, k=K, max_length=LENGTH))

    def in_numpy():
        """The classic rule: all pairs, those that are too long or run back struck out."""
        allowed = np.tril(np.triu(np.ones((TOKENS, TOKENS), bool)), LENGTH - 1)
        places = []
        for i in range(BATCH):
            scores = np.where(allowed, start[i][:, None] + end[i][None], -np.inf).ravel()
            best = np.argpartition(-scores, K)[:K]
            places.append(best[np.argsort(-scores[best])])
        return np.divmod(places, TOKENS)

    for one, other in zip(ours()[1:3], in_numpy(), strict=True):
        np.testing.assert_array_equal(one, other)
    times = []

    def time_numpy():
        begun = time.perf_counter()
        in_numpy()
        times.append(time.perf_counter() - begun)

    benchmark.pedantic(ours, setup=time_numpy, rounds=ROUNDS)
    median, peer = benchmark.stats.stats.median, float(np.median(times))
    benchmark.extra_info["ratio_to_numpy"] = peer / median
    with capsys.disabled():
        print(f"\n{1000 * median:.1f} ms; NumPy {1000 * peer:.1f} ms, ratio {peer / median:.1f}")


@pytest.mark.benchmark(group=f"the span head on {PASSAGES} passages of {WORDS} words")
def bench_span_head(benchmark):
    rng = np.random.default_rng(0)
    head = SpanHead(DIM, rngs=nnx.Rngs(0))
    question, passages = text_of(12, rng), [text_of(WORDS, rng) for _ in range(PASSAGES)]
    call = lambda: read_answers(head, [question] * PASSAGES, passages)  # noqa: E731
    call()
    benchmark.pedantic(call, rounds=ROUNDS)
