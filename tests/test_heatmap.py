"""Heat maps on hand-made vectors, and spans against brute force."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
from conftest import compilations
from hypothesis import given, settings
from hypothesis import strategies as st

import minqa
from minqa.encoder import Statistics
from minqa.heatmap import HeatMap, content_words, heat_map, rank
from minqa.similarity import SIMILARITIES, cosine
from minqa.spans import heat_sentence, heat_span
from minqa.tokens import Tokens


def made_tokens(text, words, word=None, unknown=()):
    """Tokens with these words, one token each unless `word` says otherwise."""
    words = np.array(words, np.int32).reshape(-1, 2)
    word = np.array(np.arange(len(words)) if word is None else word, np.int32)
    return Tokens(
        text=text,
        ids=np.zeros(len(word), np.int32),
        word=word,
        words=words,
        keys=tuple(text[start:end].lower() for start, end in words),
        unknown=np.isin(np.arange(len(words)), unknown),
        prompt_tokens=0,
        windows=(len(word),),
        pooled_window=0,
        types=np.zeros(len(word), np.int32),
    )


def vectors(text, rows, pieces=None, unknown=()):
    """`Vectors` of white-space words with the given rows, between [CLS] and [SEP] that resemble everything.

    `pieces[i]` is how many tokens word i has; each has its own row. `unknown` numbers words of [UNK].
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
    tokens = made_tokens(text, words, word, unknown)
    weights = tokens.is_word / np.float32(max(tokens.is_word.sum(), 1))
    return minqa.Vectors(tokens, array, array.mean(0), weights)


def statistics(frequency, documents=10):
    """Statistics of two layers of vectors of 2, for their idf."""
    moments = np.zeros((2, 2), np.float32)
    baseline = np.arange(6, dtype=np.float32).reshape(3, 2) / 10
    return Statistics(documents, frequency, moments, moments + 1, baseline, np.ones_like(baseline))


def weighed(tiny, vectors, frequency):
    """The vectors as an encoder gives them that knows a corpus with these words."""
    weights = replace(tiny, statistics=statistics(frequency)).word_weights(vectors.tokens)
    return replace(vectors, weights=weights, baseline=0.1)


def test_a_heat_map_by_hand():
    query = vectors("who wrote it ?", [[1, 0], [3, 4], [0, 1], [1, 1]])
    passage = vectors("he wrote books .", [[0, 2], [4, 3], [5, 0], [0, -1], [1, 1]], pieces=[1, 2, 1, 1])
    heat = heat_map(query, passage, window=0, neighbours=0.0)
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


def test_rare_words_count_for_more_by_their_idf(tiny):
    query = weighed(tiny, vectors("Red fox ?", [[1, 0], [0, 1], [1, 1]]), {"red": 9, "fox": 0})
    passage = vectors("crimson beast", [[4, 3], [1, 0]])
    heat = heat_map(query, passage, window=0, neighbours=0.0)
    rare = np.log1p(10 / np.array([9.5, 0.5]))
    np.testing.assert_allclose(heat.weights, [*rare / rare.sum(), 0], rtol=1e-6)
    np.testing.assert_allclose(heat.contributions, heat.weights * [1, 0.6, 0], rtol=1e-5)
    common = rare[0] / rare[1]  # "Red" counts for so much of "fox"
    expected = [max(0.1 + common * (0.8 - 0.1), 0.6), 0.1 + common * (1 - 0.1)]
    np.testing.assert_allclose(heat.heat, expected, rtol=1e-5)
    assert (heat.baseline, heat.identical) == (0.1, 1)


