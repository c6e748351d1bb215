"""Heat maps on hand-made vectors, and spans against brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minqa
from minqa.heatmap import HeatMap, content_words, heat_map, similarities
from minqa.spans import heat_span
from minqa.tokens import Tokens


def vectors(text, rows, pieces=None):
    """`Vectors` of white-space words with the given rows, between [CLS] and [SEP] that resemble everything.

    `pieces[i]` is how many tokens word i has; each has its own row.
    """
    words, start = [], 0
    for word in text.split():
        start = text.index(word, start)
        words.append((start, start + len(word)))
        start += len(word)
    pieces = pieces or [1] * len(words)
    word = np.array([-1, *np.repeat(np.arange(len(words)), pieces), -1], np.int32)
    special = np.sum(rows, axis=0, keepdims=True)
    array = np.concatenate([special, rows, special]).astype(np.float32)
    ids = np.zeros(len(word), np.int32)
    tokens = Tokens(text, ids, word, np.array(words, np.int32).reshape(-1, 2))
    return minqa.Vectors(tokens, array, array.mean(0))


def test_a_heat_map_by_hand():
    query = vectors("who wrote it ?", [[1, 0], [3, 4], [0, 1], [1, 1]])
    passage = vectors("he wrote books .", [[0, 2], [4, 3], [5, 0], [0, -1], [1, 1]], pieces=[1, 2, 1, 1])
    heat = heat_map(query, passage)
    assert content_words(query.tokens).tolist() == [False, True, False, False]
    # Tokens: cosine of [3, 4] / 5 with each of the passage's, nothing for [CLS] and [SEP].
    np.testing.assert_allclose(
        heat.token_similarity[2, 1:-1], [0.8, 0.96, 0.6, -0.8, 1.4 / 2**0.5], rtol=1e-5
    )
    assert (heat.token_similarity[[0, -1]] == -np.inf).all()
    assert (heat.token_similarity[:, [0, -1]] == -np.inf).all()
    # Words: "wrote" is [4, 3] + [5, 0] = [9, 3].
    wrote = (27 + 12) / (5 * 90**0.5)
    np.testing.assert_allclose(heat.word_similarity[1], [0.8, wrote, -0.8, 1.4 / 2**0.5], rtol=1e-5)
    assert heat.word_similarity.shape == (4, 4)
    # Heat: the one content word's row, but punctuation never wins.
    np.testing.assert_allclose(heat.heat[:3], [0.8, wrote, -0.8], rtol=1e-5)
    assert heat.heat[3] == -np.inf
    assert heat.score == pytest.approx(wrote, rel=1e-5)


def test_the_score_is_the_mean_of_each_content_words_best():
    query = vectors("red fox", [[1, 0], [0, 1]])
    heat = heat_map(query, vectors("crimson beast !", [[4, 3], [1, 0], [0, 9]]))
    np.testing.assert_allclose(heat.heat[:2], [0.8, 1], rtol=1e-6)
    assert heat.score == pytest.approx((1 + 0.6) / 2)


def test_function_words_count_where_there_is_nothing_else():
    assert content_words(vectors("who is it ?", np.eye(4)).tokens).tolist() == [True, True, True, False]
    assert content_words(vectors("who is the US president", np.eye(5)).tokens).tolist() == [
        *[False] * 3,
        True,
        True,
    ]
    assert content_words(vectors("doesn like", np.eye(2)).tokens).tolist() == [False, True]
    assert content_words(vectors("Die Katze", np.eye(2)).tokens).tolist() == [True, True]
    assert content_words(vectors("🍕 + $ …", np.eye(4)).tokens).tolist() == [True, False, False, False]


def test_without_words_there_is_no_heat():
    query, words = vectors("", np.zeros((0, 2))), vectors("a b", np.eye(2))
    for one, other in [(query, words), (words, query), (query, query)]:
        heat = heat_map(one, other)
        assert heat.score == -np.inf
        assert (heat.heat == -np.inf).all()
        assert heat_span(heat) is None


def test_the_array_core_maps_over_a_batch():
    rng = np.random.default_rng(0)
    query, passages = (rng.normal(size=shape).astype(np.float32) for shape in [(5, 8), (3, 7, 8)])
    query_word, passage_word = np.array([-1, 0, 0, 1, -1]), np.array([[-1, 0, 1, 1, 2, -1, -1]] * 3)
    batched = jax.vmap(similarities, in_axes=(None, None, 0, 0))(query, query_word, passages, passage_word)
    for i in range(3):
        alone = similarities(query, query_word, passages[i], passage_word[i])
        for ours, theirs in zip(batched, alone, strict=True):
            np.testing.assert_allclose(ours[i], theirs, atol=1e-6)
    assert (np.asarray(batched[1])[:, 2:] == 0).all(), "rows that no word fills"
    assert jnp.isfinite(
        jax.grad(lambda x: similarities(query, query_word, x, passage_word[0])[1].sum())(passages[0])
    ).all()


def test_real_words_are_hot_where_they_match(minilm):
    query, passage = minqa.embed(
        minilm, ["Who painted the Mona Lisa?", "In Paris hangs the Mona Lisa, a portrait by Leonardo."]
    )
    heat = heat_map(query, passage)
    hottest = [passage.tokens.word_texts[i] for i in np.argsort(-heat.heat)[:2]]
    assert set(hottest) == {"Mona", "Lisa"}
    assert heat_span(heat).text == "Mona Lisa"


NOTHING = np.zeros((0, 0))


def made_map(text, heat):
    passage = vectors(text, np.zeros((len(text.split()), 2))).tokens
    heat = np.array(heat, np.float32)
    return HeatMap(passage, passage, NOTHING, np.zeros((0, len(heat))), heat, 0.0)


def test_a_span_by_hand():
    span = heat_span(made_map("the old red fox ran", [0.1, 0.2, 0.8, 0.9, 0.1]))
    assert (span.text, span.start, span.end) == ("red fox", 8, 15)
    assert span.score == pytest.approx(0.85)


def glued(heat, *, glue):
    """Words of three letters; `glue[i]` leaves out the space before word i."""
    text, words = "", []
    for i in range(len(heat)):
        text += "" if glue[i] else " "
        words.append((len(text), len(text) + 3))
        text += "abc"
    n = len(heat)
    passage = Tokens(text, np.zeros(n, np.int32), np.arange(n, dtype=np.int32), np.array(words, np.int32))
    return HeatMap(passage, passage, NOTHING, np.zeros((0, len(heat))), np.array(heat, np.float32), 0.0)


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
    level = (np.mean(hot, dtype=np.float32) + np.float32(max(hot))) / 2

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
    span = heat_span(made_map("v w x y z", [1, 0, 1, 0, 1]))
    assert (span.start, span.end) == (0, 1)


def test_function_words_bridge_a_span_but_do_not_end_it():
    span = heat_span(
        made_map("by the theory of relativity it was famous", [0.9, 0.9, 0.8, 0.1, 0.8, 0.9, 0.9, 0])
    )
    assert span.text == "theory of relativity"
    assert span.score == pytest.approx(0.8)
    assert heat_span(made_map("it was", [0.1, 0.9])).text == "was", "where there is nothing else"


def test_punctuation_without_spaces_does_not_end_a_span():
    joined = Tokens("x mass–energy, law", *[np.zeros(6, np.int32)] * 2, np.array(
        [(0, 1), (2, 6), (6, 7), (7, 13), (13, 14), (15, 18)], np.int32))  # fmt: skip
    heat = np.array([0, 0.9, -np.inf, 0.9, -np.inf, 0.9], np.float32)
    span = heat_span(HeatMap(joined, joined, NOTHING, np.zeros((0, len(heat))), heat, 0.0))
    assert span.text == "mass–energy"
