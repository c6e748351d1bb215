"""The phrase and the sentence that a heat map points to, against brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_heatmap import made_map, made_tokens, map_of, vectors

from minqa.heatmap import heat_map
from minqa.similarity import SIMILARITIES
from minqa.spans import heat_sentence, heat_span


def test_a_span_by_hand():
    span = heat_span(made_map("the old red fox ran", [0.1, 0.2, 0.8, 0.9, 0.1]))
    assert (span.text, span.start, span.end) == ("red fox", 8, 15)
    assert span.score == pytest.approx(0.85)


def glued(heat, *, glue):
    """Words of three letters, or of none; `glue[i]` leaves out the space before word i."""
    text, words = "", []
    for i in range(len(heat)):
        text += "" if glue[i] else " "
        words.append((len(text), len(text) + 3))
        text += "abc" if heat[i] > -np.inf else "..."
    return map_of(made_tokens(text, words), heat)


# Quarters, so that sums are exact and ties are real; None is punctuation.
HEATS = st.lists(st.tuples(st.sampled_from([None, -0.25, 0, 0.25, 0.5, 1]), st.booleans()), max_size=12)


@given(HEATS)
def test_the_span_is_the_best_of_all_runs(words):
    heat = [-np.inf if value is None else value for value, _ in words]
    glue = [flag for _, flag in words]
    hot = [value for value in heat if value > -np.inf]
    if not hot:
        return
    heat_map = glued(heat, glue=glue)
    level = min(max(hot) / 2, max(hot))  # the baseline is 0

    def total(first, last):
        sum_ = 0.0
        for i in range(first, last + 1):
            if heat[i] > -np.inf:
                sum_ += np.float32(heat[i]) - level
            elif not (0 < i < len(heat) - 1 and glue[i] and glue[i + 1]):
                return -np.inf
        return sum_

    runs = [(i, j) for i in range(len(heat)) for j in range(i, len(heat))]
    best = max(total(*run) for run in runs)
    span = heat_span(heat_map)
    starts = heat_map.passage.words[:, 0].tolist()
    ends = heat_map.passage.words[:, 1].tolist()
    run = (starts.index(span.start), ends.index(span.end))
    assert total(*run) == pytest.approx(best, abs=1e-6)
    assert span.text == heat_map.passage.text[span.start : span.end]
    assert heat[run[0]] > -np.inf and heat[run[1]] > -np.inf, "no punctuation at the ends"
    inside = [value for value in heat[run[0] : run[1] + 1] if value > -np.inf]
    assert span.score == pytest.approx(np.mean(inside), abs=1e-6)


def test_the_first_of_equal_runs_is_taken():
    span = heat_span(made_map("v w x y z", [1, -1, 1, -1, 1]))
    assert (span.start, span.end) == (0, 1)


@given(st.lists(st.sampled_from([0.1, 0.3, 0.7]), min_size=30, max_size=30))
def test_sums_before_a_run_do_not_decide_between_equals(heat):
    text = " ".join(["w"] * 33)
    span = heat_span(made_map(text, [0.9, -1, *(value - 1 for value in heat), 0.9]))
    assert (span.start, span.end) == (0, 1)


def test_function_words_bridge_a_span_but_do_not_end_it():
    span = heat_span(
        made_map("by the theory of relativity it was famous", [0.9, 0.9, 0.8, 0.1, 0.8, 0.9, 0.9, 0])
    )
    assert span.text == "theory of relativity"
    assert span.score == pytest.approx(0.8)
    assert heat_span(made_map("it was", [0.1, 0.9])).text == "was", "where there is nothing else"


def test_punctuation_without_spaces_does_not_end_a_span():
    joined = made_tokens("x mass–energy, law", [(0, 1), (2, 6), (6, 7), (7, 13), (13, 14), (15, 18)])
    span = heat_span(map_of(joined, [0, 0.9, -np.inf, 0.9, -np.inf, 0.9]))
    assert span.text == "mass–energy"


def test_the_sentence_with_the_most_heat_by_hand():
    passage = vectors("Fox runs. He jumps high. Dogs bark.", np.zeros((7, 2))).tokens
    words = [[0.9, 0, 0, 0.5, 0, 0, 0], [0, 0.1, 0, 0.6, 0.1, 0.2, 0.7]]
    # Within a sentence: .9 + .1, .5 + .6, .2 + .7. "Fox" is still spoken of: .72 in the second, .576 then.
    span = heat_sentence(map_of(passage, [1] * 7, words))
    assert span.text == "He jumps high." and passage.text[span.start : span.end] == span.text
    assert span.score == pytest.approx((0.8 * 0.9 + 0.6) / 2)


@pytest.mark.parametrize("similarity", SIMILARITIES.values(), ids=SIMILARITIES)
def test_the_sentence_that_echoes_is_found_with_every_similarity(similarity):
    rows = 5 * np.random.default_rng(0).normal(size=(9, 8))
    passage = vectors("Red fox runs. Blue whale sings. Green bird flies.", rows)
    query = vectors("blue whale", rows[3:5] + np.random.default_rng(1).normal(size=(2, 8)))
    assert heat_sentence(heat_map(query, passage, similarity=similarity)).text == "Blue whale sings."
