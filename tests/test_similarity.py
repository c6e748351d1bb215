"""Cosines and exact top-k against NumPy."""

from collections import deque
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import compilations
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from minqa import similarity
from minqa.corpus.vectors import quantize
from minqa.similarity import SIMILARITIES, contributions, cosine, euclidean, manhattan, match, maxsim

# Whole numbers of length 1 or 2 along axes give exact cosines, and so ties.
AXES = np.concatenate([np.eye(4), -np.eye(4), 2 * np.eye(4), np.zeros((1, 4))]).astype(np.float32)


def cosines(queries, passages):
    def normed(x):
        x = x.astype(np.float64)
        length = np.linalg.norm(x, axis=1, keepdims=True)
        return np.divide(x, length, out=np.zeros_like(x), where=length > 0)

    return normed(queries) @ normed(passages).T


def differences(queries, passages):
    return queries[:, None].astype(np.float64) - passages[None].astype(np.float64)


REFERENCES = {
    "cosine": cosines,
    "dot": lambda queries, passages: queries.astype(np.float64) @ passages.astype(np.float64).T,
    "euclidean": lambda queries, passages: -np.sqrt((differences(queries, passages) ** 2).sum(2)),
    "manhattan": lambda queries, passages: -np.abs(differences(queries, passages)).sum(2),
}


def reference(queries, passages, k, name="cosine"):
    scores = REFERENCES[name](queries, passages)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), order


def rows_of_axes(*sizes):
    """Some rows of `AXES`, as many as one of the sizes."""
    rows = st.sampled_from(range(len(AXES)))
    return st.sampled_from(sizes).flatmap(lambda size: st.lists(rows, min_size=size, max_size=size))


@pytest.fixture
def set_block(monkeypatch):
    """Sets how many passages are compared at once; what was compiled for another number is forgotten."""

    def set_block(passages):
        monkeypatch.setattr(similarity, "BLOCK_PASSAGES", passages)
        similarity.best_matches.clear_cache()

    yield set_block
    similarity.best_matches.clear_cache()


@pytest.mark.parametrize("block", [1, 7, 64])
def test_match_equals_a_stable_sort_whatever_the_block(set_block, monkeypatch, block):
    set_block(block)
    monkeypatch.setattr(similarity, "BLOCK_QUERIES", 3)

    @given(queries=rows_of_axes(1, 4), passages=rows_of_axes(1, 7, 20), k=st.sampled_from([1, 5, 50]))
    @settings(max_examples=30)
    def check(queries, passages, k):
        scores, rows = match(AXES[queries], AXES[passages], k=k)
        expected_scores, expected_rows = reference(AXES[queries], AXES[passages], k)
        np.testing.assert_array_equal(rows, expected_rows)
        np.testing.assert_allclose(scores, expected_scores, atol=1e-6)

    check()


@pytest.mark.parametrize("block", [4096, 700])
def test_match_equals_numpy_on_many_vectors(set_block, block):
    rng = np.random.default_rng(0)
    queries, passages = (rng.normal(size=(n, 24)).astype(np.float32) for n in (7, 3001))
    set_block(block)
    scores, rows = match(queries, passages, k=10)
    expected_scores, expected_rows = reference(queries, passages, 10)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("k", [1, 10, 400])
def test_of_many_equals_the_first_are_found(set_block, monkeypatch, backend, k):
    """Whole numbers have many equal products, in blocks that a processor and an accelerator would take."""
    set_block(4096)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(similarity, "SIMILARITIES_AT_ONCE", 1)
    monkeypatch.setattr(similarity, "BLOCK_SIMILARITIES", 64 * 5000)  # three blocks
    rng = np.random.default_rng(0)
    queries, passages = (rng.integers(-2, 3, (n, 6)).astype(np.float32) for n in (5, 12_001))
    scores, rows = match(queries, passages, k=k, similarity=SIMILARITIES["dot"])
    expected_scores, expected_rows = reference(queries, passages, k, "dot")
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(scores, expected_scores)


