"""What other engines answer from the vectors of an index is what `match` answers."""

import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as parquet
import pytest
from conftest import corpus_of

import minqa

faiss = pytest.importorskip("faiss", reason="faiss-cpu is not installed")
lancedb = pytest.importorskip("lancedb", reason="lancedb is not installed")

EXAMPLE = Path(__file__).parent.parent / "examples" / "engines.py"
WORDS = "theory war world relativity played naive develop who caf".split()


@pytest.fixture(scope="module")
def example():
    return SimpleNamespace(**runpy.run_path(str(EXAMPLE)))


@pytest.fixture(scope="module")
def disk(tiny, tmp_path_factory):
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, 7)) for _ in range(90)]
    path = tmp_path_factory.mktemp("index") / "index"
    return minqa.write_index(tiny, corpus_of(texts), path, articles_per_shard=40)


@pytest.fixture(scope="module")
def expected(tiny, disk):
    queries = minqa.pool(minqa.embed(tiny, ["naive theory of war", "who played?"], role="query"))
    return queries, *map(np.asarray, minqa.match(queries, minqa.open_index(disk.path, tiny).vectors, k=10))


def test_parquet_holds_passages_and_vectors_in_order(example, disk, tmp_path):
    example.write_parquet(disk, tmp_path / "out.parquet")
    table = parquet.read_table(tmp_path / "out.parquet")
    assert len(table) == len(disk.passages) == 90
    assert table["text"].to_pylist() == [passage.text for passage in disk.passages]
    assert table["id"].to_pylist()[:2] == ["0:0", "1:0"]
    vectors = np.concatenate([shard.vectors for shard in disk.shards])
    np.testing.assert_array_equal(np.stack(table["vector"].to_numpy()), vectors)


def test_faiss_answers_the_same(example, disk, expected, tmp_path):
    example.write_faiss(disk, tmp_path / "out.faiss")
    queries, cosines, rows = expected
    scores, nearest = faiss.read_index(str(tmp_path / "out.faiss")).search(queries, 10)
    np.testing.assert_array_equal(nearest, rows)
    np.testing.assert_allclose(scores, cosines * np.linalg.norm(queries, axis=1, keepdims=True), rtol=1e-5)


def test_lance_answers_the_same(example, disk, expected, tmp_path):
    example.write_lance(disk, tmp_path / "out.lance")
    table = lancedb.connect(tmp_path / "out.lance").open_table("passages")
    ids = [passage.id for passage in disk.passages]
    for query, _, rows in zip(*expected, strict=True):
        nearest = table.search(query).distance_type("cosine").limit(10).to_list()
        assert [passage["id"] for passage in nearest] == [ids[row] for row in rows]


def test_the_example_compares_the_engines(disk, tmp_path):
    command = [sys.executable, EXAMPLE, disk.path, "naive theory of war", "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the same 10 passages") == 3
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "index.faiss", "index.lance", "index.parquet"
    }  # fmt: skip


def test_what_is_spoilt_is_not_handed_on(disk, tmp_path):
    path = disk.shards[1].folder / "vectors.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-4] + b"spam")
    try:
        command = [sys.executable, EXAMPLE, disk.path, "war", "--out", tmp_path / "out"]
        done = subprocess.run(command, capture_output=True, text=True)
    finally:
        path.write_bytes(content)
    assert "is not what was written" in done.stderr and not (tmp_path / "out").exists()
