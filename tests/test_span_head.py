"""The span head: its parts by hand, its file, its training; and the one that is shipped."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from flax import nnx
from test_heatmap import vectors

import minqa
from minqa.span_head import (
    BidirectionalGRU,
    Pairs,
    SpanHead,
    _closeness,
    load_span_head,
    pair,
    read_answers,
    save_span_head,
)
from minqa.training import Marked, head_loss, span_loss, train_step


def made_head(seed=0, **sizes):
    """A head whose every parameter matters."""
    head = SpanHead(6, encoder="made", layer=2, hidden=4, rngs=nnx.Rngs(seed), **sizes)
    keys = iter(jax.random.split(jax.random.key(seed), 99))
    return jax.tree.map(lambda one: one + 0.5 * jax.random.normal(next(keys), one.shape), head)


def made_pairs(lengths, seed=0, words=9, asked=(3, 2, 4)):
    rng = np.random.default_rng(seed)
    lengths, asked = np.array(lengths)[:, None], np.array(asked[: len(lengths)])[:, None]
    return Pairs(
        rng.normal(size=(len(lengths), 5, 6)).astype(np.float32),
        np.arange(5)[None] < asked,
        rng.normal(size=(len(lengths), words, 6)).astype(np.float32),
        np.arange(words)[None] < lengths,
        (rng.random((len(lengths), words)) > 0.7).astype(np.float32),
    )


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
    together = head(pairs)
    for i, (asked, words) in enumerate([(3, 9), (2, 4), (4, 6)]):
        alone = Pairs(
            pairs.question[i : i + 1, :asked],
            pairs.question_mask[i : i + 1, :asked],
            pairs.passage[i : i + 1, :words],
            pairs.mask[i : i + 1, :words],
            pairs.echoed[i : i + 1, :words],
        )
        for one, other in zip(head(alone), together, strict=True):
            np.testing.assert_allclose(one[0], other[i, :words] if one.ndim > 1 else other[i], atol=1e-5)


def test_every_part_of_what_is_read_matters():
    head, pairs = made_head(), made_pairs([9, 4, 6])
    before = np.concatenate([np.ravel(one) for one in head(pairs)])
    for name in ("question", "passage", "echoed"):
        changed = pairs._replace(**{name: getattr(pairs, name) * np.float32(0.5) + np.float32(0.1)})
        assert np.abs(np.concatenate([np.ravel(one) for one in head(changed)]) - before).max() > 1e-3, name


def test_the_recurrent_layer_equals_one_written_out():
    layer = BidirectionalGRU(3, 2, rngs=nnx.Rngs(0))
    keys = iter(jax.random.split(jax.random.key(1), 9))
    layer = jax.tree.map(lambda one: one + jax.random.normal(next(keys), one.shape), layer)
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    found = np.asarray(layer(x, np.arange(5)[None] < np.array([[5], [3]])))
    for row, words in enumerate([5, 3]):
        expected = run_recurrent(layer, x[row, :words])
        np.testing.assert_allclose(found[row, :words], expected, atol=1e-6)


def test_closeness_by_hand():
    similarity = np.array([[0.1, 0.9, 0.1, 0.1, 0.8], [0.2, 0.2, 0.6, 0.2, 0.2]], np.float32)
    weights, mask = np.float32([0.25, 0.75]), np.array([True, True, True, True, False])
    # Of three words around each: 0.9 and 0.6 at best, which the first and last word do not see both.
    found = np.asarray(_closeness(similarity, weights, mask))[:, 0]
    around = [0.25 * 0.9 + 0.75 * 0.2, 0.675, 0.675, 0.25 * 0.1 + 0.75 * 0.6]
    np.testing.assert_allclose(found, [*(5 * (np.array(around) - 0.675)), 0], atol=1e-5)


def test_the_loss_is_cross_entropy_over_all_spans_and_none():
    rng = np.random.default_rng(0)
    start, end = rng.normal(size=(2, 2, 5)).astype(np.float32)
    mask = np.array([[True] * 5, [False, True, True, False, True]])
    none = np.float32([0.3, -0.2])
    marked = Marked(
        np.int32([[1, 3], [2, 0]]), np.int32([[2, 3], [2, 0]]), np.float32([[0.75, 0.25], [0.5, 0]])
    )
    losses = []
    for row, answers in enumerate([{(1, 2): 0.75, (3, 3): 0.25}, {(2, 2): 0.5, None: 0.5}]):
        scores = {
            (i, j): start[row, i] + end[row, j]
            for i in range(5)
            for j in range(i, min(5, i + 3))
            if mask[row, i : j + 1].all()
        } | {None: none[row]}
        total = scipy.special.logsumexp(list(scores.values()))
        losses.append(sum(weight * (total - scores[span]) for span, weight in answers.items()))
    found = span_loss(*map(jnp.asarray, (start, end, none)), mask, marked, max_length=3)
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-5)


def test_training_learns_and_leaves_the_scale_alone():
    head, pairs = SpanHead(6, hidden=8, rngs=nnx.Rngs(0)), made_pairs([9, 4, 6])
    marked = Marked(np.int32([[2], [0], [0]]), np.int32([[3], [0], [0]]), np.float32([[1], [1], [0]]))
    optimizer = optax.adamw(
        0.01, weight_decay=0.1, mask=lambda tree: jax.tree.map(lambda one: one.ndim > 1, tree)
    )
    state, before = optimizer.init(head), head_loss(head, pairs, marked)
    with jax.numpy_dtype_promotion("standard"):  # optax needs it
        for i in range(80):
            head, state, _ = train_step(
                head, state, (pairs, marked), jax.random.key(i), loss=head_loss, optimizer=optimizer
            )
    assert float(head_loss(head, pairs, marked)) < 0.5 * float(before)
    np.testing.assert_array_equal(head.scale.mean[...], 0)
    np.testing.assert_array_equal(head.scale.inverse_deviation[...], 1)


def test_dropout_needs_a_key():
    head, pairs = made_head(), made_pairs([9, 4, 6])
    one, other = head(pairs, jax.random.key(0)), head(pairs, jax.random.key(1))
    assert np.abs(one[0] - other[0]).max() > 1e-3
    np.testing.assert_array_equal(head(pairs)[0], head(pairs)[0])


def test_a_head_survives_its_file_in_16_bits(tmp_path):
    head, pairs = made_head(), made_pairs([9, 4, 6])
    (tmp_path / "head.safetensors").write_bytes(save_span_head(head, data="made", layer="9"))
    again = load_span_head(tmp_path / "head.safetensors")
    assert (again.encoder, again.layer) == ("made", 2)
    for one, other in zip(head(pairs), again(pairs), strict=True):
        np.testing.assert_allclose(one, other, atol=0.02)


def test_a_file_that_is_no_head_is_told(tmp_path):
    path = tmp_path / "head.safetensors"
    with pytest.raises(minqa.InputError, match=r"There is no file .*head\.safetensors"):
        load_span_head(path)
    whole = save_span_head(made_head())
    for broken in (b"", whole[: len(whole) // 2], b"x" * 99):
        path.write_bytes(broken)
        with pytest.raises(minqa.InputError, match=r"cannot be read as a span head"):
            load_span_head(path)


def test_answers_come_with_their_place_and_batch_mates_change_nothing():
    head = made_head()
    rng = np.random.default_rng(0)
    question = vectors("who is it ?", rng.normal(size=(4, 6)))
    passages = [
        vectors(" ".join("abcdefghijklmnopqrstuvwxyz"[:n]), rng.normal(size=(n, 6))) for n in (26, 3, 11)
    ]
    found = read_answers(head, [question] * 3, passages, k=9, no_answer=False)
    for passage, spans in zip(passages, found, strict=True):
        [alone] = read_answers(head, [question], [passage], k=9, no_answer=False)
        assert [(one.start, one.end) for one in spans] == [(one.start, one.end) for one in alone]
        for one, other in zip(spans, alone, strict=True):
            assert passage.tokens.text[one.start : one.end] == one.text
            assert one.probability == pytest.approx(other.probability, abs=1e-5)
    assert len(found[1]) == 6, "all spans of three words"
    better = read_answers(head, [question] * 3, passages, k=9)
    assert all(len(some) <= len(all_) for some, all_ in zip(better, found, strict=True))
    assert all(span.margin > 0 for some in better for span in some)
    assert read_answers(head, [], []) == []


def test_words_echo_whatever_their_case_but_punctuation_does_not():
    question = vectors("Who is it ?", np.eye(4))
    pairs = pair([question], [vectors("IT who ? fox", np.eye(4))])
    assert pairs.echoed[0, :5].tolist() == [1, 1, 0, 0, 0]


def test_a_passage_without_words_has_no_answer():
    head, nothing = made_head(), vectors("", np.zeros((0, 6)))
    question = vectors("who is it ?", np.ones((4, 6)))
    assert read_answers(head, [question], [nothing], no_answer=False) == [[]]
    assert len(read_answers(head, [nothing], [question], no_answer=False)[0]) == 1


def test_the_shipped_head_is_small_and_for_the_default_model(minilm):
    from pathlib import Path

    head = load_span_head()
    assert Path(minqa.span_head.__file__).with_name("span_head.safetensors").stat().st_size <= 2e6
    assert head.encoder == minilm.fingerprint
    question = "In which year was the theory published?"
    passage = (
        "The theory of relativity was published by Albert Einstein in 1915. Nobody in Berne had asked for it."
    )
    other = "The quick brown fox jumps over the lazy dog while the cat is asleep on the mat."
    measure = minqa.Measure(layers=(head.layer,))
    asked = minqa.embed(minilm, [question], role="query", measure=measure) * 2
    texts = minqa.embed(minilm, [passage, other], role="passage", measure=measure)
    [span], none = read_answers(head, asked, texts)
    assert span.text == "1915" and span.probability > 0.5
    assert none == []
