"""A heat map → the phrase and the sentence that it points to."""

from dataclasses import dataclass

import numpy as np

from minqa.heatmap import HeatMap, content_words
from minqa.text import sentences

# The longest span that is looked for; in tokens, for a checkpoint that reads tokens.
MAX_SPAN_WORDS = 30
# The part of a match that counts in the next sentence too: what one sentence names, the next calls "it".
CARRY = 0.8


@dataclass(frozen=True)
class Span:
    """Part of a passage."""

    text: str  # passage.text[start:end]
    start: int
    end: int
    # A phrase's mean heat of content words, a sentence's MaxSim, or an answer's start's plus end's score.
    score: float
    probability: float | None = None  # of an answer, among all spans that were compared and no answer
    margin: float | None = None  # an answer's score less that of no answer


def heat_span(heat: HeatMap) -> Span | None:
    """The contiguous words that the heat points to; they mark the match, which is seldom the answer itself.

    Of all runs of at most `MAX_SPAN_WORDS` words, the one with the largest Σ (heat - level), where the level
    is min((baseline + hottest) / 2, hottest); of equal runs the first, and of those the shortest. Function
    words and punctuation add nothing and stand at neither end. Punctuation breaks a run, unless it is written
    without a space on either side, as in "mass–energy".

    Returns:
        None if the passage has no word, or the query none to compare it with.
    """
    words = heat.passage.words
    finite = np.isfinite(heat.heat)
    counted = content_words(heat.passage) & finite
    if not counted.any():
        return None
    hottest = heat.heat[counted].max()
    excess = np.where(counted, heat.heat - min((heat.baseline + hottest) / 2, hottest), 0)
    glued = words[1:, 0] == words[:-1, 1]
    breaks = ~(finite | np.append(False, glued) & np.append(glued, False))
    # In steps of 2⁻¹², sums are exact, so that equal runs have equal sums.
    totals = np.cumsum(np.round(np.append(0, excess) * 4096) / 4096)
    gaps = np.cumsum(np.append(0, breaks))
    first, length = np.divmod(np.arange(len(words) * MAX_SPAN_WORDS), MAX_SPAN_WORDS)
    first, last = (places[first + length < len(words)] for places in (first, first + length))
    hot = counted & (excess >= 0)
    real = hot[first] & hot[last] & (gaps[last + 1] == gaps[first])
    best = np.where(real, totals[last + 1] - totals[first], -np.inf).argmax()
    first, last = first[best], last[best]
    start, end = int(words[first, 0]), int(words[last, 1])
    score = heat.heat[first : last + 1][counted[first : last + 1]].mean()
    return Span(heat.passage.text[start:end], start, end, float(score))


def heat_sentence(heat: HeatMap) -> Span | None:
    """The sentence that echoes the query most: more often than not it holds the answer.

    A sentence's score is MaxSim within it, where a word of the query may also be matched in an earlier
    sentence, for `CARRY` of the similarity per sentence back.

    Returns:
        None if the passage has no word, or the query none to compare it with.
    """
    if not np.isfinite(heat.score):
        return None
    places = sentences(heat.passage.text)
    number = np.searchsorted(places[:, 0], heat.passage.words[:, 0], side="right") - 1
    counted = np.isfinite(heat.heat)
    lowest = heat.word_similarity.min(initial=-1)
    best, scores = np.full(len(heat.weights), lowest, np.float32), []
    for i in range(len(places)):
        inside = heat.word_similarity[:, counted & (number == i)]
        best = np.maximum(np.minimum(best, CARRY * best), inside.max(1, initial=lowest))
        scores.append(float(heat.weights @ best))
    start, end = places[int(np.argmax(scores))].tolist()
    return Span(heat.passage.text[start:end], start, end, max(scores))
