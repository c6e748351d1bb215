"""Texts → vectors: pooling, and the vectors of words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import count
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from minqa.batches import MAX_SEGMENTS, Batch, by_text, packs, run_model
from minqa.encoder import Encoder, Pooling, Role
from minqa.text import InputError
from minqa.tokens import Text, Tokens, tokens_of_words


@dataclass(frozen=True)
class Vectors:
    """One text in vector space.

    `pooled` is the text's one vector: of the last layer and, if the text is longer than the model's maximum,
    of the window that truncation would keep, as in sentence-transformers; None if it is not known.
    """

    tokens: Tokens
    array: Float[np.ndarray, "token dim"]  # special tokens included
    pooled: Float[np.ndarray, " pooled_dim"] | None
    weights: Float[np.ndarray, " word"]  # how much each counts in a query, see `Encoder.word_weights`
    baseline: float = 0.0  # the score of unrelated texts
    identical: float = 1.0  # the score of a text with itself

    @classmethod
    def of(cls, words: Sequence[str], array: Any) -> "Vectors":
        """Vectors from elsewhere, float [word, dim]; all words but punctuation count alike."""
        array = np.asarray(array, np.float32)
        if array.ndim != 2 or len(array) != len(words):
            raise ValueError(f"{len(words)} words need an array [word, dim], not {array.shape}.")
        tokens = tokens_of_words(words)
        return cls(tokens, array, None, tokens.is_word / np.float32(max(tokens.is_word.sum(), 1)))

    @cached_property
    def words(self) -> Float[np.ndarray, "word dim"]:
        """The vector of each word, the mean of its tokens'."""
        return word_means(self.array, self.tokens)

    @property
    def rows(self) -> Float[np.ndarray, "row dim"]:
        """The vectors that are compared: the words' or, in late interaction, the tokens'."""
        return self.words if self.tokens.scored is None else self.array

    @property
    def row_weights(self) -> Float[np.ndarray, " row"]:
        """How much each row counts in a query."""
        return self.weights if self.tokens.scored is None else self.tokens.scored


def embed(
    encoder: Encoder,
    texts: Sequence[Text],
    *,
    role: Role | None = None,
    key: Array | None = None,
    mesh: Mesh | None = None,
) -> list[Vectors]:
    """Token vectors and pooled vector of each text, in the order given.

    A text's vectors do not depend on the other texts, up to 1e-5. A text that is longer than the model's
    maximum is read window by window.

    Args:
        texts: strings of any Unicode, or lists of words, which are then the words of the text.
        role: "query" or "passage" picks the prompt that the model wants for it.
        key: turns dropout on; None is deterministic.
        mesh: devices to lay batches over; None is all of this process.

    Raises:
        InputError: a text, the layer, the centring, or a number that the model computes cannot be used.
    """
    return embed_each([encoder], texts, role=role, key=key, mesh=mesh)[0]


def embed_each(
    encoders: Sequence[Encoder], texts: Sequence[Text], *, role: Role | None = None, **how: Any
) -> list[list[Vectors]]:
    """`embed` for encoders that differ in layer, centring, weights or statistics alone, in one pass."""
    tokens = encoders[0].tokenize(texts, role)
    layers = tuple(encoder.layer_number for encoder in encoders)
    hidden, pooled = hidden_states(encoders[0], tokens, layers, **how)
    vectors: list[list[Vectors]] = [[] for _ in encoders]
    for text, states, vector in zip(tokens, hidden, pooled, strict=True):
        for view, encoder, state in zip(vectors, encoders, states, strict=True):
            view.append(as_vectors(encoder, text, state, vector))
    return vectors


def as_vectors(encoder: Encoder, tokens: Tokens, hidden: np.ndarray, pooled: Any = None) -> Vectors:
    """The vectors of a text whose hidden states at the encoder's layer, float32 [token, dim], are known."""
    return Vectors(tokens, encoder.centred(hidden), pooled, encoder.word_weights(tokens), *encoder.scale)


