"""Exact search beside FAISS, PyTorch and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minqa

DIM = 384
# PyTorch and NumPy, which hold all scores at once, are left out above this.
MAX_PEER_SCORES = 2**28


@pytest.fixture(scope="module")
def corpora():
    """So many seeded vectors of length 1; only the last corpus is kept."""
    kept: dict[int, np.ndarray] = {}

    def corpus(number):
        if number not in kept:
            kept.clear()
            rng = np.random.default_rng(0)
            vectors = rng.standard_normal((number, DIM), np.float32)
            kept[number] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return kept[number]

    return corpus


def others(vectors, queries, k):
    """The peers that are installed, and why others are absent."""
    peers, absent = {}, []
    try:
        import faiss
    except ImportError:
        absent.append("FAISS (not installed)")
    else:
        index = faiss.IndexFlatIP(DIM)
        index.add(vectors)
        peers["FAISS flat"] = lambda: index.search(queries, k)[1]
    if len(queries) * len(vectors) > MAX_PEER_SCORES:
        return peers, [*absent, "PyTorch and NumPy (all scores at once)"]
    try:
        import torch
    except ImportError:
        absent.append("PyTorch (not installed)")
    else:
        device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
        passages, questions = (torch.tensor(array, device=device) for array in (vectors, queries))
        peers["torch.topk"] = lambda: torch.topk(questions @ passages.T, k).indices.cpu()

    def in_numpy():
        scores = queries @ vectors.T
        best = np.argpartition(-scores, k, axis=1)[:, :k]
        return np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, 1)), 1)

    return peers | {"NumPy": in_numpy}, absent


@pytest.mark.parametrize("k", [10, 100])
@pytest.mark.parametrize("batch", [1, 32, 1024])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("number", [10_000, 100_000, 1_000_000])
def bench_match(compare, corpora, quick, number, dtype, batch, k):
    if quick and (number == 1_000_000 or batch == 1024 or k == 100):
        pytest.skip("not measured with --quick")
    vectors = corpora(number)
    rng = np.random.default_rng(1)  # queries like some passage, as questions are
    queries = vectors[rng.integers(0, number, batch)] + rng.standard_normal((batch, DIM), np.float32) / 20
    stored = jax.device_put(vectors)
    if dtype != "float32":
        stored = minqa.quantize(stored)[0] if dtype == "int8" else stored.astype(jnp.bfloat16)
    similarity = minqa.dot if dtype == "float32" else minqa.cosine  # which needs no scale
    on_device = jax.device_put(queries)

    def ours():
        return jax.device_get(minqa.match(on_device, stored, k=k, similarity=similarity))[1]

    peers, absent = others(vectors, queries, k)
    best, recall = ours().tolist(), 1.0
    for name, peer in peers.items():
        pairs = zip(best, np.asarray(peer()).tolist(), strict=True)
        recall = min(recall, np.mean([len({*rows} & {*expected}) / k for rows, expected in pairs]))
        assert recall > (0.999 if dtype == "float32" else 0.9), (name, recall)
    compare(
        ours,
        peers,
        what=f"match, k {k}",
        size=f"{batch:,} × {number:,}",
        dtype=dtype,
        computed_in="float32",
        operations=2.0 * batch * number * DIM,
        read=stored.nbytes,
        absent=absent,
        rate=batch,
        rate_of="queries",
        recall=float(recall),
    )
