"""Similarity → spans: the phrase and the sentence that a heat map points to."""

from dataclasses import dataclass

import numpy as np

from minqa.heatmap import HeatMap, content_words
from minqa.text import sentences

# How much of a match lives on in the next sentence: what one sentence names, the next speaks of as "it".
CARRY = 0.8


@dataclass(frozen=True)
class Span:
    """Part of a passage.

    Attributes:
        text: `passage.text[start:end]`.
        start: first character.
        end: one past the last character.
        score: of a phrase the mean heat of its content words, of a sentence how well it echoes the query.
    """

    text: str
    start: int
    end: int
    score: float


def level(heat: HeatMap) -> float:
    """The heat that makes a word hot: halfway from the mean of the content words to the hottest of them.

    Infinite where the passage has none, or the query none to compare them with.
    """
    warm = heat.heat[content_words(heat.passage) & np.isfinite(heat.heat)]
    return float(warm.mean() + warm.max()) / 2 if len(warm) else np.inf


def heat_span(heat: HeatMap) -> Span | None:
    """The contiguous words that the heat points to; they mark the match, which is seldom the answer itself.

    Of all runs of words, the one with the largest sum of heat above the passage's `level`; of equal runs the
    one that ends first, and of those the shortest. Function words and punctuation add nothing and stand at no
    end, and punctuation breaks a run unless it is written without a space on either side, as in
    "mass–energy".

    Returns:
        None where the passage has no word, or the query none to compare it with.
    """
    words = heat.passage.words
    finite = np.isfinite(heat.heat)
    hot = content_words(heat.passage) & finite
    if not hot.any():
        return None
    joined = words[1:, 0] == words[:-1, 1]
    inside = np.append(False, joined) & np.append(joined, False)
    excess = np.where(hot, heat.heat - level(heat), np.where(finite | inside, 0, -np.inf))

    best, start, end, total, run_start = -np.inf, 0, 0, 0.0, 0
    for i, value in enumerate(excess):
        if total <= 0:
            total, run_start = 0.0, i
        total += value
        if hot[i] and total > best:
            best, start, end = total, run_start, i
    first, last = int(words[start, 0]), int(words[end, 1])
    score = heat.heat[start : end + 1][hot[start : end + 1]].mean()
    return Span(heat.passage.text[first:last], first, last, float(score))


def heat_sentence(heat: HeatMap) -> Span | None:
    """The sentence that echoes the query most: more often than not it holds the answer.

    The score of a sentence is MaxSim within it, where a word of the query that is not matched in it may be
    matched in the sentences before, for `CARRY` of the similarity each sentence back.

    Returns:
        None where the passage has no word, or the query none to compare it with.
    """
    if not np.isfinite(heat.score):
        return None
    places = sentences(heat.passage.text)
    number = np.searchsorted(places[:, 0], heat.passage.words[:, 0], side="right") - 1
    counted = np.isfinite(heat.heat)
    best = np.full(len(heat.weights), -1, np.float32)
    scores = []
    for i in range(len(places)):
        inside = heat.word_similarity[:, counted & (number == i)]
        best = np.maximum(CARRY * best, inside.max(1, initial=-1))
        scores.append(float(heat.weights @ best))
    start, end = places[int(np.argmax(scores))].tolist()
    return Span(heat.passage.text[start:end], start, end, max(scores))