def hidden_states(
    encoder: Encoder,
    tokens: Sequence[Tokens],
    layers: tuple[int, ...],
    *,
    key: Array | None = None,
    mesh: Mesh | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[list[Float[np.ndarray, "layer token dim"]], list[Float[np.ndarray, " pooled_dim"]]]:
    """Hidden states of some layers, counted from 0, and the pooled vector, of each text; see `embed`."""
    hidden, pooled = [np.zeros(0)] * len(tokens), [np.zeros(0)] * len(tokens)
    numbers, prompts = count(), encoder.pooling.include_prompt

    def run(model, batch):
        batch_key = None if key is None else jax.random.fold_in(key, next(numbers))
        return encode(model, batch, layers=layers, pooling=encoder.pooling, key=batch_key)

    results = by_text(encoder.model, encoder.tokenizer, tokens, run, include_prompt=prompts, mesh=mesh)
    for row, result in results:
        hidden[row], pooled[row] = result
        if not all(np.isfinite(array).all() for array in result):
            raise InputError(f"{encoder.name} computes numbers that are not finite: are its weights broken?")
        progress(1)
    return hidden, pooled


def embed_pooled(
    encoder: Encoder, tokens: Sequence[Tokens], *, progress: Callable[[int], None] = lambda done: None
) -> Float[np.ndarray, "text pooled_dim"]:
    """The pooled vectors alone: token vectors never leave the device; see `hidden_states`."""
    return np.stack(hidden_states(encoder, tokens, (), progress=progress)[1])


def pool(vectors: Sequence[Vectors]) -> Float[np.ndarray, "text pooled_dim"]:
    """The pooled vectors of several texts as one array. Raises ValueError if one of them has none."""
    pooled = [text.pooled for text in vectors if text.pooled is not None]
    if len(pooled) < len(vectors):
        raise ValueError("Vectors that were read from an index have no pooled vector of their own.")
    return np.stack(pooled)


def word_means(array: Float[np.ndarray, "token ..."], tokens: Tokens) -> Float[np.ndarray, "word ..."]:
    """The mean over each word's tokens; 0 for a word without one."""
    real = np.flatnonzero(tokens.word >= 0)
    present, starts, counts = np.unique(tokens.word[real], return_index=True, return_counts=True)
    words = np.zeros((len(tokens.words), *array.shape[1:]), array.dtype)
    counts = counts.reshape(-1, *[1] * (array.ndim - 1)).astype(array.dtype)
    words[present] = np.add.reduceat(array[real], starts, axis=0) / counts  # a word's tokens stand together
    return words


def encode(
    model: Callable, batch: Batch, *, layers: tuple[int, ...], pooling: Pooling, key: Array | None = None
) -> tuple[Float[Array, "layer row token dim"], Float[Array, "row segment pooled_dim"]]:
    """Hidden states of some layers, and pooled vectors of the last, float32; differentiable in the model."""
    output = run_model(model, batch, **({} if key is None else {"key": key}))
    hidden = getattr(output, "hidden", output)
    number = MAX_SEGMENTS if packs(model) else 1
    arrays = hidden, getattr(model, "after_pooling", ()), batch.pooled, batch.positions
    with jax.default_matmul_precision("highest"):
        return _take(*arrays, np.array(layers, np.int32), number=number, pooling=pooling)


@partial(jax.jit, static_argnames=("number", "pooling"))  # one program, whichever the layer
def _take(hidden, dense, segments, positions, layers, *, number, pooling):
    pool = jax.vmap(partial(pool_tokens, number=number, modes=pooling.modes))
    pooled = pool(hidden[-1].astype(jnp.float32), segments, positions)
    for layer in dense:
        pooled = layer(pooled).astype(jnp.float32)
    if pooling.normalize:
        pooled /= jnp.maximum(jnp.linalg.norm(pooled, axis=-1, keepdims=True), 1e-12)
    return hidden[layers].astype(jnp.float32), pooled[..., : pooling.truncate_dim]


def pool_tokens(
    vectors: Float[Array, "token dim"],
    segments: Int[Array, " token"],
    positions: Int[Array, " token"],
    *,
    number: int,
    modes: Sequence[str],
) -> Float[Array, "{number} pooled_dim"]:
    """Pool segments 1 to `number` of a row, as sentence-transformers' Pooling does."""
    each = partial(jax.ops.segment_sum, segment_ids=segments, num_segments=number + 1)
    count, total = each(jnp.ones(len(vectors)))[:, None], each(vectors)
    weights = (positions + 1).astype(jnp.float32)[:, None]
    is_in = segments[None, :] == jnp.arange(number + 1)[:, None]
    by_mode = {
        "mean": lambda: total / jnp.maximum(count, 1),
        "mean_sqrt_len_tokens": lambda: total / jnp.sqrt(jnp.maximum(count, 1)),
        "max": lambda: jnp.where(count > 0, jax.ops.segment_max(vectors, segments, number + 1), 0),
        "cls": lambda: vectors[is_in.argmax(1)],
        "weightedmean": lambda: each(vectors * weights) / jnp.maximum(each(weights), 1e-9),
        "lasttoken": lambda: vectors[len(vectors) - 1 - is_in[:, ::-1].argmax(1)],
    }
    return jnp.concatenate([by_mode[mode]() for mode in modes], axis=-1)[1:]  # 0 is not pooled
