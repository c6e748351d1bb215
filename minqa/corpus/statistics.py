"""What is usual in a corpus, for an encoder that then knows it: made from texts, kept, and read back."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from minqa.batches import pad, pad_all, padded_length
from minqa.corpus.readers import demo_passages
from minqa.corpus.storage import write_file
from minqa.embedding import Vectors, as_vectors, hidden_states
from minqa.encoder import CENTRINGS, Encoder, Statistics
from minqa.similarity import Similarity, cosine, maxsim
from minqa.text import InputError
from minqa.tokens import Tokens

# The first passages of a corpus stand for all of it, but for the frequencies of words.
PASSAGES_SAMPLED = 1024
# Raised whenever `calibrate` gives noticeably other numbers, so that kept ones are made again.
CALIBRATION = 1
_ARRAYS = ("mean", "deviation", "baseline", "identical")
# The beginnings of so many passages, spread over the corpus, are read for all but the frequencies of words:
# 3,500 tokens, which leave the mean of a dimension uncertain by a sixtieth of its deviation.
SAMPLE_TEXTS = 64
SAMPLE_CHARACTERS = 256
# Three of them together are as long as a passage; the last words of one are as long as a question.
JOINED_TEXTS = 3
QUERY_WORDS = 16


def calibrate(
    encoder: Encoder, texts: Sequence[str | Sequence[str]], *, similarity: Similarity = cosine
) -> Encoder:
    """The same encoder, which now knows what is usual in a corpus: idf, mean, deviation, baseline.

    Args:
        encoder: as `load` returns it.
        texts: passages of the corpus. Words are counted in all of them, vectors looked at in a sample.
        similarity: that the baseline, and so the scale of colours, is for.

    Raises:
        InputError: there is no word in the texts.
    """
    tokens = encoder.tokenize(texts, "passage")
    spread = np.linspace(0, len(texts) - 1, min(SAMPLE_TEXTS, len(texts))).astype(int)
    # Of a list of words, so many that it is about as long: five characters and a space each.
    limits = [SAMPLE_CHARACTERS if isinstance(texts[i], str) else SAMPLE_CHARACTERS // 6 for i in spread]
    starts = [texts[i][:limit] for i, limit in zip(spread, limits, strict=True)]
    beginnings = encoder.tokenize(starts, "passage")
    known = [text for text in beginnings if (text.is_word & ~text.unknown).any()]
    sample = known or [text for text in beginnings if text.is_word.any()]
    if not sample:
        raise InputError("The corpus holds no word.")
    layers = encoder.num_layers + 1
    hidden, _ = hidden_states(encoder, sample, tuple(range(layers)))
    in_words = [states[:, text.word >= 0] for states, text in zip(hidden, sample, strict=True)]
    joined = np.concatenate(in_words, axis=1)  # (layer, token, dim)
    scale = np.zeros((2, len(CENTRINGS), layers), np.float32)
    statistics = Statistics(len(tokens), frequencies(tokens), joined.mean(1), joined.std(1), *scale)
    for i, centring in enumerate(CENTRINGS):
        for layer in range(layers):
            viewed = replace(encoder, layer=layer, centring=centring, weights="idf", statistics=statistics)
            vectors = [
                as_vectors(viewed, text, states[layer]) for text, states in zip(sample, hidden, strict=True)
            ]
            scale[0, i, layer] = _mean_score(vectors, _others(sample), similarity)
            scale[1, i, layer] = _mean_score(vectors, [[row] for row in range(len(sample))], similarity)
    return replace(encoder, statistics=replace(statistics, baseline=scale[0], identical=scale[1]))


def frequencies(texts: Sequence[Tokens]) -> Counter[str]:
    """In how many of the texts each word occurs, by its key."""
    return Counter(key for tokens in texts for key in set(tokens.keys))


def _others(sample: Sequence[Tokens]) -> list[list[int]]:
    """For each text the numbers of those after it that are not the same text."""
    order = [[(row + step) % len(sample) for step in range(1, len(sample))] for row in range(len(sample))]
    return [
        [other for other in others if sample[other].text != sample[row].text][:JOINED_TEXTS]
        for row, others in enumerate(order)
    ]


def _mean_score(
    vectors: Sequence[Vectors], passages: Sequence[Sequence[int]], similarity: Similarity
) -> float:
    """The mean score of each text's last words as a query on other texts, plain MaxSim; 0 without others."""
    queries, weights, joined, masks = [], [], [], []
    known = [text.tokens.is_word & ~text.tokens.unknown for text in vectors]
    for row, others in enumerate(passages):
        counted = (vectors[row].weights * known[row])[-QUERY_WORDS:]
        if others and counted.any():
            queries.append(pad(vectors[row].words[-QUERY_WORDS:], QUERY_WORDS))
            weights.append(pad(counted / counted.sum(), QUERY_WORDS))
            joined.append(np.concatenate([vectors[other].words for other in others]))
            masks.append(np.concatenate([known[other] for other in others]))
    if not queries:
        return 0.0
    # Long enough for either kind of passages, so that they share a program.
    length = padded_length(JOINED_TEXTS * max(len(text.words) for text in vectors), steps=1)
    arrays = [pad_all(arrays, length) for arrays in (joined, masks)]
    return float(_scores(np.stack(queries), np.stack(weights), *arrays, similarity=similarity).mean())