def test_memory_does_not_grow_with_queries_times_passages():
    """The compiled program's temporaries stay near one block of scores, though all would be 40 GB."""
    shapes = (jax.ShapeDtypeStruct((n, 16), jnp.float32) for n in (10_000, 1_000_000))
    compiled = jax.jit(lambda *vectors: match(*vectors, k=10)).lower(*shapes).compile()
    block = 4 * similarity.BLOCK_QUERIES * similarity.BLOCK_PASSAGES
    assert compiled.memory_analysis().temp_size_in_bytes < 8 * block


@pytest.mark.parametrize("name", REFERENCES)
def test_every_similarity_equals_numpy(name):
    rng = np.random.default_rng(1)
    queries, passages = (rng.normal(size=(n, 24)).astype(np.float32) for n in (7, 5001))
    passages[17] = queries[3]
    values = SIMILARITIES[name](queries, passages)
    np.testing.assert_allclose(values, REFERENCES[name](queries, passages), atol=1e-5, rtol=1e-5)
    scores, rows = match(queries, passages, k=10, similarity=SIMILARITIES[name])
    expected_scores, expected_rows = reference(queries, passages, 10, name)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-5, rtol=1e-5)


def bilinear(matrix, query, passage):
    """What a researcher may have learned."""
    return query @ matrix @ passage.T


def test_a_learned_similarity_is_an_argument():
    rng = np.random.default_rng(2)
    matrix, queries, passages = (
        rng.normal(size=shape).astype(np.float32) for shape in [(8, 8), (3, 8), (50, 8)]
    )
    learned = partial(bilinear, matrix)
    scores, rows = match(queries, passages, k=4, similarity=learned)
    expected = queries.astype(np.float64) @ matrix @ passages.T
    order = np.argsort(-expected, axis=1, kind="stable")[:, :4]
    np.testing.assert_array_equal(rows, order)
    np.testing.assert_allclose(scores, np.take_along_axis(expected, order, 1), rtol=1e-4, atol=1e-4)
    words, mask = passages.reshape(5, 10, 8), np.ones((5, 10), bool)
    weights = np.full(3, 1 / 3, np.float32)
    added = maxsim(queries, weights, words, mask, similarity=learned)
    by_hand = expected.reshape(3, 5, 10).max(2).T / 3
    np.testing.assert_allclose(added, by_hand, rtol=1e-4, atol=1e-4)


def test_a_similarity_is_compiled_once_per_shape():
    rng = np.random.default_rng(2)
    learned = partial(bilinear, rng.normal(size=(8, 8)).astype(np.float32))
    mask, weights = np.ones((5, 10), bool), np.full(3, 1 / 3, np.float32)

    def call():
        queries, words = (rng.normal(size=shape).astype(np.float32) for shape in [(3, 8), (5, 10, 8)])
        jax.block_until_ready(match(queries, words[0], k=2, similarity=learned))
        jax.block_until_ready(match(queries[0], words[0], k=2, similarity=learned))
        values = learned(queries, words[0])
        for how in ({}, {"window": 4, "neighbours": 0.1}):
            jax.block_until_ready(maxsim(queries, weights, words, mask, similarity=learned, **how))
            jax.block_until_ready(contributions(values, weights, mask[0], **how))

    assert compilations(call) > 0
    assert compilations(call) == 0


def test_one_query_is_a_query():
    queries, passages = (np.random.default_rng(0).normal(size=(n, 24)).astype(np.float32) for n in (7, 301))
    for way in (passages, [passages[:100], passages[100:]], jnp.asarray(passages)):
        scores, rows = match(queries[2], way, k=4)
        assert scores.shape == rows.shape == (4,)
        np.testing.assert_array_equal(rows, match(queries, way, k=4)[1][2])
        np.testing.assert_array_equal(scores, match(queries[2:3], way, k=4)[0][0])


def test_lists_are_arrays():
    queries, passages = (np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32) for n in (2, 9))
    expected = match(queries, passages, k=3)
    for way in (passages.tolist(), [*passages], tuple(map(tuple, passages.tolist()))):
        for got, wanted in zip(match(queries.tolist(), way, k=3), expected, strict=True):
            np.testing.assert_array_equal(got, wanted)
    scores, _ = match(queries[0].tolist(), passages, k=3)
    np.testing.assert_array_equal(scores, match(queries[0], passages, k=3)[0])
    weights, mask = np.ones(2, np.float32), np.ones((1, 9), bool)
    added = maxsim(queries.tolist(), weights.tolist(), passages[None].tolist(), mask.tolist())
    np.testing.assert_array_equal(added, maxsim(queries, weights, passages[None], mask))


