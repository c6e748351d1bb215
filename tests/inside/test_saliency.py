"""Gradient × input against finite differences, and by hand on a linear model."""

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import compilations, make_bert_folder

import minqa
from minqa.inside.saliency import saliency

QUERY, PASSAGE = "who developed it", "the theory of relativity was developed"
PLAIN = {"window": 0, "neighbours": 0.0}


@jax.tree_util.register_dataclass
@dataclass
class Linear:
    """A model that reads a word as its embedding, plus half of every other's: all that it does is add."""

    table: Any
    num_layers = 0
    compiles_itself = True

    def __call__(self, ids, mask, *, scale):
        x = self.table[ids] * mask[..., None].astype(np.float32) * scale[..., None]
        return SimpleNamespace(hidden=(x / 2 + x.sum(1, keepdims=True) / 2)[None])


@pytest.fixture
def linear(tiny):
    table = np.random.default_rng(0).normal(size=(len(tiny.tokenizer.backend.get_vocab()), 6))
    return replace(tiny, model=Linear(jnp.asarray(table, jnp.float32)))


def by_hand(encoder, query, passage):
    """The score of a query of one word, and each passage word's gradient × input, written out."""
    [query, passage] = encoder.tokenize([query, passage])
    table = np.asarray(encoder.model.table, float)
    x = table[passage.ids]
    words = (x / 2 + x.sum(0) / 2)[passage.word >= 0]
    e = table[query.ids]
    q = (e / 2 + e.sum(0) / 2)[query.word >= 0][0]
    cosines = words @ q / np.linalg.norm(words, axis=1) / np.linalg.norm(q)
    best = int(cosines.argmax())
    v = words[best]
    gradient = q / np.linalg.norm(v) / np.linalg.norm(q) - cosines[best] * v / (v @ v)
    shares = np.where(np.arange(len(x)) == np.flatnonzero(passage.word >= 0)[best], 1, 0.5)
    return cosines[best], shares * (x @ gradient), passage.word >= 0


def test_signs_and_sums_on_a_linear_model(linear):
    found = saliency(linear, "war", "theory of a world", **PLAIN)
    score, shares, real = by_hand(linear, "war", "theory of a world")
    assert abs(found.score - score) < 1e-5
    np.testing.assert_allclose(found.passage_words, shares[real], atol=1e-5)
    assert (found.passage_words > 0).any() and (found.passage_words < 0).any()
    # A cosine does not change when all of a text grows: what the words move, [CLS] and [SEP] take back.
    np.testing.assert_allclose(shares.sum(), 0, atol=1e-6)
    np.testing.assert_allclose(found.passage_words.sum(), -shares[~real].sum(), atol=1e-5)


@jax.tree_util.register_dataclass
@dataclass
class Scaled:
    """A model that is told how to scale each token of its one text."""

    model: Any
    scale: Any

    @property
    def num_layers(self):
        return self.model.num_layers

    def __call__(self, ids, mask):
        return self.model(ids, mask, scale=self.scale[:, : ids.shape[1]])


def moved(encoder, scales, how):
    """The score when words are scaled, as the heat map computes it."""
    found = []
    for text, role, scale in zip((QUERY, PASSAGE), ("query", "passage"), scales, strict=True):
        padded = np.ones((1, encoder.tokenizer.max_tokens), np.float32)
        padded[0, : len(scale)] = scale
        scaled = replace(encoder, model=Scaled(encoder.model, jnp.asarray(padded)))
        found += minqa.embed(scaled, [text], role=role)
    return minqa.heat_map(*found, **how).score


@pytest.mark.parametrize(
    ("settings", "how"),
    [
        ({"weights": "none"}, PLAIN),
        ({}, {}),
        ({"layer": 1, "centring": "z-score", "weights": "none"}, PLAIN),
        ({}, {"similarity": minqa.dot}),
    ],
)
def test_saliency_equals_finite_differences(either, settings, how):
    corpus = [QUERY, PASSAGE, "a war of the world", "who played the naive cafe"]
    encoder = replace(minqa.calibrate(either, corpus), **settings)
    found = saliency(encoder, QUERY, PASSAGE, **how)
    tokens = [encoder.tokenize([QUERY], "query")[0], encoder.tokenize([PASSAGE], "passage")[0]]
    ones = [np.ones(len(text)) for text in tokens]
    assert abs(found.score - moved(encoder, ones, how)) < 1e-5 * max(1, abs(found.score))
    step, largest = 5e-3, max(np.abs(found.passage_words).max(), np.abs(found.query_words).max())
    for text, shares in enumerate((found.query_words, found.passage_words)):
        for word, share in enumerate(shares):
            up, down = ([scale.copy() for scale in ones] for _ in range(2))
            up[text][tokens[text].word == word] += step
            down[text][tokens[text].word == word] -= step
            slope = (moved(encoder, up, how) - moved(encoder, down, how)) / (2 * step)
            assert abs(slope - share) < 0.02 * largest, (text, word)
    assert largest > 3e-3


def test_the_score_is_the_heat_maps(tiny):
    encoder = minqa.calibrate(tiny, ["The theory of relativity.", "The war of the world was long."])
    texts = ("Who developed the theory?", "The theory was published by Albert Einstein.")
    found = saliency(encoder, *texts)
    pair = [
        minqa.embed(encoder, [text], role=role)[0]
        for text, role in zip(texts, ("query", "passage"), strict=True)
    ]
    assert abs(found.score - minqa.heat_map(*pair).score) < 1e-5
    assert found.query.word_texts[-1] == "?" and len(found.query_words) == 5


@pytest.mark.parametrize("how", [{}, PLAIN, {"similarity": minqa.manhattan, "window": 2}])
@pytest.mark.parametrize(
    ("query", "passage"),
    [
        ("แมว war", "หมา war of แมว"),  # unknown words match only themselves
        ("แมว", "หมา"),
        ("the war of a world " * 6, "the world of a war " * 6),  # the query is longer than the window
    ],
)
def test_the_score_is_the_heat_maps_in_odd_cases(tiny, query, passage, how):
    encoder = minqa.calibrate(tiny, [PASSAGE, "a war of the world"])
    pair = minqa.embed(encoder, [query, passage])
    found = saliency(encoder, query, passage, **how)
    np.testing.assert_allclose(found.score, minqa.heat_map(*pair, **how).score, rtol=1e-5, atol=1e-5)
    assert np.isfinite(found.query_words).all() and np.isfinite(found.passage_words).all()


def test_what_cannot_be_weighed_is_said_in_a_sentence(tmp_path):
    encoder = minqa.load(make_bert_folder(tmp_path))
    for query, passage, sentence in [
        ("?", "war", "The query holds no word"),
        ("war", "...", "The passage holds no word"),
        ("war", "war " * 80, "Influence is looked at in one go"),
    ]:
        with pytest.raises(minqa.InputError, match=sentence):
            saliency(encoder, query, passage)
    with pytest.raises(minqa.InputError, match="needs the statistics of a corpus"):
        saliency(replace(encoder, centring="mean"), "war", "war")


def test_texts_of_known_lengths_compile_nothing(either):
    saliency(either, QUERY, PASSAGE)
    assert compilations(lambda: saliency(either, "who played", "a war of the world")) == 0
