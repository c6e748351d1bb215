"""Decoding of spans beside the outer product in NumPy, and the span head from vectors."""

from functools import partial

import jax
import numpy as np
from flax import nnx

import minqa
from benchmarks.bench_heat import DIM, text_of
from benchmarks.harness import needs_cpu, sweep
from minqa.answers.span_head import pair
from minqa.spans import MAX_SPAN_WORDS

K, LENGTH = 20, 30


@sweep(shape=[(1, 384), (32, 384)])
def bench_best_spans(compare, shape):
    batch, token = shape
    start, end = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    scores = start, end, np.ones(shape, bool)
    on_device, decode = jax.device_put(scores), partial(minqa.best_spans, k=K, max_length=LENGTH)

    def in_numpy():
        """The classic rule: all pairs, without those that are too long or run backward."""
        needs_cpu()
        allowed = np.tril(np.triu(np.ones((token, token), bool)), LENGTH - 1)

        def best(start, end):
            scores = np.where(allowed, start[:, None] + end[None], -np.inf).ravel()
            places = np.argpartition(-scores, K)[:K]
            return places[np.argsort(-scores[places])]

        return lambda: np.divmod([best(*row) for row in zip(start, end, strict=True)], token)

    compare(
        lambda: jax.device_get(decode(*scores)[1:3]),
        {"NumPy, all pairs": in_numpy},
        device=lambda: decode(*on_device),
        agree=np.testing.assert_array_equal,
        what=f"best {K} spans up to {LENGTH} tokens",
        size=f"{batch} × {token}",
        rate=batch,
        rate_of="passages",
    )


@jax.jit
def answer(head, batch):
    start, end, none = head(batch)
    return minqa.best_spans(start, end, batch.mask, k=2, max_length=MAX_SPAN_WORDS, no_answer=none)


@sweep(shape=[(50, 150)])
def bench_span_head(compare, shape):
    """End to end in blocks of passages; on the device all of them at once."""
    number, words = shape
    rng = np.random.default_rng(0)
    head = minqa.SpanHead(DIM, rngs=nnx.Rngs(0))
    questions, passages = [text_of(12, rng)] * number, [text_of(words, rng) for _ in range(number)]
    on_device = jax.device_put(pair(questions, passages))
    compare(
        lambda: minqa.read_answers(head, questions, passages),
        device=lambda: answer(head, on_device),
        what="span head and decoding",
        size=f"{number} × {words} words",
        rate=number,
        rate_of="passages",
    )
