"""Statistics of a corpus, and where they are kept."""

from dataclasses import replace

import numpy as np
import pytest

import minqa
from minqa.statistics import CENTRINGS, Measure
from minqa.survey import demo_statistics, read_statistics, write_statistics


def test_statistics_are_kept_whole_and_for_what_they_are_of(tiny, tmp_path):
    statistics = minqa.gather(tiny, ["the theory of relativity", "world war"])
    path = tmp_path / "statistics.safetensors"
    write_statistics(path, statistics, "a")
    read = read_statistics(path, "a")
    assert (read.documents, read.frequency) == (2, statistics.frequency)
    for name in ("mean", "deviation", "unrelated"):
        np.testing.assert_array_equal(getattr(read, name), getattr(statistics, name))
    assert read_statistics(path, "b") is None
    content = path.read_bytes()
    for spoilt in (content[:-1], b"", content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]):
        path.write_bytes(spoilt)
        assert read_statistics(path, "a") is None


def test_the_leads_statistics_are_gathered_once(tiny, tmp_path, leads, monkeypatch):
    made = demo_statistics(tiny, tmp_path)
    assert made.documents == 1024 and list(tmp_path.glob("statistics/*.safetensors"))
    monkeypatch.setattr("minqa.survey.gather", None)
    assert demo_statistics(tiny, tmp_path).frequency == made.frequency


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