@pytest.mark.parametrize(
    ("queries", "passages"),
    [
        ((2, 3, 4), (5, 4)),
        ((), (5, 4)),
        ((2, 4), (4,)),
        ((2, 4), (2, 5, 4)),
        ((2, 4), ()),
        ((4,), (2, 5, 4)),
        ((4,), (4,)),
    ],
)
def test_arrays_of_a_wrong_rank_are_refused_by_match(unchecked, queries, passages):
    arrays_ = np.ones(queries, np.float32), np.ones(passages, np.float32)
    with pytest.raises(ValueError, match=r"match takes \[query, dim\] and \[passage, dim\]") as error:
        match(*arrays_, k=1)
    assert "\n" not in str(error.value)


SHAPES = [(2, 4), (2,), (3, 5, 4), (3, 5)]


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("change", ["more", "fewer"])
def test_arrays_of_a_wrong_rank_are_refused_by_maxsim(unchecked, place, change):
    arrays_ = [np.ones(shape, np.float32) for shape in SHAPES]
    arrays_[place] = arrays_[place][None] if change == "more" else arrays_[place][0]
    with pytest.raises(
        ValueError, match=r"maxsim takes query \[query, dim\], weights \[query\], passages"
    ) as error:
        maxsim(*arrays_)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("short", [lambda x: quantize(x)[0], lambda x: jnp.asarray(x).astype(jnp.bfloat16)])
def test_short_vectors_are_compared_as_the_float32_that_they_stand_for(short):
    rng = np.random.default_rng(2)
    queries, passages = (rng.normal(size=(n, 384)).astype(np.float32) for n in (20, 5000))
    stored = short(passages)
    scores, rows = match(queries, stored, k=10)
    expected_scores, expected_rows = reference(queries, np.asarray(stored.astype(jnp.float32)), 10)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)
    _, exact = reference(queries, passages, 10)
    assert (
        np.mean([len({*one} & {*other}) for one, other in zip(rows.tolist(), exact.tolist(), strict=True)])
        > 9.4
    )


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_quantize_refuses_what_is_not_finite(number):
    with pytest.raises(ValueError, match="not finite"):
        quantize(np.array([[1, number], [0, 1]], np.float32))


def test_quantize_fills_8_bits_and_keeps_zero():
    vectors = np.array([[1, -2, 0.5], [0, 0, 0], [1e-30, 0, -1e-30]], np.float32)
    integers, scale = quantize(vectors)
    np.testing.assert_array_equal(integers, [[64, -127, 32], [0, 0, 0], [127, 0, -127]])
    np.testing.assert_allclose(scale[jnp.array([0, 2])], [2 / 127, 1e-30 / 127], rtol=1e-6)


NUMBERS = st.floats(-100, 100, width=32)


@given(arrays(np.float32, (3, 4), elements=NUMBERS))
@example(np.zeros((3, 4), np.float32))
def test_a_quantized_vector_is_within_half_a_step(vectors):
    integers, scale = map(np.asarray, quantize(vectors))
    assert integers.dtype == np.int8 and scale.shape == (3,)
    largest = np.abs(vectors).max(1)
    assert (np.abs(integers).max(1)[largest > 1e-35] == 127).all()
    error = np.abs(integers * scale[:, None].astype(np.float64) - vectors)
    assert (error <= 0.5001 * np.maximum(scale, largest / 127)[:, None] + 1e-38).all()


def test_what_is_no_number_comes_last():
    passages = np.array([[np.nan, 1], [1, 0], [np.inf, 0], [1, 1]], np.float32)
    scores, rows = match(np.array([[1, 0]], np.float32), passages, k=4)
    assert rows[0].tolist() == [1, 3, 0, 2]
    assert (scores[0, 2:] < -1e38).all()


def test_match_refuses_nothing():
    one, none = np.ones((1, 4), np.float32), np.ones((0, 4), np.float32)
    for queries, passages, k in [(one, one, 0), (none, one, 1), (one, none, 1)]:
        with pytest.raises(ValueError, match="none may be 0"):
            match(queries, passages, k=k)


