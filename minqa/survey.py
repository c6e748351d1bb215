"""A corpus → its statistics, from a sample of what it holds."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from minqa.embedding import embed_layers, merge_words
from minqa.encoder import Encoder
from minqa.errors import InputError
from minqa.statistics import CENTRINGS, Measure, Statistics, centred, frequencies, word_weights
from minqa.tokens import Tokens

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
    real = np.concatenate([one[:, text.word >= 0] for one, text in zip(hidden, sample, strict=True)], axis=1)
    statistics = Statistics(
        documents=len(tokens),
        frequency=frequencies(tokens),
        mean=real.mean(1),
        deviation=real.std(1),
        unrelated=np.zeros((len(CENTRINGS), len(real)), np.float32),
    )
    for row, centring in enumerate(CENTRINGS):
        for layer in range(len(real)):
            measure = Measure((layer,), centring, "idf")
            statistics.unrelated[row, layer] = _unrelated(
                [centred(one[layer : layer + 1], measure, statistics) for one in hidden],
                sample,
                [word_weights(text, measure, statistics) for text in sample],
            )
    return statistics


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
