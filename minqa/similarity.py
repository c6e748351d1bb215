"""Vectors → similarities: pure array functions."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from minqa.devices import by_device

# What `match` compares at once: everything, if that gives no more similarities than these; else a block of
# passages that stays in a processor's cache, so that memory is read only once, or that fills an accelerator.
# Fewer are padded to a multiple of `MIN_BLOCK`: in products of such shapes a similarity has the same bits.
SIMILARITIES_AT_ONCE, BLOCK_SIMILARITIES = 2**22, 2**26
BLOCK_PASSAGES, MIN_BLOCK, GROUP = 4096, 512, 32  # GROUP: see `_top_k`
BLOCK_QUERIES, PARTS_AHEAD = 1024, 8  # and how many parts of a corpus are read ahead

Vectors: TypeAlias = Float[Array | np.ndarray, "_ dim"]
# A pure function of [query, dim] and [passage, dim] arrays; more is more similar.
Similarity: TypeAlias = Callable[[Any, Any], Float[Array, "query passage"]]


def cosine(query: Vectors, passage: Vectors) -> Float[Array, "query passage"]:
    """Cosine of every pair of vectors up to 1e30; 0 if one is zero, or below 1e-30 in every number."""
    query = query * _inverse_length_of_any(query)[:, None]  # few, so that the fast way gains nothing
    return (dot(query, passage).T * inverse_length(passage)[:, None]).T


def dot(query: Vectors, passage: Vectors) -> Float[Array, "query passage"]:
    """Dot product of every pair of vectors; of vectors of length 1 it is their cosine."""
    # Accelerators multiply float32 in fewer bits unless asked; on CPU few columns are faster than few rows.
    return jnp.einsum("td,qd->tq", passage, query, precision=jax.lax.Precision.HIGHEST).T


def euclidean(query: Vectors, passage: Vectors) -> Float[Array, "query passage"]:
    """The negative Euclidean distance of every pair of vectors: 0 for equal ones."""
    squares = jax.lax.map(lambda vector: ((vector[None, :] - passage) ** 2).sum(1), jnp.asarray(query))
    return -jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)  # gradient 0 at 0


def manhattan(query: Vectors, passage: Vectors) -> Float[Array, "query passage"]:
    """The negative sum of absolute differences of every pair of vectors: 0 for equal ones."""
    return jax.lax.map(lambda vector: -jnp.abs(vector[None, :] - passage).sum(1), jnp.asarray(query))


SIMILARITIES = {"cosine": cosine, "dot": dot, "euclidean": euclidean, "manhattan": manhattan}


def inverse_length(vectors: Vectors) -> Float[Array, " row"]:
    """1 / length of each vector up to 1e30; 0 for one below 1e-30 in every number."""
    squares = jnp.square(vectors).sum(1)
    moderate = ((squares > 1e-30) & (squares < 1e30)).all()  # no square was lost: one look is enough
    return jax.lax.cond(moderate, lambda: jax.lax.rsqrt(squares), lambda: _inverse_length_of_any(vectors))


def _inverse_length_of_any(vectors: Vectors) -> Float[Array, " row"]:
    # A power of two brings each vector's largest number near 1, exactly.
    largest = jax.lax.stop_gradient(jnp.abs(vectors).max(1, initial=0))
    power = jnp.where(largest > 1e-30, 1 / jax.lax.reduce_precision(largest, 8, mantissa_bits=0), 0)
    squares = jnp.square(vectors * power[:, None]).sum(1)
    # Two wheres: without the inner one the gradient at zero is not a number.
    return jnp.where(power > 0, power * jax.lax.rsqrt(jnp.where(power > 0, squares, 1)), 0)


Part: TypeAlias = Num[Array | np.ndarray, "_ dim"]
Searchable: TypeAlias = Part | Sequence[Part] | Any  # which has a method `match`, as `minqa.shard` makes


def match(
    queries: Any, passages: Searchable, *, k: int, similarity: Similarity = cosine
) -> tuple[Float[Array, "*query k"], Int[Array, "*query k"]]:
    """The k passages most similar to each query, by exact comparison of all pairs.

    Memory grows with queries × k, not × passages. On CPU a similarity has the same bits wherever its passage
    lies in NumPy arrays, one or several.

    Args:
        queries: float32 [query, dim], or [dim] for one query.
        passages: float32, bfloat16 or int8 [passage, dim], compared in float32; or a sequence of such arrays,
            as of memory-mapped shards; or what `minqa.prepare` or `minqa.shard` returns.
        k: how many; all of the corpus if that is smaller.
        similarity: compiled once per shape. For vectors of length 1 `dot` is the fastest cosine.

    Returns:
        Similarities in falling order, and the passages' int32 indices; of equals the lower index first. What
        is not a number, or below all float32, comes last, with the lowest float32.

    Raises:
        ValueError: an array has the wrong number of axes, k is below 1, or there is nothing to compare.
    """
    queries = queries if isinstance(queries, jax.Array) else np.asarray(queries, np.float32)
    if queries.ndim == 1:
        return jax.tree.map(lambda best: best[0], match(queries[None], passages, k=k, similarity=similarity))
    if hasattr(passages, "match"):
        return passages.match(queries, k=k, similarity=similarity)
    parts: Any = [passages] if isinstance(passages, jax.Array | np.ndarray) else passages
    if isinstance(passages, list | tuple) and len(passages) and np.ndim(parts[0]) < 2:
        parts = [np.asarray(passages, np.float32)]  # a list of vectors
    shape = parts[0].shape if len(parts) else ()
    if queries.ndim != 2 or (len(parts) and len(shape) != 2):
        raise ValueError(f"match takes [query, dim] and [passage, dim], not {queries.shape} and {shape}.")
    size = sum(map(len, parts))
    if k < 1 or not len(queries) or not size:
        raise ValueError(f"k is {k}, with {len(queries)} queries and {size} passages; none may be 0.")
    blocks = [queries[start : start + BLOCK_QUERIES] for start in range(0, len(queries), BLOCK_QUERIES)]
    # An array on a device is searched in one call, which sends it nothing but the queries.
    find = best_matches if isinstance(passages, jax.Array) else _match_parts
    best = [find(block, parts, k=min(k, size), similarity=similarity) for block in blocks]
    return best[0] if len(best) == 1 else jax.tree.map(lambda *blocks: jnp.concatenate(blocks), *best)


def _match_parts(queries, parts, **how):
    """Part after part. As every length is compiled, NumPy arrays are cut at multiples of `MIN_BLOCK` rows."""
    shape, end = (len(queries), how["k"]), 0
    best = np.full(shape, -np.inf, np.float32), np.zeros(shape, np.int32)
    for number, part in enumerate(parts):
        first, end = end, end + len(part)
        pieces, bounds = [part], [(first, first, end)]
        if isinstance(part, np.ndarray) and (rest := len(part) % MIN_BLOCK):
            # The rest, with rows before it that do not count again or, in a short part, zeros after it.
            short = MIN_BLOCK - len(part)
            last = np.pad(part, ((0, short), (0, 0))) if short > 0 else part[-MIN_BLOCK:]
            pieces = [part[:-rest], last]
            bounds.append((max(end - MIN_BLOCK, first), end - rest, end))
        best = best_matches(queries, pieces, best, np.array(bounds, np.int32), **how)
        if number % PARTS_AHEAD == PARTS_AHEAD - 1:
            jax.block_until_ready(best)
    return best


@partial(jax.jit, static_argnames=("k", "similarity"))
def best_matches(queries, pieces, best=None, bounds=((0, 0, 2**31 - 1),), *, k, similarity):
    """The best k of `best` and of passages in pieces, see `_best_of_piece`; by default all of one piece."""
    best = best or (jnp.full((len(queries), k), -jnp.inf), jnp.zeros((len(queries), k), jnp.int32))
    for piece, bound in zip(pieces, bounds, strict=True):
        best = _best_of_piece(queries, piece, best, bound, k, similarity) if len(piece) else best
    return best


def _best_of_piece(queries, passages, best, bounds, k, similarity):
    """The best k of `best` and of the passages, rows `first` on, of which `low` to below `high` count."""
    first, low, high = bounds
    block = -(-max(k, min(len(passages), BLOCK_PASSAGES)) // MIN_BLOCK) * MIN_BLOCK
    fits = len(queries) * len(passages) <= SIMILARITIES_AT_ONCE
    all_scores = len(passages) * max(64, len(queries))
    number = by_device(cpu=1 if fits else len(passages), accelerator=-(-all_scores // BLOCK_SIMILARITIES))
    block = max(block, -(-len(passages) // number))
    high = jnp.minimum(high, first + len(passages))
    passages = jnp.pad(passages, ((0, max(0, block - len(passages))), (0, 0)))

    def step(best, start):
        # The last block starts early enough to be whole; what it shares with the one before is masked.
        place = jnp.minimum(start, len(passages) - block)
        vectors = jax.lax.dynamic_slice_in_dim(passages, place, block).astype(jnp.float32)
        scores = similarity(queries, vectors)
        scores = jnp.fmax(scores, jnp.finfo(scores.dtype).min)  # NaN is the lowest too
        rows = first + place + jnp.arange(block, dtype=jnp.int32)
        counts = (rows >= jnp.maximum(first + start, low)) & (rows < high)
        scores, places = _top_k(jnp.where(counts[None], scores, -jnp.inf), k)
        # top_k prefers the earlier of two equals, and earlier blocks stand first.
        scores, order = jax.lax.top_k(jnp.concatenate([best[0], scores], 1), k)
        indices = jnp.concatenate([best[1], rows[places]], 1)
        return (scores, jnp.take_along_axis(indices, order, 1)), None

    starts = jnp.arange(0, len(passages), block, dtype=jnp.int32)
    return jax.lax.scan(step, best, starts)[0]


def _top_k(scores: Float[Array, "query passage"], k: int) -> Sequence[Array]:
    """`jax.lax.top_k`, faster for many: the k best lie in the k groups whose best are the best."""
    if scores.shape[1] <= 8 * GROUP * k:
        return jax.lax.top_k(scores, k)
    padded = jnp.pad(scores, ((0, 0), (0, -scores.shape[1] % GROUP)), constant_values=-jnp.inf)
    groups = padded.reshape(len(scores), -1, GROUP)
    chosen = jnp.sort(_top_k(groups.max(2), k)[1], axis=1)  # in their order, which decides between equals
    left = jnp.take_along_axis(groups, chosen[..., None], 1).reshape(len(scores), -1)
    best, places = jax.lax.top_k(left, k)
    return best, jnp.take_along_axis(chosen, places // GROUP, 1) * GROUP + places % GROUP


def maxsim(
    query: Any,
    weights: Any,
    passages: Any,
    mask: Any,
    *,
    comparable: Any = None,
    similarity: Similarity = cosine,
    window: int = 0,
    neighbours: float = 0.0,
) -> Float[Array, "passage query"]:
    """What each row of a query, a token or a word, adds to each passage's score; their sum is MaxSim.

    Khattab and Zaharia 2020 (arXiv:2004.12832, equation 3), weighted. Several queries are a `jax.vmap`.

    Args:
        query: float32 [query, dim].
        weights: float32 [query]; 0 for special tokens and padding.
        passages: float32 [passage, row, dim], padded to one length.
        mask: bool [passage, row], False for rows that match nothing: special tokens, punctuation, padding.
        comparable: bool [passage, query, row], False for pairs that are as similar as to a vector of zeros.
        similarity: compiled once per shape.
        window, neighbours: see `contributions`.

    Raises:
        ValueError: an array has the wrong number of axes.
    """
    arrays = [a if hasattr(a, "ndim") else np.asarray(a) for a in (query, weights, passages, mask)]
    if [array.ndim for array in arrays] != [2, 1, 3, 2]:
        wanted = "query [query, dim], weights [query], passages [passage, row, dim], mask [passage, row]"
        raise ValueError(f"maxsim takes {wanted}, not {', '.join(str(array.shape) for array in arrays)}.")
    return _maxsim(*arrays, comparable, similarity=similarity, window=window, neighbours=neighbours)


@partial(jax.jit, static_argnames=("similarity", "window", "neighbours"))
def _maxsim(query, weights, passages, mask, comparable, *, similarity, window, neighbours):
    number, rows, dim = passages.shape
    values = similarity(query, passages.reshape(number * rows, dim))  # (query, passage * row)
    values = jnp.moveaxis(values.reshape(len(query), number, rows), 0, 1)  # (passage, query, row)
    if comparable is not None:
        values = jnp.where(comparable, values, similarity(query, jnp.zeros((1, dim), query.dtype)))
    one_passage = partial(contributions, window=window, neighbours=neighbours)
    return jax.vmap(one_passage, in_axes=(0, None, 0))(values, weights, mask)


@partial(jax.jit, static_argnames=("window", "neighbours"))
def contributions(
    similarity: Float[Array | np.ndarray, "query row"],
    weights: Float[Array | np.ndarray, " query"],
    mask: Bool[Array | np.ndarray, " row"],
    *,
    window: int = 0,
    neighbours: float = 0.0,
) -> Float[Array, " query"]:
    """What each row of a query adds to a passage's score: its weight times its highest similarity.

    With `neighbours` n, phrases outdo words: the similarity s[q, t] becomes (s[q, t] + n s[q-1, t-1] +
    n s[q+1, t+1]) / (1 + n + n), where neighbours below 0 count as 0, as do those at a masked t±1, and a
    neighbour q±1 without weight is left out of sum and divisor. With a `window` w, words that are matched
    close to each other outdo scattered ones: the highest similarity in the passage becomes its mean with the
    highest among the w consecutive rows in which the query as a whole is matched best. 0 for both is MaxSim.

    Returns:
        0 for a row without weight; -inf for one with weight if no row of the passage can be matched.
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
    """The highest number in each row's window: itself and the `window - 1` after it."""

    def after(rows, steps):
        return jnp.pad(rows, ((0, 0), (0, steps)), constant_values=-jnp.inf)[:, steps:]

    # `lax.reduce_window` is shorter, and took three times as long.
    width = 1
    while 2 * width <= window:  # twice as far with every step
        array, width = jnp.maximum(array, after(array, width)), 2 * width
    return jnp.maximum(array, after(array, window - width)) if window > width else array
