"""Texts → vectors: batching by length, layer choice, centring, pooling."""

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from minqa.encoder import Encoder, Pooling, Role
from minqa.statistics import Measure, Statistics, centred
from minqa.tokens import Tokens

# Batches handed to the device before the first result is waited for, so that it works while Python prepares,
# or compiles, the next.
BATCHES_AHEAD = 8


@dataclass(frozen=True)
class Vectors:
    """One text in vector space.

    Attributes:
        tokens: the text as the model read it.
        array: float32 [token, dim], the vector of each token, special tokens included.
        pooled: float32 [dim], the text's one vector: of the last layer and, where the text is longer than
            the model's maximum, of its first window alone, as sentence-transformers has it. None where the
            token vectors alone were read from an index.
    """

    tokens: Tokens
    array: Float[np.ndarray, "token dim"]
    pooled: Float[np.ndarray, " pooled_dim"] | None

    @cached_property
    def words(self) -> Float[np.ndarray, "word dim"]:
        """The vector of each word, the mean of its tokens'."""
        return merge_words(self.array, self.tokens)


def embed(
    encoder: Encoder,
    texts: Sequence[str],
    *,
    role: Role | None = None,
    measure: Measure = Measure(),  # noqa: B008, it is frozen
    statistics: Statistics | None = None,
) -> list[Vectors]:
    """Token vectors and pooled vector of each text, in the order given.

    A text's vectors do not depend on the other texts (up to float32 rounding, below 1e-5). A text that is
    longer than the model's maximum is read window by window.

    Args:
        encoder: as `load` returns it.
        texts: any Unicode.
        role: "query" or "passage" picks the prompt that the model wants for it.
        measure: names the layers and the centring.
        statistics: of the corpus, for the centring.

    Raises:
        InputError: the model has no such layer, or the centring needs statistics and there are none.
    """
    tokens = encoder.tokenize(texts, role)
    layers = measure.layers_of(encoder.model.num_layers)
    return [
        Vectors(one, centred(hidden, measure, statistics), pooled)
        for one, hidden, pooled in zip(tokens, *embed_layers(encoder, tokens, layers), strict=True)
    ]


