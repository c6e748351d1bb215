"""Similarity → spans: the phrase that a heat map points to."""

from dataclasses import dataclass

import numpy as np

from minqa.heatmap import HeatMap


@dataclass(frozen=True)
class Span:
    """Part of a passage.

    Attributes:
        text: `passage.text[start:end]`.
        start: first character.
        end: one past the last character.
        score: mean heat of its words, a cosine.
    """

    text: str
    start: int
    end: int
    score: float


def heat_span(heat_map: HeatMap) -> Span | None:
    """The contiguous words that the heat points to; they mark the match, which is seldom the answer itself.

    Of all runs of words, the one with the largest sum of heat above a level halfway between the passage's
    mean heat and its hottest word; of equal runs the one that ends first, and of those the shortest.
    Punctuation adds nothing, and ends a run unless it is written without a space on either side, as in
    "mass–energy".

    Returns:
        None where the passage has no word, or the query none to compare it with.
    """
    words = heat_map.passage.words
    hot = np.isfinite(heat_map.heat)
    if not hot.any():
        return None
    heat = heat_map.heat[hot]
    level = (heat.mean() + heat.max()) / 2
    joined = words[1:, 0] == words[:-1, 1]
    inside = np.append(False, joined) & np.append(joined, False)
    excess = np.where(hot, heat_map.heat - level, np.where(inside, 0, -np.inf))

    best, start, total, run_start = -np.inf, 0, 0.0, 0
    for i, value in enumerate(excess):
        if total <= 0:
            total, run_start = 0.0, i
        total += value
        if hot[i] and total > best:
            best, start, end = total, run_start, i
    first, last = words[start, 0], words[end, 1]
    mean = heat_map.heat[start : end + 1][hot[start : end + 1]].mean()
    return Span(heat_map.passage.text[first:last], int(first), int(last), float(mean))
