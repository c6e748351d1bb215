"""What is usual in a corpus: how rare a word is, how vectors are spread, how alike unrelated texts look."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float

from minqa.errors import InputError
from minqa.tokens import Tokens

Centring = Literal["none", "mean", "z-score"]
Weights = Literal["none", "idf"]
CENTRINGS: tuple[Centring, ...] = get_args(Centring)
WEIGHTS: tuple[Weights, ...] = get_args(Weights)


@dataclass(frozen=True)
class Measure:
    """How the vectors of words are made comparable, and how much each word of a query counts.

    Attributes:
        layers: the layer whose vectors are compared, or several, whose mean is: 0 is the embeddings, -1 the
            last layer.
        centring: what the corpus has in common is taken off every vector: nothing, its mean, or its mean and,
            by division, its standard deviation ("z-score"), dimension by dimension.
        weights: "none" counts all words of a query alike; "idf" by how rare they are in the corpus.
        window: half of the score asks that the query's words be matched within so many words of the passage;
            0 lets all of it ask only that they be matched anywhere.
        neighbours: how much the words before and behind a match count beside it; 0 for plain MaxSim.
    """

    layers: tuple[int, ...] = (-1,)
    centring: Centring = "none"
    weights: Weights = "none"
    window: int = 0
    neighbours: float = 0.0

    def layers_of(self, num_layers: int) -> tuple[int, ...]:
        """The layers counted from 0. Raises InputError where the model does not have one."""
        for layer in self.layers:
            if not -num_layers - 1 <= layer <= num_layers:
                raise InputError(f"The model has layers 0 to {num_layers}, but layer {layer} was asked for.")
        return tuple(layer % (num_layers + 1) for layer in self.layers)


# The best of benchmarks/quality.py for finding passages and showing where they echo a query.
RANKING = Measure(weights="idf", window=24, neighbours=0.1)


@dataclass(frozen=True)
class Statistics:
    """What is usual in a corpus, to one encoder.

    Attributes:
        documents: how many passages were counted.
        frequency: in how many of them each word occurs, in lower case.
        mean: float32 [layer+1, dim], of the vectors of tokens that belong to words, in a sample.
        deviation: float32 [layer+1, dim], their standard deviation.
        unrelated: float32 [centring, layer+1], the score, plain MaxSim weighted by idf, that texts which have
            nothing to do with each other reach: in the order of `CENTRINGS`.
    """

    documents: int
    frequency: Mapping[str, int]
    mean: Float[np.ndarray, "layer dim"]
    deviation: Float[np.ndarray, "layer dim"]
    unrelated: Float[np.ndarray, "centring layer"]

    def idf(self, words: Iterable[str]) -> Float[np.ndarray, " word"]:
        """How rare each word is: ln(1 + documents / (documents with the word + 1/2))."""
        counts = np.array([self.frequency.get(word.lower(), 0) for word in words], np.float32)
        return np.log1p(np.float32(self.documents) / (counts + np.float32(0.5)))

    def unrelated_score(self, measure: Measure) -> float:
        """The score that unrelated texts reach; of several layers, the mean of theirs."""
        layers = measure.layers_of(len(self.mean) - 1)
        return float(self.unrelated[CENTRINGS.index(measure.centring), list(layers)].mean())


def word_weights(
    tokens: Tokens, measure: Measure, statistics: Statistics | None
) -> Float[np.ndarray, " word"]:
    """How much each word counts: 0 for punctuation, and 1 in sum, or 0 where there is no word.

    Raises:
        InputError: the measure needs statistics and there are none.
    """
    weights = tokens.spelled.astype(np.float32)
    if measure.weights == "idf":
        weights *= _needed(statistics).idf(tokens.word_texts)
    return weights / max(weights.sum(), np.float32(1e-9))


def centred(
    hidden: Float[Any, "layer token dim"], measure: Measure, statistics: Statistics | None
) -> Float[Any, "token dim"]:
    """The vectors that the measure compares, of the layers that it names; NumPy's or JAX's, as given.

    A dimension that does not vary in the corpus says nothing and becomes 0 under "z-score".

    Raises:
        InputError: the measure needs statistics and there are none.
    """
    if measure.centring != "none":
        statistics = _needed(statistics)
        layers = list(measure.layers_of(len(statistics.mean) - 1))
        hidden = hidden - statistics.mean[layers, None]
        if measure.centring == "z-score":
            hidden = hidden * _inverse(statistics.deviation[layers])[:, None]
    return hidden.mean(0)


def frequencies(texts: Sequence[Tokens]) -> Counter[str]:
    """In how many of the texts each word occurs, in lower case."""
    return Counter(word for tokens in texts for word in {text.lower() for text in tokens.word_texts})


def _needed(statistics: Statistics | None) -> Statistics:
    if statistics is None:
        raise InputError("Centring and idf need the statistics of a corpus: make them with minqa.gather.")
    return statistics


def _inverse(deviation: Float[np.ndarray, "layer dim"]) -> Float[np.ndarray, "layer dim"]:
    constant = deviation <= 1e-3 * np.median(deviation, axis=1, keepdims=True)
    return np.where(constant, 0, 1 / np.where(constant, 1, deviation)).astype(np.float32)
