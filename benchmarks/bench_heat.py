"""MaxSim beside PyTorch and NumPy, and heat maps: from vectors, cosines included."""

import jax
import numpy as np
import pytest

import minqa

DIM = 384
QUERY, LENGTH = 16, 150


def text_of(words, rng):
    """A text of so many words, one token per word, with random vectors."""
    return minqa.Vectors.of(["w"] * words, rng.standard_normal((words, DIM), np.float32))


@pytest.mark.parametrize("candidates", [50, 1000])
def bench_maxsim(compare, candidates):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    query = rng.standard_normal((QUERY, DIM), np.float32)
    passages = rng.standard_normal((candidates, LENGTH, DIM), np.float32)
    weights, mask = np.full(QUERY, 1 / QUERY, np.float32), np.ones(passages.shape[:2], bool)
    on_device = jax.device_put((query, weights, passages, mask))
    device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
    tensors = [torch.tensor(array, device=device) for array in (query, weights, passages)]

    def ours():
        return np.asarray(minqa.maxsim(*on_device).sum(1))

    def in_pytorch():
        with torch.inference_mode():
            words, texts = (torch.nn.functional.normalize(tensors[i], dim=-1) for i in (0, 2))
            return ((texts @ words.T).amax(1) @ tensors[1]).cpu()

    def in_numpy():
        words, texts = (array / np.linalg.norm(array, axis=-1, keepdims=True) for array in (query, passages))
        return (texts @ words.T).max(1) @ weights

    peers = {"PyTorch": in_pytorch, "NumPy": in_numpy}
    for peer in peers.values():
        np.testing.assert_allclose(ours(), peer(), atol=1e-5)
    compare(
        ours,
        peers,
        what=f"MaxSim, a query of {QUERY}",
        size=f"{candidates:,} × {LENGTH}",
        operations=2.0 * QUERY * candidates * LENGTH * DIM,
        read=passages.nbytes,
        rate=candidates,
        rate_of="passages",
    )


def bench_rank(compare):
    """MaxSim with window and neighbours, from the vectors of texts."""
    rng = np.random.default_rng(0)
    query, passages = text_of(QUERY, rng), [text_of(LENGTH, rng) for _ in range(50)]
    compare(
        lambda: minqa.rank(query, passages),
        {},
        what="rank, as `ask` does",
        size=f"50 × {LENGTH} words",
        rate=50,
        rate_of="passages",
    )


@pytest.mark.parametrize("batch", [1, 32])
def bench_heat_map(compare, batch):
    rng = np.random.default_rng(0)
    query, passages = text_of(QUERY, rng), [text_of(384, rng) for _ in range(batch)]
    compare(
        lambda: [minqa.heat_map(query, passage) for passage in passages],
        {},
        what=f"heat map, a query of {QUERY}",
        size=f"{batch} × 384 tokens",
        rate=batch,
        rate_of="maps",
    )
