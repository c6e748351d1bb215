"""Scores of starts and ends → the best spans; and what a heat map points to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from minqa.heatmap import HeatMap, content_words, padded
from minqa.text import sentences
from minqa.tokens import Tokens

# The longest span that is looked for, in words (of a checkpoint's, in tokens).
MAX_LENGTH = 30
# How much of a match lives on in the next sentence: what one sentence names, the next speaks of as "it".
CARRY = 0.8


@dataclass(frozen=True)
class Span:
    """Part of a passage.

    Attributes:
        text: `passage.text[start:end]`.
        start: first character.
        end: one past the last character.
        score: what it was chosen by: of a phrase in a heat map the mean heat of its content words, of a
            sentence how well it echoes the query, of an answer the sum of its start's and end's scores.
        probability: of an answer, among all spans of its passage and there being none; None of the others.
        margin: how far an answer's score lies above that of there being none; None of the others.
    """

    text: str
    start: int
    end: int
    score: float
    probability: float | None = None
    margin: float | None = None


class BestSpans(NamedTuple):
    """The best spans of each row, in falling order of their scores; of equal ones the first in the text.

    Attributes:
        score: float32 [batch, k]; -inf where there are no more spans.
        first: int32 [batch, k], the first token, or word; -1 for no answer, and where there are no more.
        last: int32 [batch, k], the last one, which belongs to the span.
        log_total: float32 [batch], the logarithm of the sum of all spans' exponentiated scores, no answer's
            included: `exp(score - log_total)` is a span's probability.
    """

    score: Float[Array, "batch k"]
    first: Int[Array, "batch k"]
    last: Int[Array, "batch k"]
    log_total: Float[Array, " batch"]


def span_scores(
    start: Float[Array | np.ndarray, "batch token"],
    end: Float[Array | np.ndarray, "batch token"],
    mask: Bool[Array | np.ndarray, "batch token"],
    *,
    max_length: int,
) -> Float[Array, "batch token length"]:
    """The score of every span by its first token and its length less one: start's plus end's.

    Devlin et al. 2018 (arXiv:1810.04805), section 4.2.

    Args:
        start: how well each token begins an answer.
        end: how well each token ends one.
        mask: False for tokens that no span may hold: special tokens, the question, padding.
        max_length: the most tokens of a span, at least 1.

    Returns:
        -inf for a span that would hold a masked token or leave the text.
    """
    start, end, mask = map(jnp.asarray, (start, end, mask))
    length = min(max_length, start.shape[1])
    # The tokens to the next gap bound a span, so that none is laid across.
    ends = jnp.where(mask, end, -jnp.inf)
    ends = jnp.pad(ends, ((0, 0), (0, length - 1)), constant_values=-jnp.inf)
    gaps = jnp.pad(jnp.cumsum(~mask, axis=1), ((0, 0), (0, length - 1)), constant_values=-1)
    number = start.shape[1]
    whole = [gaps[:, :number] == gaps[:, i : i + number] for i in range(length)]
    scores = [jnp.where(inside, start + ends[:, i : i + number], -jnp.inf) for i, inside in enumerate(whole)]
    return jnp.where(mask[:, :, None], jnp.stack(scores, axis=-1), -jnp.inf)


@partial(jax.jit, static_argnames=("k", "max_length", "apart"))
def best_spans(
    start: Float[Array | np.ndarray, "batch token"],
    end: Float[Array | np.ndarray, "batch token"],
    mask: Bool[Array | np.ndarray, "batch token"],
    *,
    k: int,
    max_length: int = MAX_LENGTH,
    word: Int[Array | np.ndarray, "batch token"] | None = None,
    apart: bool = False,
    no_answer: Float[Array | np.ndarray, " batch"] | None = None,
) -> BestSpans:
    """The k best spans of each row: start's score plus end's, no longer than `max_length` tokens.

    Devlin et al. 2018 (arXiv:1810.04805), section 4.2. Memory grows with tokens × max_length.

    Args:
        start: see `span_scores`.
        end: likewise.
        mask: likewise.
        k: how many, at least 1.
        max_length: the most tokens of a span, at least 1.
        word: the number of the word that each token belongs to; then spans are of whole words, and of all
            spans of tokens that touch the same words the best one counts. Windows of a long text may stand
            in one row with a masked token between them: a word in two of them has one number, so nothing is
            found twice.
        apart: whether no two spans may overlap; of two that do, the better one stays.
        no_answer: the score of there being no answer, which competes as if it stood before the text.
    """
    scores = span_scores(start, end, mask, max_length=max_length)
    if word is not None:
        scores = jax.vmap(_by_words)(scores, jnp.asarray(word))
    log_total = jax.nn.logsumexp(scores, axis=(1, 2))
    score, first, last = jax.vmap(partial(_best_apart if apart else _best, k=k))(scores)
    if no_answer is not None:
        log_total = jnp.logaddexp(log_total, no_answer)
        none = jnp.full((len(score), 1), -1, jnp.int32)
        score, places = jax.lax.top_k(jnp.concatenate([jnp.asarray(no_answer)[:, None], score], 1), k)
        first, last = (
            jnp.take_along_axis(jnp.concatenate([none, one], 1), places, 1) for one in (first, last)
        )
    found = jnp.isfinite(score)
    return BestSpans(score, jnp.where(found, first, -1), jnp.where(found, last, -1), log_total)


def as_spans(
    best: BestSpans, none: Float[Array | np.ndarray, " batch"], passages: Sequence[Tokens], *, no_answer: bool
) -> list[list[Span]]:
    """Each passage's spans, best first.

    Args:
        best: of words, as `best_spans` returns them with `none` among them.
        none: the score of there being no answer.
        passages: the texts.
        no_answer: whether to leave out those that are no better than none.
    """
    rows = zip(*map(np.asarray, best), np.asarray(none).tolist(), passages, strict=True)
    found = []
    for scores, first, last, log_total, nothing, passage in rows:
        spans = []
        for score, i, j in zip(scores.tolist(), first.tolist(), last.tolist(), strict=True):
            if i >= 0:
                start, end = int(passage.words[i, 0]), int(passage.words[j, 1])
                probability = math.exp(min(score - float(log_total), 0))
                text = passage.text[start:end]
                spans.append(Span(text, start, end, score, probability, score - nothing))
            elif no_answer:
                break
        found.append(spans)
    return found


def _by_words(
    scores: Float[Array, "token length"], word: Int[Array, " token"]
) -> Float[Array, "token length"]:
    """The score of every span of words, by its first word and its length less one."""
    number, length = scores.shape
    last = jnp.pad(word, (0, length - 1), mode="edge")
    more = jnp.stack([last[i : i + number] for i in range(length)], axis=-1) - word[:, None]
    # Spans that leave a window are -inf, wherever they are put.
    return (
        jnp.full_like(scores, -jnp.inf).at[word[:, None], more.clip(0, length - 1)].max(scores, mode="drop")
    )


def _best(scores: Float[Array, "token length"], *, k: int):
    number, length = scores.shape
    # The k best spans begin at the k tokens whose own best are highest; put in order, they break ties.
    starts = jnp.sort(jax.lax.top_k(scores.max(1), min(k, number))[1])
    rows = jnp.pad(scores[starts].ravel(), (0, max(0, k - len(starts) * length)), constant_values=-jnp.inf)
    score, place = jax.lax.top_k(rows, k)
    first = starts[place // length]
    return score, first, first + place % length


def _best_apart(scores: Float[Array, "token length"], *, k: int):
    number, length = scores.shape
    token, more = jnp.arange(number), jnp.arange(length)
    highest = jax.lax.cummax(scores, axis=1)

    def step(free, _):  # how long a span may be that begins at each token, without touching one taken before
        best = jnp.where(free > 0, highest[token, free - 1], -jnp.inf)
        first = best.argmax()
        last = first + jnp.where(more < free[first], scores[first], -jnp.inf).argmax()
        before = jnp.minimum(free, first - token)
        left = jnp.where(token < first, before, jnp.where(token <= last, 0, free))
        return left, (best[first], first, last)

    return jax.lax.scan(step, jnp.full(number, length), length=k)[1]


def heat_span(heat: HeatMap) -> Span | None:
    """The contiguous words that the heat points to; they mark the match, which is seldom the answer itself.

    Of all runs of at most `MAX_LENGTH` words, the one with the largest sum of heat above a level halfway
    from what unrelated texts of the corpus reach to the hottest word (the hottest itself, where they reach
    more); of equal runs the first, and of those the shortest. Function words and punctuation add nothing and
    stand at no end, and punctuation breaks a run unless it is written without a space on either side, as in
    "mass–energy".

    Returns:
        None where the passage has no word, or the query none to compare it with.
    """
    words = heat.passage.words
    finite = np.isfinite(heat.heat)
    counted = content_words(heat.passage) & finite
    if not counted.any():
        return None
    hottest = heat.heat[counted].max()
    excess = np.where(counted, heat.heat - min((heat.unrelated + hottest) / 2, hottest), 0)
    hot = counted & (excess >= 0)
    joined = words[1:, 0] == words[:-1, 1]
    inside = np.append(False, joined) & np.append(joined, False)
    # A run's sum is the total up to its end less the total before its start: exact in steps of 2⁻¹², so that
    # equal runs have equal sums.
    excess = np.round(excess * 4096) / 4096
    totals = np.cumsum(excess)
    scores = [np.where(hot, one, -np.inf).astype(np.float32) for one in (excess - totals, totals)]
    rows = [one[None] for one in padded(*scores, finite | inside)]
    _, [[first]], [[last]], _ = map(np.asarray, best_spans(*rows, k=1))
    start, end = int(words[first, 0]), int(words[last, 1])
    score = heat.heat[first : last + 1][counted[first : last + 1]].mean()
    return Span(heat.passage.text[start:end], start, end, float(score))


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
