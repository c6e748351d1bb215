"""What other engines answer from exported vectors is what `match` answers."""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
from conftest import corpus_of

import minqa
from minqa.index import Folder

WORDS = "theory war world relativity played naive develop who caf".split()


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, 7)) for _ in range(90)]
    path = tmp_path_factory.mktemp("index") / "index"
    return minqa.write_index(tiny, corpus_of(texts), path, shard=40)


@pytest.fixture(scope="module")
def expected(tiny, folder):
    queries = minqa.pool(minqa.embed(tiny, ["naive theory of war", "who played?"], role="query"))
    return queries, *map(np.asarray, minqa.match(queries, minqa.open_index(folder.path, tiny).vectors, k=10))


def test_parquet_holds_passages_and_vectors_in_order(folder, tmp_path):
    done = []
    minqa.export(folder, "parquet", tmp_path / "out.parquet", progress=done.append)
    table = parquet.read_table(tmp_path / "out.parquet")
    assert sum(done) == len(table) == len(folder.passages) == 90
    assert table["text"].to_pylist() == [one.text for one in folder.passages]
    assert table["id"].to_pylist()[:2] == ["0:0", "1:0"]
    vectors = np.concatenate([shard.vectors for shard in folder.shards])
    np.testing.assert_array_equal(np.stack(table["vector"].to_numpy()), vectors)


def test_faiss_answers_the_same(folder, expected, tmp_path):
    faiss = pytest.importorskip("faiss", reason="the extra faiss is not installed")
    minqa.export(folder, "faiss", tmp_path / "out.faiss")
    queries, cosines, rows = expected
    scores, found = faiss.read_index(str(tmp_path / "out.faiss")).search(queries, 10)
    np.testing.assert_array_equal(found, rows)
    np.testing.assert_allclose(scores, cosines * np.linalg.norm(queries, axis=1, keepdims=True), rtol=1e-5)


def test_lance_answers_the_same(folder, expected, tmp_path):
    lancedb = pytest.importorskip("lancedb", reason="the extra lance is not installed")
    minqa.export(folder, "lance", tmp_path / "out.lance")
    table = lancedb.connect(tmp_path / "out.lance").open_table("passages")
    ids = [one.id for one in folder.passages]
    for query, _, rows in zip(*expected, strict=True):
        found = table.search(query).distance_type("cosine").limit(10).to_list()
        assert [one["id"] for one in found] == [ids[row] for row in rows]


def test_the_example_compares_the_engines(folder, expected, tmp_path):
    for package in ("faiss", "lancedb"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    example = Path(__file__).parent.parent / "examples" / "engines.py"
    manifest = folder.manifest
    command = [sys.executable, example, folder.path, "naive theory of war", "--model", manifest.model]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the same 10 passages") == 2


def test_nothing_is_replaced_and_nothing_half_written_stays(folder, tmp_path, monkeypatch):
    (tmp_path / "there").write_text("")
    with pytest.raises(minqa.InputError, match="is there already"):
        minqa.export(folder, "parquet", tmp_path / "there")

    def stop(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        minqa.export(folder, "parquet", tmp_path / "out", progress=stop)
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setitem(sys.modules, "lancedb", None)
    for to in ("faiss", "lance"):
        with pytest.raises(minqa.InputError, match=f"uv run --extra {to} minqa export"):
            minqa.export(folder, to, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_what_is_spoilt_is_not_handed_on(folder, tmp_path):
    shutil.copytree(folder.path, tmp_path / "copy")
    path = next((tmp_path / "copy").glob("*/vectors.safetensors"))
    path.write_bytes(path.read_bytes()[:-4] + b"spam")
    with pytest.raises(minqa.InputError, match="is not what was written"):
        minqa.export(Folder(tmp_path / "copy"), "parquet", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_empty_index_is_refused(tiny, tmp_path):
    with pytest.raises(minqa.InputError, match="holds no passage"):
        minqa.write_index(tiny, corpus_of([""]), tmp_path / "index")
    with pytest.raises(minqa.InputError, match="holds no passage"):
        minqa.export(Folder(tmp_path / "index"), "parquet", tmp_path / "out")
