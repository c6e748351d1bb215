"""Spans, and their loss, against brute force."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from minqa.answers.spans import best_spans, span_loss, span_scores

TOKENS = 7
# Quarters, so that sums are exact and ties are real.
VALUES = st.lists(st.integers(-8, 8).map(lambda n: n / 4), min_size=TOKENS, max_size=TOKENS)
FLAGS = st.lists(st.sampled_from([True, True, True, False]), min_size=TOKENS, max_size=TOKENS)
WORDS = st.lists(st.booleans(), min_size=TOKENS, max_size=TOKENS).map(np.cumsum)


def rows(*values):
    return [np.array(row, bool if isinstance(row[0], bool) else np.float32)[None] for row in values]


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


@settings(max_examples=60)
@given(VALUES, VALUES, FLAGS, st.integers(-16, 16).map(lambda n: n / 4))
def test_no_answer_competes(start, end, mask, no_answer):
    spans = in_order(every_span(start, end, mask, 4))
    expected = in_order([(no_answer, -1, -1), *spans])[:5]
    best = best_spans(*rows(start, end, mask), k=5, max_length=4, no_answer=np.float32([no_answer]))
    assert found(best) == expected


@settings(max_examples=60)
@given(VALUES, VALUES, FLAGS, WORDS)
def test_spans_of_whole_words(start, end, mask, word):
    spans = [(score, word[i], word[j]) for score, i, j in every_span(start, end, mask, 4)]
    expected = first_of_each(in_order(spans), key=lambda span: span[1:])[:5]
    best = best_spans(*rows(start, end, mask), k=5, max_length=4, word=np.int32([word]) - word[0])
    assert found(best) == [(score, i - word[0], j - word[0]) for score, i, j in expected]


def test_a_score_that_is_not_a_number_makes_no_span():
    start, end = [0.0, np.nan, 2, 1], [1.0, 0, np.nan, 3]
    best = best_spans(*rows(start, end, [True] * 4), k=9, max_length=4, no_answer=np.float32([np.nan]))
    expected = [(5, 2, 3), (4, 3, 3), (3, 0, 3), (1, 0, 0), (0, 0, 1)]
    assert found(best) == expected
    assert float(best.log_total[0]) == pytest.approx(
        scipy.special.logsumexp([score for score, *_ in expected])
    )


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
        assert found([array[i : i + 1] for array in together]) == found(alone)


def test_the_loss_is_cross_entropy_over_all_spans_and_none():
    rng = np.random.default_rng(0)
    start, end = rng.normal(size=(2, 2, 5)).astype(np.float32)
    mask = np.array([[True] * 5, [False, True, True, False, True]])
    none, target = np.float32([0.3, -0.2]), np.zeros((2, 5, 3), np.float32)
    losses = []
    for row, answers in enumerate([{(1, 2): 0.75, (3, 3): 0.25}, {(2, 2): 0.5, None: 0.5}]):
        scores = {(i, j): score for score, i, j in every_span(start[row], end[row], mask[row], 3)}
        scores |= {None: none[row]}
        total = scipy.special.logsumexp(list(scores.values()))
        losses.append(sum(weight * (total - scores[span]) for span, weight in answers.items()))
        for first, last in filter(None, answers):
            target[row, first, last - first] = answers[first, last]
    loss = span_loss(*map(jnp.asarray, (start, end, none)), mask, target)
    assert float(loss) == pytest.approx(np.mean(losses), rel=1e-5)
