"""MaxSim beside PyTorch and NumPy, and heat maps; vectors at hand, cosines included."""

import jax
import numpy as np
import pytest
from minqa.statistics import RANKING

import minqa
from minqa.ask import rank
from minqa.tokens import Tokens

DIM = 384
QUERY, LENGTH = 16, 150


def text_of(words, rng):
    """A text of so many words, a token each, with random vectors."""
    places = np.array([(2 * i, 2 * i + 1) for i in range(words)], np.int32)
    number = np.arange(words, dtype=np.int32)
    tokens = Tokens("w " * words, number, number, places, prompt_tokens=0, windows=(words,))
    return minqa.Vectors(tokens, rng.normal(size=(words, DIM)).astype(np.float32), np.zeros(DIM, np.float32))


@pytest.fixture(scope="module")
def statistics():
    moments = np.zeros((7, DIM), np.float32)
    return minqa.Statistics(1000, {"w": 10}, moments, moments + 1, np.zeros((3, 7), np.float32))


@pytest.mark.parametrize("candidates", [50, 1000])
def bench_maxsim(compare, candidates):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    query = rng.standard_normal((QUERY, DIM), np.float32)
    passages = rng.standard_normal((candidates, LENGTH, DIM), np.float32)
    weights, mask = np.full(QUERY, 1 / QUERY, np.float32), np.ones(passages.shape[:2], bool)
    on_device = jax.device_put((query, weights, passages, mask))
    device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
    tensors = [torch.tensor(one, device=device) for one in (query, weights, passages)]

    def ours():
        return np.asarray(minqa.maxsim(*on_device).sum(1))

    def in_pytorch():
        with torch.inference_mode():
            asked, read = (torch.nn.functional.normalize(tensors[i], dim=-1) for i in (0, 2))
            return ((read @ asked.T).amax(1) @ tensors[1]).cpu()

    def in_numpy():
        asked, read = (one / np.linalg.norm(one, axis=-1, keepdims=True) for one in (query, passages))
        return (read @ asked.T).max(1) @ weights

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


def bench_rank(compare, statistics):
    """MaxSim with window and neighbours, from the vectors of texts."""
    rng = np.random.default_rng(0)
    query, passages = text_of(QUERY, rng), [text_of(LENGTH, rng) for _ in range(50)]
    compare(
        lambda: rank(query, passages, RANKING, statistics),
        {},
        what="rank, as `ask` does",
        size=f"50 × {LENGTH} words",
        rate=50,
        rate_of="passages",
    )


@pytest.mark.parametrize("batch", [1, 32])
def bench_heat_map(compare, statistics, batch):
    rng = np.random.default_rng(0)
    query, passages = text_of(QUERY, rng), [text_of(384, rng) for _ in range(batch)]
    how = {"measure": RANKING, "statistics": statistics}
    compare(
        lambda: [minqa.heat_map(query, passage, **how) for passage in passages],
        {},
        what=f"heat map, a query of {QUERY}",
        size=f"{batch} × 384 tokens",
        rate=batch,
        rate_of="maps",
    )