@partial(jax.jit, static_argnames="similarity")
def _scores(queries, weights, passages, masks, *, similarity) -> Float[jax.Array, " text"]:
    def score(query, weights, passage, mask):
        return maxsim(query, weights, passage[None], mask[None], similarity=similarity).sum()

    return jax.vmap(score)(queries, weights, passages, masks)


def demo_statistics(encoder: Encoder, cache: Path | None) -> Statistics:
    """What is usual in the first Wikipedia leads; kept in the cache, if there is one that can be written."""
    texts = [passage.text for passage in demo_passages()[:PASSAGES_SAMPLED]]
    source = hashlib.sha256("\n".join([encoder.fingerprint, *texts]).encode()).hexdigest()
    path = cache / "statistics" / f"{source[:32]}.safetensors" if cache else None
    statistics = read_statistics(path, source) if path else None
    if statistics is None:
        statistics = calibrate(encoder, texts).statistics
        assert statistics is not None
        if path:
            with suppress(OSError):  # it is made again the next time
                path.parent.mkdir(parents=True, exist_ok=True)
                write_statistics(path, statistics, source)
    return statistics


def write_statistics(path: Path, statistics: Statistics, source: str) -> None:
    """Keep statistics, and that they were made from `source`, a hash. Raises OSError where that fails."""
    arrays = {
        "documents": np.array(statistics.documents),
        **{name: getattr(statistics, name) for name in _ARRAYS},
        "words": np.frombuffer("\n".join(statistics.frequency).encode("utf-8"), np.uint8),
        "counts": np.array([*statistics.frequency.values()], np.int32),
    }
    write_file(path, save({**arrays, "digest": _digest(arrays, source)}))


def read_statistics(path: Path, source: str) -> Statistics | None:
    """What `write_statistics` kept; None if it is missing, broken, or made from something else."""
    try:
        arrays = load_file(path)
        if not np.array_equal(arrays.pop("digest"), _digest(arrays, source)):
            return None
        words = arrays["words"].tobytes().decode("utf-8").split("\n")  # no word holds a line feed
        frequency = dict(zip(words, arrays["counts"].tolist(), strict=False))
        return Statistics(int(arrays["documents"]), frequency, **{name: arrays[name] for name in _ARRAYS})
    except (OSError, SafetensorError, KeyError):
        return None


def _digest(arrays: Mapping[str, np.ndarray], source: str) -> np.ndarray:
    digest = hashlib.sha256(f"{CALIBRATION} {source}".encode())
    for name in sorted(arrays):
        digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return np.frombuffer(digest.digest(), np.uint8)
