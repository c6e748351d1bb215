"""Gradient × input against finite differences, and by hand on a linear model."""

from dataclasses import replace
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import make_bert_folder

import minqa
from minqa.influence import saliency
from minqa.statistics import RANKING, Measure

QUERY, PASSAGE = "who developed it", "the theory of relativity was developed"


class Linear:
    """A model that reads a word as its embedding, plus half of every other's: all that it does is add."""

    num_layers = 0

    def __init__(self, table):
        self.table = jnp.asarray(table, jnp.float32)

    def __call__(self, ids, mask, *, scale):
        x = self.table[ids] * mask[..., None].astype(np.float32) * scale[..., None]
        return SimpleNamespace(hidden=(x / 2 + x.sum(1, keepdims=True) / 2)[None])


@pytest.fixture
def linear(tiny):
    rng = np.random.default_rng(0)
    return replace(tiny, model=Linear(rng.normal(size=(len(tiny.tokenizer.backend.get_vocab()), 6))))


def by_hand(encoder, query, passage):
    """The score of one word asked, and each passage word's gradient × input, written out."""
    [asked, given] = encoder.tokenize([query, passage])
    table = np.asarray(encoder.model.table, float)
    x = table[given.ids]
    words = (x / 2 + x.sum(0) / 2)[given.word >= 0]
    e = table[asked.ids]
    q = (e / 2 + e.sum(0) / 2)[asked.word >= 0][0]
    cosines = words @ q / np.linalg.norm(words, axis=1) / np.linalg.norm(q)
    best = int(cosines.argmax())
    v = words[best]
    gradient = q / np.linalg.norm(v) / np.linalg.norm(q) - cosines[best] * v / (v @ v)
    shares = np.where(np.arange(len(x)) == np.flatnonzero(given.word >= 0)[best], 1, 0.5)
    return cosines[best], shares * (x @ gradient), given.word >= 0


def test_signs_and_sums_on_a_linear_model(linear):
    found = saliency(linear, "war", "theory of a world")
    score, shares, real = by_hand(linear, "war", "theory of a world")
    assert abs(found.score - score) < 1e-5
    np.testing.assert_allclose(found.passage_words, shares[real], atol=1e-5)
    assert (found.passage_words > 0).any() and (found.passage_words < 0).any()
    # A cosine does not change when all of a text grows: what the words move, [CLS] and [SEP] take back.
    np.testing.assert_allclose(shares.sum(), 0, atol=1e-6)
    np.testing.assert_allclose(found.passage_words.sum(), -shares[~real].sum(), atol=1e-5)


def moved(encoder, scales, measure, corpus):
    """The score when words are scaled, by the heat map's own way of counting."""
    model = encoder.model

    class Scaled:
        num_layers = model.num_layers

        def __init__(self, scale):
            self.scale = scale

        def __call__(self, ids, mask):
            scale = np.ones(ids.shape[:2], np.float32)
            scale[0, : len(self.scale)] = self.scale
            return model(ids, mask, scale=jnp.asarray(scale))

    found = []
    for text, role, scale in zip((QUERY, PASSAGE), ("query", "passage"), scales, strict=True):
        how = {"role": role, "measure": measure, "statistics": corpus}
        scaled = replace(encoder, model=Scaled(scale))
        scaled.__dict__["replicas"] = [scaled.model]  # which is no pytree to be put on a device
        found += minqa.embed(scaled, [text], **how)
    return minqa.heat_map(*found, measure=measure, statistics=corpus).score


@pytest.mark.parametrize("measure", [Measure(), replace(RANKING, layers=(1, 2)), Measure((1,), "z-score")])
def test_saliency_equals_finite_differences(either, measure):
    corpus = minqa.gather(either, [QUERY, PASSAGE, "a war of the world", "who played the naive cafe"])
    found = saliency(either, QUERY, PASSAGE, measure=measure, statistics=corpus)
    tokens = [either.tokenize([QUERY], "query")[0], either.tokenize([PASSAGE], "passage")[0]]
    ones = [np.ones(len(one)) for one in tokens]
    assert abs(found.score - moved(either, ones, measure, corpus)) < 1e-5
    step, largest = 5e-3, max(np.abs(found.passage_words).max(), np.abs(found.query_words).max())
    for text, shares in enumerate((found.query_words, found.passage_words)):
        for word, share in enumerate(shares):
            up, down = ([scale.copy() for scale in ones] for _ in range(2))
            up[text][tokens[text].word == word] += step
            down[text][tokens[text].word == word] -= step
            slope = (moved(either, up, measure, corpus) - moved(either, down, measure, corpus)) / (2 * step)
            assert abs(slope - share) < 0.02 * largest, (text, word)
    assert largest > 3e-3


def test_the_score_is_the_heat_maps(minilm):
    corpus = minqa.gather(minilm, ["The theory of relativity.", "The war of the world was long."])
    texts = ("Who developed the theory?", "The theory was published by Albert Einstein.")
    found = saliency(minilm, *texts, measure=RANKING, statistics=corpus)
    pair = [minqa.embed(minilm, [text], measure=RANKING, statistics=corpus)[0] for text in texts]
    expected = minqa.heat_map(*pair, measure=RANKING, statistics=corpus).score
    assert abs(found.score - expected) < 1e-5
    assert found.query.word_texts[-1] == "?" and len(found.query_words) == 5


def test_what_cannot_be_weighed_is_said_in_a_sentence(tmp_path):
    encoder = minqa.load(make_bert_folder(tmp_path))
    for query, passage, sentence in [
        ("?", "war", "The query holds no word"),
        ("war", "...", "The passage holds no word"),
        ("war", "war " * 80, "Influence is looked at in one go"),
    ]:
        with pytest.raises(minqa.InputError, match=sentence):
            saliency(encoder, query, passage)
    with pytest.raises(minqa.InputError, match="need the statistics of a corpus"):
        saliency(encoder, "war", "war", measure=RANKING)
