"""Search over many devices and several processes: the same answers as one device gives, to the last bit."""

import json
import os
import socket
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest
from conftest import contents

import minqa

CLI = [sys.executable, "-c", "import sys; from minqa.app.cli import main; sys.exit(main())"]


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
        for number in (1, 7, 8, 1003, 4096, 9001, 33000):  # most of them do not divide evenly
            vectors = rng.standard_normal((number, 96), np.float32)
            vectors[number // 2 :][: number // 4] = vectors[: number // 4]  # ties across devices
            queries = vectors[rng.integers(0, number, 5)] + rng.standard_normal((5, 96), np.float32) / 9
            for stored in (vectors, np.asarray(minqa.quantize(vectors)[0])):
                thirds = np.array_split(stored, 3)
                for k in (1, 10, 5000):
                    expected = jax.device_get(minqa.match(queries, stored, k=k))
                    ways = [minqa.shard(stored, line), minqa.shard(thirds, square), thirds]
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
        from minqa.corpus.spread import _match

        spread = shard(np.ones((80_000, 8), np.float32), jax.make_mesh((8,), ("x",)))
        queries = np.ones((3, 8), np.float32)
        how = {"place": spread.array.sharding, "k": 10, "similarity": cosine}
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


def test_what_is_spread_otherwise_is_refused():
    mesh = jax.make_mesh((2,), ("x",))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "x"))
    spread = minqa.Sharded(jax.device_put(np.ones((6, 4), np.float32), place), 6)
    with pytest.raises(ValueError, match="by their first axis"):
        minqa.match(np.ones((1, 4), np.float32), spread, k=1)


def run_together(*commands):
    """Run commands at once, as processes that find each other, and return what the first printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "4"}
    who = ["--coordinator", f"127.0.0.1:{port}", "--processes", str(len(commands)), "--process"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    processes = [subprocess.Popen([*command, *who, str(i)], **pipes) for i, command in enumerate(commands)]
    try:
        outputs = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, err) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, err[-3000:]
    assert outputs[1][0] == "", "the first alone speaks"
    return outputs[0][0]


def test_two_processes_of_four_devices_index_and_answer_as_one(bert_folder, tmp_path):
    texts = tmp_path / "corpus.txt"
    texts.write_text("\n".join(f"theory {i} of war {i * i}" for i in range(50)))
    options = ["--model", bert_folder, "--cache", tmp_path / "cache"]
    index = [*CLI, "index", texts, "--shard", "7", *options, "--out"]
    subprocess.run([*index, tmp_path / "one"], check=True, capture_output=True)
    assert "embedded" in run_together(*[[*index, tmp_path / "two"]] * 2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")

    question = "who developed the theory of war 49?"
    ask = [*CLI, "ask", question, "--json", *options, "--index", tmp_path / "two"]
    alone = json.loads(subprocess.run(ask, check=True, capture_output=True).stdout)
    together = json.loads(run_together(ask, ask))
    assert together["results"] == alone["results"] and together["searched"] == alone["searched"] == 50
