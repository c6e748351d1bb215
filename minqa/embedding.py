"""Texts → vectors: batching by length, layer choice, pooling."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from minqa.encoder import Encoder, Pooling, Role
from minqa.errors import InputError
from minqa.tokens import Tokens

# Batches handed to the device before the first result is waited for, so that it works while Python prepares,
# or compiles, the next.
BATCHES_AHEAD = 8


@dataclass(frozen=True)
class Vectors:
    """One text in vector space.

    Attributes:
        tokens: the text as the model read it.
        array: float32 [token, dim], the chosen layer's vector of each token, special tokens included.
        pooled: float32 [dim], the text's one vector.
    """

    tokens: Tokens
    array: Float[np.ndarray, "token dim"]
    pooled: Float[np.ndarray, " pooled_dim"]


def embed(
    encoder: Encoder, texts: Sequence[str], *, layer: int = -1, role: Role | None = None
) -> list[Vectors]:
    """Token vectors and pooled vector of each text, in the order given.

    A text's vectors do not depend on the other texts (up to float32 rounding, below 1e-5).

    Args:
        encoder: as `load` returns it.
        texts: any Unicode; what is over the model's maximum is cut off (`Tokens.truncated` says so).
        layer: 0 is the embeddings, 1 the first layer, -1 the last.
        role: "query" or "passage" picks the prompt that the model wants for it.

    Raises:
        InputError: the model has no such layer.
    """
    tokens = encoder.tokenize(texts, role)
    vectors = {}
    for rows, token_vectors, pooled in _encode_all(encoder, tokens, layer):
        for row, array, one in zip(rows, np.asarray(token_vectors), np.asarray(pooled), strict=True):
            vectors[row] = Vectors(tokens[row], array[: len(tokens[row])], one)
    return [vectors[row] for row in range(len(texts))]


def embed_pooled(
    encoder: Encoder, tokens: Sequence[Tokens], *, progress: Callable[[int], None] = lambda done: None
) -> Float[np.ndarray, "text pooled_dim"]:
    """The pooled vectors alone, for many texts: token vectors never leave the device.

    Args:
        encoder: as `load` returns it.
        tokens: as `Encoder.tokenize` returns them.
        progress: called with the number of texts just embedded.
    """
    vectors: dict[int, np.ndarray] = {}
    for rows, _, pooled in _encode_all(encoder, tokens, layer=-1):
        vectors |= zip(rows, np.asarray(pooled), strict=True)
        progress(len(rows))
    return np.stack([vectors[row] for row in range(len(tokens))])


def pool(vectors: Sequence[Vectors]) -> Float[np.ndarray, "text pooled_dim"]:
    """The pooled vectors of several texts as one array."""
    return np.stack([one.pooled for one in vectors])


@partial(jax.jit, static_argnames=("layer", "pooling"))
def encode(
    model: Callable,
    ids: Int[Array, "batch token ..."],
    mask: Bool[Array, "batch token"],
    pooled_mask: Bool[Array, "batch token"],
    *,
    layer: int,
    pooling: Pooling,
) -> tuple[Float[Array, "batch token dim"], Float[Array, "batch pooled_dim"]]:
    """One batch of token ids → the layer's vectors and their pooled vectors, both float32.

    `mask` is True for real tokens, `pooled_mask` for those that are pooled. Differentiable in `model`.
    """
    with jax.default_matmul_precision("highest"):  # accelerators multiply float32 in fewer bits unless asked
        hidden = model(ids, mask).hidden[layer].astype(jnp.float32)
    return hidden, pool_tokens(hidden, pooled_mask, pooling)


def pool_tokens(
    vectors: Float[Array, "batch token dim"], mask: Bool[Array, "batch token"], pooling: Pooling
) -> Float[Array, "batch pooled_dim"]:
    """Pool the vectors where `mask` is True, as sentence-transformers' Pooling and Normalize do."""
    weights = mask[:, :, None].astype(vectors.dtype)
    count = jnp.maximum(weights.sum(1), 1)
    total = (vectors * weights).sum(1)
    first = jnp.argmax(mask, axis=1)
    modes = {
        "mean": lambda: total / count,
        "mean_sqrt_len_tokens": lambda: total / jnp.sqrt(count),
        "max": lambda: jnp.where(mask[:, :, None], vectors, -jnp.inf).max(1),
        "cls": lambda: vectors[jnp.arange(len(vectors)), first],
    }
    pooled = jnp.concatenate([modes[mode]() for mode in pooling.modes], axis=-1)
    if pooling.normalize:
        pooled /= jnp.maximum(jnp.linalg.norm(pooled, axis=-1, keepdims=True), 1e-12)
    return pooled


def bucket(length: int) -> int:
    """The length that texts of this length are padded to.

    Every padded length is one more shape to compile: 16 of them up to 512 tokens, in steps that grow.
    """
    length = max(length, 1)
    step = max(16, 2 ** (length - 1).bit_length() // 8)
    return -(-length // step) * step


def _encode_all(encoder: Encoder, tokens: Sequence[Tokens], layer: int) -> Iterator[tuple]:
    """(rows, token vectors, pooled vectors) of batch after batch, longest texts first."""
    number = encoder.model.num_layers
    if not -number - 1 <= layer <= number:
        raise InputError(f"{encoder.name} has layers 0 to {number}, but layer {layer} was asked for.")
    waiting: deque[tuple] = deque()
    budget = encoder.batch_tokens["cpu" if jax.default_backend() == "cpu" else "accelerator"]
    for rows, length in _batches([len(one) for one in tokens], budget):
        length = min(length, encoder.tokenizer.max_tokens)
        ids = np.zeros((len(rows), length, *tokens[rows[0]].ids.shape[1:]), np.int32)
        mask = np.zeros((len(rows), length), bool)
        pooled_mask = np.zeros((len(rows), length), bool)
        for i, row in enumerate(rows):
            one = tokens[row]
            ids[i, : len(one)] = one.ids
            mask[i, : len(one)] = True
            pooled_mask[i, 0 if encoder.pooling.include_prompt else one.prompt_tokens : len(one)] = True
        outputs = encode(encoder.model, ids, mask, pooled_mask, layer=layer, pooling=encoder.pooling)
        waiting.append((rows, *outputs))
        if len(waiting) > BATCHES_AHEAD:
            yield waiting.popleft()
    yield from waiting


def _batches(lengths: Sequence[int], budget: int) -> Iterator[tuple[list[int], int]]:
    """Group texts of like length: (their positions, padded length), rows a power of two, none of padding."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        length = bucket(lengths[order[start]])
        rows = min(len(order) - start, max(1, budget // length))
        rows = 2 ** (rows.bit_length() - 1)
        yield order[start : start + rows], length
        start += rows
