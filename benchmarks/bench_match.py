"""Exact search beside FAISS, PyTorch and NumPy."""

import os
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minqa
from benchmarks.harness import LeftOut, needs_cpu, seconds, sweep, torch_device
from minqa.corpus.vectors import prepare

DIM = 384
SHARD_VECTORS = 6000  # of 1,024 articles of Wikipedia
# PyTorch and NumPy, which hold all scores at once, are left out above this.
MAX_PEER_SCORES = 2**28
# Of the passages that a peer finds in float32.
LEAST_RECALL = {"float32": 0.999, "bfloat16": 0.98, "int8": 0.95}


@lru_cache(maxsize=1)
def corpus(number):
    """So many seeded vectors of several lengths."""
    return np.random.default_rng(0).standard_normal((number, DIM), np.float32)


def drawn(passages, queries):
    """A corpus, its directions, and directions of queries like some passage, as questions are."""
    vectors, rng = corpus(passages), np.random.default_rng(1)
    questions = vectors[rng.integers(0, passages, queries)] + rng.standard_normal((queries, DIM), np.float32)
    return vectors, *(each / np.linalg.norm(each, axis=1, keepdims=True) for each in (vectors, questions))


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


def agree(recalls, least, ours, theirs):
    rows = zip(ours.tolist(), theirs.tolist(), strict=True)
    recalls.append(float(np.mean([len({*row} & {*expected}) / len(row) for row, expected in rows])))
    assert recalls[-1] >= least, recalls


@sweep(
    passages=[10_000, 100_000, 1_000_000],
    dtype=["float32", "bfloat16", "int8"],
    queries=[1, 32, 1024],
    k=[10],
    similarity=["dot", "cosine"],
    quick={"passages": [10_000, 100_000], "queries": [1, 32]},
)
def bench_match(compare, passages, dtype, queries, k, similarity):
    """Vectors of length 1 by dot product; any others by cosine, prepared if they are float32."""
    if similarity == "dot" and dtype == "int8":
        pytest.skip("vectors in 8 bits have lost their length")
    vectors, directions, questions = drawn(passages, queries)
    stored = jnp.asarray(directions if similarity == "dot" else vectors)
    stored = minqa.quantize(stored)[0] if dtype == "int8" else stored.astype(dtype)
    searched = prepare(stored) if similarity == "cosine" and dtype == "float32" else stored
    search = partial(minqa.match, passages=searched, k=k, similarity=getattr(minqa, similarity))
    on_device = jax.device_put(questions)
    recalls = []
    peers = {"FAISS flat": in_faiss, "PyTorch": in_pytorch, "NumPy": in_numpy}
    compare(
        lambda: np.asarray(search(questions)[1]),
        {name: partial(make, directions, questions, k) for name, make in peers.items()},
        device=lambda: search(on_device),
        agree=partial(agree, recalls, LEAST_RECALL[dtype]),
        what=f"match, k {k}, {similarity}",
        computed_in="float32",
        operations=2.0 * queries * passages * DIM,
        read=stored.nbytes,
        rate=queries,
        rate_of="queries",
        recalls=recalls,
    )


@sweep(passages=[10_000, 100_000, 1_000_000], queries=[1, 32], quick={"passages": [10_000]})
def bench_disk(compare, benchmark, tmp_path, passages, queries):
    """Where the vectors lie on disk, in files of so many; FAISS in memory."""
    _, directions, questions = drawn(passages, queries)
    paths = [tmp_path / f"{start:010d}.npy" for start in range(0, passages, SHARD_VECTORS)]
    for number, path in enumerate(paths):
        np.save(path, directions[number * SHARD_VECTORS :][:SHARD_VECTORS])

    def ours():  # maps the files again, as what is mapped stays in memory
        parts = [np.load(path, mmap_mode="r") for path in paths]
        return np.asarray(minqa.match(questions, parts, k=10, similarity=minqa.dot)[1])

    compare(
        ours,
        {"FAISS flat": partial(in_faiss, directions, questions, 10)},
        agree=partial(agree, [], LEAST_RECALL["float32"]),
        what="match, k 10, from disk",
        operations=2.0 * queries * passages * DIM,
        read=directions.nbytes,
        rate=queries,
        rate_of="queries",
    )
    cold = []
    for _ in range(3):
        for path in paths:
            with open(path, "rb") as file:  # drop it from the system's cache
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        cold.append(seconds(ours))
    benchmark.extra_info["steps"] = {"after the files left memory": float(np.median(cold))}
