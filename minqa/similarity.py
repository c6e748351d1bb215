"""Vectors → similarities: pure array functions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int8, Num

# How much of the corpus, and how many queries, `match` compares at once: a block of passages that stays in
# a processor's cache is read from memory only once. Where the scores are few enough, the corpus is read in
# one go, as it lies: cutting out a block is a copy.
BLOCK_PASSAGES = 4096
BLOCK_QUERIES = 1024
FEW_SCORES = 2**22


def cosine(
    query: Float[Array | np.ndarray, "query dim"], passage: Float[Array | np.ndarray, "passage dim"]
) -> Float[Array, "query passage"]:
    """Cosine of every pair of vectors, -1 to 1; 0 where one of them is zero."""
    # Accelerators multiply float32 in fewer bits unless asked not to.
    products = jnp.einsum("qd,pd->qp", query, passage, precision=jax.lax.Precision.HIGHEST)
    return products * inverse_length(query)[:, None] * inverse_length(passage)[None, :]


def inverse_length(vectors: Float[Array | np.ndarray, "... dim"]) -> Float[Array, "..."]:
    """One over each vector's length; 0 for a vector of length 0, or below 1e-19, whose square is lost."""
    squares = (vectors * vectors).sum(-1)
    some = squares >= jnp.finfo(squares.dtype).tiny
    # Two wheres: without the inner one the gradient at zero is not a number.
    return jnp.where(some, jax.lax.rsqrt(jnp.where(some, squares, 1)), 0)


def match(
    queries: Float[Array | np.ndarray, "query dim"],
    passages: Num[Array | np.ndarray, "passage dim"],
    *,
    k: int,
    normalized: bool = False,
) -> tuple[Float[Array, "query k"], Int[Array, "query k"]]:
    """The k passages most similar to each query, by exact cosine of all pairs.

    Queries and corpus are compared block by block, so memory grows with queries × k, not × passages.

    Args:
        queries: float32, need not be normalized.
        passages: likewise; or bfloat16; or int8, as `quantize` returns them. They are compared in float32.
        k: how many; where the corpus is smaller, all of it.
        normalized: whether the passages are known to have length 1, which saves a second look at each.

    Returns:
        Cosines in falling order, and the passages' int32 indices; of equal cosines the lower index first. A
        vector that is not finite comes last, with the lowest float32.

    Raises:
        ValueError: k is below 1, or there is nothing to compare, or int8 is said to be normalized.
    """
    if normalized and not jnp.issubdtype(passages.dtype, jnp.floating):
        raise ValueError(f"Vectors of {passages.dtype} do not have length 1: leave `normalized` out.")
    if k < 1 or not len(queries) or not len(passages):
        raise ValueError(
            f"k is {k}, with {len(queries)} queries and {len(passages)} passages; none may be 0."
        )
    blocks = [
        _match(
            queries[start : start + BLOCK_QUERIES], passages, k=min(k, len(passages)), normalized=normalized
        )
        for start in range(0, len(queries), BLOCK_QUERIES)
    ]
    scores, indices = map(jnp.concatenate, zip(*blocks, strict=True))
    return scores, indices


def quantize(vectors: Float[Array | np.ndarray, "passage dim"]) -> Int8[Array, "passage dim"]:
    """Vectors in 8 bits, a quarter of the memory: the largest number of each becomes 127, or -127.

    How long a vector was is lost, which a cosine does not ask for. A vector of zeros stays one.
    """
    vectors = jnp.asarray(vectors)
    largest = jnp.abs(vectors).max(-1, keepdims=True)
    return jnp.round(vectors * jnp.where(largest > 0, 127 / largest, 0)).astype(jnp.int8)


@partial(jax.jit, static_argnames=("k", "normalized"))
def _match(queries, passages, *, k, normalized):
    number = len(passages)
    queries = queries * inverse_length(queries)[:, None]

    def compare(some):
        some = some.astype(jnp.float32)
        scores = jnp.einsum("qd,pd->qp", queries, some, precision=jax.lax.Precision.HIGHEST)
        if not normalized:
            scores *= inverse_length(some)[None]
        return jnp.where(jnp.isnan(scores), jnp.finfo(scores.dtype).min, scores)

    if passages.dtype == jnp.float32 and len(queries) * number <= FEW_SCORES:
        return jax.lax.top_k(compare(passages), k)
    block = min(number, max(k, BLOCK_PASSAGES))

    def step(best, start):
        # The last block starts early enough to be whole; what it shares with the one before is masked.
        first = jnp.minimum(start, number - block)
        rows = first + jnp.arange(block)
        scores = compare(jax.lax.dynamic_slice_in_dim(passages, first, block))
        scores, places = jax.lax.top_k(jnp.where(rows[None] < start, -jnp.inf, scores), k)
        # top_k prefers the earlier of two equals, and earlier blocks stand first.
        scores, order = jax.lax.top_k(jnp.concatenate([best[0], scores], 1), k)
        indices = jnp.concatenate([best[1], rows[places]], 1)
        return (scores, jnp.take_along_axis(indices, order, 1)), None

    nothing = jnp.full((len(queries), k), -jnp.inf), jnp.zeros((len(queries), k), jnp.int32)
    return jax.lax.scan(step, nothing, jnp.arange(0, number, block))[0]