def test_an_encoder_without_a_corpus_weighs_words_alike(tiny):
    tokens = vectors("Red fox ?", np.eye(3)).tokens
    for encoder in (tiny, replace(tiny, weights="none", statistics=statistics({"red": 9}))):
        np.testing.assert_allclose(encoder.word_weights(tokens), [0.5, 0.5, 0])


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 99))
def test_the_score_is_the_sum_of_the_contributions(query_words, passage_words, seed):
    rng = np.random.default_rng(seed)
    query, passage = (
        vectors(" ".join(["w"] * n), rng.normal(size=(n, 3)) if n else np.zeros((0, 3)))
        for n in (query_words, passage_words)
    )
    heat = heat_map(query, passage)
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
    """A heat map with one row of similarities for each word of its query; without rows, with this heat."""
    rows = np.array(rows if len(rows) else [heat], np.float32).reshape(-1, len(heat))
    rows = np.where(np.isfinite(rows), rows, 0)  # which punctuation has of itself
    query = vectors(" ".join("q" * len(rows)), np.zeros((len(rows), 2))).tokens
    weights = np.full(len(rows), 1 / len(rows), np.float32)
    tokens = np.zeros((len(query), len(passage)), np.float32)
    return HeatMap(query, passage, tokens, rows, weights, weights, 0.0)


def made_map(text, heat):
    return map_of(vectors(text, np.zeros((len(text.split()), 2))).tokens, heat)


CAT, DOG = "แมว", "หมา"  # of which no model of ours knows a letter


def test_unknown_words_do_not_match_each_other(minilm):
    cat, dog, both = minqa.embed(minilm, [CAT, DOG, f"{DOG} {CAT}"])
    assert cat.tokens.unknown.all() and dog.tokens.unknown.all()
    assert heat_map(cat, dog).score == 0 == rank(cat, [dog])[0]
    assert heat_map(cat, cat).score == pytest.approx(1, abs=1e-5)
    heat = heat_map(cat, both)
    assert heat.word_similarity[0, 0] == 0 < heat.word_similarity[0, 1]
    assert (heat.token_similarity[1:-1, 1:-1] == heat.word_similarity).all()
    mixed, other = minqa.embed(minilm, [f"Who saw the {CAT}?", f"The {DOG} barked at a cat."])
    heat = heat_map(mixed, other)
    unknown = heat.word_similarity[mixed.tokens.unknown][:, ~other.tokens.unknown]
    assert (unknown == 0).all() and (heat.word_similarity[:, other.tokens.unknown] == 0).all()
    assert (heat.word_similarity[~mixed.tokens.unknown][:, ~other.tokens.unknown] != 0).all()


@pytest.mark.parametrize("name", SIMILARITIES)
def test_an_unknown_word_matches_none_but_itself_whatever_the_similarity(name):
    similarity = SIMILARITIES[name]
    rows = [[1, 2], [2, 1]]
    query = vectors("cat fox", rows, unknown=[0])
    same, other = vectors("cat fox", rows, unknown=[0]), vectors("dog fox", rows, unknown=[0])
    scores = rank(query, [same, other], similarity=similarity, window=0, neighbours=0.0)
    assert scores[1] < scores[0] - 0.1
    for passage, score in zip([same, other], scores, strict=True):
        heat = heat_map(query, passage, similarity=similarity, window=0, neighbours=0.0)
        assert heat.score == pytest.approx(score, abs=1e-6)
    assert heat.partners[0] != 0 or heat.heat[0] < heat.heat[1]


WORDS = st.sampled_from([CAT, DOG, "🍕", "the", "war", "theory", "?", "relativity", "café"])


PASSAGES = st.sampled_from([0, 1, 3]).flatmap(
    lambda size: st.lists(st.lists(WORDS, max_size=12), min_size=size, max_size=size)
)


@given(st.lists(WORDS, max_size=8), PASSAGES)
@settings(max_examples=15)
def test_the_score_that_ranks_is_that_of_the_heat_map(either, query, passages):
    [query, *passages] = minqa.embed(either, [" ".join(words) for words in [query, *passages]])
    for how in ({}, {"window": 0, "neighbours": 0.0}, {"similarity": SIMILARITIES["dot"]}):
        scores = rank(query, passages, **how)
        assert scores.shape == (len(passages),) and scores.dtype == np.float32
        for passage, score in zip(passages, scores, strict=True):
            heat = heat_map(query, passage, **how)
            if query.tokens.is_word.any():
                assert heat.score == pytest.approx(score, abs=1e-5, rel=1e-5)
            unknown = query.tokens.unknown[:, None] | passage.tokens.unknown[None, :]
            same = np.array([[a == b for b in passage.tokens.keys] for a in query.tokens.keys], bool)
            same = same.reshape(unknown.shape)
            assert (heat.word_similarity[unknown & ~same] == 0).all()


