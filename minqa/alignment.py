"""Heat map → word alignment: which words of two texts say the same."""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float

from minqa.encoder import Encoder
from minqa.heatmap import HeatMap
from minqa.statistics import Measure

Method = Literal["mutual", "itermax", "neighbours"]

# For "itermax", as its authors have it: what is left of a word that is aligned already.
DISCOUNT = 0.9
# For "neighbours". On benchmarks/quality.py each may move by a third and F1 by less than 0.3.
TEMPERATURE = 0.08  # a partner that is this much more similar than another is e times as likely
NO_PARTNER = 0.4  # a word finds none at a cosine that unrelated texts seldom reach
NEIGHBOUR = 0.1  # what the certain alignment of the words before, or of those behind, adds to a cosine
DISTANCE = 0.2  # what lies at the other end of the text loses so much


def alignment_measure(encoder: Encoder) -> Measure:
    """The measure that aligns best in benchmarks/quality.py: the middle layer, z-scored.

    There a vector stands for its word in its context; in the last layers for what the text is about.
    """
    return Measure((encoder.model.num_layers // 2,), "z-score")


def align(heat_map: HeatMap, *, method: Method = "neighbours") -> list[tuple[int, int]]:
    """Pairs of words, one of the query and one of the passage, that say the same; no training.

    Args:
        heat_map: of the measure that `alignment_measure` names.
        method: "mutual" pairs words that are each other's most similar. "itermax" goes on with the words left
            over (Jalili Sabet et al. 2020, arXiv:2004.08728, section 3.2), which finds more, and more that is
            wrong. "neighbours" takes pairs that are probable from both sides, where each word may also have
            no partner, and a pair is more probable beside an aligned pair.

    Raises:
        ValueError: there is no such method.

    Returns:
        Numbers of words in `heat_map.query.words` and `heat_map.passage.words`, in order.
    """
    similarity = heat_map.word_similarity
    if not similarity.size:
        return []
    if method not in get_args(Method):
        raise ValueError(f"method is {method!r}; there are {', '.join(get_args(Method))}.")
    methods = {"mutual": _mutual, "itermax": _itermax, "neighbours": _neighbours}
    return [(int(i), int(j)) for i, j in np.argwhere(methods[method](similarity))]


def _mutual(similarity: Float[np.ndarray, "query passage"]) -> Bool[np.ndarray, "query passage"]:
    pairs = np.zeros(similarity.shape, bool)
    for row, column in enumerate(similarity.argmax(1)):
        pairs[row, column] = similarity[:, column].argmax() == row
    return pairs


def _itermax(similarity: Float[np.ndarray, "query passage"]) -> Bool[np.ndarray, "query passage"]:
    """Mutual best matches, and again: words aligned before count less, and pairs of two such not at all."""
    similarity = (similarity + 1) / 2  # discounting wants positive numbers
    pairs = _mutual(similarity)
    rows, columns = pairs.any(1, keepdims=True), pairs.any(0, keepdims=True)
    counts = np.where(rows & columns, 0, np.where(rows | columns, DISCOUNT, 1))
    return np.where(counts > 0, _mutual(similarity * counts), pairs)


def _neighbours(similarity: Float[np.ndarray, "query passage"]) -> Bool[np.ndarray, "query passage"]:
    places = [(np.arange(size) + 0.5) / size for size in similarity.shape]
    similarity = similarity - DISTANCE * (places[0][:, None] - places[1][None, :]) ** 2
    certain = np.pad(_probability(similarity), 1)
    support = certain[:-2, :-2] + certain[2:, 2:]
    return _probability(similarity + NEIGHBOUR * support) > 0.5


def _probability(similarity: Float[np.ndarray, "query passage"]) -> Float[np.ndarray, "query passage"]:
    """That two words are partners: the geometric mean of a softmax over either text and "no partner"."""
    odds = np.exp((similarity - NO_PARTNER) / TEMPERATURE)
    return odds / np.sqrt((1 + odds.sum(1, keepdims=True)) * (1 + odds.sum(0, keepdims=True)))
