"""Spans against brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minqa.spans import best_spans, span_scores

TOKENS = 7
# Quarters, so that sums are exact and ties are real.
VALUES = st.lists(st.integers(-8, 8).map(lambda n: n / 4), min_size=TOKENS, max_size=TOKENS)
FLAGS = st.lists(st.sampled_from([True, True, True, False]), min_size=TOKENS, max_size=TOKENS)
WORDS = st.lists(st.booleans(), min_size=TOKENS, max_size=TOKENS).map(np.cumsum)


def rows(*values):
    return [np.array(one, bool if isinstance(one[0], bool) else np.float32)[None] for one in values]


def every_span(start, end, mask, max_length):
    """(score, first, last) of all spans that are allowed."""
    return [
        (start[i] + end[j], i, j)
        for i in range(len(start))
        for j in range(i, min(len(start), i + max_length))
        if all(mask[i : j + 1])
    ]


def in_order(spans):
    return sorted(spans, key=lambda span: (-span[0], *span[1:]))


def found(best):
    """The spans of the one row, without the places that are empty."""
    [score], [first], [last] = map(np.asarray, best[:3])
    spans = list(zip(score.tolist(), first.tolist(), last.tolist(), strict=True))
    rest = [span for span in spans if span[0] == -np.inf]
    assert spans[len(spans) - len(rest) :] == rest == [(-np.inf, -1, -1)] * len(rest)
    return spans[: len(spans) - len(rest)]


def first_of_each(spans, key):
    seen = {}
    for span in spans:
        seen.setdefault(key(span), span)
    return list(seen.values())


def thinned(spans):
    kept = []
    for span in spans:
        if all(span[2] < other[1] or other[2] < span[1] for other in kept):
            kept.append(span)
    return kept


@pytest.mark.parametrize(("k", "max_length"), [(1, 3), (4, 1), (4, 10), (40, 3)])
@settings(max_examples=60)
@given(VALUES, VALUES, FLAGS)
def test_the_best_spans_are_those_of_brute_force(k, max_length, start, end, mask):
    expected = in_order(every_span(start, end, mask, max_length))[:k]
    assert found(best_spans(*rows(start, end, mask), k=k, max_length=max_length)) == expected


@pytest.mark.parametrize("max_length", [1, 3, 10])
@settings(max_examples=30)
@given(VALUES, VALUES, FLAGS)
def test_every_span_has_its_score(max_length, start, end, mask):
    [scores] = np.asarray(span_scores(*rows(start, end, mask), max_length=max_length))
    assert scores.shape == (TOKENS, min(TOKENS, max_length)), "no tokens × tokens"
    expected = np.full(scores.shape, -np.inf)
    for score, first, last in every_span(start, end, mask, max_length):
        expected[first, last - first] = score
    np.testing.assert_array_equal(scores, expected)


@pytest.mark.parametrize("apart", [False, True])
@settings(max_examples=60)
@given(VALUES, VALUES, FLAGS, st.integers(-16, 16).map(lambda n: n / 4))
def test_no_answer_and_overlaps(apart, start, end, mask, no_answer):
    spans = in_order(every_span(start, end, mask, 4))
    expected = in_order([(no_answer, -1, -1), *(thinned(spans) if apart else spans)[:5]])[:5]
    best = best_spans(
        *rows(start, end, mask), k=5, max_length=4, apart=apart, no_answer=np.float32([no_answer])
    )
    assert found(best) == expected


@pytest.mark.parametrize("apart", [False, True])
@settings(max_examples=60)
@given(VALUES, VALUES, FLAGS, WORDS)
def test_spans_of_whole_words(apart, start, end, mask, word):
    spans = [(score, word[i], word[j]) for score, i, j in every_span(start, end, mask, 4)]
    expected = first_of_each(in_order(spans), key=lambda span: span[1:])
    expected = (thinned(expected) if apart else expected)[:5]
    best = best_spans(
        *rows(start, end, mask), k=5, max_length=4, word=np.int32([word]) - word[0], apart=apart
    )
    assert found(best) == [(score, i - word[0], j - word[0]) for score, i, j in expected]


def test_a_word_in_two_windows_is_found_once():
    # Two windows of three words, the middle two of four words in both.
    word = [0, 1, 2, 0, 1, 2, 3]
    mask = [True, True, True, False, True, True, True]
    start, end = [0.0, 2, 0, 9, 3, 0, 0], [0.0, 0, 1, 9, 0, 2, 0]
    best = best_spans(*rows(start, end, mask), k=3, max_length=2, word=np.int32([word]))
    assert found(best) == [(5, 1, 2), (3, 1, 1), (2, 2, 2)]


def test_rows_do_not_disturb_each_other():
    rng = np.random.default_rng(0)
    start, end = rng.normal(size=(2, 3, TOKENS)).astype(np.float32)
    mask = rng.random((3, TOKENS)) > 0.2
    together = best_spans(start, end, mask, k=4, max_length=3)
    for i in range(3):
        alone = best_spans(start[i : i + 1], end[i : i + 1], mask[i : i + 1], k=4, max_length=3)
        assert found([one[i : i + 1] for one in together]) == found(alone)
