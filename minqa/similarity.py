"""Vectors → similarities: pure array functions."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int8, Num

# How much of the corpus, and how many queries, `match` compares at once: a block of passages that stays in
# a processor's cache is read from memory only once.
BLOCK_PASSAGES = 4096
BLOCK_QUERIES = 1024
# Parts of a corpus that are read ahead.
PARTS_AHEAD = 8


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


@dataclass(frozen=True)
class Sharded:
    """Passages spread over devices.

    Attributes:
        array: their vectors, the first axis spread; zeros stand at its end, so that all devices hold as many.
        size: how many passages there are.
    """

    array: Num[Array, "passage dim"]
    size: int


Part: TypeAlias = Num[Array | np.ndarray, "_ dim"]
Searchable: TypeAlias = Part | Sequence[Part] | Sharded


def match(
    queries: Float[Array | np.ndarray, "query dim"],
    passages: Searchable,
    *,
    k: int,
    normalized: bool = False,
    approximate: float | None = None,
) -> tuple[Float[Array, "query k"], Int[Array, "query k"]]:
    """The k passages most similar to each query, by exact cosine of all pairs.

    Queries and corpus are compared block by block, so memory grows with queries × k, not × passages. All
    blocks have one shape, so that a cosine has the same bits wherever its passage lies: in one array, in
    several, or on any number of devices.

    Args:
        queries: float32, need not be normalized.
        passages: likewise; or bfloat16; or int8, as `quantize` returns them. They are compared in float32.
            Several arrays, such as an index's memory-mapped shards, are read one after the other, and only
            as much of them is held as is being compared. Of what is spread over devices, as `shard` does it,
            each device compares its own part, and only the best k of each travel.
        k: how many; where the corpus is smaller, all of it.
        normalized: whether the passages are known to have length 1, which saves a second look at each.
        approximate: the recall that will do, above 0 and at most 1, for `jax.lax.approx_max_k` (Chern et al.
            2022, arXiv:2206.14286) to choose from each block; None for exact. It is faster on TPU alone.

    Returns:
        Cosines in falling order, and the passages' int32 indices; of equal cosines the lower index first. A
        vector that is not finite comes last, with the lowest float32.

    Raises:
        ValueError: k is below 1, or there is nothing to compare, or int8 is said to be normalized, or
            passages are spread over devices in another way, or `approximate` is no recall.
    """
    kinds, size, parts, place = _parts(passages)
    if normalized and not all(jnp.issubdtype(kind, jnp.floating) for kind in kinds):
        raise ValueError("Vectors of int8 do not have length 1: leave `normalized` out.")
    if approximate is not None and not 0 < approximate <= 1:
        raise ValueError(f"approximate is {approximate}, but a recall is above 0 and at most 1.")
    if k < 1 or not len(queries) or not size:
        raise ValueError(f"k is {k}, with {len(queries)} queries and {size} passages; none may be 0.")
    how = {"k": min(k, size), "normalized": normalized, "approximate": approximate}
    blocks = []
    for start in range(0, len(queries), BLOCK_QUERIES):
        some = queries[start : start + BLOCK_QUERIES]
        if place is None:
            blocks.append(_match_parts(some, parts, **how))
        else:
            blocks.append(_match_spread(some, parts[0], size, place=place, **how))
    scores, indices = map(jnp.concatenate, zip(*blocks, strict=True))
    return scores, indices


def shard(passages: Part | Sequence[Part], mesh: jax.sharding.Mesh) -> Sharded:
    """Spread passages over all devices of a mesh, for `match` to search: each takes as many, in order.

    Of several processes each reads its own devices' part, from arrays that all of them can read.

    Args:
        passages: as `match` takes them.
        mesh: of any shape.

    Raises:
        ValueError: there are no passages.
    """
    _, size, parts, _ = _parts(passages)
    if not size:
        raise ValueError("There are no passages to spread.")
    ends = np.cumsum([len(part) for part in parts])
    share = -(-size // mesh.size)

    def rows(place):
        start, stop, _ = place[0].indices(share * mesh.size)
        mine = [
            np.asarray(part[max(start - end + len(part), 0) : stop - end + len(part)])
            for part, end in zip(parts, ends, strict=True)
            if start < end and stop > end - len(part)
        ]
        held = sum(map(len, mine))
        nothing = np.zeros((stop - start - held, parts[0].shape[1]), parts[0].dtype)
        return np.concatenate([*mine, nothing])

    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(mesh.axis_names))
    shape = (share * mesh.size, parts[0].shape[1])
    return Sharded(jax.make_array_from_callback(shape, place, rows), size)


def quantize(vectors: Float[Array | np.ndarray, "passage dim"]) -> Int8[Array, "passage dim"]:
    """Vectors in 8 bits, a quarter of the memory: the largest number of each becomes 127, or -127.

    How long a vector was is lost, which a cosine does not ask for. A vector of zeros stays one.
    """
    vectors = jnp.asarray(vectors)
    largest = jnp.abs(vectors).max(-1, keepdims=True)
    return jnp.round(vectors * jnp.where(largest > 0, 127 / largest, 0)).astype(jnp.int8)


def _parts(passages: Searchable) -> tuple[set, int, Sequence[Part], jax.sharding.NamedSharding | None]:
    """The passages' dtypes and number, the arrays that hold them, and how these are spread, if they are."""
    if isinstance(passages, Sharded):
        kinds, _, parts, spread = _parts(passages.array)
        return kinds, passages.size, parts, spread
    if not isinstance(passages, jax.Array | np.ndarray):
        known = [(part.dtype, len(part)) for part in passages]
        return {kind for kind, _ in known}, sum(length for _, length in known), passages, None
    # What is being traced lies nowhere yet.
    place: Any = None if isinstance(passages, jax.core.Tracer | np.ndarray) else passages.sharding
    named = isinstance(place, jax.sharding.NamedSharding) and any(place.spec)
    if place is None or (len(place.device_set) == 1 and not named):
        return {passages.dtype}, len(passages), [passages], None
    if not isinstance(place, jax.sharding.NamedSharding) or any(place.spec[1:]) or not any(place.spec):
        raise ValueError(f"Passages should be spread over devices by their first axis, but are by {place}.")
    return {passages.dtype}, len(passages), [passages], place


