"""Vectors → similarities: pure array functions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# How much of the corpus, and how many queries, `match` compares at once: a block of passages that stays in
# a processor's cache is read from memory only once.
BLOCK_PASSAGES = 4096
BLOCK_QUERIES = 1024


def cosine(
    query: Float[Array | np.ndarray, "query dim"], passage: Float[Array | np.ndarray, "passage dim"]
) -> Float[Array, "query passage"]:
    """Cosine of every pair of vectors, -1 to 1; 0 where one of them is zero."""
    # Accelerators multiply float32 in fewer bits unless asked not to.
    products = jnp.einsum("qd,pd->qp", query, passage, precision=jax.lax.Precision.HIGHEST)
    return products * inverse_length(query)[:, None] * inverse_length(passage)[None, :]


def inverse_length(vectors: Float[Array | np.ndarray, "vector dim"]) -> Float[Array, " vector"]:
    """One over each vector's length; 0 for a vector of length 0, or below 1e-19, whose square is lost."""
    squares = (vectors * vectors).sum(-1)
    some = squares >= jnp.finfo(squares.dtype).tiny
    # Two wheres: without the inner one the gradient at zero is not a number.
    return jnp.where(some, jax.lax.rsqrt(jnp.where(some, squares, 1)), 0)


def match(
    queries: Float[Array | np.ndarray, "query dim"],
    passages: Float[Array | np.ndarray, "passage dim"],
    *,
    k: int,
) -> tuple[Float[Array, "query k"], Int[Array, "query k"]]:
    """The k passages most similar to each query, by exact cosine of all pairs.

    Queries and corpus are compared block by block, so memory grows with queries × k, not × passages.

    Args:
        queries: float32, need not be normalized.
        passages: likewise.
        k: how many; where the corpus is smaller, all of it.

    Returns:
        Cosines in falling order, and the passages' int32 indices; of equal cosines the lower index first. A
        vector that is not finite comes last, with the lowest float32.

    Raises:
        ValueError: k is below 1, or there is nothing to compare.
    """
    if k < 1 or not len(queries) or not len(passages):
        raise ValueError(
            f"k is {k}, with {len(queries)} queries and {len(passages)} passages; none may be 0."
        )
    blocks = [
        _match(queries[start : start + BLOCK_QUERIES], passages, k=min(k, len(passages)))
        for start in range(0, len(queries), BLOCK_QUERIES)
    ]
    scores, indices = map(jnp.concatenate, zip(*blocks, strict=True))
    return scores, indices


@partial(jax.jit, static_argnames="k")
def _match(queries, passages, *, k):
    number = len(passages)
    block = min(number, max(k, BLOCK_PASSAGES))

    def step(best, start):
        # The last block starts early enough to be whole; what it shares with the one before is masked.
        first = jnp.minimum(start, number - block)
        rows = first + jnp.arange(block)
        scores = cosine(queries, jax.lax.dynamic_slice_in_dim(passages, first, block))
        scores = jnp.where(jnp.isnan(scores), jnp.finfo(scores.dtype).min, scores)
        scores, places = jax.lax.top_k(jnp.where(rows[None] < start, -jnp.inf, scores), k)
        # top_k prefers the earlier of two equals, and earlier blocks stand first.
        scores, order = jax.lax.top_k(jnp.concatenate([best[0], scores], 1), k)
        indices = jnp.concatenate([best[1], rows[places]], 1)
        return (scores, jnp.take_along_axis(indices, order, 1)), None

    nothing = jnp.full((len(queries), k), -jnp.inf), jnp.zeros((len(queries), k), jnp.int32)
    return jax.lax.scan(step, nothing, jnp.arange(0, number, block))[0]
