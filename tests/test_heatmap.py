"""Heat maps on hand-made vectors, and spans against brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minqa
from minqa.heatmap import HeatMap, content_words, heat_map
from minqa.spans import heat_sentence, heat_span
from minqa.statistics import RANKING, Measure, Statistics
from minqa.tokens import Tokens


def made_tokens(text, words, word=None):
    """Tokens with these words, one token each unless `word` says otherwise."""
    words = np.array(words, np.int32).reshape(-1, 2)
    word = np.arange(len(words)) if word is None else word
    ids = np.zeros(len(word), np.int32)
    return Tokens(text, ids, np.array(word, np.int32), words, prompt_tokens=0, windows=(len(word),))


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
    word = [-1, *np.repeat(np.arange(len(words)), pieces), -1]
    special = np.sum(rows, axis=0, keepdims=True)
    array = np.concatenate([special, rows, special]).astype(np.float32)
    return minqa.Vectors(made_tokens(text, words, word), array, array.mean(0))


def statistics(frequency, documents=10):
    """Statistics of two layers of vectors of 2, for their idf."""
    moments = np.zeros((2, 2), np.float32)
    unrelated = np.arange(6, dtype=np.float32).reshape(3, 2) / 10
    return Statistics(documents, frequency, moments, moments + 1, unrelated)


def test_a_heat_map_by_hand():
    query = vectors("who wrote it ?", [[1, 0], [3, 4], [0, 1], [1, 1]])
    passage = vectors("he wrote books .", [[0, 2], [4, 3], [5, 0], [0, -1], [1, 1]], pieces=[1, 2, 1, 1])
    heat = heat_map(query, passage)
    # Tokens: cosine of [3, 4] / 5 with each of the passage's, nothing for [CLS] and [SEP].
    np.testing.assert_allclose(
        heat.token_similarity[2, 1:-1], [0.8, 0.96, 0.6, -0.8, 1.4 / 2**0.5], rtol=1e-5
    )
    assert (heat.token_similarity[[0, -1]] == -np.inf).all()
    assert (heat.token_similarity[:, [0, -1]] == -np.inf).all()
    # Words: "wrote" is the mean of [4, 3] and [5, 0], which points where [9, 3] does.
    wrote = (27 + 12) / (5 * 90**0.5)
    np.testing.assert_allclose(heat.word_similarity[1], [0.8, wrote, -0.8, 1.4 / 2**0.5], rtol=1e-5)
    assert heat.word_similarity.shape == (4, 4)
    # Three words count alike, the question mark does not; and the full stop, nearest to "wrote", never wins.
    np.testing.assert_allclose(heat.weights, [1 / 3, 1 / 3, 1 / 3, 0], rtol=1e-6)
    who, it = 9 / 90**0.5, 1.0
    np.testing.assert_allclose(heat.contributions, [who / 3, wrote / 3, it / 3, 0], rtol=1e-5)
    assert heat.score == pytest.approx((who + wrote + it) / 3, rel=1e-5)
    np.testing.assert_allclose(heat.heat[:3], [1, max(who, wrote), 0], atol=1e-5)
    assert heat.heat[3] == -np.inf


def test_rare_words_count_for_more_by_their_idf():
    known = statistics({"red": 9, "fox": 0})
    query = vectors("Red fox ?", [[1, 0], [0, 1], [1, 1]])
    passage = vectors("crimson beast", [[4, 3], [1, 0]])
    heat = heat_map(query, passage, measure=Measure(weights="idf"), statistics=known)
    rare = np.log1p(10 / np.array([9.5, 0.5]))
    np.testing.assert_allclose(heat.weights, [*rare / rare.sum(), 0], rtol=1e-6)
    np.testing.assert_allclose(heat.contributions, heat.weights * [1, 0.6, 0], rtol=1e-5)
    common = rare[0] / rare[1]  # "Red" counts for so much of "fox"
    expected = [max(0.1 + common * (0.8 - 0.1), 0.6), 0.1 + common * (1 - 0.1)]
    np.testing.assert_allclose(heat.heat, expected, rtol=1e-5)
    assert heat.unrelated == pytest.approx(0.1), "of the last layer, without centring"
    with pytest.raises(minqa.InputError, match=r"need the statistics of a corpus"):
        heat_map(query, passage, measure=Measure(weights="idf"))


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 99))
def test_the_score_is_the_sum_of_the_contributions(query_words, passage_words, seed):
    rng = np.random.default_rng(seed)
    query, passage = (
        vectors(" ".join(["w"] * n), rng.normal(size=(n, 3)) if n else np.zeros((0, 3)))
        for n in (query_words, passage_words)
    )
    heat = heat_map(query, passage, measure=RANKING, statistics=statistics({}))
    if query_words and passage_words:
        assert abs(heat.score - heat.contributions.sum(dtype=np.float64)) < 1e-6
    else:
        assert heat.score == -np.inf


def test_a_notebook_shows_a_heat_map_that_holds_no_foreign_markup():
    shown = heat_map(
        vectors("fox", [[1, 0]]), vectors("<b>fox</b> <script>x</script>", np.eye(2))
    )._repr_html_()
    assert "&lt;script&gt;" in shown and "<script>x" not in shown


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
        assert heat_sentence(heat) is None


def test_real_words_are_hot_where_they_match(minilm):
    query, passage = minqa.embed(
        minilm, ["Who painted the Mona Lisa?", "In Paris hangs the Mona Lisa, a portrait by Leonardo."]
    )
    heat = heat_map(query, passage)
    hottest = [passage.tokens.word_texts[i] for i in np.argsort(-heat.heat)[:2]]
    assert set(hottest) == {"Mona", "Lisa"}
    assert heat_span(heat).text == "Mona Lisa"


def map_of(passage, heat, rows=()):
    """A heat map with this heat, and one row of similarities for each word of its query."""
    heat = np.array(heat, np.float32)
    rows = np.array(rows, np.float32).reshape(len(rows), len(heat))
    query = vectors(" ".join("q" * len(rows)), np.zeros((len(rows), 2))).tokens
    weights = np.full(len(rows), 1 / max(len(rows), 1), np.float32)
    tokens = np.zeros((len(query), len(passage)), np.float32)
    return HeatMap(query, passage, tokens, rows, weights, weights, heat, 0.0, 0.0)


def made_map(text, heat):
    return map_of(vectors(text, np.zeros((len(text.split()), 2))).tokens, heat)


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
    level = min(max(hot) / 2, max(hot))  # unrelated texts reach 0

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
    span = heat_span(made_map(text, [0.9, -1, *(one - 1 for one in heat), 0.9]))
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
