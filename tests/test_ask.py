"""The chain: the right passages, in the right order, each text in its role."""

import json
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from conftest import indexed, make_bert_folder, passages_of
from flax import nnx

import minqa
from minqa import ask as ask_module
from minqa.ask import ask, embed_query, rank, settings
from minqa.clock import Clock
from minqa.records import Passage
from minqa.span_head import SpanHead
from minqa.statistics import RANKING, Measure

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
    return passages_of([" ".join(rng.choice(WORDS, 6)) for _ in range(60)])


@pytest.fixture(scope="module")
def index(encoder, passages, tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setattr("minqa.index.FEW", 2)
    yield indexed(encoder, [one.text for one in passages], tmp_path_factory.mktemp("index"))
    patch.undo()


def query_of(encoder, index, text=QUERY):
    return embed_query(encoder, text, index.statistics, clock=Clock())


def normed(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def brute_force(encoder, passages):
    """Cosines of all passages, and their scores, with the words' frequencies counted here."""
    [query] = minqa.embed(encoder, ["who developed: " + QUERY])
    found = minqa.embed(encoder, ["war of the world: " + passage.text for passage in passages])
    cosines = normed(minqa.pool(found)) @ normed(query.pooled)

    def word_vectors(one, skipped):
        rows = [one.array[one.tokens.word == i].mean(0) for i in range(skipped, len(one.tokens.words))]
        return normed(np.stack(rows))

    texts = [passage.text.split() for passage in passages]
    counts = np.array([sum(word in text for text in texts) for word in QUERY.split()])
    weights = np.log(1 + len(passages) / (counts + 0.5))
    weights /= weights.sum()
    asked = word_vectors(query, 3)  # behind "who developed :"
    scores = []
    for one in found:
        similarity = asked @ word_vectors(one, 5).T  # behind "war of the world :"
        around = np.pad(similarity.clip(0), 1)
        similarity += 0.1 * (around[:-2, :-2] + around[2:, 2:])
        similarity /= np.array([1.1, 1.2, 1.2, 1.1])[:, None]
        scores.append(weights @ similarity.max(1))  # a window of 24 words is all of a passage
    return cosines, np.array(scores)


def test_the_answer_is_that_of_brute_force(encoder, passages, index):
    query = query_of(encoder, index)
    cosines, scores = brute_force(encoder, passages)
    for rerank in (None, 9):
        results = ask(encoder, query, index, k=3, rerank=rerank, clock=Clock())
        candidates = np.argsort(-cosines)[: rerank or ask_module.RERANK]
        expected = candidates[np.argsort(-scores[candidates])][:3]
        assert [result.passage for result in results] == [passages[i] for i in expected]
        np.testing.assert_allclose([result.cosine for result in results], cosines[expected], atol=1e-5)
        found = [result.heat_map.score for result in results]
        np.testing.assert_allclose(found, scores[expected], atol=1e-5)


def test_without_reranking_the_cosines_order(encoder, passages, index):
    cosines, _ = brute_force(encoder, passages)
    results = ask(encoder, query_of(encoder, index), index, k=7, rerank=0, clock=Clock())
    assert [result.passage for result in results] == [passages[i] for i in np.argsort(-cosines)[:7]]


def test_k_passages_are_read_though_fewer_are_to_be_reranked(encoder, passages, index):
    cosines, scores = brute_force(encoder, passages)
    results = ask(encoder, query_of(encoder, index), index, k=4, rerank=1, clock=Clock())
    candidates = np.argsort(-cosines)[:4]
    expected = candidates[np.argsort(-scores[candidates])]
    assert [result.passage for result in results] == [passages[i] for i in expected]
    assert len(ask(encoder, query_of(encoder, index), index, k=99, clock=Clock())) == 60


def test_the_scores_that_rank_are_those_that_are_shown(either, passages, tmp_path):
    index = indexed(either, [one.text for one in passages[:20]], tmp_path)
    for measure in (RANKING, Measure((0, 1), "z-score", "none", 2)):
        query = embed_query(either, QUERY, index.statistics, measure=measure, clock=Clock())
        found = ask(either, query, index, k=20, measure=measure, clock=Clock())
        texts = [result.passage.text for result in found]
        vectors = minqa.embed(either, texts, role="passage", measure=measure, statistics=index.statistics)
        scores = rank(query, vectors, measure, index.statistics)
        np.testing.assert_allclose(scores, [result.heat_map.score for result in found], atol=1e-6)
        assert (np.diff(scores) <= 1e-4).all()


def test_stored_tokens_give_the_same_answer_without_embedding(
    encoder, passages, index, tmp_path, monkeypatch
):
    monkeypatch.setattr("minqa.index.FEW", 2)
    stored = indexed(encoder, [one.text for one in passages], tmp_path, store_tokens=True)
    query = query_of(encoder, index)
    expected = ask(encoder, query, index, k=5, rerank=60, clock=Clock())
    monkeypatch.setattr(ask_module, "embed", None)
    clock = Clock()
    found = ask(encoder, query, stored, k=5, clock=clock)
    assert [one.passage for one in found] == [one.passage for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.heat_map.score == pytest.approx(other.heat_map.score, abs=0.01)
    assert "read vectors" in clock.seconds and "embed passages" not in clock.seconds


def test_many_passages_are_ranked_block_by_block(tiny, passages, monkeypatch):
    vectors = minqa.embed(tiny, [passage.text for passage in passages])
    expected = rank(vectors[0], vectors, Measure(window=3), None)
    monkeypatch.setattr(ask_module, "RANK_WORDS", 100)
    np.testing.assert_allclose(rank(vectors[0], vectors, Measure(window=3), None), expected, atol=1e-6)


def test_equal_passages_keep_their_order(encoder, index):
    passages = [Passage(str(i), "the same war") for i in range(3)]
    vectors = np.repeat(minqa.pool(minqa.embed(encoder, ["the same war"], role="passage")), 3, axis=0)
    same = replace(index, passages=passages, vectors=vectors)
    results = ask(encoder, query_of(encoder, index), same, k=3, clock=Clock())
    assert [result.passage.title for result in results] == ["0", "1", "2"]


def test_settings_are_named_and_quoted_by_their_hash(tiny, encoder, index):
    line = settings(tiny, index.statistics, RANKING)
    assert "layer 2 · centring none · weights idf" in line
    other = [
        settings(encoder, index.statistics, RANKING),
        settings(tiny, replace(index.statistics, documents=9), RANKING),
        settings(tiny, replace(index.statistics, frequency={"war": 3}), RANKING),
        settings(tiny, index.statistics, Measure((1,))),
    ]
    hashes = [one.split(" · ")[-1] for one in (line, *other)]
    assert settings(tiny, index.statistics, RANKING) == line
    assert len(set(hashes)) == 5


def test_a_query_without_a_word_is_refused(encoder, index):
    for text in ("?!", "", "\x00"):
        with pytest.raises(minqa.InputError, match="holds no word"):
            query_of(encoder, index, text)


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


def test_answers_of_a_head_are_those_of_its_layer(encoder, passages, index):
    head = SpanHead(32, encoder=encoder.fingerprint, layer=1, hidden=4, rngs=nnx.Rngs(0))
    head.no_answer.bias[...] = jnp.full(1, -9.0)  # so that every passage has an answer
    results = ask(encoder, query_of(encoder, index), index, k=3, finder=head, clock=Clock())
    how = {"measure": Measure(layers=(1,))}
    question = minqa.embed(encoder, [QUERY], role="query", **how)
    for result in results:
        read = minqa.embed(encoder, [result.passage.text], role="passage", **how)
        [[expected]] = minqa.read_answers(head, question, read)
        assert result.answered
        assert (result.span.start, result.span.end) == (expected.start, expected.end)
        assert result.span.probability == pytest.approx(expected.probability, abs=1e-5)
    head.no_answer.bias[...] = jnp.full(1, 99.0)
    [result] = ask(encoder, query_of(encoder, index), index, k=1, finder=head, clock=Clock())
    assert result.answered and result.span is None, "none is more plausible than any"
    assert "answers of the span head" in settings(encoder, index.statistics, RANKING, head)


def test_answers_of_a_reader_are_its_own(encoder, passages, index, tmp_path):
    reader = minqa.load_reader(make_bert_folder(tmp_path, kind=transformers.BertForQuestionAnswering))
    results = ask(encoder, query_of(encoder, index), index, k=3, finder=reader, clock=Clock())
    found = minqa.answer(reader, QUERY, [result.passage.text for result in results])
    assert [[result.span] if result.span else [] for result in results] == found
    assert f"answers of {tmp_path}" in settings(encoder, index.statistics, RANKING, reader)
