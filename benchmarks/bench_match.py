"""Exact search beside FAISS, PyTorch and NumPy."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minqa
from benchmarks.harness import LeftOut, needs_cpu, sweep, torch_device
from minqa.similarity import prepare

DIM = 384
# PyTorch and NumPy, which hold all scores at once, are left out above this.
MAX_PEER_SCORES = 2**28
# Of the passages that a peer finds in float32.
LEAST_RECALL = {"float32": 0.999, "bfloat16": 0.98, "int8": 0.95}


@lru_cache(maxsize=1)
def corpus(number):
    """So many seeded vectors of several lengths."""
    return np.random.default_rng(0).standard_normal((number, DIM), np.float32)


def normalized(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def in_faiss(vectors, queries, k):
    needs_cpu()  # faiss-cpu, at least
    import faiss

    index = faiss.IndexFlatIP(DIM)
    index.add(vectors)
    return lambda: index.search(queries, k)[1]


def in_pytorch(vectors, queries, k):
    import torch

    if len(queries) * len(vectors) > MAX_PEER_SCORES:
        raise LeftOut("all scores at once")
    passages, queries = (torch.tensor(array, device=torch_device()) for array in (vectors, queries))
    return lambda: torch.topk(queries @ passages.T, k).indices.cpu().numpy()


def in_numpy(vectors, queries, k):
    needs_cpu()
    if len(queries) * len(vectors) > MAX_PEER_SCORES:
        raise LeftOut("all scores at once")

    def call():
        scores = queries @ vectors.T
        best = np.argpartition(-scores, k, axis=1)[:, :k]
        return np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, 1)), 1)

    return call


@sweep(
    passages=[10_000, 100_000, 1_000_000],
    dtype=["float32", "bfloat16", "int8"],
    queries=[1, 32, 1024],
    k=[10],
    similarity=["dot", "cosine"],
    quick={"passages": [10_000, 100_000], "queries": [1, 32]},
)
def bench_match(compare, passages, dtype, queries, k, similarity):
    """Vectors of length 1 by dot product; any others, prepared, by cosine."""
    if similarity == "dot" and dtype == "int8":
        pytest.skip("vectors in 8 bits have lost their length")
    vectors, rng = corpus(passages), np.random.default_rng(1)
    # Queries are like some passage, as questions are.
    questions = vectors[rng.integers(0, passages, queries)] + rng.standard_normal((queries, DIM), np.float32)
    directions, questions = normalized(vectors), normalized(questions)
    stored = jnp.asarray(directions if similarity == "dot" else vectors)
    stored = minqa.quantize(stored)[0] if dtype == "int8" else stored.astype(dtype)
    searched = stored if similarity == "dot" else prepare(stored)
    search = partial(minqa.match, passages=searched, k=k, similarity=getattr(minqa, similarity))
    on_device = jax.device_put(questions)
    recalls = []

    def agree(ours, theirs):
        rows = zip(ours.tolist(), theirs.tolist(), strict=True)
        recalls.append(float(np.mean([len({*row} & {*expected}) / k for row, expected in rows])))
        assert recalls[-1] >= LEAST_RECALL[dtype], recalls

    peers = {"FAISS flat": in_faiss, "PyTorch": in_pytorch, "NumPy": in_numpy}
    compare(
        lambda: np.asarray(search(questions)[1]),
        {name: partial(make, directions, questions, k) for name, make in peers.items()},
        device=lambda: search(on_device),
        agree=agree,
        what=f"match, k {k}, {similarity}",
        size=f"{queries:,} × {passages:,}",
        dtype=dtype,
        computed_in="float32",
        operations=2.0 * queries * passages * DIM,
        read=stored.nbytes,
        rate=queries,
        rate_of="queries",
        recalls=recalls,
    )
