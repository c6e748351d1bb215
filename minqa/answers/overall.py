"""Spans of several passages → the distinct answers that they give together, each with one probability."""

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from minqa.spans import Answer, Span

# The spans of each passage that are compared.
SPANS_PER_PASSAGE = 5
_PUNCTUATION = str.maketrans(string.punctuation, " " * len(string.punctuation))


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


class Overall(NamedTuple):
    """What passages answer together; probabilities are among the spans of all passages and no answer."""

    spans: list[Span | None]  # the best of each passage; None if no answer is at least as plausible there
    answers: list[Answer]  # distinct ones, likeliest first
    no_answer: float
    answer: Answer | None  # the likeliest; None if `no_answer` reaches the threshold


def signs(
    spans: Sequence[Sequence[Span]], scores: Sequence[float], cosines: Sequence[float]
) -> Float[np.ndarray, "span sign"]:
    """What `Trust` weighs, in its order, for the spans of each passage, one after the other."""
    scores = np.maximum(scores, -1).tolist()  # a passage with nothing to compare has -inf
    best = max(scores, default=0)
    rows = [
        (span.margin, score, score - best, i == 0, cosine)
        for i, (found, score, cosine) in enumerate(zip(spans, scores, cosines, strict=True))
        for span in found
    ]
    return np.array(rows, float).reshape(-1, 5)


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
    every = [(place, span) for place, found in enumerate(spans) for span in found]
    compared = [
        (probability, place, replace(span, probability=probability))
        for probability, (place, span) in zip(probabilities, every, strict=True)
    ]
    best = {place: span for _, place, span in reversed(compared) if (span.margin or 0) > 0}
    answers = merged(compared)
    given = answers[0] if answers and no_answer < trust.threshold else None
    return Overall([best.get(place) for place in range(len(spans))], answers, no_answer, given)


def merged(spans: Sequence[tuple[float, int, Span]]) -> list[Answer]:
    """Distinct answers, likeliest first, of (probability, place of the passage, span); see `agree`."""
    groups: list[list[tuple[float, int, Span]]] = []
    for candidate in sorted(spans, key=lambda candidate: -candidate[0]):
        same = (group for group in groups if agree(group[0][2].text, candidate[2].text))
        if group := next(same, None):
            group.append(candidate)
        else:
            groups.append([candidate])
    answers = [
        Answer(span.text, sum(probability for probability, *_ in group), place, span)
        for group in groups
        for _, place, span in group[:1]
    ]
    return sorted(answers, key=lambda answer: -answer.probability)


def agree(text: str, other: str) -> bool:
    """Whether the words of one stand in the other, as in "Einstein" and "Albert Einstein".

    Case, punctuation and articles do not count.
    """
    short, long = sorted((words(text), words(other)), key=len)
    return f" {short} " in f" {long} " if short else short == long


def words(text: str) -> str:
    """The words of an answer that count, with a space between them."""
    kept = re.sub(r"\b(a|an|the)\b", " ", text.casefold().translate(_PUNCTUATION))
    return " ".join(kept.split())