def _match_parts(queries, parts, **how):
    """Part after part, each compared with the best so far.

    Every length is compiled, so what is left of a part behind its last block is filled up to one.
    """
    best, first = _nothing(len(queries), how["k"]), 0
    waiting = deque(maxlen=PARTS_AHEAD)
    for part in parts:
        rest = len(part) % BLOCK_PASSAGES if isinstance(part, np.ndarray) else 0
        whole, end = len(part) - rest, first + len(part)
        if whole:
            piece = part[:whole] if rest else part
            best = _best(queries, piece, best, np.array([first, end], np.int32), **how)
        if rest:
            piece = np.zeros((BLOCK_PASSAGES, part.shape[1]), part.dtype)
            piece[:rest] = part[whole:]
            best = _best(queries, piece, best, np.array([first + whole, end], np.int32), **how)
        first = end
        if len(waiting) == PARTS_AHEAD:
            jax.block_until_ready(waiting[0])
        waiting.append(best)
    return best


@partial(jax.jit, static_argnames=("place", "k", "normalized", "approximate"))
def _match_spread(queries, passages, size, *, place, k, **how):
    axes = place.spec[0]

    def local(queries, passages, size):
        first = jax.lax.axis_index(axes) * len(passages)
        rows = jnp.stack([first, size]).astype(jnp.int32)
        found = _best(queries, passages, _nothing(len(queries), k), rows, k=k, **how)
        scores, rows = (jax.lax.all_gather(one, axes, axis=1, tiled=True) for one in found)
        scores, order = jax.lax.top_k(scores, k)
        return scores, jnp.take_along_axis(rows, order, 1)

    everywhere, spread = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec(axes)
    return jax.shard_map(
        local,
        mesh=place.mesh,
        in_specs=(everywhere, spread, everywhere),
        out_specs=everywhere,
        check_vma=False,  # what all devices gathered is the same, which JAX cannot know
    )(queries, passages, size)


def _nothing(queries, k):
    return np.full((queries, k), -np.inf, np.float32), np.zeros((queries, k), np.int32)


@partial(jax.jit, static_argnames=("k", "normalized", "approximate"))
def _best(queries, passages, best, rows, *, k, normalized, approximate):
    """The best k of `best` and of passages, the first of which is row `rows[0]` of the corpus.

    Only rows of the corpus below `rows[1]` count.
    """
    queries = queries * inverse_length(queries)[:, None]
    block = -(-k // BLOCK_PASSAGES) * BLOCK_PASSAGES
    first, high = rows
    high = jnp.minimum(high, first + len(passages))
    if len(passages) < block:
        passages = jnp.pad(passages, ((0, block - len(passages)), (0, 0)))

    def choose(scores):
        if approximate is None:
            return jax.lax.top_k(scores, k)
        return jax.lax.approx_max_k(scores, k, recall_target=approximate)

    def step(best, start):
        # The last block starts early enough to be whole; what it shares with the one before is masked.
        place = jnp.minimum(start, len(passages) - block)
        some = jax.lax.dynamic_slice_in_dim(passages, place, block).astype(jnp.float32)
        scores = jnp.einsum("qd,pd->qp", queries, some, precision=jax.lax.Precision.HIGHEST)
        if not normalized:
            scores *= inverse_length(some)[None]
        scores = jnp.where(jnp.isnan(scores), jnp.finfo(scores.dtype).min, scores)
        rows = first + place + jnp.arange(block, dtype=jnp.int32)
        counts = (rows >= first + start) & (rows < high)
        scores, places = choose(jnp.where(counts[None], scores, -jnp.inf))
        # top_k prefers the earlier of two equals, and earlier blocks stand first.
        scores, order = jax.lax.top_k(jnp.concatenate([best[0], scores], 1), k)
        indices = jnp.concatenate([best[1], rows[places]], 1)
        return (scores, jnp.take_along_axis(indices, order, 1)), None

    starts = jnp.arange(0, len(passages), block, dtype=jnp.int32)
    return jax.lax.scan(step, best, starts)[0]


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
