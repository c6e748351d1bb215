"""Cosines and exact top-k against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from minqa import similarity
from minqa.similarity import cosine, inverse_length, match

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
