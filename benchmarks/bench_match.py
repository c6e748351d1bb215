"""Exact search beside FAISS, PyTorch and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minqa

DIM = 384
PLENTY = 2**28  # scores that PyTorch and NumPy, which hold all at once, are not asked for


@pytest.fixture(scope="module")
def corpora():
    """Seeded vectors of length 1; only the last number of them asked for is kept."""
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
    """The peers that are installed, and why others are not here."""
    peers, absent = {}, []
    on_gpu = jax.default_backend() == "gpu"
    plenty = len(queries) * len(vectors) > PLENTY
    try:
        import faiss
    except ImportError:
        absent.append("FAISS (not installed)")
    else:
        index = faiss.IndexFlatIP(DIM)
        index.add(vectors)
        peers["FAISS flat"] = lambda: index.search(queries, k)[1]
    if plenty:
        return peers, [*absent, "PyTorch and NumPy (all scores at once)"]
    try:
        import torch
    except ImportError:
        absent.append("PyTorch (not installed)")
    else:
        device = "cuda" if on_gpu and torch.cuda.is_available() else "cpu"
        read, asked = torch.tensor(vectors, device=device), torch.tensor(queries, device=device)
        peers["torch.topk"] = lambda: torch.topk(asked @ read.T, k).indices.cpu()

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
        pytest.skip("left out by --quick")
    vectors = corpora(number)
    rng = np.random.default_rng(1)  # queries like some passage, as questions are
    queries = vectors[rng.integers(0, number, batch)] + rng.standard_normal((batch, DIM), np.float32) / 20
    stored = jax.device_put(vectors)
    if dtype != "float32":
        stored = minqa.quantize(stored) if dtype == "int8" else stored.astype(jnp.bfloat16)
    asked, known = jax.device_put(queries), {"normalized": dtype == "float32"}

    def ours():
        return jax.device_get(minqa.match(asked, stored, k=k, **known))[1]

    peers, absent = others(vectors, queries, k)
    found = ours()
    recall = 1.0
    for name, peer in peers.items():
        pairs = zip(found.tolist(), np.asarray(peer()).tolist(), strict=True)
        recall = min(recall, np.mean([len({*one} & {*other}) / k for one, other in pairs]))
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
