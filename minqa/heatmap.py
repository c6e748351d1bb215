"""Two texts' vectors → the similarity of their words: where a query is echoed in a passage."""

from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from minqa.embedding import Vectors
from minqa.page import notebook
from minqa.similarity import contributions, cosine
from minqa.statistics import Measure, Statistics, word_weights
from minqa.tokens import Tokens

# English words that carry no content of their own, with what BERT's tokenizer leaves of contractions.
FUNCTION_WORDS = frozenset(
    "a about after against all am an and any are as at be because been before being between both but by "
    "can could did do does doing done during each for from had has have having he her hers him his how i "
    "if in into is it its just me might more most must my no nor not of off on once only or other our "
    "ours out over own s same shall she should so some such t than that the their theirs them then there "
    "these they this those through to too under until up upon us very was we were what when where which "
    "while who whom whose why will with would you your yours "
    "aren couldn d didn doesn don hadn hasn haven isn ll m re shouldn ve wasn weren won wouldn".split()
)


@dataclass(frozen=True)
class HeatMap:
    """How similar every part of a query is to every part of a passage.

    Attributes:
        query: the query's tokens and words.
        passage: the passage's.
        token_similarity: float32 [query token, passage token], cosines; -inf where either is no word's
            token ([CLS], [SEP], a prompt).
        word_similarity: float32 [query word, passage word], cosines of the words' vectors, a word's vector
            being the mean of its tokens'.
        weights: float32 [query word], how much each word counts, 1 in sum; 0 for punctuation.
        contributions: float32 [query word], what each word adds to the score.
        heat: float32 [passage word], the highest similarity to any word of the query, where the similarity to
            a word that counts for half as much as the heaviest lies half as far above `unrelated`; -inf for
            punctuation.
        score: how well the passage echoes the query, the sum of the contributions; -inf where nothing can be
            compared. This is MaxSim over words (Khattab and Zaharia 2020, arXiv:2004.12832, equation 3).
        unrelated: the score that texts which have nothing to do with each other reach.
    """

    query: Tokens
    passage: Tokens
    token_similarity: Float[np.ndarray, "query_token passage_token"]
    word_similarity: Float[np.ndarray, "query_word passage_word"]
    weights: Float[np.ndarray, " query_word"]
    contributions: Float[np.ndarray, " query_word"]
    heat: Float[np.ndarray, " passage_word"]
    score: float
    unrelated: float

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return notebook(self)


def heat_map(
    query: Vectors,
    passage: Vectors,
    *,
    measure: Measure = Measure(),  # noqa: B008, it is frozen
    statistics: Statistics | None = None,
) -> HeatMap:
    """Compare two texts token by token and word by word.

    Args:
        query: vectors, as `embed` returns them for the same measure.
        passage: likewise.
        measure: says how much each word counts.
        statistics: of the corpus, for the weights and for `unrelated`.

    Raises:
        InputError: the weights need statistics and there are none.
    """
    weights = word_weights(query.tokens, measure, statistics)
    spelled = passage.tokens.spelled
    tokens, words, added = map(
        np.asarray,
        _compare(
            *padded(query.array, passage.array),
            *padded(query.words, passage.words),
            *padded(weights, spelled),
            window=measure.window,
            neighbours=measure.neighbours,
        ),
    )
    words = words[: len(weights), : len(spelled)]
    in_word = (query.tokens.word >= 0)[:, None] & (passage.tokens.word >= 0)[None, :]
    unrelated = statistics.unrelated_score(measure) if statistics else 0.0
    counts = weights > 0
    counted = unrelated + (words[counts] - unrelated) * (weights[counts, None] / weights.max(initial=0))
    return HeatMap(
        query=query.tokens,
        passage=passage.tokens,
        token_similarity=np.where(in_word, tokens[: len(query.tokens), : len(passage.tokens)], -np.inf),
        word_similarity=words,
        weights=weights,
        contributions=added[: len(weights)],
        heat=np.where(spelled, counted.max(0, initial=-np.inf), -np.inf),
        score=float(added.sum()) if weights.any() and spelled.any() else -np.inf,
        unrelated=unrelated,
    )


def content_words(tokens: Tokens) -> Bool[np.ndarray, " word"]:
    """Which words carry content: no punctuation, and no function word unless there is nothing else."""
    spelled = tokens.spelled
    # "US", "IT" and "WHO" in capitals are names.
    function = [
        word.lower() in FUNCTION_WORDS and not (word.isupper() and len(word) > 1)
        for word in tokens.word_texts
    ]
    content = spelled & ~np.array(function, bool)
    return content if content.any() else spelled


@partial(jax.jit, static_argnames=("window", "neighbours"))
def _compare(
    query_tokens: Float[Array, "query_token dim"],
    passage_tokens: Float[Array, "passage_token dim"],
    query_words: Float[Array, "query_word dim"],
    passage_words: Float[Array, "passage_word dim"],
    weights: Float[Array, " query_word"],
    spelled: Bool[Array, " passage_word"],
    *,
    window: int,
    neighbours: float,
):
    words = cosine(query_words, passage_words)
    added = contributions(words, weights, spelled, window=window, neighbours=neighbours)
    return cosine(query_tokens, passage_tokens), words, added


def padded(*arrays: np.ndarray) -> list[np.ndarray]:
    """The arrays, their first axes padded to powers of two, so that few shapes are compiled."""
    return [
        np.pad(
            array,
            [(0, max(16, 2 ** (len(array) - 1).bit_length()) - len(array))] + [(0, 0)] * (array.ndim - 1),
        )
        for array in arrays
    ]