def test_one_program_ranks_up_to_four_passages(tiny):
    query, *passages = minqa.embed(tiny, ["the war", "a world war", "theory", "the theory", "who played"])
    expected = rank(query, passages[:2])
    assert compilations(lambda: rank(query, tuple(passages))) == 0
    np.testing.assert_array_equal(rank(query, passages)[:2], expected)


@given(st.sampled_from([1, 24, 25, 128, 300]), st.integers(0, 9999))
@settings(max_examples=25)
def test_a_text_of_up_to_300_words_matches_itself(length, seed):
    rng = np.random.default_rng(seed)
    words = rng.choice(["the", "war", "fox", "?", "cat", "relativity"], length)
    text = vectors(" ".join(words), rng.normal(size=(length, 8)), unknown=np.flatnonzero(words == "cat"))
    weights = rng.random(length, np.float32) * text.tokens.is_word
    text = replace(text, weights=weights / max(weights.sum(), 1e-9))
    if not text.tokens.is_word.any():
        return
    heat = heat_map(text, text)
    assert heat.score == pytest.approx(1, abs=1e-5) == rank(text, [text])[0]
    np.testing.assert_allclose(heat.contributions, text.weights, atol=1e-6)
    hot = heat.word_similarity[text.weights.argmax()].max()
    assert hot == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("length", [1, 25, 128, 300])
def test_a_long_text_matches_itself_as_it_is_embedded(either, length):
    rng = np.random.default_rng(length)
    text = " ".join(rng.choice([*"abcdefgh", "war,", "theory", CAT, "the", "relativity."], length))
    texts = [text, text + " who"]
    same, longer = minqa.embed(minqa.calibrate(either, texts), texts)
    assert heat_map(same, same).score == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(rank(same, [same, longer])[0], 1, atol=1e-5)
    assert rank(longer, [longer])[0] == pytest.approx(1, abs=1e-5)


def test_an_explicit_window_may_be_shorter_than_the_passage():
    """It is never shorter than the query, which could not match itself."""
    query = vectors("a b", np.eye(3)[:2])
    near = vectors("a b c c c c", np.eye(3)[[0, 1, 2, 2, 2, 2]])
    far = vectors("a c c c c b", np.eye(3)[[0, 2, 2, 2, 2, 1]])
    scores = rank(query, [near, far], window=2, neighbours=0.0)
    np.testing.assert_allclose(scores, [1, 0.75], atol=1e-6)
    np.testing.assert_allclose(rank(query, [near, far], window=1, neighbours=0.0), scores)
    np.testing.assert_allclose(rank(query, [near, far], window=0, neighbours=0.0), [1, 1])


def test_a_word_without_weight_is_never_a_partner():
    query = vectors("Who ? fox !", [[1, 0], [0, 1], [1, 1], [-1, 0]])
    passage = vectors("one two ! three", [[0, 1], [-1, 0], [0, 1], [2, 0]])
    heat = heat_map(query, passage)
    assert heat.partners.tolist() == [2, 2, -1, 0], "the question and exclamation marks are nearer"
    assert [heat.passage.word_texts[i] for i in np.flatnonzero(heat.partners >= 0)] == ["one", "two", "three"]


@given(st.integers(0, 6), st.integers(0, 9), st.integers(0, 9999), st.sampled_from([0.0, 0.4, -2.0]))
def test_a_partner_is_the_word_that_makes_a_word_hot(rows, columns, seed, baseline):
    rng = np.random.default_rng(seed)
    texts = (" ".join(rng.choice(["fox", "?", "the", "Who"], size)) for size in (rows, columns))
    query, passage = (vectors(text, rng.normal(size=(len(text.split()), 3))) for text in texts)
    weights = rng.random(rows, np.float32) * query.tokens.is_word * (rng.random(rows) < 0.7)
    query = replace(query, weights=weights.astype(np.float32), baseline=baseline)
    heat = heat_map(query, passage)
    assert heat.partners.shape == heat.heat.shape == (columns,)
    for column, partner in enumerate(heat.partners.tolist()):
        if partner < 0:
            assert heat.heat[column] == -np.inf
            assert not passage.tokens.is_word[column] or not weights.any()
            continue
        assert weights[partner] > 0 and passage.tokens.is_word[column]
        part = weights[partner] / weights.max()
        hot = baseline + (heat.word_similarity[partner, column] - baseline) * part
        assert heat.heat[column] == pytest.approx(hot, abs=1e-5)


