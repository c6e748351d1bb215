"""One answer of several passages: its probability, what is one answer said twice, and when there is none."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minqa.answers import overall as module
from minqa.answers.overall import Trust, merged
from minqa.spans import Span


def span(text, margin):
    return Span(text, 0, len(text), margin + 1, 0.5, margin)


TRUST = Trust(bias=-1.0, margin=0.5, score=2.0, lag=3.0, first=1.0, cosine=-0.5)


def overall(spans, scores, trust):
    """With cosines that are made up."""
    return module.overall(spans, scores, [0.4, 0.2, 0.6][: len(spans)], trust)


def test_all_spans_and_no_answer_share_one_softmax():
    spans, scores = [[span("one", 2.0), span("two", -1.0)], [], [span("three", 3.0)]], [0.5, 0.6, 0.9]
    found = overall(spans, scores, TRUST)
    logits = [
        -1 + 0.5 * 2 + 2 * 0.5 + 3 * (0.5 - 0.9) + 1 - 0.5 * 0.4,
        -1 + 0.5 * -1 + 2 * 0.5 + 3 * (0.5 - 0.9) + 1 - 0.5 * 0.4,
        -1 + 0.5 * 3 + 2 * 0.9 - 0.5 * 0.6,
    ]
    powers = np.exp(logits)
    expected = dict(zip(["one", "two", "three"], powers / (1 + powers.sum()), strict=True))
    assert {answer.text: answer.probability for answer in found.answers} == pytest.approx(expected)
    assert found.no_answer == pytest.approx(1 / (1 + powers.sum()))
    assert [answer.text for answer in found.answers] == ["three", "one", "two"]
    assert [answer.place for answer in found.answers] == [2, 0, 0]
    assert found.answer == found.answers[0] and found.answer.span == found.spans[2]
    assert found.spans[0].probability == pytest.approx(expected["one"]) and found.spans[1] is None


def test_without_a_fit_the_margin_alone_counts():
    """A single span is as likely against no answer as its own scores say."""
    [answer] = overall([[span("x", math.log(3))]], [0.2], Trust()).answers
    assert answer.probability == pytest.approx(0.75)


def test_a_span_worse_than_no_answer_is_none_of_its_passages_but_counts_as_a_guess():
    found = overall([[span("guess", -1.0)]], [0.5], Trust())
    assert found.spans == [None] and found.answer is None
    assert [answer.text for answer in found.answers] == ["guess"]
    found = overall([[span("guess", -1.0)], [span("x", -2.0)]], [0.5, 0.4], Trust(bias=2.0))
    assert found.spans == [found.answer.span, None], "the answer is its passage's too"


def test_the_threshold_refuses():
    spans, scores = [[span("x", 1.0)]], [0.5]
    assert overall(spans, scores, Trust(bias=-1.0, threshold=0.5)).answer is None, "as likely as none"
    assert overall(spans, scores, Trust(bias=-1.0, threshold=0.51)).answer.text == "x"


def test_nothing_to_choose_from_is_no_answer():
    for spans in ([], [[], []]):
        assert overall(spans, [0.1] * len(spans), TRUST) == ([None] * len(spans), [], 1.0, None)


def test_answers_that_say_the_same_add_up_under_the_likeliest_name():
    spans = [
        [span("Albert Einstein", 1.0), span("Bohr", 1.2)],
        [span("Einstein", 0.9)],
        [span("in 1905", 0.0)],
    ]
    found = overall(spans, [0.5] * 3, Trust())
    assert [answer.text for answer in found.answers] == ["Albert Einstein", "Bohr", "in 1905"]
    powers = np.exp([1.0, 0.9])
    assert found.answers[0].probability == pytest.approx(powers.sum() * found.no_answer)
    total = sum(answer.probability for answer in found.answers) + found.no_answer
    assert total == pytest.approx(1)


def test_a_passage_with_nothing_to_compare_changes_no_other():
    one = overall([[span("x", 1.0)]], [0.5], TRUST)
    two = overall([[span("x", 1.0)], []], [0.5, -math.inf], TRUST)
    assert one.answers == two.answers
    lost = overall([[span("?!", 1.0)]], [-math.inf], TRUST)
    assert 0 < lost.no_answer < 1


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5))
def test_probabilities_are_probabilities_however_large_the_margins(margins):
    found = overall([[span(f"x{i}", margin) for i, margin in enumerate(margins)]], [0.5], Trust())
    values = [found.no_answer, *(answer.probability for answer in found.answers)]
    assert all(0 <= value <= 1 + 1e-9 for value in values)
    assert sum(values) == pytest.approx(1)


@pytest.mark.parametrize(
    ("text", "other", "same"),
    [
        ("Einstein", "Albert Einstein", True),
        ("the United States", "United States", True),
        ("in 1905.", "1905", True),
        ("General relativity", "general relativity", True),
        ("1914–1918", "1914-1918", True),
        ("Änderung", "änderung", True),
        ("C++", "c++", True),
        ("1905", "19", False),
        ("Bohr", "Einstein", False),
        ("Albert Bohr", "Albert Einstein", False),
        ("Hepatitis A", "Hepatitis B", False),
        ("Vitamin A", "vitamin C", False),
        ("1.5 million", "5 million", False),
        ("$1,500", "500", False),
        ("3", "3.5", False),
        ("5 %", "$5", False),
        ("the", "a", False),
        ("?", "Einstein", False),
        ("?", "!", True),
    ],
)
def test_what_says_the_same(text, other, same):
    for pair in ((text, other), (other, text)):
        spans = [replace(span(one, 1.0), probability=0.4 - 0.1 * i) for i, one in enumerate(pair)]
        assert len(merged([spans])) == (1 if same else 2)


def test_what_is_not_finite_is_only_very_large():
    for wild in (math.inf, -math.inf, math.nan):
        found = overall([[span("x", wild), span("y", 1.0)]], [wild], TRUST)
        values = [found.no_answer, *(answer.probability for answer in found.answers)]
        assert np.isfinite(values).all() and sum(values) == pytest.approx(1)
    assert overall([[replace(span("x", 1.0), margin=None)]], [0.5], Trust()).answers[0].probability == 0.5