@partial(jax.jit, static_argnames=("window", "neighbours"))
def maxsim(
    query: Float[Array | np.ndarray, "query dim"],
    weights: Float[Array | np.ndarray, " query"],
    passages: Float[Array | np.ndarray, "passage row dim"],
    mask: Bool[Array | np.ndarray, "passage row"],
    *,
    window: int = 0,
    neighbours: float = 0.0,
) -> Float[Array, "passage query"]:
    """What each row of a query, a token or a word, adds to each passage's score; their sum is MaxSim.

    Khattab and Zaharia 2020 (arXiv:2004.12832, equation 3), weighted; see `contributions`. Several queries
    are a `jax.vmap` over the first two arguments.

    Args:
        query: float32, need not be normalized.
        weights: of the query's rows; 0 for special tokens and padding.
        passages: likewise, padded to one length.
        mask: False for rows that cannot be matched: special tokens, punctuation, padding.
        window: see `contributions`.
        neighbours: likewise.
    """
    products = jnp.einsum("qd,ptd->pqt", query, passages, precision=jax.lax.Precision.HIGHEST)
    similarity = products * inverse_length(query)[None, :, None] * inverse_length(passages)[:, None, :]
    one_passage = partial(contributions, window=window, neighbours=neighbours)
    return jax.vmap(one_passage, in_axes=(0, None, 0))(similarity, weights, mask)


def contributions(
    similarity: Float[Array | np.ndarray, "query row"],
    weights: Float[Array | np.ndarray, " query"],
    mask: Bool[Array | np.ndarray, " row"],
    *,
    window: int = 0,
    neighbours: float = 0.0,
) -> Float[Array, " query"]:
    """What each row of a query adds to a passage's score: its weight times its highest similarity.

    With `neighbours`, a match counts for more where the rows before it, and those behind it, match each other
    too: their similarities join in with so much of the weight, so that phrases outdo words, and a text that
    is matched with itself still reaches 1.
    With a `window`, that similarity is the mean of two: the highest anywhere in the passage, and the highest
    among so many neighbouring rows, those in which the query as a whole is matched best. So words that are
    matched close to each other count for more than words scattered over a passage.

    Args:
        similarity: float32, of every row of the query to every row of the passage.
        weights: of the query's rows.
        mask: False for rows of the passage that cannot be matched.
        window: how many rows; 0 for plain MaxSim.
        neighbours: the weight of either neighbour beside that of the match itself; 0 for plain MaxSim.

    Returns:
        -inf for a row with weight where no row of the passage can be matched; 0 for a row without.
    """
    similarity, weights, mask = map(jnp.asarray, (similarity, weights, mask))
    counts = weights > 0
    if neighbours:
        around = jnp.pad(jnp.where(counts[:, None] & mask[None, :], jnp.maximum(similarity, 0), 0), 1)
        similarity = similarity + neighbours * (around[:-2, :-2] + around[2:, 2:])
        beside = jnp.pad(counts, 1).astype(similarity.dtype)
        similarity /= 1 + neighbours * (beside[:-2] + beside[2:])[:, None]
    similarity = jnp.where(mask[None, :], similarity, -jnp.inf)
    best = similarity.max(1, initial=-jnp.inf)
    if window and similarity.shape[1]:
        inside = sliding_max(similarity, window)
        total = jnp.where(counts[:, None], weights[:, None] * inside, 0).sum(0)
        best = (best + inside[:, total.argmax()]) / 2
    return jnp.where(counts, weights * best, 0)


def sliding_max(array: Float[Array, "query row"], window: int) -> Float[Array, "query row"]:
    """The highest of each row and the `window - 1` behind it."""

    def behind(rows, steps):
        return jnp.pad(rows, ((0, 0), (0, steps)), constant_values=-jnp.inf)[:, steps:]

    # `lax.reduce_window` is shorter, and took three times as long.
    width = 1
    while 2 * width <= window:  # twice as far with every step
        array, width = jnp.maximum(array, behind(array, width)), 2 * width
    return jnp.maximum(array, behind(array, window - width)) if window > width else array
