"""Texts → vectors: batches of windows, pooling, and the vectors of words."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import count, cycle
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from minqa.devices import by_device
from minqa.encoder import Encoder, Pooling, Role
from minqa.text import InputError
from minqa.tokens import Text, TextTokenizer, Tokens, tokens_of_words

# Batches handed to the device before the first result is waited for, so that it works while Python does.
BATCHES_AHEAD = 8
BATCH_TOKENS = {"cpu": 256, "accelerator": 16384}  # for a model that does not say what keeps it fastest


@dataclass(frozen=True)
class Vectors:
    """One text in vector space.

    `pooled` is the text's one vector: of the last layer and, if the text is longer than the model's maximum,
    of the window that truncation would keep, as in sentence-transformers; None if it is not known.
    """

    tokens: Tokens
    array: Float[np.ndarray, "token dim"]  # special tokens included
    pooled: Float[np.ndarray, " pooled_dim"] | None
    weights: Float[np.ndarray, " word"]  # how much each counts in a query; 1 in sum, 0 for punctuation
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


def embed(
    encoder: Encoder, texts: Sequence[Text], *, role: Role | None = None, key: Array | None = None
) -> list[Vectors]:
    """Token vectors and pooled vector of each text, in the order given.

    A text's vectors do not depend on the other texts, up to 1e-5. A text that is longer than the model's
    maximum is read window by window.

    Args:
        texts: strings of any Unicode, or lists of words, which are then the words of the text.
        role: "query" or "passage" picks the prompt that the model wants for it.
        key: turns dropout on; None is deterministic.

    Raises:
        InputError: a text, the layer, the centring, or a number that the model computes cannot be used.
    """
    return embed_each([encoder], texts, role=role, key=key)[0]


def embed_each(
    encoders: Sequence[Encoder], texts: Sequence[Text], *, role: Role | None = None, key: Array | None = None
) -> list[list[Vectors]]:
    """`embed` for encoders that differ in layer, centring, weights or statistics alone, in one pass."""
    tokens = encoders[0].tokenize(texts, role)
    layers = tuple(encoder.layer_number for encoder in encoders)
    hidden, pooled = hidden_states(encoders[0], tokens, layers, key=key)
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
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[list[Float[np.ndarray, "layer token dim"]], list[Float[np.ndarray, " pooled_dim"]]]:
    """Hidden states of some layers, counted from 0, and the pooled vector, of each text; see `embed`."""
    hidden, pooled = [np.zeros(0)] * len(tokens), [np.zeros(0)] * len(tokens)
    numbers, prompts = count(), encoder.pooling.include_prompt

    def run(model, batch):
        batch_key = None if key is None else jax.random.fold_in(key, next(numbers))
        return encode(model, batch, layers=layers, pooling=encoder.pooling, key=batch_key)

    for row, result in by_text(encoder.model, encoder.tokenizer, tokens, run, include_prompt=prompts):
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


class Batch(NamedTuple):
    """Windows of texts, padded to one length, a row each."""

    ids: Int[np.ndarray, "row token ..."]
    mask: Bool[np.ndarray, "row token"]  # True for real tokens
    pooled_mask: Bool[np.ndarray, "row token"]  # True for tokens that are pooled
    types: Int[np.ndarray, "row token"]  # 0, or 1 in the second text of a pair


def encode(
    model: Callable, batch: Batch, *, layers: tuple[int, ...], pooling: Pooling, key: Array | None = None
) -> tuple[Float[Array, "layer row token dim"], Float[Array, "row pooled_dim"]]:
    """Hidden states of some layers, and pooled vectors of the last, float32; differentiable in the model."""
    output = run_model(model, batch.ids, batch.mask, **({} if key is None else {"key": key}))
    hidden = getattr(output, "hidden", output)
    return _take(hidden, batch.pooled_mask, np.array(layers, np.int32), pooling=pooling)


def run_model(model: Callable, ids, mask, **wanted: Any) -> Any:
    """Call a model. It is compiled here, whole, unless it compiles itself, as `Bert` does layer by layer."""
    call = type(model).__call__ if getattr(model, "compiles_itself", False) else _call
    with jax.default_matmul_precision("highest"):  # accelerators multiply float32 in fewer bits unless asked
        return call(model, ids, mask, **wanted)


@partial(jax.jit, static_argnames=("attention", "units"))
def _call(model, ids, mask, **wanted):
    return model(ids, mask, **wanted)


@partial(jax.jit, static_argnames="pooling")  # one program, whichever the layer
def _take(hidden, pooled_mask, layers, *, pooling):
    return hidden[layers].astype(jnp.float32), pool_tokens(
        hidden[-1].astype(jnp.float32), pooled_mask, pooling
    )


def pool_tokens(
    vectors: Float[Array, "row token dim"], mask: Bool[Array, "row token"], pooling: Pooling
) -> Float[Array, "row pooled_dim"]:
    """Pool the vectors where `mask` is True, as sentence-transformers' Pooling and Normalize do."""
    weights = mask[:, :, None].astype(vectors.dtype)
    count, total = jnp.maximum(weights.sum(1), 1), (vectors * weights).sum(1)
    modes = {
        "mean": lambda: total / count,
        "mean_sqrt_len_tokens": lambda: total / jnp.sqrt(count),
        "max": lambda: jnp.where(mask.any(1)[:, None], jnp.where(weights > 0, vectors, -jnp.inf).max(1), 0),
        "cls": lambda: vectors[jnp.arange(len(vectors)), jnp.argmax(mask, axis=1)],
    }
    pooled = jnp.concatenate([modes[mode]() for mode in pooling.modes], axis=-1)
    if pooling.normalize:
        pooled /= jnp.maximum(jnp.linalg.norm(pooled, axis=-1, keepdims=True), 1e-12)
    return pooled[:, : pooling.truncate_dim]


