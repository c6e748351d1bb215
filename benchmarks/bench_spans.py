"""Decoding of spans beside the outer product in NumPy, and the span head from vectors."""

import jax
import numpy as np
import pytest
from flax import nnx

import minqa
from benchmarks.bench_heat import DIM, text_of

TOKENS, K, LENGTH = 384, 20, 30
PASSAGES, WORDS = 50, 150


@pytest.mark.parametrize("batch", [1, 32])
def bench_best_spans(compare, batch):
    start, end = np.random.default_rng(0).normal(size=(2, batch, TOKENS)).astype(np.float32)
    mask = np.ones((batch, TOKENS), bool)

    def ours():
        return jax.block_until_ready(minqa.best_spans(start, end, mask, k=K, max_length=LENGTH))

    def in_numpy():
        """The classic rule: all pairs, without those that are too long or run backward."""
        allowed = np.tril(np.triu(np.ones((TOKENS, TOKENS), bool)), LENGTH - 1)
        places = []
        for i in range(batch):
            scores = np.where(allowed, start[i][:, None] + end[i][None], -np.inf).ravel()
            best = np.argpartition(-scores, K)[:K]
            places.append(best[np.argsort(-scores[best])])
        return np.divmod(places, TOKENS)

    np.testing.assert_array_equal(ours()[1:3], in_numpy())
    compare(
        ours,
        {"NumPy, all pairs": in_numpy},
        what=f"best {K} spans up to {LENGTH} tokens",
        size=f"{batch} × {TOKENS}",
        rate=batch,
        rate_of="passages",
    )


def bench_span_head(compare):
    rng = np.random.default_rng(0)
    head = minqa.SpanHead(DIM, rngs=nnx.Rngs(0))
    question, passages = text_of(12, rng), [text_of(WORDS, rng) for _ in range(PASSAGES)]
    compare(
        lambda: minqa.read_answers(head, [question] * PASSAGES, passages),
        {},
        what="span head and decoding",
        size=f"{PASSAGES} × {WORDS} words",
        rate=PASSAGES,
        rate_of="passages",
    )
