"""The index: whole or absent, and never of another model or corpus."""

import numpy as np
import pytest
from conftest import make_bert_folder

import minqa
from minqa import index as index_module
from minqa.corpus import Passage
from minqa.index import read_index, write_index


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(index_module, "SHARD", 4)


@pytest.fixture
def passages():
    texts = [f"theory {letter}" for letter in "abcdefghi"] + ["war " * 99]
    return [Passage("", text) for text in texts]


def test_what_is_written_is_read(tiny, passages, tmp_path):
    assert read_index(tiny, passages, tmp_path) is None
    done = []
    written = write_index(tiny, passages, tmp_path, progress=done.append)
    assert sum(done) == 10
    read = read_index(tiny, passages, tmp_path)
    expected = minqa.pool(minqa.embed(tiny, [passage.text for passage in passages], role="passage"))
    np.testing.assert_allclose(read.vectors, expected, atol=1e-5)
    np.testing.assert_array_equal(read.vectors, written.vectors)
    assert read.truncated.tolist() == written.truncated.tolist() == [False] * 9 + [True]


def test_nothing_is_embedded_twice(tiny, passages, tmp_path, monkeypatch):
    write_index(tiny, passages, tmp_path)
    monkeypatch.setattr(index_module, "embed_pooled", None)
    done = []
    write_index(tiny, passages, tmp_path, progress=done.append)
    assert sum(done) == 10


def test_an_interrupted_index_keeps_its_whole_shards_and_goes_on(tiny, passages, tmp_path):
    def interrupt(done, left=[6]):  # noqa: B006
        left[0] -= done
        if left[0] <= 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_index(tiny, passages, tmp_path, progress=interrupt)
    assert len(read_index(tiny, passages, tmp_path).vectors) == 4
    assert len(list(tmp_path.rglob("*.*"))) == 1, "nothing half-written stays"
    write_index(tiny, passages, tmp_path)
    assert len(read_index(tiny, passages, tmp_path).vectors) == 10


def test_another_model_another_version_another_text_find_nothing(tiny, passages, tmp_path, monkeypatch):
    write_index(tiny, passages, tmp_path)
    other = minqa.load(make_bert_folder(tmp_path / "other", seed=5))
    assert read_index(other, passages, tmp_path) is None
    changed = [Passage("", "theory z"), *passages[1:]]
    assert read_index(tiny, changed, tmp_path) is None
    monkeypatch.setattr(index_module, "VERSION", index_module.VERSION + 1)
    assert read_index(tiny, passages, tmp_path) is None


def test_a_changed_end_keeps_the_beginning(tiny, passages, tmp_path):
    write_index(tiny, passages, tmp_path)
    assert len(read_index(tiny, [*passages, Passage("", "new")], tmp_path).vectors) == 8


def test_a_spoilt_shard_is_not_taken_but_made_again(tiny, passages, tmp_path):
    expected = write_index(tiny, passages, tmp_path).vectors
    flip = lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]  # noqa: E731
    for spoil in (lambda data: data[:-1], lambda data: b"", lambda data: b"no safetensors", flip):
        for path in tmp_path.rglob("*.safetensors"):
            path.write_bytes(spoil(path.read_bytes()))
        assert read_index(tiny, passages, tmp_path) is None
        np.testing.assert_array_equal(write_index(tiny, passages, tmp_path).vectors, expected)


def test_a_folder_that_cannot_be_written_is_told_before_the_work(tiny, passages, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(index_module, "embed_pooled", None)
    with pytest.raises(minqa.InputError, match=r"cannot be written .* name another with --cache"):
        write_index(tiny, passages, tmp_path / "file")
