"""Passages made ready to be searched: measured once, in 8 bits, or spread over the devices of a mesh."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int8, Num

from minqa.similarity import MIN_BLOCK, Part, Similarity, best_matches, cosine, dot, inverse_length, match


@dataclass(frozen=True)
class Prepared:
    """Passages on a device, brought to length 1, for `minqa.match` by cosine."""

    array: Float[Array, "passage dim"]

    def __len__(self) -> int:
        return len(self.array)

    def match(self, queries: Num[Array | np.ndarray, "query dim"], *, k: int, similarity: Similarity):
        """What `minqa.match` returns. Raises ValueError for another similarity than cosine."""
        if similarity is not cosine:
            raise ValueError(
                "Prepared passages are searched by cosine: give the array for another similarity."
            )
        return match(queries, self.array, k=k, similarity=_cosine_of_length_1)


def prepare(passages: Num[Array | np.ndarray, "passage dim"]) -> Prepared:
    """Copy passages to the device in float32 and measure them once, where `cosine` does so at each search."""
    return Prepared(_normalized(passages))


@jax.jit
def _normalized(vectors):
    vectors = vectors.astype(jnp.float32)
    return vectors * inverse_length(vectors)[:, None]


def _cosine_of_length_1(query, passage):
    return dot(query * inverse_length(query)[:, None], passage)


def quantize(
    vectors: Float[Array | np.ndarray, "row dim"],
) -> tuple[Int8[Array, "row dim"], Float32[Array, " row"]]:
    """Vectors in 8 bits, the largest number ±127, and a scale for each: vectors ≈ bits * scale[:, None].

    Raises:
        ValueError: a number is not finite.
    """
    bits, scale, finite = _quantize(jnp.asarray(vectors, jnp.float32))
    if not isinstance(finite, jax.core.Tracer) and not finite:
        raise ValueError("Vectors to be quantized hold a number that is not finite.")
    return bits, scale


@jax.jit
def _quantize(vectors):
    scale = jnp.maximum(jnp.abs(vectors).max(-1, initial=0), 127 * jnp.finfo(jnp.float32).tiny) / 127
    return jnp.round(vectors / scale[:, None]).astype(jnp.int8), scale, jnp.isfinite(scale).all()


@dataclass(frozen=True)
class Sharded:
    """Passages spread over devices, for `minqa.match`."""

    array: Num[Array, "passage dim"]  # spread by its first axis; zeros at its end let all hold equally many
    size: int  # how many passages there are

    def __len__(self) -> int:
        return self.size

    def match(self, queries: Num[Array | np.ndarray, "query dim"], *, k: int, similarity: Similarity):
        """What `minqa.match` returns: each device compares its own part, and only the best k travel."""
        if k < 1 or not len(queries):
            raise ValueError(f"k is {k}, with {len(queries)} queries; none may be 0.")
        spread: Any = self.array.sharding
        how = {"mesh": spread.mesh, "k": min(k, self.size), "similarity": similarity}
        return _match(queries, self.array, self.size, **how)


def shard(passages: Part | Sequence[Part], mesh: jax.sharding.Mesh) -> Sharded:
    """Spread passages over all devices of a mesh: each takes equally many, in order.

    With several processes, each reads its own devices' part, from arrays that all of them can read.

    Raises:
        ValueError: there are no passages.
    """
    parts = [passages] if isinstance(passages, jax.Array | np.ndarray) else passages
    ends = np.cumsum([len(part) for part in parts])
    if not len(parts) or not ends[-1]:
        raise ValueError("There are no passages to spread.")
    share = -(-ends[-1] // (mesh.size * MIN_BLOCK)) * MIN_BLOCK  # for the same bits as on one device

    def rows(place):
        start, stop, _ = place[0].indices(share * mesh.size)
        held = [
            np.asarray(part[max(start - end + len(part), 0) : stop - end + len(part)])
            for part, end in zip(parts, ends, strict=True)
            if start < end and stop > end - len(part)
        ]
        padding = np.zeros((stop - start - sum(map(len, held)), parts[0].shape[1]), parts[0].dtype)
        return np.concatenate([*held, padding])

    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(mesh.axis_names))
    shape = (int(share) * mesh.size, parts[0].shape[1])
    return Sharded(jax.make_array_from_callback(shape, place, rows), int(ends[-1]))


@partial(jax.jit, static_argnames=("mesh", "k", "similarity"))
def _match(queries, passages, size, *, mesh, k, similarity):
    axes = mesh.axis_names

    def local(queries, passages, size):
        first = jax.lax.axis_index(axes) * len(passages)
        bounds = [(first, first, size)]
        best = best_matches(queries, [passages], bounds=bounds, k=k, similarity=similarity)
        scores, rows = (jax.lax.all_gather(part, axes, axis=1, tiled=True) for part in best)
        scores, order = jax.lax.top_k(scores, k)
        return scores, jnp.take_along_axis(rows, order, 1)

    everywhere, spread = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec(axes)
    places = {"in_specs": (everywhere, spread, everywhere), "out_specs": everywhere}
    # What all devices gathered is the same, which JAX cannot know.
    return jax.shard_map(local, mesh=mesh, **places, check_vma=False)(queries, passages, size)
