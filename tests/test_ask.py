"""The chain: the right passages, in the right order, each text in its role."""

import json

import numpy as np
import pytest
from conftest import make_bert_folder

import minqa
from minqa import ask as ask_module
from minqa.ask import ask, embed_query
from minqa.clock import Clock
from minqa.corpus import Passage
from minqa.index import write_index

WORDS = "theory war world relativity played naive develop who caf".split()
QUERY = "naive theory of war"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """An encoder that wants another prompt for a query than for a passage."""
    folder = make_bert_folder(tmp_path_factory.mktemp("models") / "prompted", seed=3)
    prompts = {"prompts": {"query": "who developed: ", "document": "war of the world: "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    return minqa.load(folder)


@pytest.fixture(scope="module")
def passages():
    rng = np.random.default_rng(0)
    return [Passage(f"title {i}", " ".join(rng.choice(WORDS, 6))) for i in range(60)]


@pytest.fixture(scope="module")
def vectors(encoder, passages, tmp_path_factory):
    return write_index(encoder, passages, tmp_path_factory.mktemp("cache")).vectors


def normed(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def brute_force(encoder, passages):
    """Cosines of all passages, and their scores: mean over "naive", "theory", "war" of the best word."""
    [query] = minqa.embed(encoder, ["who developed: " + QUERY])
    found = minqa.embed(encoder, ["war of the world: " + passage.text for passage in passages])
    cosines = normed(minqa.pool(found)) @ normed(query.pooled)
    words = {text: i for i, text in enumerate(query.tokens.word_texts)}
    numbers = [words[text] for text in ("naive", "theory", "war")]

    def word_vectors(one, number):
        return one.array[one.tokens.word == number].mean(0)

    scores = []
    for one in found:
        own = range(5, len(one.tokens.words))  # behind "war of the world :"
        matrix = (
            normed(np.stack([word_vectors(query, n) for n in numbers]))
            @ normed(np.stack([word_vectors(one, n) for n in own])).T
        )
        content = [text != "who" for text in one.tokens.word_texts[5:]]
        scores.append(matrix[:, content or ...].max(1).mean() if any(content) else matrix.max(1).mean())
    return cosines, np.array(scores)


def test_the_answer_is_that_of_brute_force(encoder, passages, vectors):
    query = embed_query(encoder, QUERY, clock=Clock())
    results = ask(encoder, query, passages, vectors, k=3, clock=Clock())
    cosines, scores = brute_force(encoder, passages)
    candidates = np.argsort(-cosines)[: ask_module.CANDIDATES]
    expected = candidates[np.argsort(-scores[candidates])][:3]
    assert [result.passage for result in results] == [passages[i] for i in expected]
    np.testing.assert_allclose([result.cosine for result in results], cosines[expected], atol=1e-5)
    np.testing.assert_allclose([result.heat_map.score for result in results], scores[expected], atol=1e-5)


def test_candidates_are_as_many_as_their_tokens_allow_and_at_least_k(encoder, passages, vectors, monkeypatch):
    query = embed_query(encoder, QUERY, clock=Clock())
    cosines, _ = brute_force(encoder, passages)
    order = np.argsort(-cosines)
    length = len(encoder.tokenize([passages[order[0]].text], "passage")[0])
    monkeypatch.setattr(ask_module, "CANDIDATE_TOKENS", length)
    [result] = ask(encoder, query, passages, vectors, k=1, clock=Clock())
    assert result.passage == passages[order[0]]
    results = ask(encoder, query, passages, vectors, k=4, clock=Clock())
    assert {result.passage for result in results} == {passages[i] for i in order[:4]}
    assert len(ask(encoder, query, passages, vectors, k=99, clock=Clock())) == 60


def test_only_the_part_that_is_embedded_is_searched(encoder, passages, vectors):
    query = embed_query(encoder, QUERY, clock=Clock())
    results = ask(encoder, query, passages, vectors[:5], k=99, clock=Clock())
    assert {result.passage for result in results} == set(passages[:5])


def test_equal_passages_keep_their_order(encoder):
    query = embed_query(encoder, QUERY, clock=Clock())
    passages = [Passage(str(i), "the same war") for i in range(3)]
    vectors = np.repeat(minqa.pool(minqa.embed(encoder, ["the same war"], role="passage")), 3, axis=0)
    results = ask(encoder, query, passages, vectors, k=3, clock=Clock())
    assert [result.passage.title for result in results] == ["0", "1", "2"]


def test_a_query_without_a_word_is_refused(encoder):
    for text in ("?!", "", "\x00"):
        with pytest.raises(minqa.InputError, match="holds no word"):
            embed_query(encoder, text, clock=Clock())


def test_the_clock_keeps_compiling_apart():
    import time

    import jax
    import jax.numpy as jnp

    clock = Clock()
    for _ in range(2):
        with clock.step("work"):
            jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((7, 7))).block_until_ready()
            time.sleep(0.02)
    assert list(clock.seconds) == ["work", "compile"]
    assert 0.04 <= clock.seconds["work"] < 0.2
    assert clock.seconds["compile"] > 0.001