def by_text(
    model: Callable,
    tokenizer: TextTokenizer,
    tokens: Sequence[Tokens],
    run: Callable[[Any, Batch], tuple[Any, Any]],
    *,
    include_prompt: bool = True,
) -> Iterator[tuple[int, tuple[Float[np.ndarray, "layer token ..."], Any]]]:
    """Run something on all windows of texts, batch by batch, longest first, on all devices in turn.

    `run(model, batch)` returns states [layer, row, token, ...] and pooled vectors [row, dim], or None. As a
    text is done, its number and its result are yielded: its windows' states, joined, and its pooled vector.
    """
    places = [(row, window) for row, text in enumerate(tokens) for window in range(len(text.windows))]
    places.sort(key=lambda place: -tokens[place[0]].windows[place[1]])
    budget = by_device(**getattr(model, "BATCH_TOKENS", BATCH_TOKENS))
    copies, waiting, start = cycle(_copies(model)), deque[Any](), 0
    parts: dict[int, dict[int, tuple]] = {}
    while start < len(places) or waiting:
        if start < len(places) and len(waiting) <= BATCHES_AHEAD:
            row, window = places[start]
            length = min(padded_length(tokens[row].windows[window]), tokenizer.max_tokens)
            number = min(len(places) - start, max(1, budget // length))
            batch = places[
                start : start + 2 ** (number.bit_length() - 1)
            ]  # few shapes, and no row of padding
            inputs = as_batch([(tokens[row], window) for row, window in batch], length, include_prompt)
            waiting.append((batch, run(next(copies), inputs)))
            start += len(batch)
            continue
        batch, (states, pooled) = waiting.popleft()
        states, pooled = np.asarray(states), pooled if pooled is None else np.asarray(pooled)
        for i, (row, window) in enumerate(batch):
            windows, done = tokens[row].windows, parts.setdefault(row, {})
            done[window] = states[:, i, : windows[window]], pooled if pooled is None else pooled[i]
            if len(done) == len(windows):
                joined = np.concatenate([done[window][0] for window in range(len(windows))], axis=1)
                yield row, (joined, parts.pop(row)[tokens[row].pooled_window][1])


def as_batch(places: Sequence[tuple[Tokens, int]], length: int, include_prompt: bool = True) -> Batch:
    """Windows of texts, each given as the text and the window's number, padded to a length."""
    shape = len(places), length
    ids = np.zeros((*shape, *places[0][0].ids.shape[1:]), np.int32)
    batch = Batch(ids, np.zeros(shape, bool), np.zeros(shape, bool), np.zeros(shape, np.int32))
    for i, (text, window) in enumerate(places):
        start, size = sum(text.windows[:window]), text.windows[window]
        batch.ids[i, :size] = text.ids[start : start + size]
        batch.types[i, :size] = text.types[start : start + size]
        batch.mask[i, :size] = True
        batch.pooled_mask[i, 0 if include_prompt or window else text.prompt_tokens : size] = True
    return batch


def padded_length(length: int, steps: int = 8) -> int:
    """The length that arrays are padded to: a multiple of 1/steps of the next power of two, at least 16.

    Each is one more shape to compile: 16 up to 512 in 8 steps, 6 in 1 step.
    """
    step = max(16, 2 ** (max(length, 1) - 1).bit_length() // steps)
    return -(-max(length, 1) // step) * step


def pad(array: np.ndarray, *lengths: int) -> np.ndarray:
    """The array, its first axes padded with zeros to these lengths."""
    return pad_all([array], *lengths)[0]


def pad_all(arrays: Sequence[np.ndarray], *lengths: int, value: float = 0) -> np.ndarray:
    """Arrays of several sizes as one, their first axes padded to these lengths."""
    padded = np.full((len(arrays), *lengths, *arrays[0].shape[len(lengths) :]), value, arrays[0].dtype)
    for place, array in zip(padded, arrays, strict=True):
        place[tuple(map(slice, array.shape))] = array
    return padded


def _copies(model: Any) -> list[Any]:
    """The model on each device of this process, a copy on each but the one it is on."""
    for known, copies in _recent:
        if known is model:
            return copies
    copies = [jax.device_put(model, device) for device in jax.local_devices()]
    _recent.append((model, copies))
    return copies


_recent: deque[tuple[Any, list[Any]]] = deque(maxlen=2)  # models that ran last, with their copies
