"""A heat map → word alignment: which words of two texts say the same."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from minqa.encoder import Encoder
from minqa.heatmap import HeatMap

# On benchmarks/quality.py each of these may change by a third and F1 by less than 0.3 points.
TEMPERATURE = 0.08  # a partner that is this much more similar than another is e times as likely
NO_PARTNER = 0.4  # the cosine of having no partner, which unrelated texts seldom reach
NEIGHBOUR = 0.1  # what a certain pair before, or after, adds to a pair's cosine
DISTANCE = 0.2  # what a pair at opposite ends of the texts loses


def alignment_encoder(encoder: Encoder) -> Encoder:
    """The same calibrated encoder as it aligns best: the middle layer, z-scored.

    A vector there stands for its word in context; one of the last layers for what the text is about.
    """
    return replace(encoder, layer=encoder.num_layers // 2, centring="z-score")


def align(heat_map: HeatMap) -> list[tuple[int, int]]:
    """Pairs of words, one of the query and one of the passage, that say the same; no training.

    A word may have no partner, and a pair is more probable next to an aligned pair. Words that the model does
    not know are aligned only if they are the same. It works best on cosines of an `alignment_encoder`.
    """
    similarity = heat_map.word_similarity
    places = [(np.arange(size) + 0.5) / max(size, 1) for size in similarity.shape]
    similarity = similarity - DISTANCE * (places[0][:, None] - places[1][None, :]) ** 2
    certain = np.pad(_probability(similarity), 1)
    support = certain[:-2, :-2] + certain[2:, 2:]
    pairs = np.argwhere(_probability(similarity + NEIGHBOUR * support) > 0.5)
    return [(int(i), int(j)) for i, j in pairs]


def _probability(similarity: Float[np.ndarray, "query passage"]) -> Float[np.ndarray, "query passage"]:
    """That two words are partners: the geometric mean of a softmax over either text and "no partner"."""
    odds = (similarity - NO_PARTNER) / TEMPERATURE  # logarithms, beside that of no partner, 0
    totals = [np.logaddexp.reduce(odds, axis, keepdims=True, initial=0) for axis in (0, 1)]
    return np.exp(odds - (totals[0] + totals[1]) / 2)
