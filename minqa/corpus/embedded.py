"""Passages → their vectors, as a shard keeps them."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, TypeAlias

import numpy as np

from minqa.batches import pad, padded_length
from minqa.corpus.shards import OWN_COLUMNS, PASSAGE_COLUMNS, Shard
from minqa.corpus.vectors import quantize
from minqa.embedding import hidden_states
from minqa.encoder import Encoder
from minqa.text import Passage
from minqa.tokens import Tokens

# Called with the number of passages just embedded, and the part of them that is done, 0 to 1.
Progress = Callable[[int, float], None]
# Of each text the pooled vector and, if they are wanted, the token vectors in 8 bits.
VectorsByText: TypeAlias = dict[str, tuple[np.ndarray, Any]]
# Passages that are embedded at once, whose token vectors are in memory in 32 bits.
PASSAGES_EMBEDDED_AT_ONCE = 1024


def vectors_of(shard: Shard, store_tokens: bool) -> VectorsByText:
    """Those that are in a shard; none if token vectors are wanted and are not stored."""
    if not shard.passages or (store_tokens and not shard.has_tokens):
        return {}
    starts = shard.column("token_start").to_numpy()[1:]
    tokens = np.split(shard.tokens, starts) if store_tokens else [None] * shard.passages
    vectors = zip(shard.vectors, tokens, strict=True)
    return dict(zip(shard.column("text").to_pylist(), vectors, strict=True))


def embed_passages(
    encoder: Encoder,
    passages: Sequence[Passage],
    known: VectorsByText,
    store_tokens: bool,
    progress: Progress,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `write_shard_files` takes: the columns of a shard's Parquet file, and its arrays.

    Args:
        known: vectors that need not be computed again.
    """
    texts = [passage.text for passage in passages]
    read = [text.rstrip() for text in texts]  # as `ask` does: to some tokenizers a space is a token
    tokens = dict(zip(texts, encoder.tokenize(read, "passage"), strict=True))
    new = {text: tokens[text] for text in tokens if text not in known}
    vectors = known | _embed(encoder, new, store_tokens, progress)
    lengths = np.array([len(tokens[text]) for text in texts], np.int64)
    ends = np.cumsum(lengths)
    columns: dict[str, Any] = {
        name: [getattr(passage, name) for passage in passages] for name in PASSAGE_COLUMNS
    }
    columns["words"] = [sorted(set(tokens[text].keys)) for text in texts]
    columns |= {"token_start": ends - lengths, "token_end": ends}
    extra = [dict(passage.extra) for passage in passages]
    for name in dict.fromkeys(chain(*extra)):  # none of which replaces a column of the index's own
        columns[name + "_" * (name in OWN_COLUMNS)] = [row.get(name) for row in extra]
    empty = np.zeros((0, 1), np.float32)  # articles may have no text
    arrays = {".npy": np.stack([vectors[text][0] for text in texts]) if texts else empty}
    if store_tokens:
        arrays[".tokens.npy"] = np.concatenate([vectors[text][1] for text in texts] or _pack([empty]))
    return columns, arrays


def _embed(
    encoder: Encoder, tokens: Mapping[str, Tokens], store_tokens: bool, progress: Progress
) -> VectorsByText:
    texts, layers, done = [*tokens], (encoder.num_layers,) if store_tokens else (), 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(more, done / len(texts))

    vectors: VectorsByText = {}
    for start in range(0, len(texts), PASSAGES_EMBEDDED_AT_ONCE):
        together = texts[start : start + PASSAGES_EMBEDDED_AT_ONCE]
        hidden, pooled = hidden_states(encoder, [tokens[text] for text in together], layers, progress=count)
        packed = _pack([states[0] for states in hidden]) if store_tokens else [None] * len(together)
        vectors |= dict(zip(together, zip(pooled, packed, strict=True), strict=True))
    return vectors


def _pack(states: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Token vectors of texts, [token, dim] each, in 8 bits with a scale each."""
    joined = np.concatenate(states)
    quantized = quantize(pad(joined, padded_length(len(joined))))  # which is compiled for few lengths
    packed = np.empty(len(joined), [("vector", np.int8, joined.shape[1:]), ("scale", np.float32)])
    packed["vector"], packed["scale"] = (np.asarray(array)[: len(joined)] for array in quantized)
    return np.split(packed, np.cumsum([*map(len, states)])[:-1])