COMPILED_COSINE = jax.jit(cosine)


@given(arrays(np.float32, (3, 4), elements=NUMBERS), st.integers(-100, 95))
@example(np.full((3, 4), 8.5e-23, np.float32), 0)
@example(np.full((3, 4), 1e25, np.float32), 0)
@example(np.full((3, 4), 1e-25, np.float32), 0)
@example(np.array([[1e25, 0, 0, 0], [1e-25, 0, 0, 0], [0, 0, 0, 0]], np.float32), 0)
@example(np.array([[9e29, 9e29, 9e29, 9e29], [2e-30, 0, 0, 0], [1, 2, 3, 4]], np.float32), 0)
@example(np.array([[1e30, -1e30, 1e30, 1e30], [0, 9e-31, 0, 0], [1, 2, 3, 4]], np.float32), 0)
def test_cosines_are_cosines(vectors, power):
    """Of all vectors whose largest number is above 1e-30 and up to 1e30; a shorter one is as good as zero."""
    scaled = np.ldexp(vectors, power)
    vectors = scaled if np.abs(scaled).max() <= 1e30 else vectors
    scores = np.asarray(COMPILED_COSINE(vectors, vectors))
    largest = np.abs(vectors).max(1)
    long = largest > 1e-30
    np.testing.assert_allclose(
        scores, cosines(np.where(long[:, None], vectors, 0), vectors) * long, atol=1e-5
    )
    np.testing.assert_allclose(np.diag(scores)[long], 1, atol=1e-5)
    assert (scores[~long] == 0).all() and (scores[:, ~long] == 0).all()


@pytest.mark.parametrize("block", [1, 7, 64])
def test_of_equal_cosines_the_lower_index_comes_first_however_short_the_vectors(set_block, block):
    set_block(block)
    queries = np.float32([[1e-29, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1e30, 0]])

    @given(
        rows=st.lists(st.sampled_from(range(len(AXES) - 1)), min_size=30, max_size=30),
        powers=st.lists(st.integers(-95, 95), min_size=30, max_size=30),
    )
    def check(rows, powers):
        passages = AXES[rows] * np.ldexp(np.float32(1), powers).astype(np.float32)[:, None]
        scores, order = match(queries, passages, k=30)
        expected_scores, expected_order = reference(queries, AXES[rows], 30)
        np.testing.assert_array_equal(order, expected_order)
        np.testing.assert_array_equal(scores, expected_scores)

    check()


def test_equal_cosines_of_tiny_vectors_keep_their_order_across_blocks(set_block):
    """The same vector over and over, at lengths from 1e-25 to 1e25."""
    set_block(16)
    vector = np.random.default_rng(0).normal(size=(1, 24)).astype(np.float32)
    lengths = np.ldexp(np.float32(1), np.arange(-80, 80)[::-1]).astype(np.float32)
    scores, rows = match(vector, vector * lengths[:, None], k=160)
    np.testing.assert_allclose(scores, 1, atol=1e-6)
    assert rows[0].tolist() == list(range(160))


@pytest.mark.parametrize("function", [cosine, euclidean, manhattan])
def test_equal_vectors_are_as_similar_as_can_be(function):
    vectors = np.random.default_rng(0).normal(size=(50, 384)).astype(np.float32)
    values = np.asarray(function(vectors, vectors))
    most = 1 if function is cosine else 0
    np.testing.assert_allclose(np.diag(values), most, atol=1e-5)


@pytest.mark.parametrize("function", SIMILARITIES.values(), ids=SIMILARITIES.keys())
def test_gradients_are_numbers_even_at_zero(function):
    rng = np.random.default_rng(0)
    query, passage = (rng.normal(size=(n, 3)).astype(np.float32) for n in (2, 4))
    query[0] = 0
    passage[1], passage[2] = 0, query[1]
    for argument in range(2):
        gradient = jax.grad(lambda *arrays: function(*arrays).sum(), argument)(query, passage)
        assert jnp.isfinite(gradient).all()


