"""What finds answers; and scores of starts and ends → the best spans, and the loss of marked ones."""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from minqa.answers.overall import Overall
from minqa.embedding import Vectors
from minqa.encoder import Encoder
from minqa.spans import MAX_SPAN_WORDS, Span
from minqa.tokens import Tokens

# How well each token, or word, begins an answer, or ends it.
Scores: TypeAlias = Float[Array | np.ndarray, "batch token"]
Mask: TypeAlias = Bool[Array | np.ndarray, "batch token"]
NoAnswer: TypeAlias = Float[Array | np.ndarray, " batch"]


@runtime_checkable
class Answerer(Protocol):
    """Finds answers in passages."""

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def layer(self) -> int | None: ...  # the encoder's layer that it reads; None if it reads the texts

    def check_encoder(self, encoder: Encoder) -> None:
        """Raise InputError if it cannot read this encoder's vectors."""

    def answers(
        self,
        question: Vectors,
        passages: Sequence[Vectors],
        scores: Sequence[float],
        cosines: Sequence[float],
    ) -> Overall:
        """The best answer of each passage, and what all passages answer together.

        `scores` are the passages' MaxSim, `cosines` those of their pooled vectors; `overall` weighs both.
        """


class BestSpans(NamedTuple):
    """The best spans of each row, in falling order of their scores; of equals the first in the text."""

    score: Float[Array, "batch k"]  # -inf after the last span
    first: Int[Array, "batch k"]  # the first token, or word; -1 for no answer, and after the last span
    last: Int[Array, "batch k"]  # the last one of the span
    log_total: Float[Array, " batch"]  # log Σ exp(score): exp(score - log_total) is a span's probability


def span_scores(
    start: Scores, end: Scores, mask: Mask, *, max_length: int
) -> Float[Array, "batch token length"]:
    """The score of every span, start's plus end's, by its first token and its length less one.

    Devlin et al. 2018 (arXiv:1810.04805), section 4.2. The score is -inf for a span that would hold a token
    whose mask is False (a special token, the question, padding) or leave the text, or if it is not a number.
    `max_length`, at least 1, bounds a span's tokens.
    """
    start, end, mask = map(jnp.asarray, (start, end, mask))
    start, end = (jnp.where(jnp.isnan(scores), -jnp.inf, scores) for scores in (start, end))
    number, length = start.shape[1], min(max_length, start.shape[1])
    # Equal counts of gaps before its first and its last token: no gap lies inside a span.
    ends = jnp.pad(jnp.where(mask, end, -jnp.inf), ((0, 0), (0, length - 1)), constant_values=-jnp.inf)
    gaps = jnp.pad(jnp.cumsum(~mask, axis=1), ((0, 0), (0, length - 1)), constant_values=-1)
    last = _last_tokens(number, length)
    whole = mask[:, :, None] & (gaps[:, :number, None] == gaps[:, last])
    return jnp.where(whole, start[:, :, None] + ends[:, last], -jnp.inf)


def span_loss(
    start: Scores,
    end: Scores,
    no_answer: NoAnswer,
    mask: Mask,
    target: Float[Array | np.ndarray, "batch token length"],
) -> Float[Array, ""]:
    """Cross-entropy of the answers under one softmax over all spans and no answer; the mean of the batch.

    Devlin et al. 2018 (arXiv:1810.04805, section 4.2) normalize starts and ends apart; here, after Lee et al.
    2016 (arXiv:1611.01436), spans compete as they do in decoding. The target is the part of the annotators
    that chose each span, laid out as `span_scores` returns them; the rest, to 1, found no answer.
    """
    scores = span_scores(start, end, mask, max_length=target.shape[2])
    log_total = jnp.logaddexp(jax.nn.logsumexp(scores, axis=(1, 2)), no_answer)
    chosen = (target * jnp.where(target > 0, scores, 0)).sum((1, 2))
    return (log_total - chosen - (1 - target.sum((1, 2))) * no_answer).mean()


@partial(jax.jit, static_argnames=("k", "max_length"))
def best_spans(
    start: Scores,
    end: Scores,
    mask: Mask,
    *,
    k: int,
    max_length: int = MAX_SPAN_WORDS,
    word: Int[Array | np.ndarray, "batch token"] | None = None,
    no_answer: NoAnswer | None = None,
) -> BestSpans:
    """The k best spans of each row; see `span_scores`. Memory grows with tokens × max_length.

    Args:
        start: of each token.
        end: of each token.
        mask: see `span_scores`.
        k: how many, at least 1.
        max_length: the most tokens of a span, at least 1.
        word: the number of the word that each token belongs to; then spans are of whole words, and of all
            spans of tokens that touch the same words the best one counts. Windows of a long text may stand
            in one row with a masked token between them: a word in two of them has one number, so nothing is
            returned twice.
        no_answer: the score of no answer, which competes as if it stood before the text.
    """
    scores = span_scores(start, end, mask, max_length=max_length)
    if word is not None:
        scores = jax.vmap(_by_words)(scores, jnp.asarray(word))
    rows, _, length = scores.shape
    lowest = jnp.full(rows, -jnp.inf, scores.dtype)
    none = lowest if no_answer is None else jnp.where(jnp.isnan(no_answer), lowest, no_answer)
    # No answer, then every span in the order of the text: of equal scores, top_k takes the first.
    candidates = jnp.concatenate([none[:, None], scores.reshape(rows, -1), jnp.tile(lowest[:, None], k)], 1)
    score, place = jax.lax.top_k(candidates, k)
    first, more = jnp.divmod(place - 1, length)
    real = (score > -jnp.inf) & (place > 0)
    log_total = jax.nn.logsumexp(candidates, axis=1)
    return BestSpans(score, jnp.where(real, first, -1), jnp.where(real, first + more, -1), log_total)


def as_spans(
    best: BestSpans, no_answer: NoAnswer, passages: Sequence[Tokens], *, k: int, skip_worse: bool
) -> list[list[Span]]:
    """The k best spans of each passage: `best` holds k + 1, no answer among them.

    With `skip_worse`, spans that are no better than no answer are left out.
    """
    answers = []
    rows = [np.asarray(array).tolist() for array in (*best, no_answer)]
    for scores, first, last, log_total, none, passage in zip(*rows, passages, strict=True):
        spans = []
        for score, i, j in zip(scores, first, last, strict=True):
            if i >= 0 and not (skip_worse and score <= none):
                start, end = int(passage.words[i, 0]), int(passage.words[j, 1])
                probability = math.exp(min(score - log_total, 0))
                spans.append(Span(passage.text[start:end], start, end, score, probability, score - none))
        answers.append(spans[:k])
    return answers


def _by_words(
    scores: Float[Array, "token length"], word: Int[Array, " token"]
) -> Float[Array, "token length"]:
    """The score of every span of words, by its first word and its length less one."""
    number, length = scores.shape
    more = jnp.pad(word, (0, length - 1), mode="edge")[_last_tokens(number, length)] - word[:, None]
    place = word[:, None], more.clip(0, length - 1)
    # Spans that leave a window are -inf, wherever they are put.
    return jnp.full_like(scores, -jnp.inf).at[place].max(scores, mode="drop")


def _last_tokens(number: int, length: int) -> Int[np.ndarray, "token length"]:
    """The last token of each span, by its first and its length less one."""
    return np.arange(number)[:, None] + np.arange(length)[None]
