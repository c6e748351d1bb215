"""Several encoders side by side: the same words, each encoder's own heat, and where they agree."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import make_bert_folder, make_elmo_folder
from hypothesis import given
from hypothesis import strategies as st

import minqa
from minqa.answers.overall import Trust, overall
from minqa.ask import Result, Results
from minqa.heatmap import content_words
from minqa.inside import compare as compare_module
from minqa.inside.compare import Reply, compare, read, shared_words
from minqa.spans import Span
from minqa.text import Passage
from minqa.tokens import tokens_of_words

WORDS = "theory war world relativity played naive develop caf".split()
QUESTION = "naive theory of war"


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [
        minqa.load(make_bert_folder(folder / "bert", seed=3)),
        minqa.load(make_elmo_folder(folder / "elmo")),
    ]


@pytest.fixture(scope="module")
def passages():
    rng = np.random.default_rng(0)
    return [Passage(f"title {i}", " ".join(rng.choice(WORDS, 6))) for i in range(30)]


def answer(encoder, passages, k, answerer=None):
    encoder = minqa.calibrate(encoder, [passage.text for passage in passages])
    results = Results(read(encoder, QUESTION, passages, answerer=answerer)[:k])
    return Reply(encoder, results, answerer)


def test_each_encoder_reads_what_the_other_found(encoders, passages):
    answers = [answer(encoder, passages, 3) for encoder in encoders]
    comparisons = compare(QUESTION, answers)
    found = [[result.passage for result in one.results] for one in answers]
    assert found[0] != found[1], "or there is nothing to test"
    assert {comparison.passage for comparison in comparisons} == {*found[0], *found[1]}
    best = [min(rank for rank in comparison.ranks if rank) for comparison in comparisons]
    assert best == sorted(best)
    for comparison in comparisons:
        passage = comparison.passage
        for column in range(len(encoders)):
            place = found[column].index(passage) + 1 if passage in found[column] else None
            assert comparison.ranks[column] == place
            [alone] = read(answers[column].encoder, QUESTION, [passage])
            result = comparison.results[column]
            assert result.passage == passage
            np.testing.assert_allclose(result.heat_map.heat, alone.heat_map.heat, atol=1e-5)
            np.testing.assert_allclose(result.cosine, alone.cosine, atol=1e-5)
            # Both split these texts alike, so the words in common are anyone's words.
            np.testing.assert_array_equal(comparison.words, result.heat_map.passage.words)
            np.testing.assert_array_equal(comparison.heat[column], result.heat_map.heat)
        np.testing.assert_allclose(comparison.agreement, np.corrcoef(comparison.heat)[0, 1], atol=1e-6)


class FirstWord:
    """Answers with the first word of a passage."""

    name, fingerprint, layer = "first word", "", None

    def check_encoder(self, encoder):
        pass

    def answers(self, question, passages, scores, cosines):
        texts = [vectors.tokens for vectors in passages]
        spans = [[Span(text.word_texts[0], *text.words[0].tolist(), 1.0, margin=1.0)] for text in texts]
        return overall(spans, scores, cosines, Trust())


def test_what_only_others_found_is_answered_too(encoders, passages):
    comparisons = compare(QUESTION, [answer(encoder, passages, 3, FirstWord()) for encoder in encoders])
    assert any(None in comparison.ranks for comparison in comparisons)
    for comparison in comparisons:
        for result in comparison.results:
            assert result.answered and result.span.text == comparison.passage.text.split()[0]
        found = [rank is not None for rank in comparison.ranks]
        sure = [result.span.probability is not None for result in comparison.results]
        assert sure == found, "only what was among a model's own passages has a part of the probability"


def test_passages_of_equal_text_are_compared_once(encoders):
    texts = ["naive theory of war", "relativity", "relativity ", "relativity"]
    passages = [Passage(str(i), text) for i, text in enumerate(texts)]
    first, second = encoders
    replies = [answer(first, passages, 3), answer(second, passages[:1:-1], 1)]
    comparisons = compare(QUESTION, replies)
    assert [(comparison.passage.title, comparison.ranks) for comparison in comparisons] == [
        ("0", (1, None)),
        ("1", (2, 1)),
    ]
    assert [comparison.copies for comparison in comparisons] == [1, 3]


def by_hand(text, words, heat):
    """A result with these words, as start and end, and these heats."""
    passage = tokens_of_words([text[start:end] for start, end in words])
    passage = replace(passage, text=text, words=np.array(words, np.int32).reshape(-1, 2))
    rows, one = np.array(heat, np.float32)[None], np.ones(1, np.float32)
    return Result(
        Passage("", text),
        0.5,
        minqa.HeatMap(tokens_of_words("q"), passage, rows, rows, one, one, 0.0),
        None,
        None,
    )


def test_words_that_are_split_differently_meet():
    text = "well-known fox, red"
    fine = by_hand(
        text, [(0, 4), (4, 5), (5, 10), (11, 14), (14, 15), (16, 19)], [0.1, -np.inf, 0.9, 0.2, -np.inf, 0.8]
    )
    coarse = by_hand(text, [(0, 10), (11, 15)], [0.3, 0.7])  # and has not read the end
    comparison = compare_module._compare([1, 2], [fine, coarse])
    assert [text[start:end] for start, end in comparison.words] == ["well-known", "fox,", "red"]
    np.testing.assert_allclose(comparison.heat, [[0.9, 0.2, 0.8], [0.3, 0.7, np.nan]], rtol=1e-6)
    # Levels: (0.5 + 0.9) / 2 and (0.5 + 0.7) / 2.
    assert comparison.hot.tolist() == [[True, False, True], [False, True, False]]
    np.testing.assert_allclose(comparison.agreement, -1, atol=1e-6)


def test_function_words_are_never_hot_and_punctuation_has_no_heat():
    result = by_hand("the fox !", [(0, 3), (4, 7), (8, 9)], [0.9, 0.8, -np.inf])
    comparison = compare_module._compare([1, 1], [result, result])
    assert content_words(result.heat_map.passage).tolist() == [False, True, False]
    assert comparison.hot.tolist() == [[False, True, False]] * 2
    assert comparison.heat[:, 2].tolist() == [-np.inf] * 2
    np.testing.assert_allclose(comparison.agreement, 1, atol=1e-6)


@pytest.mark.parametrize("heat", [[0.5], [0.1] * 9, [-np.inf, -np.inf], []])
def test_without_variety_there_is_no_agreement(heat):
    words = [(3 * i, 3 * i + 2) for i in range(len(heat))]
    result = by_hand("ab " * len(heat), words, heat)
    assert np.isnan(compare_module._compare([1, 1], [result, result]).agreement)
    assert np.isnan(compare_module._compare([1], [result]).agreement)


SPLITS = st.sets(st.integers(0, 40)).map(
    lambda cuts: np.array(list(zip(sorted(cuts), sorted(cuts)[1:], strict=False)), np.int32).reshape(-1, 2)[
        ::2
    ]
)


@given(st.lists(SPLITS, min_size=1, max_size=3))
def test_shared_words_cut_through_no_word_and_are_the_smallest(splits):
    shared, places = shared_words(splits)
    for words, place in zip(splits, places, strict=True):
        for (start, end), piece in zip(words, place, strict=True):
            assert shared[piece, 0] <= start and end <= shared[piece, 1]
    assert (shared[1:, 0] >= shared[:-1, 1]).all()
    covered = {char for words in splits for start, end in words for char in range(start, end)}
    assert covered == {char for start, end in shared for char in range(start, end)}
    # Smallest: every place inside a piece is inside someone's word.
    for start, end in shared:
        for cut in range(start + 1, end):
            assert any(((words[:, 0] < cut) & (cut < words[:, 1])).any() for words in splits)
