"""The index: whole or absent, and never of another model or corpus."""

import numpy as np
import pytest
from conftest import make_bert_folder

import minqa
from minqa import index as index_module
from minqa.corpus import Passage
from minqa.index import demo_statistics, read_index, write_index
from minqa.statistics import CENTRINGS, Measure


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(index_module, "SHARD", 4)
    monkeypatch.setattr(index_module, "FEW", 5)


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
    assert read.statistics.frequency == written.statistics.frequency
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
    assert not list(tmp_path.rglob("*.tmp")), "nothing half-written stays"
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
        for path in tmp_path.rglob("*.safetensors"):  # the statistics among them
            path.write_bytes(spoil(path.read_bytes()))
        assert read_index(tiny, passages, tmp_path) is None
        np.testing.assert_array_equal(write_index(tiny, passages, tmp_path).vectors, expected)


def test_a_folder_that_cannot_be_written_is_told_before_the_work(tiny, passages, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(index_module, "embed_pooled", None)
    with pytest.raises(minqa.InputError, match=r"cannot be written .* name another with --cache"):
        write_index(tiny, passages, tmp_path / "file")


def test_words_are_counted_over_all_shards(tiny, passages, tmp_path):
    statistics = write_index(tiny, passages, tmp_path).statistics
    texts = [set(passage.text.split()) for passage in passages]
    words = set.union(*texts)
    assert statistics.documents == 10
    assert statistics.frequency == {word: sum(word in text for text in texts) for word in words}
    idf = statistics.idf(["Theory", "war", "unheard"])
    np.testing.assert_allclose(idf, np.log(1 + 10 / np.array([9.5, 1.5, 0.5])), rtol=1e-6)


def test_statistics_are_those_of_the_vectors(either):
    texts = ["the theory of relativity", "world war a b c", "", "who played, naive"]
    statistics = minqa.gather(either, texts)
    for layer in range(3):
        found = minqa.embed(either, texts, role="passage", measure=Measure((layer,)))
        real = np.concatenate([one.array[one.tokens.word >= 0] for one in found])
        np.testing.assert_allclose(statistics.mean[layer], real.mean(0), atol=1e-5)
        np.testing.assert_allclose(statistics.deviation[layer], real.std(0), atol=1e-5)
        scored = minqa.embed(
            either, texts, role="passage", measure=Measure((layer,), "z-score"), statistics=statistics
        )
        real = np.concatenate([one.array[one.tokens.word >= 0] for one in scored])
        np.testing.assert_allclose(real.mean(0), 0, atol=1e-4)
        varies = statistics.deviation[layer] > 1e-3  # a unit of ELMo's may be clipped at every word
        np.testing.assert_allclose(real.std(0), varies, atol=1e-3)
    assert statistics.unrelated.shape == (len(CENTRINGS), 3)
    assert (np.abs(statistics.unrelated) <= 1).all()
    with pytest.raises(minqa.InputError, match="holds no word"):
        minqa.gather(either, ["", "?!"])


def test_a_dimension_that_never_varies_is_left_out_of_a_z_score(tiny):
    from dataclasses import replace

    statistics = minqa.gather(tiny, ["the theory of relativity", "world war"])
    deviation = statistics.deviation.copy()
    deviation[:, 3] = 0
    measure = Measure((1,), "z-score")
    [one] = minqa.embed(
        tiny, ["naive theory"], measure=measure, statistics=replace(statistics, deviation=deviation)
    )
    assert np.isfinite(one.array).all() and (one.array[:, 3] == 0).all() and one.array.any()


def test_the_mean_of_several_layers(tiny):
    texts = ["the theory of relativity", "world war"]
    statistics = minqa.gather(tiny, texts)

    def of(*layers):
        [one, _] = minqa.embed(tiny, texts, measure=Measure(layers, "z-score"), statistics=statistics)
        return one.array

    np.testing.assert_allclose(of(0, 2), (of(0) + of(2)) / 2, atol=1e-5)
    expected = statistics.unrelated[2, [0, 2]].mean()
    assert statistics.unrelated_score(Measure((0, -1), "z-score")) == pytest.approx(expected)


def test_a_small_corpus_is_judged_by_the_leads(tiny, passages, tmp_path, leads):
    statistics = write_index(tiny, passages[:3], tmp_path).statistics
    counted = demo_statistics(tiny, tmp_path)
    assert statistics.documents == counted.documents == 4
    assert statistics.frequency == counted.frequency and "theory" not in counted.frequency


def test_stored_tokens_come_back_in_8_bits(tiny, passages, tmp_path):
    plain = write_index(tiny, passages, tmp_path)
    assert plain.tokens is None
    stored = write_index(tiny, passages, tmp_path, store_tokens=True)
    np.testing.assert_array_equal(stored.vectors, plain.vectors)
    vectors = minqa.embed(tiny, [passage.text for passage in passages], role="passage")
    for index in (stored, read_index(tiny, passages, tmp_path)):
        for row, one in enumerate(vectors):
            array = index.tokens[row]
            assert array.shape == one.array.shape and array.dtype == np.float32
            step = np.abs(one.array).max(1, keepdims=True) / 127
            assert (np.abs(array - one.array) <= 0.51 * step + 1e-5).all()


def test_stored_tokens_that_are_cut_short_are_made_again(tiny, passages, tmp_path):
    write_index(tiny, passages, tmp_path, store_tokens=True)
    path = sorted(tmp_path.rglob("*.tokens.safetensors"))[0]
    path.write_bytes(path.read_bytes()[:-1])
    assert read_index(tiny, passages, tmp_path).tokens is None
    done = []
    assert write_index(tiny, passages, tmp_path, store_tokens=True, progress=done.append).tokens is not None
    assert sum(done) == len(passages)


def test_unrelated_is_what_other_texts_reach(tiny, monkeypatch):
    monkeypatch.setattr("minqa.survey.QUERY_WORDS", 2)
    texts = ["naive theory of war", "world play", "world play"]
    statistics = minqa.gather(tiny, texts)
    measure = Measure((1,), weights="idf")
    vectors = minqa.embed(tiny, texts, role="passage", measure=measure)
    words = [one.words / np.linalg.norm(one.words, axis=1, keepdims=True) for one in vectors]

    def score(asked, read):
        weights = statistics.idf(vectors[asked].tokens.word_texts)[-2:]
        return weights @ (words[asked][-2:] @ words[read].T).max(1) / weights.sum()

    # The second and third text are the same, so neither is compared with the other.
    expected = np.mean([score(0, 1), score(1, 0), score(2, 0)])
    np.testing.assert_allclose(statistics.unrelated[0, 1], expected, atol=1e-5)
    assert (minqa.gather(tiny, ["war"]).unrelated == 0).all()
    with np.errstate(all="raise"):
        [one] = minqa.embed(
            tiny, ["war"], measure=Measure(centring="z-score"), statistics=minqa.gather(tiny, ["war"])
        )
    assert np.isfinite(one.array).all()
