"""Passages spread over the devices of a mesh, of one process or of several."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num

from minqa.similarity import Part, Similarity, best_matches


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
    share = -(-ends[-1] // mesh.size)

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
        rows = jnp.stack([first, first, size]).astype(jnp.int32)
        shape = len(queries), k
        none = jnp.full(shape, -jnp.inf), jnp.zeros(shape, jnp.int32)
        best = best_matches(queries, passages, none, rows, k=k, similarity=similarity)
        scores, rows = (jax.lax.all_gather(part, axes, axis=1, tiled=True) for part in best)
        scores, order = jax.lax.top_k(scores, k)
        return scores, jnp.take_along_axis(rows, order, 1)

    everywhere, spread = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec(axes)
    places = {"in_specs": (everywhere, spread, everywhere), "out_specs": everywhere}
    # What all devices gathered is the same, which JAX cannot know.
    return jax.shard_map(local, mesh=mesh, **places, check_vma=False)(queries, passages, size)
