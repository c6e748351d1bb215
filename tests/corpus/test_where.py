"""Conditions on a corpus's columns: which passages are searched."""

from functools import partial

import numpy as np
import pytest

import minqa
from minqa.ask import ask
from minqa.corpus.articles import Article, Corpus
from minqa.corpus.index import DiskIndex
from minqa.corpus.where import rows_where

# Two shards; the last article says nothing of a year, and only the second shard knows a part.
EXTRA = [
    {"year": 1905, "lang": "en", "mixed": 2}, {"year": 1915, "lang": "de"}, {"year": 1990, "lang": "en"},
    {"year": 2000, "lang": "fr", "part": 1, "mixed": "x"}, {"year": 2010, "lang": "en", "part": "x"},
    {"lang": "en"},
]  # fmt: skip
TEXTS = [
    "the theory of war",
    "the world",
    "who played war",
    "naive theory",
    "a war of the world",
    "relativity",
]


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    articles = [
        Article(str(i), f"theory {i}" * (i < 5), text, extra=tuple(extra.items()))
        for i, (text, extra) in enumerate(zip(TEXTS, EXTRA, strict=True))
    ]
    corpus = Corpus("corpus", lambda: iter([(article, 1.0) for article in articles]))
    path = tmp_path_factory.mktemp("where") / "index"
    minqa.write_index(tiny, corpus, path, articles_per_shard=3, store_tokens=True)
    return path


@pytest.mark.parametrize(
    ("condition", "numbers"),
    [
        ("year >= 1990", [2, 3, 4]),
        ("1905 < year <= 2000", [1, 2, 3]),
        ('year != 1990 and lang == "en"', [0, 4]),
        ('lang == "de" or year == 2010', [1, 4]),
        ('not lang == "en"', [1, 3]),
        ('lang in ["de", "fr"]', [1, 3]),
        ('part == "x"', [4]),
        ('part == "1"', [3]),
        ("year > 1990.5", [3, 4]),
        ('part == "x" or year == 1905', [0, 4]),
        ("not year in [1905]", [1, 2, 3, 4]),
        ("year not in (1905, 1915)", [2, 3, 4]),
        ("year in {1905}", [0]),
        ("mixed > 1", [0]),
        ("year is None", [5]),
        ("part is not None", [3, 4]),
        ("part is None and year > 1905", [1, 2]),
        ('title == "theory 2"', [2]),
        ('title in ["theory 1", "theory 4"] and section is None', [1, 4]),
        ('title is None or title == "theory 0"', [0, 5]),
        ('title != "theory 0" and lang == "en"', [2, 4]),
    ],
)
def test_only_passages_that_meet_a_condition_are_found(tiny, folder, condition, numbers):
    index, whole = (minqa.open_index(folder, tiny, where=where) for where in (condition, ""))
    assert [int(passage.id.split(":")[0]) for passage in index.passages] == numbers
    vectors = np.concatenate(list(index.vectors))
    np.testing.assert_array_equal(vectors, np.concatenate(list(whole.vectors))[numbers])
    for row, number in enumerate(numbers):
        np.testing.assert_array_equal(index.token_vectors[row], whole.token_vectors[number])
    results = partial(ask, tiny, "a war", k=6)
    best = [result.passage for result in results(index)]
    assert best == [result.passage for result in results(whole) if result.passage in best]
    assert len(best) == len(numbers)


@pytest.mark.parametrize(
    ("condition", "sentence"),
    [
        ("year >= ", "The condition year >= cannot be read: write one as year >= 1990"),
        ("year", "cannot be read"),
        ("year + 1 == 1991", "cannot be read"),
        ("__import__('os').system('x') == 1", "cannot be read"),
        ("year == year.real", "cannot be read"),
        ("(" * 9999, "cannot be read"),
        ("age > 3", "There is no column age: there are lang, mixed, part, section, title, year; a text"),
        ('year == "x"', 'year == "x" compares what cannot be compared, such as a number with text'),
        ("year ==\n" + "9" * 24, "The condition year == 9+ cannot be read"),
        ('lang in "en"', "cannot be read"),
        ("lang in []", "cannot be read"),
        ("year == None", "cannot be read: write one as .*, or year is None"),
        ("year not in (1905, None)", "cannot be read"),
        ('id == "1:0"', "There is no column id"),
        ("year > 3000", "No passage that is indexed meets the condition year > 3000."),
    ],
)
def test_what_is_no_condition_is_one_sentence(tiny, folder, condition, sentence):
    with pytest.raises(minqa.InputError, match=sentence) as error:
        minqa.open_index(folder, tiny, where=condition)
    assert "\n" not in str(error.value)


def test_columns_stand_in_the_parquet_file_and_in_passages(tiny, folder):
    disk = DiskIndex(folder)
    assert [dict(passage.extra) for passage in disk.passages] == [
        *EXTRA[:3],
        {"year": 2000, "lang": "fr", "part": "1", "mixed": "x"},
        *EXTRA[4:],
    ]
    assert disk.shards[0].columns == ["year", "lang", "mixed"]
    assert [rows.tolist() for rows in rows_where("part == 'x'", disk.shards)] == [[], [1]]


def test_columns_do_not_replace_those_of_the_index(tiny, tmp_path):
    extra = (("text", "no"), ("id", 7), ("words", "no"), ("big", 10**400), ("start", 5))
    corpus = Corpus("corpus", lambda: iter([(Article("1", "T", "the war", extra=extra), 1.0)]))
    minqa.write_index(tiny, corpus, tmp_path)
    index = minqa.open_index(tmp_path, tiny, where="start_ == 5 and id_ == 7")
    assert (index.passages[0].text, index.passages[0].id) == ("the war", "1:0")
    assert dict(index.passages[0].extra)["big"] == str(10**400)
    plain = Corpus("corpus", lambda: iter([(Article("1", "T", "the war"), 1.0)]))
    minqa.write_index(tiny, plain, tmp_path / "plain")
    with pytest.raises(minqa.InputError, match="There is no column year: there are section, title;"):
        minqa.open_index(tmp_path / "plain", tiny, where="year == 1")