def embed_layers(
    encoder: Encoder,
    tokens: Sequence[Tokens],
    layers: tuple[int, ...],
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[list[Float[np.ndarray, "layer token dim"]], list[Float[np.ndarray, " pooled_dim"]]]:
    """The token vectors of several layers, and the pooled vector, of each text; see `embed_pooled`."""
    windows: dict[tuple[int, int], np.ndarray] = {}
    pooled: dict[int, np.ndarray] = {}
    run = partial(encode, layers=layers, pooling=encoder.pooling)
    for places, outputs in encode_all(encoder, tokens, run):
        hidden, vectors = map(np.asarray, outputs)
        for i, (row, window) in enumerate(places):
            windows[row, window] = hidden[:, i, : tokens[row].windows[window]]
            if window == 0:
                pooled[row] = vectors[i]
        progress(sum(window == 0 for _, window in places))
    texts = range(len(tokens))
    joined = [
        np.concatenate([windows[row, i] for i in range(len(tokens[row].windows))], axis=1) for row in texts
    ]
    return joined, [pooled[row] for row in texts]


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
    # The last layer goes along, unread, so that `embed` finds its program compiled.
    run = partial(encode, layers=(encoder.model.num_layers,), pooling=encoder.pooling)
    for places, (_, pooled) in encode_all(encoder, tokens, run, windows=1):
        vectors |= zip([row for row, _ in places], np.asarray(pooled), strict=True)
        progress(len(places))
    return np.stack([vectors[row] for row in range(len(tokens))])


def merge_words(array: Float[np.ndarray, "token dim"], tokens: Tokens) -> Float[np.ndarray, "word dim"]:
    """The vector of each word, the mean of its tokens'."""
    real = np.flatnonzero(tokens.word >= 0)
    first = np.diff(tokens.word[real], prepend=-1) > 0
    words = array[real[first]]
    further = real[~first]  # most words are one token
    np.add.at(words, tokens.word[further], array[further])
    counts = np.bincount(tokens.word[real], minlength=len(words)).astype(array.dtype)
    several = counts > 1
    words[several] /= counts[several, None]
    return words


def pool(vectors: Sequence[Vectors]) -> Float[np.ndarray, "text pooled_dim"]:
    """The pooled vectors of several texts as one array. Raises ValueError where one has none."""
    pooled = [one.pooled for one in vectors if one.pooled is not None]
    if len(pooled) < len(vectors):
        raise ValueError("Vectors that were read from an index have no pooled vector of their own.")
    return np.stack(pooled)


def encode(
    model: Callable,
    ids: Int[Array | np.ndarray, "batch token ..."],
    mask: Bool[Array | np.ndarray, "batch token"],
    pooled_mask: Bool[Array | np.ndarray, "batch token"],
    *,
    layers: tuple[int, ...],
    pooling: Pooling,
) -> tuple[Float[Array, "layer batch token dim"], Float[Array, "batch pooled_dim"]]:
    """One batch of token ids → the vectors of some layers, and the pooled vectors of the last, all float32.

    `mask` is True for real tokens, `pooled_mask` for those that are pooled. Differentiable in `model`, which
    compiles itself, whole or in parts.
    """
    with jax.default_matmul_precision("highest"):  # accelerators multiply float32 in fewer bits unless asked
        hidden = model(ids, mask).hidden
    return _take(hidden, pooled_mask, np.array(layers, np.int32), pooling=pooling)


@partial(jax.jit, static_argnames="pooling")  # one program, whichever the layer
def _take(hidden, pooled_mask, layers, *, pooling):
    pooled = pool_tokens(hidden[-1].astype(jnp.float32), pooled_mask, pooling)
    return hidden[layers].astype(jnp.float32), pooled


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


def encode_all(
    encoder: Encoder, tokens: Sequence[Tokens], run: Callable, *, windows: int | None = None
) -> Iterator[tuple[list[tuple[int, int]], Any]]:
    """(places, what `run` made of them) of batch after batch, longest first.

    Args:
        encoder: as `load` returns it.
        tokens: as `Encoder.tokenize` returns them.
        run: called with a model, ids, mask and the mask of what is pooled, as `encode` is.
        windows: of each text the first so many are read; None reads all of them.

    A place is the number of a text and that of a window of it, in the order of the batch's rows.
    """
    places = [(row, i) for row, one in enumerate(tokens) for i in range(len(one.windows))[:windows]]
    waiting: deque[tuple] = deque()
    lengths = [tokens[row].windows[window] for row, window in places]
    models = itertools.cycle(encoder.replicas)
    for batch, length in batches(lengths, encoder.batch_tokens):
        some = [places[place] for place in batch]
        waiting.append((some, run(next(models), *as_batch(encoder, tokens, some, length))))
        if len(waiting) > BATCHES_AHEAD:
            yield waiting.popleft()
    yield from waiting


def as_batch(
    encoder: Encoder, tokens: Sequence[Tokens], places: Sequence[tuple[int, int]], length: int
) -> tuple[
    Int[np.ndarray, "batch token ..."], Bool[np.ndarray, "batch token"], Bool[np.ndarray, "batch token"]
]:
    """Ids, mask, and mask of what is pooled, of windows of texts, padded to one length; see `encode_all`."""
    length = min(length, encoder.tokenizer.max_tokens)
    ids = np.zeros((len(places), length, *tokens[0].ids.shape[1:]), np.int32)
    mask = np.zeros((len(places), length), bool)
    pooled_mask = np.zeros((len(places), length), bool)
    for i, (row, window) in enumerate(places):
        one = tokens[row]
        start, count = sum(one.windows[:window]), one.windows[window]
        ids[i, :count] = one.ids[start : start + count]
        mask[i, :count] = True
        pooled_mask[i, 0 if encoder.pooling.include_prompt else one.prompt_tokens : count] = True
    return ids, mask, pooled_mask


def batches(lengths: Sequence[int], batch_tokens: Mapping[str, int]) -> Iterator[tuple[list[int], int]]:
    """Group texts of like length: (their positions, padded length), rows a power of two, none of padding.

    Args:
        lengths: of the texts, in tokens.
        batch_tokens: how many tokens to take at once on "cpu" and on an "accelerator".
    """
    budget = batch_tokens["cpu" if jax.default_backend() == "cpu" else "accelerator"]
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        length = bucket(lengths[order[start]])
        rows = min(len(order) - start, max(1, budget // length))
        rows = 2 ** (rows.bit_length() - 1)
        yield order[start : start + rows], length
        start += rows