def maxsim_by_hand(similarity, weights, mask, window, neighbours):
    """Loops over everything, one number at a time."""
    queries, rows = similarity.shape
    counts = weights > 0

    def near(q, t):
        inside = 0 <= q < queries and 0 <= t < rows
        return max(similarity[q, t], 0) if inside and counts[q] and mask[t] else 0

    def value(q, t):
        around = near(q - 1, t - 1) + near(q + 1, t + 1)
        beside = sum(0 <= other < queries and counts[other] for other in (q - 1, q + 1))
        return (similarity[q, t] + neighbours * around) / (1 + neighbours * beside) if mask[t] else -np.inf

    values = np.array([[value(q, t) for t in range(rows)] for q in range(queries)]).reshape(queries, rows)
    best = values.max(1, initial=-np.inf)
    if window:
        stretches = [values[:, t : t + window].max(1) for t in range(rows)]
        totals = [weights[counts] @ one[counts] for one in stretches]
        best = (best + stretches[int(np.argmax(totals))]) / 2
    return np.array([w * b if w > 0 else 0 for w, b in zip(weights, best, strict=True)])


@given(
    rows=st.sampled_from([1, 9]),
    queries=st.sampled_from([1, 5]),
    window=st.sampled_from([0, 1, 4, 7, 30]),
    neighbours=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=50)
def test_contributions_equal_loops(rows, queries, window, neighbours, seed):
    rng = np.random.default_rng(seed)
    similarity = rng.uniform(-1, 1, (queries, rows)).astype(np.float32)
    weights = (rng.uniform(size=queries) * (rng.uniform(size=queries) < 0.8)).astype(np.float32)
    mask = rng.uniform(size=rows) < 0.7
    ours = contributions(similarity, weights, mask, window=window, neighbours=neighbours)
    expected = maxsim_by_hand(similarity, weights, mask, window, neighbours)
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_maxsim_is_that_of_the_paper_and_padding_never_wins():
    rng = np.random.default_rng(0)
    query, passages = (rng.normal(size=shape).astype(np.float32) for shape in [(6, 8), (5, 12, 8)])
    lengths = np.array([12, 7, 1, 3, 9])
    mask = np.arange(12) < lengths[:, None]
    weights = np.array([1, 1, 1, 1, 0, 0], np.float32)
    ours = maxsim(query, weights, passages, mask)
    normed = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (query, passages)]
    for passage, length, row in zip(normed[1], lengths, ours, strict=True):
        similarity = normed[0] @ passage[:length].T
        np.testing.assert_allclose(row, [*similarity[:4].max(1), 0, 0], atol=1e-6)
    spoilt = np.where(mask[..., None], passages, 1e6 * query[0])
    np.testing.assert_array_equal(maxsim(query, weights, spoilt, mask), ours)
    longer = np.pad(passages, ((0, 0), (0, 4), (0, 0)))
    padded = maxsim(query, weights, longer, np.pad(mask, ((0, 0), (0, 4))), window=3, neighbours=0.1)
    alone = maxsim(query, weights, passages, mask, window=3, neighbours=0.1)
    np.testing.assert_allclose(padded, alone, atol=1e-6)


def test_maxsim_maps_over_queries_and_has_a_gradient():
    rng = np.random.default_rng(1)
    queries, passages = (rng.normal(size=shape).astype(np.float32) for shape in [(3, 4, 8), (2, 5, 8)])
    weights, mask = np.ones((3, 4), np.float32), np.ones((2, 5), bool)
    together = jax.vmap(maxsim, in_axes=(0, 0, None, None))(queries, weights, passages, mask)
    for one, query in zip(together, queries, strict=True):
        np.testing.assert_allclose(one, maxsim(query, weights[0], passages, mask), atol=1e-6)
    loss = lambda x: maxsim(queries[0], weights[0], x, mask, window=2, neighbours=0.1).sum()  # noqa: E731
    assert jnp.isfinite(jax.grad(loss)(passages)).all()


def test_a_passage_without_rows_cannot_be_matched():
    nothing = contributions(
        np.zeros((2, 3), np.float32), np.array([0.5, 0], np.float32), np.zeros(3, bool), window=2
    )
    assert nothing.tolist() == [-np.inf, 0]


