"""Passages spread over the devices of a mesh, of one process or of several."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num

from minqa.similarity import BLOCK_QUERIES, Part, Similarity, best_matches


@dataclass(frozen=True)
class Sharded:
    """Passages spread over devices, for `minqa.match`.

    Attributes:
        array: their vectors, the first axis spread; zeros at its end let all devices hold equally many.
        size: how many passages there are.
    """

    array: Num[Array, "passage dim"]
    size: int

    def __len__(self) -> int:
        return self.size

    def match(self, queries: Num[Array | np.ndarray, "query dim"], *, k: int, similarity: Similarity):
        """What `minqa.match` returns: each device compares its own part, and only the best k travel.

        Raises:
            ValueError: k is below 1, there are no queries, or the array is spread by another axis.
        """
        place = self.array.sharding
        if not isinstance(place, jax.sharding.NamedSharding) or any(place.spec[1:]) or not any(place.spec):
            raise ValueError(
                f"Passages should be spread over devices by their first axis, but are by {place}."
            )
        if k < 1 or not len(queries):
            raise ValueError(f"k is {k}, with {len(queries)} queries; none may be 0.")
        blocks = [
            _match(
                *(queries[start : start + BLOCK_QUERIES], self.array, self.size),
                place=place,
                k=min(k, self.size),
                similarity=similarity,
            )
            for start in range(0, len(queries), BLOCK_QUERIES)
        ]
        scores, indices = map(jnp.concatenate, zip(*blocks, strict=True))
        return scores, indices


def shard(passages: Part | Sequence[Part], mesh: jax.sharding.Mesh) -> Sharded:
    """Spread passages over all devices of a mesh: each takes equally many, in order.

    With several processes, each reads its own devices' part, from arrays that all of them can read.

    Raises:
        ValueError: there are no passages.
    """
    parts = [passages] if isinstance(passages, jax.Array | np.ndarray) else passages
    size = sum(map(len, parts))
    if not size:
        raise ValueError("There are no passages to spread.")
    ends = np.cumsum([len(part) for part in parts])
    share = -(-size // mesh.size)

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
    shape = (share * mesh.size, parts[0].shape[1])
    return Sharded(jax.make_array_from_callback(shape, place, rows), size)


@partial(jax.jit, static_argnames=("place", "k", "similarity"))
def _match(queries, passages, size, *, place, k, similarity):
    axes = place.spec[0]

    def local(queries, passages, size):
        first = jax.lax.axis_index(axes) * len(passages)
        rows = jnp.stack([first, size]).astype(jnp.int32)
        shape = len(queries), k
        none = jnp.full(shape, -jnp.inf), jnp.zeros(shape, jnp.int32)
        best = best_matches(queries, passages, none, rows, k=k, similarity=similarity)
        scores, rows = (jax.lax.all_gather(part, axes, axis=1, tiled=True) for part in best)
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