def bilinear(matrix, query, passage):
    return query @ matrix @ passage.T


LEARNED = partial(bilinear, np.float32([[1, 2], [-1, 0.5]]))


@pytest.mark.parametrize("similarity", [*SIMILARITIES.values(), LEARNED], ids=[*SIMILARITIES, "learned"])
def test_another_similarity_is_an_argument(similarity):
    rng = np.random.default_rng(0)
    query = vectors("who saw foxes ?", rng.normal(size=(5, 2)), pieces=[1, 1, 2, 1])
    passages = [vectors(" ".join(["fox"] * n), rng.normal(size=(n, 2))) for n in (3, 1, 40)]
    for passage in passages:
        heat = heat_map(query, passage, similarity=similarity, window=0, neighbours=0.0)
        expected = np.asarray(jax.jit(similarity)(query.words, passage.words))
        np.testing.assert_allclose(heat.word_similarity, expected, rtol=1e-4, atol=1e-5)
        tokens = np.asarray(jax.jit(similarity)(query.array, passage.array))[1:-1, 1:-1]
        np.testing.assert_allclose(heat.token_similarity[1:-1, 1:-1], tokens, rtol=1e-4, atol=1e-5)
        assert heat.score == pytest.approx(expected[:3].max(1).mean(), rel=1e-4, abs=1e-5)
    for how in ({}, {"window": 0, "neighbours": 0.0}):
        scores = rank(query, passages, similarity=similarity, **how)
        shown = [heat_map(query, passage, similarity=similarity, **how).score for passage in passages]
        np.testing.assert_allclose(scores, shown, rtol=1e-4, atol=1e-5)


def test_a_similarity_is_compiled_once_per_shape(tiny):
    learned = partial(bilinear, np.float32([[1, 2], [-1, 0.5]]))
    wide = partial(bilinear, np.eye(32, dtype=np.float32))
    rng = np.random.default_rng(0)
    embedded = minqa.embed(tiny, ["the war of the world", "theory"])

    def call():
        query = vectors("who saw a fox ?", rng.normal(size=(5, 2)), unknown=[3])
        passages = [vectors("fox dog", rng.normal(size=(2, 2)), unknown=[1]) for _ in range(3)]
        heat_map(query, passages[0], similarity=learned)
        rank(query, passages, similarity=learned)
        minqa.calibrate(tiny, ["the war of the world", "theory"], similarity=wide)
        heat_map(*embedded, similarity=wide)

    assert compilations(call) > 0
    assert compilations(call) == 0


def test_a_centred_text_still_matches_itself(either):
    texts = ["the theory of relativity", "world war", "who played naive"]
    encoder = replace(minqa.calibrate(either, texts), layer=1, centring="z-score")
    for text in minqa.embed(encoder, texts):
        heat = heat_map(text, text)
        assert heat.score == pytest.approx(1, abs=1e-5)
        place = 2, 1  # z-score, layer 1
        statistics = encoder.statistics
        assert heat.baseline == pytest.approx(statistics.baseline[place])
        assert heat.identical == pytest.approx(statistics.identical[place])


def test_the_hottest_is_a_word_even_where_all_else_is_punctuation():
    query = vectors("fox", [[1, 0]])
    passage = vectors("… fox ! ?", [[1, 0], [0.1, 1], [1, 0], [1, 0]])
    heat = heat_map(query, passage)
    assert np.isfinite(heat.heat).tolist() == [False, True, False, False]
    assert heat.score == pytest.approx(float(cosine(query.words, passage.words)[0, 1]), abs=1e-6)
