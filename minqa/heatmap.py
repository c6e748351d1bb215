"""Two texts' vectors → the similarity of their words: where a passage echoes a query, and how well."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

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
    words (Khattab and Zaharia 2020, arXiv:2004.12832, equation 3), or -inf if nothing can be compared. In
    late interaction it is over tokens, as there: a word adds what its tokens do, and special tokens do too.
    """

    query: Tokens
    passage: Tokens
    token_similarity: Float[np.ndarray, "query_token passage_token"]  # -inf if one is not compared
    # Of the words' mean vectors; if the model does not know one of two different words, as if one were zero.
    word_similarity: Float[np.ndarray, "query_word passage_word"]
    weights: Float[np.ndarray, " query_word"]  # see `Encoder.word_weights`
    contributions: Float[np.ndarray, " query_word"]  # what each word adds to the score
    score: float
    baseline: float = 0.0  # the score of unrelated texts; in late interaction, of one word
    identical: float = 1.0  # the score of a text with itself
    others: tuple[tuple[str, float], ...] = ()  # what tokens of no word add, by name: "[MASK] × 20"

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

    @property
    def full_weight(self) -> Float[np.ndarray, " query_word"] | np.float32:
        """The weight at which a word's heat is its similarity: the highest; in late interaction, its own."""
        full = self.weights if self.query.scored is not None else self.weights.max(initial=0)
        return np.maximum(full, np.float32(1e-9))

    @cached_property
    def _weighted(self) -> Float[np.ndarray, "query_word passage_word"]:
        part = (self.weights * self.query.is_word / self.full_weight)[:, None]
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
        window, neighbours: see `contributions`. A window is in words, and never shorter than the query. Late
            interaction does without.
    """
    pairs = comparable(query.tokens, passage.tokens)
    words = _similarities(query.words, passage.words, pairs, similarity)
    rows, columns = np.ix_(query.tokens.word, passage.tokens.word)
    pairs = np.pad(pairs, (0, 1), constant_values=True)[rows, columns]  # -1, no word, is last
    tokens = _similarities(query.array, passage.array, pairs, similarity)
    late, shown = query.tokens.scored is not None, (rows >= 0) & (columns >= 0)
    if late:
        shown = query.tokens.may_match[:, None] & passage.tokens.may_match[None, :]
    [added] = np.asarray(_contributions(query, [passage], similarity, window, neighbours))
    added = added[: len(query.rows)]
    added, others = _by_word(query.tokens, added) if late else (added, ())
    total = np.append(added, np.array([part for _, part in others], np.float32)).sum()
    return HeatMap(
        query=query.tokens,
        passage=passage.tokens,
        token_similarity=np.where(shown, tokens, np.float32(-np.inf)),
        word_similarity=words,
        weights=query.weights,
        contributions=added,
        score=float(total) if query.row_weights.any() and passage.tokens.may_match.any() else -np.inf,
        baseline=query.baseline,
        identical=query.identical,
        others=others,
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
    block = max(1, WORDS_AT_ONCE // max([1, *(len(passage.rows) for passage in passages)]))
    padded = [*passages]
    padded += padded[-1:] * (-len(padded) % min(block, 4))  # each number of passages is one more program
    blocks = [padded[start : start + block] for start in range(0, len(padded), block)]
    added = [_contributions(query, block, similarity, window, neighbours) for block in blocks]
    scores = np.concatenate([np.zeros(0, np.float32), *(np.asarray(block).sum(1) for block in added)])
    return scores[: len(passages)]


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
    """`maxsim` over words or tokens, float32 [passage, query row], padded to few shapes."""
    size = padded_length(len(query.rows), steps=1)
    length = padded_length(max(len(passage.rows) for passage in passages), least=PASSAGE_WORDS)
    pairs = [comparable(query.tokens, passage.tokens) for passage in passages]
    if query.tokens.scored is not None:
        window, neighbours = 0, 0.0
    return maxsim(
        pad(query.rows, size),
        pad(query.row_weights, size),
        pad_all([passage.rows for passage in passages], length, value=1.0),  # a 0 costs cosine more
        pad_all([passage.tokens.may_match for passage in passages], length),
        comparable=None if all(map(np.all, pairs)) else pad_all(pairs, size, length),
        similarity=similarity,
        window=window_for(window, query.tokens),
        neighbours=neighbours,
    )


def _by_word(query: Tokens, added: Float[np.ndarray, " token"]) -> tuple[np.ndarray, Any]:
    """What the tokens of each word add, float32 [word], and (name, sum) of those of no word."""
    words, named = np.zeros(len(query.words) + 1, np.float32), dict[str, list[float]]()
    np.add.at(words, query.word, added)  # -1, no word, is last
    for name, part in zip(query.specials, added.tolist(), strict=True):
        named.setdefault(name, []).append(part)
    named.pop("", None)
    return words[:-1], tuple(
        (f"{name} × {len(parts)}" if parts[1:] else name, sum(parts)) for name, parts in named.items()
    )


def _similarities(query, passage, pairs, similarity) -> Float[np.ndarray, "_ _"]:
    """Of pairs that are not comparable, the similarity to a vector of zeros, as the padding is."""
    length = padded_length(len(passage) + 1, least=PASSAGE_WORDS)
    padded = pad(query, padded_length(len(query), steps=1)), pad(passage, length)
    values = np.asarray(_compiled(*padded, similarity))[: len(query)]
    return np.where(pairs, values[:, : len(passage)], values[:, -1:])


_compiled = jax.jit(lambda query, passage, similarity: similarity(query, passage), static_argnums=2)
