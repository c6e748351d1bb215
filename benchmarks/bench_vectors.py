"""What is made of vectors: MaxSim, rankings, heat maps and answer spans, beside PyTorch and NumPy."""

from functools import partial

import jax
import numpy as np
from flax import nnx

import minqa
from benchmarks.harness import agree_to, needs_cpu, sweep, torch_device
from minqa.answers.span_head import pair
from minqa.heatmap import NEIGHBOURS, WINDOW
from minqa.spans import MAX_SPAN_WORDS

DIM = 384
QUERY = 16
SPANS, SPAN_TOKENS = 20, 30


def text_of(words, rng):
    """A text of so many words, one token per word, with random vectors."""
    return minqa.Vectors.of(["w"] * words, rng.standard_normal((words, DIM), np.float32))


def work(shape):
    """Operations, and bytes read, of comparing a query with passages [passage, word]."""
    numbers = shape[0] * shape[1] * DIM
    return {"operations": 2.0 * QUERY * numbers, "read": 4 * numbers, "rate": shape[0]}


@sweep(shape=[(50, 150), (1000, 150)])
def bench_maxsim(compare, shape):
    """Of vectors of length 1, whose dot products are cosines, for all."""
    rng = np.random.default_rng(0)
    query, passages = (rng.standard_normal((*size, DIM), np.float32) for size in ((QUERY,), shape))
    query, passages = (array / np.linalg.norm(array, axis=-1, keepdims=True) for array in (query, passages))
    weights, mask = np.full(QUERY, 1 / QUERY, np.float32), np.ones(shape, bool)
    on_device = jax.device_put((query, weights, passages, mask))
    score = partial(minqa.maxsim, similarity=minqa.dot)

    def in_pytorch():
        import torch

        device = torch_device()
        words, parts, texts = (torch.tensor(each, device=device) for each in (query, weights, passages))

        def call():
            with torch.inference_mode():
                return ((texts @ words.T).amax(1) @ parts).cpu().numpy()

        return call

    def in_numpy():
        needs_cpu()
        return lambda: (passages @ query.T).max(1) @ weights

    compare(
        lambda: np.asarray(score(*on_device)).sum(1),
        {"PyTorch": in_pytorch, "NumPy": in_numpy},
        device=lambda: score(*on_device),
        agree=agree_to(atol=1e-5),
        what=f"MaxSim, a query of {QUERY}",
        rate_of="passages",
        **work(shape),
    )


def from_vectors(compare, shape, ours, **shown):
    """From the vectors of texts, with window and neighbours; on the device the scores of all at once."""
    rng = np.random.default_rng(0)
    query, passages = text_of(QUERY, rng), [text_of(shape[1], rng) for _ in range(shape[0])]
    words = np.stack([passage.words for passage in passages])
    arrays = jax.device_put((query.words, query.weights, words, np.ones(shape, bool)))
    score = partial(minqa.maxsim, *arrays, window=WINDOW, neighbours=NEIGHBOURS)
    compare(lambda: ours(query, passages), device=score, **shown, **work(shape))


@sweep(shape=[(50, 150)])
def bench_rank(compare, shape):
    from_vectors(compare, shape, minqa.rank, what="rank, as `ask` does", rate_of="passages")


@sweep(shape=[(1, 384), (32, 384)])
def bench_heat_map(compare, shape):
    def ours(query, passages):
        return [minqa.heat_map(query, passage) for passage in passages]

    from_vectors(compare, shape, ours, what=f"heat map, a query of {QUERY}", rate_of="maps")


@sweep(shape=[(1, 384), (32, 384)])
def bench_best_spans(compare, shape):
    start, end = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    scores = start, end, np.ones(shape, bool)
    on_device, decode = jax.device_put(scores), partial(minqa.best_spans, k=SPANS, max_length=SPAN_TOKENS)

    def in_numpy():
        """The classic rule: all pairs, without those that are too long or run backward."""
        needs_cpu()
        allowed = np.tril(np.triu(np.ones(2 * shape[1:], bool)), SPAN_TOKENS - 1)

        def best(start, end):
            scores = np.where(allowed, start[:, None] + end[None], -np.inf).ravel()
            places = np.argpartition(-scores, SPANS)[:SPANS]
            return places[np.argsort(-scores[places])]

        return lambda: np.divmod([best(*row) for row in zip(start, end, strict=True)], shape[1])

    compare(
        lambda: jax.device_get(decode(*scores)[1:3]),
        {"NumPy, all pairs": in_numpy},
        device=lambda: decode(*on_device),
        agree=np.testing.assert_array_equal,
        what=f"best {SPANS} spans up to {SPAN_TOKENS} tokens",
        rate=shape[0],
        rate_of="passages",
    )


@jax.jit
def answer(head, batch):
    with jax.default_matmul_precision("highest"):
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
        rate=number,
        rate_of="passages",
    )
