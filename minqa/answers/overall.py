"""Spans of several passages → the distinct answers that they give together, each with one probability."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from minqa.embedding import Vectors
from minqa.spans import Span

# The spans of each passage that are compared.
SPANS_PER_PASSAGE = 5
LARGEST = 1e6  # that a sign can be
_WORD = re.compile(r"\w+(?:(?<=\d)[.,](?=\d)\w+)*|[^\w\s.,;:!?'\"()–—-]")  # and signs such as % and $
_ARTICLES = ["a"], ["an"], ["the"]


@dataclass(frozen=True)
class Trust:
    """How much each sign says that a span is the answer; by default only its margin counts.

    P(span) ∝ exp(bias + Σ weight · sign), over the spans of all passages, and P(no answer) ∝ 1.
    """

    bias: float = 0.0
    margin: float = 1.0  # the span's score less that of no answer
    score: float = 0.0  # of the passage, by MaxSim
    lag: float = 0.0  # the passage's score less the best one's
    first: float = 0.0  # whether the passage is the first
    cosine: float = 0.0  # of the passage's pooled vector and the question's
    threshold: float = 0.5  # from this probability of no answer on, none is given

    def logits(self, signs: Float[np.ndarray, "span sign"]) -> Float[np.ndarray, " span"]:
        """The logarithm of P(span) / P(no answer), of what `signs` returns."""
        weights = self.margin, self.score, self.lag, self.first, self.cosine
        return self.bias + signs @ np.array(weights)


@dataclass(frozen=True)
class Answer:
    """What several passages answer together."""

    text: str  # of the likeliest span that says so
    probability: float  # of all spans that say the same
    place: int  # of that span's passage among those that were read, from 0
    span: Span


class Overall(NamedTuple):
    """What passages answer together; probabilities are among the spans of all passages and no answer."""

    # The best of each passage; None if no answer is at least as plausible there, and it is not the answer.
    spans: list[Span | None]
    answers: list[Answer]  # distinct ones, likeliest first
    no_answer: float
    answer: Answer | None  # the likeliest; None if `no_answer` reaches the threshold


def signs(
    spans: Sequence[Sequence[Span]], scores: Sequence[float], cosines: Sequence[float]
) -> Float[np.ndarray, "span sign"]:
    """What `Trust` weighs, in its order, for the spans of each passage, one after the other."""
    scores = np.clip(np.nan_to_num(scores, nan=-1), -1, LARGEST).tolist()  # of nothing to compare: -inf
    best = max(scores, default=0)
    rows = [
        (span.margin or 0, score, score - best, i == 0, cosine)
        for i, (found, score, cosine) in enumerate(zip(spans, scores, cosines, strict=True))
        for span in found
    ]
    return np.nan_to_num(np.array(rows, float).reshape(-1, 5), posinf=LARGEST, neginf=-LARGEST)


def overall(
    spans: Sequence[Sequence[Span]], scores: Sequence[float], cosines: Sequence[float], trust: Trust
) -> Overall:
    """Weigh the spans of several passages against each other and against no answer.

    Several passages share one softmax, and no answer is one of its choices (Clark and Gardner 2018,
    arXiv:1710.10723, sections 3.2 and 3.4), but the ranking has a say.

    Args:
        spans: of each passage, best first, with their margins.
        scores: of each passage, MaxSim as `rank` returns it.
        cosines: of each passage's pooled vector and the question's.
        trust: how much each sign counts.
    """
    logits = np.append(trust.logits(signs(spans, scores, cosines)), 0)
    *probabilities, no_answer = np.exp(logits - np.logaddexp.reduce(logits)).tolist()
    each = iter(probabilities)
    compared = [[replace(span, probability=next(each)) for span in found] for found in spans]
    answers = merged(compared)
    given = answers[0] if answers and no_answer < trust.threshold else None

    def is_plausible(span: Span) -> bool:
        return (span.margin or 0) > 0 or (given is not None and span is given.span)

    best = [next(filter(is_plausible, found[:1]), None) for found in compared]
    return Overall(best, answers, no_answer, given)


class FindsSpans:
    """An `Answerer` that finds spans in each passage, whose `overall` is weighed by its `trust`."""

    trust = Trust()

    def spans(self, question: Vectors, passages: Sequence[Vectors]) -> list[list[Span]]:
        """The `SPANS_PER_PASSAGE` best of each passage, best first, with their margins."""
        raise NotImplementedError

    def answers(self, question, passages, scores, cosines) -> Overall:
        """See `Answerer`."""
        return overall(self.spans(question, passages), scores, cosines, self.trust)


def merged(spans: Sequence[Sequence[Span]]) -> list[Answer]:
    """Distinct answers, likeliest first, of each passage's spans with their probabilities.

    A span joins the likeliest one before it whose words it has, or that has its words, as "Einstein" and
    "Albert Einstein". Case, punctuation and a leading article do not count.
    """
    every = [(span.probability or 0.0, place, span) for place, found in enumerate(spans) for span in found]
    answers: dict[str, Answer] = {}  # by the words of the likeliest span
    for probability, place, span in sorted(every, key=lambda candidate: -candidate[0]):
        own = words(span.text)
        same = next((known for known in answers if own in known or known in own), own)
        answer = answers.get(same, Answer(span.text, 0.0, place, span))
        answers[same] = replace(answer, probability=answer.probability + probability)
    return sorted(answers.values(), key=lambda answer: -answer.probability)


def words(text: str) -> str:
    """The words of an answer that count, each between spaces: one text is in another by whole words only."""
    found = _WORD.findall(text.casefold())
    return f" {' '.join(found[1:] if found[:1] in _ARTICLES and found[1:] else found)} "
