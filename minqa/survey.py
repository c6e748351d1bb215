"""A corpus → its statistics, from a sample of what it holds; made once and kept."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from minqa.corpus import demo_passages
from minqa.embedding import embed_layers, merge_words
from minqa.encoder import Encoder
from minqa.errors import InputError
from minqa.statistics import CENTRINGS, Measure, Statistics, centred, frequencies, word_weights
from minqa.storage import write_file
from minqa.tokens import Tokens

# What is usual is asked of the first so many passages.
FIRST = 1024
# The beginnings of so many passages, spread over the corpus, are read for all but the frequencies of words:
# 3,500 tokens, which leave the mean of a dimension uncertain by a sixtieth of its deviation.
SAMPLE = 64
CHARACTERS = 256
# Three of them together are as long as a passage.
JOINED = 3
QUERY_WORDS = 16


def gather(encoder: Encoder, texts: Sequence[str]) -> Statistics:
    """What is usual in these passages: words are counted in all of them, vectors looked at in a sample.

    Raises:
        InputError: there is no word in them.
    """
    tokens = encoder.tokenize(texts, "passage")
    spread = np.linspace(0, len(texts) - 1, min(SAMPLE, len(texts))).astype(int)
    beginnings = encoder.tokenize([texts[i][:CHARACTERS] for i in spread], "passage")
    sample = [one for one in beginnings if one.spelled.any()]
    if not sample:
        raise InputError("The corpus holds no word.")
    hidden, _ = embed_layers(encoder, sample, tuple(range(encoder.model.num_layers + 1)))
    num_layers = len(hidden[0])
    mean, deviation = [], []
    for layer in range(num_layers):
        pairs = zip(hidden, sample, strict=True)
        real = np.concatenate([one[layer, text.word >= 0] for one, text in pairs])
        mean.append(real.mean(0))
        deviation.append(real.std(0))
    statistics = Statistics(
        documents=len(tokens),
        frequency=frequencies(tokens),
        mean=np.stack(mean),
        deviation=np.stack(deviation),
        unrelated=np.zeros((len(CENTRINGS), num_layers), np.float32),
    )
    for row, centring in enumerate(CENTRINGS):
        for layer in range(num_layers):
            measure = Measure((layer,), centring, "idf")
            statistics.unrelated[row, layer] = _unrelated(
                [centred(one[layer : layer + 1], measure, statistics) for one in hidden],
                sample,
                [word_weights(text, measure, statistics) for text in sample],
            )
    return statistics


def demo_statistics(encoder: Encoder, cache: Path | None) -> Statistics:
    """What is usual in the first Wikipedia leads; kept in the cache, if there is one that can be written.

    Raises:
        InputError: the leads are not installed.
    """
    texts = [passage.text for passage in demo_passages()[:FIRST]]
    of = hashlib.sha256("\n".join([encoder.fingerprint, *texts]).encode()).hexdigest()
    path = cache / "statistics" / f"{of[:32]}.safetensors" if cache else None
    statistics = read_statistics(path, of) if path else None
    if statistics is None:
        statistics = gather(encoder, texts)
        if path:
            with suppress(OSError):  # another time will do
                path.parent.mkdir(parents=True, exist_ok=True)
                write_statistics(path, statistics, of)
    return statistics


def write_statistics(path: Path, statistics: Statistics, of: str) -> None:
    """Keep statistics, and the hash of what they are `of`. Raises OSError where they cannot be written."""
    arrays = {
        "documents": np.array(statistics.documents),
        "mean": statistics.mean,
        "deviation": statistics.deviation,
        "unrelated": statistics.unrelated,
        **words_as_arrays(statistics.frequency),
    }
    write_file(path, save({**arrays, "digest": _digest(arrays, of)}))


def read_statistics(path: Path, of: str) -> Statistics | None:
    """What `write_statistics` kept; None where it is missing or broken, or of something else."""
    try:
        arrays = load_file(path)
        if not np.array_equal(arrays.pop("digest"), _digest(arrays, of)):
            return None
    except (OSError, SafetensorError, KeyError):
        return None
    numbers = {name: arrays[name] for name in ("mean", "deviation", "unrelated")}
    return Statistics(documents=int(arrays["documents"]), frequency=words_of_arrays(arrays), **numbers)


def words_as_arrays(frequency: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Counts of words as arrays, "words" and "counts"."""
    words = "\n".join(frequency).encode("utf-8")  # no word holds a line feed
    return {"words": np.frombuffer(words, np.uint8), "counts": np.array([*frequency.values()], np.int32)}


def words_of_arrays(arrays: Mapping[str, np.ndarray]) -> Counter[str]:
    """The counts of words that `words_as_arrays` wrote down."""
    words = arrays["words"].tobytes().decode("utf-8").split("\n")
    return Counter(dict(zip(words, arrays["counts"].tolist(), strict=False)))


def _digest(arrays: Mapping[str, np.ndarray], of: str) -> np.ndarray:
    digest = hashlib.sha256(of.encode())
    for name in sorted(arrays):
        digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


def _unrelated(
    vectors: Sequence[Float[np.ndarray, "_ dim"]],
    sample: Sequence[Tokens],
    weights: Sequence[Float[np.ndarray, " _"]],
) -> float:
    """The mean score of each text's last words as a query on other texts, plain MaxSim; 0 without others."""
    words = [merge_words(one, text) for one, text in zip(vectors, sample, strict=True)]
    words = [one / np.maximum(np.linalg.norm(one, axis=1, keepdims=True), 1e-9) for one in words]
    scores = []
    for i, (query, weight) in enumerate(zip(words, weights, strict=True)):
        behind = [(i + step) % len(sample) for step in range(1, len(sample))]
        others = [other for other in behind if sample[other].text != sample[i].text][:JOINED]
        total = weight[-QUERY_WORDS:].sum()
        if others and total:
            passage = np.concatenate([words[other][sample[other].spelled] for other in others])
            scores.append(weight[-QUERY_WORDS:] @ (query[-QUERY_WORDS:] @ passage.T).max(1) / total)
    return float(np.mean(scores)) if scores else 0.0
