"""Features of words, by hand."""

import numpy as np
import pytest

from minqa.files.elmo import CharacterTokenizer
from minqa.inside.features import FEATURES


def of(name, text):
    [tokens] = CharacterTokenizer.make(50)([text])
    values = FEATURES[name](tokens)
    assert values.dtype == np.float32 and len(values) == len(tokens.words)
    return dict(zip(tokens.word_texts, values.tolist(), strict=True))


def words(name, text):
    return [word for word, value in of(name, text).items() if value]


def test_position_counts_the_words_before_in_the_sentence():
    assert list(of("position", "A fox ran. It hid, too").values()) == [0, 1, 2, 3, 0, 1, 2, 3]


@pytest.mark.parametrize(
    ("name", "text", "inside"),
    [
        ("quotes", 'he said "the fox ran" and left', ["the", "fox", "ran"]),
        ("quotes", "“one” two «three» four", ["one", "three"]),
        ("quotes", 'never "closed again', []),
        ("brackets", "a (b [c] d) e", ["b", "[", "c", "]", "d"]),
        ("brackets", "a ( b and ) ( c", ["b", "and"]),
        ("brackets", ") a (", []),
        ("brackets", "( a [ b ) c", ["a", "[", "b"]),
        ("number", "in 1915 the 19th of x2 ½", ["1915", "19th"]),
        ("capital", "The fox met Émile IN it", ["The", "Émile", "IN"]),
        ("name", "Berlin is big. The city of Berlin met Albert Einstein.", ["Berlin", "Albert", "Einstein"]),
        ("name", "Foxes run. They hide. He saw The fox.", []),
    ],
)
def test_a_feature_by_hand(name, text, inside):
    assert words(name, text) == inside


def test_texts_without_words_have_no_features():
    assert all(len(function(CharacterTokenizer.make(50)([""])[0])) == 0 for function in FEATURES.values())
