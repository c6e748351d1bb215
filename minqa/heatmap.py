"""Two texts' vectors → the similarity of their words: where a passage echoes a query, and how well."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from minqa.batches import pad, pad_all, padded_length
from minqa.embedding import Vectors
from minqa.similarity import Similarity, cosine, maxsim
from minqa.tokens import Tokens, comparable

# The best of benchmarks/quality.py for ranking passages and showing where they echo a query.
WINDOW = 24
NEIGHBOURS = 0.1
PASSAGE_WORDS = 128  # to whose multiples passages are padded: most are shorter, and share one shape
WORDS_AT_ONCE = 32768  # of passages, which bounds the memory
# English words without content of their own, and what BERT's tokenizer leaves of contractions.
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

    The score says how well the passage echoes the query. It is the sum of the contributions, MaxSim over
    words (Khattab and Zaharia 2020, arXiv:2004.12832, equation 3), or -inf if nothing can be compared.
    """

    query: Tokens
    passage: Tokens
    token_similarity: Float[np.ndarray, "query_token passage_token"]  # -inf if one belongs to no word
    # Of the words' mean vectors; if the model does not know one of two different words, as if one were zero.
    word_similarity: Float[np.ndarray, "query_word passage_word"]
    weights: Float[np.ndarray, " query_word"]  # 1 in sum; 0 for punctuation
    contributions: Float[np.ndarray, " query_word"]  # what each word adds to the score
    score: float
    baseline: float = 0.0  # the score of unrelated texts
    identical: float = 1.0  # the score of a text with itself

    @cached_property
    def heat(self) -> Float[np.ndarray, " passage_word"]:
        """float32 [passage word], the highest similarity to any word of the query; -inf for punctuation.

        The similarity to a word with half the weight of the heaviest lies half as far above the baseline.
        """
        return np.where(self.passage.is_word, self._weighted.max(0, initial=-np.inf), -np.inf)

    @cached_property
    def partners(self) -> Int[np.ndarray, " passage_word"]:
        """int [passage word], the query word that gives each word its heat; -1 for none."""
        if not self._weighted.size:
            return np.full(len(self.passage.words), -1)
        return np.where(np.isfinite(self.heat), self._weighted.argmax(0), -1)

    @cached_property
    def _weighted(self) -> Float[np.ndarray, "query_word passage_word"]:
        part = self.weights[:, None] / max(self.weights.max(initial=0), np.float32(1e-9))
        return np.where(part > 0, self.baseline + (self.word_similarity - self.baseline) * part, -np.inf)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from minqa.views.html import notebook

        return notebook(self)


def heat_map(
    query: Vectors,
    passage: Vectors,
    *,
    similarity: Similarity = cosine,
    window: int = WINDOW,
    neighbours: float = NEIGHBOURS,
) -> HeatMap:
    """Compare two texts token by token and word by word.

    Args:
        query, passage: as `embed` returns them for the same encoder.
        similarity: a pure function of [query, dim] and [passage, dim] arrays, compiled once per shape.
        window, neighbours: see `contributions`. A window is in words, and never shorter than the query.
    """
    pairs = comparable(query.tokens, passage.tokens)
    words = _similarities(query.words, passage.words, pairs, similarity)
    rows, columns = np.ix_(query.tokens.word, passage.tokens.word)
    tokens = _similarities(query.array, passage.array, np.pad(pairs, (0, 1))[rows, columns], similarity)
    [padded] = np.asarray(_contributions(query, [passage], similarity, window, neighbours))
    return HeatMap(
        query=query.tokens,
        passage=passage.tokens,
        token_similarity=np.where((rows >= 0) & (columns >= 0), tokens, np.float32(-np.inf)),
        word_similarity=words,
        weights=query.weights,
        contributions=padded[: len(query.weights)],
        score=float(padded.sum()) if query.weights.any() and passage.tokens.is_word.any() else -np.inf,
        baseline=query.baseline,
        identical=query.identical,
    )


def rank(
    query: Vectors,
    passages: Sequence[Vectors],
    *,
    similarity: Similarity = cosine,
    window: int = WINDOW,
    neighbours: float = NEIGHBOURS,
) -> Float[np.ndarray, " passage"]:
    """The score of each passage, as its heat map has it; see `heat_map`."""
    block = max(1, WORDS_AT_ONCE // max([1, *(len(passage.words) for passage in passages)]))
    blocks = [passages[start : start + block] for start in range(0, len(passages), block)]
    added = [_contributions(query, block, similarity, window, neighbours) for block in blocks]
    return np.concatenate([np.zeros(0, np.float32), *(np.asarray(block).sum(1) for block in added)])


def content_words(tokens: Tokens) -> Bool[np.ndarray, " word"]:
    """Which words carry content: no punctuation, and no function word unless there is nothing else."""
    # "US", "IT" and "WHO" in capitals are names.
    names = [word.isupper() and len(word) > 1 for word in tokens.word_texts]
    function = [word.lower() in FUNCTION_WORDS for word in tokens.word_texts]
    content = tokens.is_word & (np.array(names, bool) | ~np.array(function, bool))
    return content if content.any() else tokens.is_word


def window_for(window: int, query: Tokens) -> int:
    """At least as long as the query, so that a text matches itself; a power of two, as each is compiled."""
    words = len(query.words)
    return 2 ** (words - 1).bit_length() if 0 < window < words else window


def _contributions(query, passages, similarity, window, neighbours) -> jax.Array:
    """`maxsim` over words, float32 [passage, query word], padded to few shapes."""
    size = padded_length(len(query.words), steps=1)
    length = padded_length(max(len(passage.words) for passage in passages), least=PASSAGE_WORDS)
    pairs = [comparable(query.tokens, passage.tokens) for passage in passages]
    return maxsim(
        pad(query.words, size),
        pad(query.weights, size),
        pad_all([passage.words for passage in passages], length, value=1.0),  # a 0 costs cosine more
        pad_all([passage.tokens.is_word for passage in passages], length),
        comparable=None if all(map(np.all, pairs)) else pad_all(pairs, size, length),
        similarity=similarity,
        window=window_for(window, query.tokens),
        neighbours=neighbours,
    )


def _similarities(query, passage, pairs, similarity) -> Float[np.ndarray, "_ _"]:
    """Of pairs that are not comparable, the similarity to a vector of zeros, as the padding is."""
    length = padded_length(len(passage) + 1, least=PASSAGE_WORDS)
    padded = pad(query, padded_length(len(query), steps=1)), pad(passage, length)
    values = np.asarray(_compiled(*padded, similarity=similarity))[: len(query)]
    return np.where(pairs, values[:, : len(passage)], values[:, -1:])


_compiled = jax.jit(lambda q, t, similarity: similarity(q, t), static_argnames="similarity")