def test_maxsim_of_passages_without_any_word():
    """-inf for what has weight and cannot be matched; where nothing has weight, nothing is added."""
    query, weights = np.eye(3, dtype=np.float32), np.float32([0.5, 0.5, 0])
    passages, mask = np.ones((2, 4, 3), np.float32), np.array([[False] * 4, [True] * 4])
    for how in ({}, {"window": 24, "neighbours": 0.1}):
        added = np.asarray(maxsim(query, weights, passages, mask, **how))
        assert added[0].tolist() == [-np.inf, -np.inf, 0] and np.isfinite(added[1]).all()
        none = maxsim(query, np.zeros(3, np.float32), passages, mask, **how)
        assert np.asarray(none).tolist() == [[0, 0, 0]] * 2
        empty = maxsim(query, weights, passages[:, :0], mask[:, :0], **how)
        assert np.asarray(empty).tolist() == [[-np.inf, -np.inf, 0]] * 2
        assert maxsim(query[:0], weights[:0], passages, mask, **how).shape == (2, 0)
        assert maxsim(query, weights, passages[:0], mask[:0], **how).shape == (0, 3)


def test_pairs_that_may_not_match_count_as_0():
    query = passage = np.eye(3, dtype=np.float32)
    weights, mask = np.full(3, 1 / 3, np.float32), np.ones((1, 3), bool)
    comparable = ~np.eye(3, dtype=bool)[None]
    added = maxsim(query, weights, passage[None], mask, comparable=comparable)
    assert np.asarray(added).tolist() == [[0, 0, 0]]
    comparable[0, 0, 0] = True
    added = maxsim(query, weights, passage[None], mask, comparable=comparable)
    np.testing.assert_allclose(added, [[1 / 3, 0, 0]], rtol=1e-6)


def test_a_text_matched_with_itself_scores_1():
    words = np.eye(5, dtype=np.float32)
    weights = np.full(5, 0.2, np.float32)
    for window, neighbours in ((0, 0.0), (0, 0.1), (24, 0.1)):
        mask = np.ones(5, bool)
        score = contributions(words, weights, mask, window=window, neighbours=neighbours).sum()
        assert score == pytest.approx(1, abs=1e-6)


@given(lengths=st.lists(st.sampled_from([0, 1, 2500]), min_size=1, max_size=5), k=st.sampled_from([1, 40]))
@settings(max_examples=25)
def test_a_corpus_in_parts_is_one_corpus(lengths, k):
    rng = np.random.default_rng(4)
    passages = rng.normal(size=(sum(lengths), 8)).astype(np.float32)
    passages[::3] = passages[:1]  # ties within and across parts
    queries = rng.normal(size=(2, 8)).astype(np.float32)
    parts = np.split(passages, np.cumsum(lengths)[:-1])
    if not len(passages):
        with pytest.raises(ValueError, match="none may be 0"):
            match(queries, parts, k=k)
        return
    expected = match(queries, passages, k=k)
    for way in (parts, [jnp.asarray(part) for part in parts if len(part)]):
        for found, one in zip(match(queries, way, k=k), expected, strict=True):
            np.testing.assert_array_equal(found, one)
    assert np.asarray(expected[1]).tolist() == reference(queries, passages, k)[1].tolist()


@pytest.mark.parametrize("lengths", [(600, 700, 1000, 1023), (9, 17, 500)])
def test_parts_that_differ_in_their_last_rows_share_a_program(lengths):
    """Shards have many lengths, and every shape is compiled."""
    first, *others = [np.ones((length, 8), np.float32) for length in lengths]
    queries = np.ones((2, 8), np.float32)
    match(queries, [first], k=3)
    assert compilations(lambda: match(queries, others, k=3)) == 0


@pytest.mark.parametrize("name", ["dot", "euclidean"])
def test_what_is_too_far_for_float32_is_a_passage_all_the_same(name):
    query, far = np.array([[1e25, 0]], np.float32), np.array([[-1e25, 0], [1e25, 0], [-2e25, 0]], np.float32)
    scores, rows = match(query, far, k=3, similarity=SIMILARITIES[name])
    assert rows.tolist() == [[1, 0, 2]]
    assert scores[0, 1:].tolist() == [np.finfo(np.float32).min] * 2


def test_any_sequence_holds_parts():
    passages, query = np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)[2]
    for part in (passages, jnp.asarray(passages)):
        assert match(query, deque([part]), k=1)[1].tolist() == [2]
