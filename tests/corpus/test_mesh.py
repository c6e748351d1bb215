"""Search over many devices: the same answers as one device gives, to the last bit."""

import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minqa


def python(code, *arguments, **environment):
    """Run a program with its own devices; fails where that fails."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True, text=True, env={**os.environ, **environment}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_eight_devices_answer_as_one():
    python(
        """
        import jax, numpy as np
        from jax.sharding import NamedSharding, PartitionSpec
        import minqa

        assert jax.device_count() == 8
        line, square = jax.make_mesh((8,), ("passage",)), jax.make_mesh((2, 4), ("a", "b"))
        rng = np.random.default_rng(0)
        # Numbers that do not divide evenly, and more asked for than there are, or than a device has.
        cases = [(1, 10, False), (8, 1, True), (8, 10, False), (1003, 5000, True)]
        cases += [(33000, 10, True), (33000, 5000, False), (41001, 10, False)]
        for number, k, in_8_bits in cases:
            dim = 384 if number > 40000 else 96
            vectors = rng.standard_normal((number, dim), np.float32)
            vectors[number // 2 :][: number // 4] = vectors[: number // 4]  # ties across devices
            queries = vectors[rng.integers(0, number, 5)] + rng.standard_normal((5, dim), np.float32) / 9
            stored = np.asarray(minqa.quantize(vectors)[0]) if in_8_bits else vectors
            thirds = np.array_split(stored, 3)
            expected = jax.device_get(minqa.match(queries, stored, k=k))
            ways = [minqa.shard(stored, line), minqa.shard(thirds, square), thirds]
            if dim == 96:  # a longer product of an array's own length rounds otherwise
                ways.append(jax.device_put(stored))
            if number % 8 == 0:
                spread = jax.device_put(stored, NamedSharding(line, PartitionSpec("passage")))
                ways.append(minqa.Sharded(spread, number))
            for way in ways:
                answer = jax.device_get(minqa.match(queries, way, k=k))
                for array, other in zip(answer, expected, strict=True):
                    np.testing.assert_array_equal(array, other)
        """,
        JAX_NUM_CPU_DEVICES="8",
    )


def test_scores_do_not_travel():
    """Of the compiled search over 8 devices, no collective is larger than k × devices a query."""
    python(
        """
        import re
        import jax, numpy as np
        from minqa import cosine, shard
        from minqa.corpus.vectors import _match

        spread = shard(np.ones((80_000, 8), np.float32), jax.make_mesh((8,), ("x",)))
        queries = np.ones((3, 8), np.float32)
        how = {"mesh": spread.array.sharding.mesh, "k": 10, "similarity": cosine}
        lowered = _match.lower(queries, spread.array, 80_000, **how)
        text = lowered.compile().as_text()
        moves = r" (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)\\S*\\("
        lines = [line for line in text.splitlines() if re.search(moves, line)]
        shapes = [shape for line in lines for shape in re.findall(r"[sf]\\d+\\[([\\d,]+)\\]", line)]
        sizes = [np.prod([int(length) for length in shape.split(",")]) for shape in shapes]
        assert lines and max(sizes) <= 3 * 10 * 8, lines
        """,
        JAX_NUM_CPU_DEVICES="8",
    )


def test_what_cannot_be_searched_is_refused():
    mesh = jax.make_mesh((2,), ("x",))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "x"))
    vectors = np.ones((6, 4), np.float32)
    with pytest.raises(ValueError, match="does not match the specs"):  # JAX's own words
        minqa.match(vectors[:1], minqa.Sharded(jax.device_put(vectors, place), 6), k=1)
    spread = minqa.shard(vectors, mesh)
    for number, k in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="none may be 0"):
            minqa.match(vectors[:number], spread, k=k)
    with pytest.raises(ValueError, match="no passages to spread"):
        minqa.shard([], mesh)


def test_prepared_passages_are_found_as_others_are():
    """Whatever their dtype and size; only the last bits of a cosine differ."""
    rng = np.random.default_rng(0)
    queries, passages = rng.normal(size=(3, 16)), rng.normal(size=(5000, 16)).astype(np.float32)
    for given in (
        passages,
        1e20 * passages,
        jnp.asarray(passages, jnp.bfloat16),
        minqa.quantize(passages)[0],
    ):
        scores, rows = minqa.match(queries, given, k=9)
        ours, ours_rows = minqa.match(queries, minqa.prepare(given), k=9)
        np.testing.assert_allclose(ours, scores, atol=1e-6)
        np.testing.assert_array_equal(ours_rows, rows)
    [score, *_], [row, *_] = minqa.match(passages[7], minqa.prepare(passages), k=2)
    assert score == pytest.approx(1) and row == 7
    with pytest.raises(ValueError, match="searched by cosine"):
        minqa.match(queries, minqa.prepare(passages), k=1, similarity=minqa.dot)
