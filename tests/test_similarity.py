"""Cosines and exact top-k against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from minqa import similarity
from minqa.similarity import contributions, cosine, inverse_length, match, maxsim, quantize

# Whole numbers of length 1 or 2 along axes give exact cosines, and so ties.
AXES = np.concatenate([np.eye(4), -np.eye(4), 2 * np.eye(4), np.zeros((1, 4))]).astype(np.float32)


def reference(queries, passages, k):
    def normed(x):
        length = np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
        return np.divide(x, length, out=np.zeros_like(x, np.float64), where=length > 0)

    scores = normed(queries) @ normed(passages).T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), order


@given(
    queries=st.lists(st.sampled_from(range(len(AXES))), min_size=1, max_size=5),
    passages=st.lists(st.sampled_from(range(len(AXES))), min_size=1, max_size=40),
    k=st.integers(1, 50),
    block=st.sampled_from([1, 7, 64]),
)
@settings(max_examples=60)
def test_match_equals_a_stable_sort_whatever_the_block(queries, passages, k, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarity, "BLOCK_PASSAGES", block)
        patch.setattr(similarity, "BLOCK_QUERIES", 3)
        jax.clear_caches()
        scores, rows = match(AXES[queries], AXES[passages], k=k)
    expected_scores, expected_rows = reference(AXES[queries], AXES[passages], k)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)


@pytest.mark.parametrize("block", [4096, 700])
def test_match_equals_numpy_on_many_vectors(monkeypatch, block):
    rng = np.random.default_rng(0)
    queries, passages = (rng.normal(size=(n, 24)).astype(np.float32) for n in (7, 3001))
    monkeypatch.setattr(similarity, "BLOCK_PASSAGES", block)
    jax.clear_caches()
    scores, rows = match(queries, passages, k=10)
    expected_scores, expected_rows = reference(queries, passages, 10)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)


def test_memory_does_not_grow_with_queries_times_passages():
    """The compiled program's temporaries stay near one block of scores, though all would be 40 GB."""
    shapes = (jax.ShapeDtypeStruct((n, 16), jnp.float32) for n in (10_000, 1_000_000))
    compiled = jax.jit(lambda *vectors: match(*vectors, k=10)).lower(*shapes).compile()
    block = 4 * similarity.BLOCK_QUERIES * similarity.BLOCK_PASSAGES
    assert compiled.memory_analysis().temp_size_in_bytes < 8 * block


def test_normalized_vectors_need_no_lengths():
    rng = np.random.default_rng(1)
    queries, passages = (rng.normal(size=(n, 24)).astype(np.float32) for n in (7, 301))
    passages /= np.linalg.norm(passages, axis=1, keepdims=True)
    scores, rows = match(queries, passages, k=10, normalized=True)
    expected_scores, expected_rows = reference(queries, passages, 10)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)
    with pytest.raises(ValueError, match="int8 do not have length 1"):
        match(queries, quantize(passages), k=1, normalized=True)


@pytest.mark.parametrize("short", [quantize, lambda x: jnp.asarray(x).astype(jnp.bfloat16)])
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


def test_quantize_fills_8_bits_and_keeps_zero():
    vectors = np.array([[1, -2, 0.5], [0, 0, 0], [1e-30, 0, -1e-30]], np.float32)
    np.testing.assert_array_equal(quantize(vectors), [[64, -127, 32], [0, 0, 0], [127, 0, -127]])


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


@given(arrays(np.float32, (3, 4), elements=st.floats(-100, 100, width=32)))
@example(np.full((3, 4), 8.5e-23, np.float32))
def test_cosines_are_cosines(vectors):
    scores = np.asarray(cosine(vectors, vectors))
    assert (np.abs(scores) <= 1 + 1e-5).all()
    long = (vectors**2).sum(1) > 1e-30
    np.testing.assert_allclose(np.diag(scores)[long], 1, atol=1e-5)
    assert (scores[~vectors.any(1)] == 0).all()


def test_the_gradient_of_a_zero_vector_is_a_number():
    assert jnp.isfinite(jax.grad(lambda x: inverse_length(x).sum())(jnp.zeros((2, 3)))).all()


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
    rows=st.integers(1, 9),
    queries=st.integers(1, 5),
    window=st.sampled_from([0, 1, 2, 3, 4, 7, 30]),
    neighbours=st.sampled_from([0.0, 0.1, 0.5]),
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


def test_a_text_matched_with_itself_scores_1():
    words = np.eye(5, dtype=np.float32)
    weights = np.full(5, 0.2, np.float32)
    for window, neighbours in ((0, 0.0), (0, 0.1), (24, 0.1)):
        mask = np.ones(5, bool)
        score = contributions(words, weights, mask, window=window, neighbours=neighbours).sum()
        assert score == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("recall", [0.5, 0.95, 1.0])
def test_approximate_reaches_the_recall_that_it_was_asked_for(recall):
    rng = np.random.default_rng(3)
    queries, passages = (rng.normal(size=(n, 32)).astype(np.float32) for n in (40, 20_000))
    _, exact = match(queries, passages, k=10)
    scores, rows = match(queries, passages, k=10, approximate=recall)
    assert (np.diff(scores) <= 0).all()
    found = [len({*one} & {*other}) / 10 for one, other in zip(rows.tolist(), exact.tolist(), strict=True)]
    assert np.mean(found) >= recall


@pytest.mark.parametrize("recall", [0.0, 1.5, -1.0])
def test_no_recall_is_refused(recall):
    with pytest.raises(ValueError, match="a recall is above 0 and at most 1"):
        match(np.ones((1, 4), np.float32), np.ones((3, 4), np.float32), k=1, approximate=recall)


@given(lengths=st.lists(st.integers(0, 2500), min_size=1, max_size=5), k=st.integers(1, 40))
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
