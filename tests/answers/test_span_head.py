"""The span head: its parts by hand, its file, its training; and the one that is shipped."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from safetensors.numpy import save_file

import minqa
from minqa import Vectors
from minqa.answers import span_head
from minqa.answers.overall import SPANS_PER_PASSAGE, Trust, overall
from minqa.answers.span_head import (
    BidirectionalGRU,
    QuestionPassageBatch,
    SpanHead,
    _closeness,
    load_span_head,
    pair,
    read_answers,
    save_span_head,
)
from minqa.answers.spans import Answerer, span_loss

run = jax.jit(SpanHead.__call__)


def made_head(seed=0, **sizes):
    """A head whose every parameter matters."""
    head = SpanHead(6, encoder="made", layer=2, hidden=4, rngs=nnx.Rngs(seed), **sizes)
    keys = iter(jax.random.split(jax.random.key(seed), 99))
    return jax.tree.map(lambda leaf: leaf + 0.5 * jax.random.normal(next(keys), leaf.shape), head)


def made_pairs(lengths, seed=0, words=9, question_lengths=(3, 2, 4)):
    rng = np.random.default_rng(seed)
    lengths, rows = np.array(lengths)[:, None], np.array(question_lengths[: len(lengths)])[:, None]
    return QuestionPassageBatch(
        rng.normal(size=(len(lengths), 5, 6)).astype(np.float32),
        np.arange(5)[None] < rows,
        rng.normal(size=(len(lengths), words, 6)).astype(np.float32),
        np.arange(words)[None] < lengths,
        (rng.random((len(lengths), words, 4)) > 0.7).astype(np.float32),
        (rng.random((len(lengths), words)) > 0.7).astype(np.float32),
        rng.random((len(lengths), 5, words)) > 0.2,
    )


def made_target(shape, spans):
    target = np.zeros(shape, np.float32)
    for row, answers in enumerate(spans):
        for (first, last), weight in answers.items():
            target[row, first, last - first] = weight
    return target


def run_recurrent(layer, x):
    """The recurrent layer by its formulas, for one text."""
    kernel, bias = np.asarray(layer.input.kernel[...]), np.asarray(layer.input.bias[...])
    outputs = []
    for i, words in enumerate([x, x[::-1]]):
        state, states = np.zeros(2), []
        for word in words:
            gate, new = np.split((word @ kernel + bias)[4 * i : 4 * i + 4] + state @ layer.recurrent[i], 2)
            keep = 1 / (1 + np.exp(-gate))
            state = keep * state + (1 - keep) * np.tanh(new)
            states.append(state)
        outputs.append(states[:: 1 - 2 * i])
    return np.concatenate(outputs, axis=1)


def test_padding_and_batch_mates_change_nothing():
    head, pairs = made_head(), made_pairs([9, 4, 6])
    together = jax.device_get(run(head, pairs))
    spoilt = pairs._replace(
        question=np.where(pairs.question_mask[..., None], pairs.question, np.float32(9)),
        passage=np.where(pairs.mask[..., None], pairs.passage, np.float32(9)),
        spelling=np.where(pairs.mask[..., None], pairs.spelling, np.float32(1)),
        echoed=np.where(pairs.mask, pairs.echoed, np.float32(1)),
        comparable=pairs.comparable | ~pairs.mask[:, None],
    )
    *scores, none = run(head, spoilt)
    np.testing.assert_allclose(none, together[-1], atol=1e-5)
    for output, batched in zip(scores, together, strict=False):
        np.testing.assert_allclose(np.asarray(output)[pairs.mask], batched[pairs.mask], atol=1e-5)
    i, rows, words = 1, 2, 4
    alone = QuestionPassageBatch(
        pairs.question[i : i + 1, :rows],
        pairs.question_mask[i : i + 1, :rows],
        pairs.passage[i : i + 1, :words],
        pairs.mask[i : i + 1, :words],
        pairs.spelling[i : i + 1, :words],
        pairs.echoed[i : i + 1, :words],
        pairs.comparable[i : i + 1, :rows, :words],
    )
    for output, batched in zip(jax.device_get(run(head, alone)), together, strict=True):
        np.testing.assert_allclose(
            output[0], batched[i, :words] if output.ndim > 1 else batched[i], atol=1e-5
        )


def test_every_part_of_what_is_read_matters():
    head, pairs = made_head(), made_pairs([9, 4, 6])
    before = np.concatenate([np.ravel(output) for output in run(head, pairs)])
    changes = {
        name: getattr(pairs, name) * np.float32(0.5) + np.float32(0.1)
        for name in ("question", "passage", "spelling", "echoed")
    } | {"comparable": ~pairs.comparable}
    for name, array in changes.items():
        after = np.concatenate([np.ravel(output) for output in run(head, pairs._replace(**{name: array}))])
        assert np.abs(after - before).max() > 1e-3, name


def test_words_that_cannot_be_compared_have_no_similarity(monkeypatch):
    head, pairs = made_head(), made_pairs([9, 4, 6])
    none = run(head, pairs._replace(comparable=np.zeros_like(pairs.comparable)))
    monkeypatch.setattr(span_head, "cosine", lambda query, passage: jnp.zeros((len(query), len(passage))))
    for output, expected in zip(none, jax.jit(lambda *given: head(*given))(pairs), strict=True):
        np.testing.assert_array_equal(output, expected)


def test_an_unknown_word_is_like_itself_alone(tiny):
    [question] = minqa.embed(tiny, ["แมว war?"])
    [passage] = minqa.embed(tiny, ["หมา แมว war"])
    assert question.tokens.unknown.tolist() == [True, False, False]
    pairs = pair([question], [passage])
    assert pairs.comparable[0, :3, :3].tolist() == [
        [False, True, False],
        [False, False, True],
        [False, False, True],
    ]
    assert pairs.echoed[0, :3].tolist() == [0, 1, 1]


def test_the_recurrent_layer_equals_one_written_out():
    layer = BidirectionalGRU(3, 2, rngs=nnx.Rngs(0))
    keys = iter(jax.random.split(jax.random.key(1), 9))
    layer = jax.tree.map(lambda leaf: leaf + jax.random.normal(next(keys), leaf.shape), layer)
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    states = np.asarray(
        jax.jit(BidirectionalGRU.__call__)(layer, x, np.arange(5)[None] < np.array([[5], [3]]))
    )
    for row, words in enumerate([5, 3]):
        expected = run_recurrent(layer, x[row, :words])
        np.testing.assert_allclose(states[row, :words], expected, atol=1e-6)


def test_closeness_by_hand():
    similarity = np.array([[0.1, 0.9, 0.1, 0.1, 0.8], [0.2, 0.2, 0.6, 0.2, 0.2]], np.float32)
    weights, mask = np.float32([0.25, 0.75]), np.array([True, True, True, True, False])
    # Of three words around each: 0.9 and 0.6 at best, which the first and last word do not see both.
    closeness = np.asarray(_closeness(similarity, weights, mask))[:, 0]
    around = [0.25 * 0.9 + 0.75 * 0.2, 0.675, 0.675, 0.25 * 0.1 + 0.75 * 0.6]
    np.testing.assert_allclose(closeness, [*(5 * (np.array(around) - 0.675)), 0], atol=1e-5)


def test_training_learns_and_leaves_the_scale_alone():
    head, pairs = SpanHead(6, hidden=8, rngs=nnx.Rngs(0)), made_pairs([9, 4, 6])
    target = made_target((3, 9, 9), [{(2, 3): 1}, {(0, 0): 1}, {}])
    optimizer = optax.adamw(
        0.01, weight_decay=0.1, mask=lambda tree: jax.tree.map(lambda leaf: leaf.ndim > 1, tree)
    )

    @jax.jit
    def loss(head, key=None):
        return span_loss(*head(pairs, key), pairs.mask, target)

    state, before = optimizer.init(head), loss(head)

    @jax.jit
    def step(head, state, key):
        gradients = jax.grad(loss)(head, key)
        updates, state = optimizer.update(gradients, state, head)
        return optax.apply_updates(head, updates), state

    with jax.numpy_dtype_promotion("standard"):  # optax needs it
        for i in range(80):
            head, state = step(head, state, jax.random.key(i))
    assert float(loss(head)) < 0.5 * float(before)
    np.testing.assert_array_equal(head.scale.mean[...], 0)
    np.testing.assert_array_equal(head.scale.inverse_deviation[...], 1)


def test_dropout_needs_a_key():
    head, pairs = made_head(), made_pairs([9, 4, 6])
    dropped, otherwise = (run(head, pairs, jax.random.key(seed)) for seed in range(2))
    assert np.abs(dropped[0] - otherwise[0]).max() > 1e-3
    np.testing.assert_array_equal(run(head, pairs)[0], run(head, pairs)[0])


def test_a_head_survives_its_file_in_16_bits(tmp_path):
    head, pairs = made_head(), made_pairs([9, 4, 6])
    head.trust = Trust(bias=-1.0, cosine=2.5, threshold=0.75)
    (tmp_path / "head.safetensors").write_bytes(save_span_head(head, data="made", layer="9"))
    again = load_span_head(tmp_path / "head.safetensors")
    assert (again.encoder, again.layer, again.trust) == ("made", 2, head.trust)
    for output, same in zip(run(head, pairs), run(again, pairs), strict=True):
        np.testing.assert_allclose(output, same, atol=0.02)


def test_a_file_that_is_no_head_is_told(tmp_path):
    path = tmp_path / "head.safetensors"
    with pytest.raises(minqa.InputError, match=r"There is no file .*head\.safetensors"):
        load_span_head(path)
    whole = save_span_head(made_head())
    for broken in (b"", whole[: len(whole) // 2], b"x" * 99):
        path.write_bytes(broken)
        with pytest.raises(minqa.InputError, match=r"head\.safetensors cannot be read as safetensors"):
            load_span_head(path)
    for tensors in (
        {"x": np.zeros(3)},
        {"project.kernel": np.zeros(3)},
        {"project.kernel": np.zeros((6, 4))},
    ):
        save_file(tensors, path)
        with pytest.raises(minqa.InputError, match=r"head\.safetensors holds no span head"):
            load_span_head(path)
    for trust in (
        "{",
        "[" * 100_000,
        '{"margin": "much"}',
        '{"margin": 1e999}',
        '{"bias": NaN}',
        '{"love": 1}',
    ):
        facts = {"encoder": "x", "layer": "1", "trust": trust}
        save_file({"project.kernel": np.zeros((6, 4), np.float32)}, path, facts)
        with pytest.raises(minqa.InputError, match=r"head\.safetensors holds no span head"):
            load_span_head(path)


def test_answers_come_with_their_place_and_batch_mates_change_nothing():
    head = made_head()
    rng = np.random.default_rng(0)
    question = Vectors.of("who is it ?".split(), rng.normal(size=(4, 6)))
    passages = [Vectors.of([*"abcdefghijklmnopqrstuvwxyz"[:n]], rng.normal(size=(n, 6))) for n in (14, 3, 11)]
    together = read_answers(head, [question] * 3, passages, k=9, no_answer=False)
    for passage, spans in zip(passages, together, strict=True):
        [alone] = read_answers(head, [question], [passage], k=9, no_answer=False)
        assert [(span.start, span.end) for span in spans] == [(span.start, span.end) for span in alone]
        for span, same in zip(spans, alone, strict=True):
            assert passage.tokens.text[span.start : span.end] == span.text
            assert span.probability == pytest.approx(same.probability, abs=1e-5)
    assert len(together[1]) == 6, "all spans of three words"
    better = read_answers(head, [question] * 3, passages, k=9)
    assert all(len(spans) <= len(all_) for spans, all_ in zip(better, together, strict=True))
    assert all(span.margin > 0 for spans in better for span in spans)
    assert read_answers(head, [], []) == []
    assert isinstance(head, Answerer)
    head.trust, known = Trust(bias=1.0, margin=2.0, cosine=3.0), ([0.3, 0.2, 0.1], [0.5, 0.0, 0.5])
    every = read_answers(head, [question] * 3, passages, k=SPANS_PER_PASSAGE, no_answer=False)
    assert head.answers(question, passages, *known) == overall(every, *known, head.trust)


def test_many_passages_are_read_in_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    texts = [Vectors.of([*"abcdefghij"[:n]], rng.normal(size=(n, 6))) for n in (9, 3, 10, 5)]
    whole = read_answers(made_head(), texts, texts, k=2, no_answer=False)
    monkeypatch.setattr(span_head, "WORDS_AT_ONCE", 32)  # two passages of 16 words
    for spans, same in zip(read_answers(made_head(), texts, texts, k=2, no_answer=False), whole, strict=True):
        assert [(span.start, span.end) for span in spans] == [(span.start, span.end) for span in same]


def test_words_echo_whatever_their_case_but_punctuation_does_not():
    question = Vectors.of("who is it ?".split(), np.eye(4))
    pairs = pair([question], [Vectors.of("IT who ? fox".split(), np.eye(4))])
    assert pairs.echoed[0, :5].tolist() == [1, 1, 0, 0, 0]


def test_words_echo_as_the_model_reads_them(tiny):
    pairs = pair(minqa.embed(tiny, ["Who is naïve?"]), minqa.embed(tiny, ["A NAIVE café"]))
    assert pairs.echoed[0, :3].tolist() == [0, 1, 0]


def test_how_words_are_written_is_told():
    """A capital first, one later, a digit, neither letter nor digit."""
    words = "the Fox NATO iPod B2 3rd % é".split()
    pairs = pair([Vectors.of(["x"], np.eye(1))], [Vectors.of(words, np.ones((8, 1)))])
    assert pairs.spelling[0, :8].astype(int).tolist() == [
        [0, 0, 0, 0],
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [0, 1, 0, 0],
        [1, 0, 1, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 1],
        [0, 0, 0, 0],
    ]
    assert not pairs.spelling[0, 8:].any()


def test_a_passage_without_words_has_no_answer():
    head, nothing = made_head(), Vectors.of([], np.zeros((0, 6)))
    question = Vectors.of("who is it ?".split(), np.ones((4, 6)))
    assert read_answers(head, [question], [nothing], no_answer=False) == [[]]
    assert len(read_answers(head, [nothing], [question], no_answer=False)[0]) == 1


def test_a_head_is_for_one_encoder_with_its_weights(tiny):
    head = SpanHead(32, encoder=tiny.fingerprint, rngs=nnx.Rngs(0))
    head.check_encoder(replace(tiny, layer=1, name="another name"))
    altered = jax.tree.map(lambda leaf: leaf + np.float32(1e-3), tiny.model)
    for other in (replace(tiny, model=altered), replace(tiny, prompts={"query": "who "})):
        with pytest.raises(minqa.InputError, match=r"The span head was not trained on vectors of .*tiny"):
            head.check_encoder(other)


def test_the_shipped_head_is_small_and_for_the_default_model(minilm):
    head = load_span_head()
    assert Path(span_head.__file__).with_name("span_head.safetensors").stat().st_size <= 2e6
    head.check_encoder(minilm)
    question = "In which year was the theory published?"
    passage = (
        "The theory of relativity was published by Albert Einstein in 1915. Nobody in Berne had asked for it."
    )
    other = "The quick brown fox jumps over the lazy dog while the cat is asleep on the mat."
    encoder = replace(minilm, layer=head.layer)
    questions = minqa.embed(encoder, [question], role="query") * 2
    texts = minqa.embed(encoder, [passage, other], role="passage")
    [span], none = read_answers(head, questions, texts)
    assert span.text == "1915" and span.probability > 0.5
    assert none == []
