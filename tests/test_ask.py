"""The chain: the right passages, in the right order, each text in its role."""

import json
from dataclasses import replace
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from conftest import indexed, make_bert_folder, passages_of
from flax import nnx

import minqa
from minqa import ask as ask_module
from minqa import heatmap
from minqa.answers.overall import Answer
from minqa.answers.span_head import SpanHead
from minqa.ask import Index, ask
from minqa.clock import Clock
from minqa.inside.compare import read
from minqa.text import Passage

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
    patch.setattr("minqa.corpus.index.MIN_PASSAGES_FOR_STATISTICS", 2)
    yield indexed(encoder, [passage.text for passage in passages], tmp_path_factory.mktemp("index"))
    patch.undo()


def normed(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def brute_force(encoder, passages):
    """Cosines of all passages, and their scores, with the words' frequencies counted here."""
    [query] = minqa.embed(encoder, ["who developed: " + QUERY])
    vectors = minqa.embed(encoder, ["war of the world: " + passage.text for passage in passages])
    cosines = normed(minqa.pool(vectors)) @ normed(query.pooled)

    def word_vectors(text, skipped):
        rows = [text.array[text.tokens.word == i].mean(0) for i in range(skipped, len(text.tokens.words))]
        return normed(np.stack(rows))

    texts = [passage.text.split() for passage in passages]
    counts = np.array([sum(word in text for text in texts) for word in QUERY.split()])
    weights = np.log(1 + len(passages) / (counts + 0.5))
    weights /= weights.sum()
    asked = word_vectors(query, 3)  # after "who developed :"
    scores = []
    for passage in vectors:
        similarity = asked @ word_vectors(passage, 5).T  # after "war of the world :"
        around = np.pad(similarity.clip(0), 1)
        similarity += 0.1 * (around[:-2, :-2] + around[2:, 2:])
        similarity /= np.array([1.1, 1.2, 1.2, 1.1])[:, None]
        scores.append(weights @ similarity.max(1))  # a window of 24 words is all of a passage
    return cosines, np.array(scores)


def test_the_answer_is_that_of_brute_force(encoder, passages, index):
    cosines, scores = brute_force(encoder, passages)
    for rerank in (None, 9):
        results = ask(encoder, QUERY, index, k=3, rerank=rerank)
        candidates = np.argsort(-cosines)[: rerank or ask_module.RERANK]
        expected = candidates[np.argsort(-scores[candidates])][:3]
        assert [result.passage for result in results] == [passages[i] for i in expected]
        np.testing.assert_allclose([result.cosine for result in results], cosines[expected], atol=1e-5)
        ranked = [result.heat_map.score for result in results]
        np.testing.assert_allclose(ranked, scores[expected], atol=1e-5)


def test_without_reranking_the_cosines_order(encoder, passages, index):
    cosines, _ = brute_force(encoder, passages)
    results = ask(encoder, QUERY, index, k=7, rerank=0)
    assert [result.passage for result in results] == [passages[i] for i in np.argsort(-cosines)[:7]]


def test_k_passages_are_read_though_fewer_are_to_be_reranked(encoder, passages, index):
    cosines, scores = brute_force(encoder, passages)
    results = ask(encoder, QUERY, index, k=4, rerank=1)
    candidates = np.argsort(-cosines)[:4]
    expected = candidates[np.argsort(-scores[candidates])]
    assert [result.passage for result in results] == [passages[i] for i in expected]
    assert len(ask(encoder, QUERY, index, k=99)) == 60


def test_the_scores_that_rank_are_those_that_are_shown(either, passages, tmp_path):
    index = indexed(either, [passage.text for passage in passages[:20]], tmp_path)
    for encoder in (either, replace(either, layer=1, centring="z-score", weights="none")):
        results = ask(encoder, QUERY, index, k=20)
        knowing = replace(encoder, statistics=index.statistics)
        [query] = minqa.embed(knowing, [QUERY], role="query")
        vectors = minqa.embed(knowing, [result.passage.text for result in results], role="passage")
        scores = minqa.rank(query, vectors)
        np.testing.assert_allclose(scores, [result.heat_map.score for result in results], atol=1e-6)
        assert (np.diff(scores) <= 1e-4).all()


def test_stored_tokens_give_the_same_answer_without_embedding(
    encoder, passages, index, tmp_path, monkeypatch
):
    monkeypatch.setattr("minqa.corpus.index.MIN_PASSAGES_FOR_STATISTICS", 2)
    stored = indexed(encoder, [passage.text for passage in passages], tmp_path, store_tokens=True)
    expected = ask(encoder, QUERY, index, k=5, rerank=60)
    embedded, embed_each = [], ask_module.embed_each

    def record(views, texts, **how):
        embedded.extend(texts)
        return embed_each(views, texts, **how)

    monkeypatch.setattr(ask_module, "embed_each", record)
    with Clock() as clock:
        results = ask(encoder, QUERY, stored, k=5)
    assert embedded == [QUERY]
    assert [result.passage for result in results] == [result.passage for result in expected]
    for result, other in zip(results, expected, strict=True):
        assert result.heat_map.score == pytest.approx(other.heat_map.score, abs=0.01)
    assert "read vectors" in clock.seconds and "embed passages" not in clock.seconds


def test_stored_tokens_of_another_layer_are_not_taken(encoder, passages, tmp_path):
    stored = indexed(encoder, [passage.text for passage in passages], tmp_path, store_tokens=True)
    first = replace(encoder, layer=1)
    with Clock() as clock:
        results = ask(first, QUERY, stored, k=5)
    assert "embed passages" in clock.seconds and "read vectors" not in clock.seconds
    expected = ask(first, QUERY, replace(stored, token_vectors=None), k=5)
    assert [result.passage for result in results] == [result.passage for result in expected]


def test_many_passages_are_ranked_block_by_block(tiny, passages, monkeypatch):
    vectors = minqa.embed(tiny, [passage.text for passage in passages])
    expected = minqa.rank(vectors[0], vectors, window=3, neighbours=0.0)
    monkeypatch.setattr(heatmap, "WORDS_AT_ONCE", 100)
    scores = minqa.rank(vectors[0], vectors, window=3, neighbours=0.0)
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_passages_of_equal_text_are_one_with_their_number(encoder, index):
    texts = ["the same war", "who played", "the same war ", "the same war", "who played", "theory"]
    passages = [Passage(str(i), text) for i, text in enumerate(texts)]
    vectors = minqa.pool(minqa.embed(encoder, texts[:2] + texts[-1:], role="passage"))[[0, 1, 0, 0, 1, 2]]
    same = replace(index, passages=passages, vectors=vectors)
    for k, rerank in ((3, 6), (6, 0)):
        results = ask(encoder, "the same war", same, k=k, rerank=rerank)
        found = {result.passage.title: result.copies for result in results}
        assert found == {"0": 3, "1": 2, "5": 1} and results[0].passage.title == "0"
    [first] = ask(encoder, "the same war", same, k=1, rerank=2)
    assert first.copies == 2, "of the candidates"


def test_a_query_without_a_word_is_refused(encoder, index):
    for text in ("?!", "", "\x00"):
        with pytest.raises(minqa.InputError, match="The query holds no word"):
            ask(encoder, text, index)


def test_answers_of_a_head_are_those_of_its_layer(encoder, passages, index, tmp_path):
    head = SpanHead(32, encoder=encoder.fingerprint, layer=1, hidden=4, rngs=nnx.Rngs(0))
    head.no_answer.bias[...] = jnp.full(1, -9.0)  # so that every passage has an answer
    first = replace(encoder, layer=1)
    stored = indexed(encoder, [passage.text for passage in passages], tmp_path, store_tokens=True)
    centred = replace(encoder, layer=0, centring="z-score")
    question = minqa.embed(first, [QUERY], role="query")
    for view, searched in ((encoder, index), (encoder, stored), (first, index), (centred, index)):
        results = ask(view, QUERY, searched, k=3, answerer=head)
        assert len(results) == 3
        for result in results:
            vectors = minqa.embed(first, [result.passage.text], role="passage")
            [[expected]] = minqa.read_answers(head, question, vectors)
            assert result.answered
            assert (result.span.start, result.span.end) == (expected.start, expected.end)
            assert result.span.margin == pytest.approx(expected.margin, abs=1e-4)
        assert results.answer == results.answers[0] and results.no_answer < 1e-3
    head.no_answer.bias[...] = jnp.full(1, 99.0)
    [result] = results = ask(encoder, QUERY, index, k=1, answerer=head)
    assert result.answered and result.span is None, "none is more plausible than any"
    assert results.answer is None and results.no_answer > 0.99
    with pytest.raises(minqa.InputError, match="not trained on vectors of"):
        ask(replace(encoder, prompts={}), QUERY, index, answerer=head)


def test_the_layer_of_a_head_costs_no_second_pass(encoder, index, monkeypatch):
    from minqa import embedding

    head = SpanHead(32, encoder=encoder.fingerprint, layer=1, hidden=4, rngs=nnx.Rngs(0))
    passes, run = [], embedding.run_model
    monkeypatch.setattr(embedding, "run_model", lambda *a, **b: passes.append(a) or run(*a, **b))
    ask(encoder, QUERY, index, k=3)
    once = len(passes)
    ask(encoder, QUERY, index, k=3, answerer=head)
    assert len(passes) == 2 * once


def test_answers_of_a_reader_are_its_own(encoder, passages, index, tmp_path):
    reader = minqa.load_reader(make_bert_folder(tmp_path, kind=transformers.BertForQuestionAnswering))
    results = ask(encoder, QUERY, index, k=3, answerer=reader)
    spans = minqa.answer(reader, QUERY, [result.passage.text for result in results])
    found = [result.span for result in results]
    assert [[(span.start, span.end, span.margin)] if span else [] for span in found] == [
        [(span.start, span.end, span.margin) for span in alone] for alone in spans
    ]
    assert all(result.answered for result in results)
    total = sum(answer.probability for answer in results.answers) + results.no_answer
    assert total == pytest.approx(1) and results.answer in (None, results.answers[0])
    best = results.answers[0]
    start, end = best.span.start, best.span.end
    assert results[best.place].passage.text[start:end] == best.text


def test_any_object_that_answers_is_an_answerer(encoder, index):
    """Its layer is None, so it reads the texts; it sees the question and the passages that are returned."""
    seen = []

    def answers(question, passages, scores, cosines):
        seen.append((question.tokens.text, [passage.tokens.text for passage in passages], scores, cosines))
        span = minqa.Span("x", 0, 1, 1.0)
        best = Answer("x", 0.75, 0, span)
        return [span, *[None] * (len(passages) - 1)], [best], 0.25, best

    answerer = SimpleNamespace(
        name="mine", fingerprint="1", layer=None, check_encoder=lambda encoder: None, answers=answers
    )
    results = ask(encoder, QUERY, index, k=2, answerer=answerer)
    scores, cosines = [result.heat_map.score for result in results], [result.cosine for result in results]
    assert seen == [(QUERY, [result.passage.text for result in results], scores, cosines)]
    assert [result.span and result.span.text for result in results] == ["x", None]
    assert (results.answer.text, results.no_answer) == ("x", 0.25)
    alone = ask(encoder, QUERY, index, k=2)
    assert (alone.answers, alone.no_answer, alone.answer) == ((), None, None)


def test_an_encoder_that_knows_a_corpus_keeps_it(encoder, index):
    other = minqa.calibrate(encoder, ["naive theory", "naive war", "naive play"])
    [one], [two], [three] = (
        ask(one, QUERY, searched, k=1)
        for one, searched in ((other, index), (encoder, index), (encoder, replace(index, statistics=None)))
    )
    [tokens] = encoder.tokenize([QUERY], "query")
    np.testing.assert_array_equal(one.heat_map.weights, other.word_weights(tokens))
    known = replace(encoder, statistics=index.statistics)
    np.testing.assert_array_equal(two.heat_map.weights, known.word_weights(tokens))
    np.testing.assert_allclose(three.heat_map.weights, 0.25)


def test_an_index_in_memory_is_asked(tiny):
    passages = passages_of(["a war", "the theory of relativity", "who played"])
    vectors = minqa.embed_pooled(tiny, tiny.tokenize([passage.text for passage in passages], "passage"))
    [first, second] = ask(tiny, "theory of relativity?", Index(passages, vectors), k=2)
    assert first.passage is passages[1] and first.heat_map.score > second.heat_map.score
    assert first.sentence.text == "the theory of relativity" and not first.answered


def test_read_returns_every_passage_best_first(tiny):
    passages = passages_of(["a war", "the theory of relativity", "", "who played", "?"])
    results = read(tiny, "theory of relativity?", passages)
    assert sorted(result.passage.id for result in results) == [passage.id for passage in passages]
    assert results[0].passage is passages[1]
    scores = [result.heat_map.score for result in results]
    assert scores == sorted(scores, reverse=True) and scores[-2:] == [-np.inf] * 2
    assert results[-1].span is None and results[-1].sentence is None


def test_the_similarity_of_the_model_picks_candidates(tiny):
    """By their dot product, the longest vector is first; by the cosine it is not."""
    passages = passages_of(["a war", "the theory", "who played"])
    pooled = minqa.embed_pooled(tiny, tiny.tokenize([passage.text for passage in passages]))
    [query] = minqa.embed(tiny, ["naive"])
    pooled[1] *= 100
    for name in ("cosine", "dot", "euclidean", "manhattan"):
        encoder = replace(tiny, pooling=minqa.Pooling(similarity=name))
        results = ask(encoder, "naive", Index(passages, pooled), k=3, rerank=0)
        values = np.asarray(getattr(minqa, name)(query.pooled[None], pooled))[0]
        order = np.argsort(-values, kind="stable")
        assert [result.passage for result in results] == [passages[row] for row in order]
        np.testing.assert_allclose([result.cosine for result in results], values[order], rtol=1e-4, atol=1e-4)


MENU, EMOJI = "ข้าวผัด แกงเขียวหวาน ต้มยำ", "I like 🍕 most, with cheese."


def test_unknown_words_outrank_nothing(minilm):
    """A menu in Thai is nothing but [UNK], as the emoji that is asked for is."""
    passages = passages_of([MENU, EMOJI, "Bread and wine."])
    results = read(minilm, "🍕", passages)
    assert results[0].passage is passages[1]
    assert results[0].heat_map.score > 0.3
    assert [result.heat_map.score for result in results[1:]] == [0, 0]
    [thai, *others] = read(minilm, "ต้มยำ", passages)
    assert thai.passage is passages[0] and all(other.heat_map.score == 0 for other in others)


@pytest.mark.parametrize("length", [30, 300])
def test_a_text_asked_for_itself_scores_1(either, length):
    rng = np.random.default_rng(length)
    texts = [" ".join(rng.choice([*"abcdefgh", "war,", "theory", "แมว", "the"], length)) for _ in range(3)]
    results = read(either, texts[1], passages_of([*texts, "a war"]))
    assert results[0].passage.text == texts[1]
    assert results[0].heat_map.score == pytest.approx(1, abs=1e-5)
    assert next(r for r in results if r.passage.text == texts[1]).heat_map.score == pytest.approx(1, abs=1e-5)
