"""What is usual in a corpus: idf, mean, deviation, what unrelated and identical texts score; and its file."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minqa
from minqa.corpus.statistics import demo_statistics, frequencies, read_statistics, write_statistics
from minqa.encoder import CENTRINGS
from minqa.similarity import SIMILARITIES


def test_statistics_are_those_of_the_vectors(either):
    texts = ["the theory of relativity", "world war a b c", "", "who played, naive"]
    encoder = minqa.calibrate(either, texts)
    statistics = encoder.statistics
    assert statistics.documents == 4 and replace(encoder, statistics=None) == either
    for layer in range(3):
        vectors = minqa.embed(replace(either, layer=layer), texts, role="passage")
        real = np.concatenate([text.array[text.tokens.word >= 0] for text in vectors])
        np.testing.assert_allclose(statistics.mean[layer], real.mean(0), atol=1e-5)
        np.testing.assert_allclose(statistics.deviation[layer], real.std(0), atol=1e-5)
        scored = minqa.embed(replace(encoder, layer=layer, centring="z-score"), texts, role="passage")
        real = np.concatenate([text.array[text.tokens.word >= 0] for text in scored])
        np.testing.assert_allclose(real.mean(0), 0, atol=1e-4)
        varies = statistics.deviation[layer] > 1e-3  # a unit of ELMo's may be clipped at every word
        np.testing.assert_allclose(real.std(0), varies, atol=1e-3)
    for scores in (statistics.baseline, statistics.identical):
        assert scores.shape == (len(CENTRINGS), 3) and (np.abs(scores) <= 1 + 1e-5).all()
    np.testing.assert_allclose(statistics.identical, 1, atol=1e-5)
    assert (statistics.baseline < 0.999).all()
    with pytest.raises(minqa.InputError, match="holds no word"):
        minqa.calibrate(either, ["", "?!"])


def test_a_dimension_that_never_varies_is_left_out_of_a_z_score(tiny):
    encoder = minqa.calibrate(tiny, ["the theory of relativity", "world war"])
    deviation = encoder.statistics.deviation.copy()
    deviation[:, 3] = 0
    statistics = replace(encoder.statistics, deviation=deviation)
    [text] = minqa.embed(
        replace(encoder, layer=1, centring="z-score", statistics=statistics), ["naive theory"]
    )
    assert np.isfinite(text.array).all() and (text.array[:, 3] == 0).all() and text.array.any()


def test_centring_without_a_corpus_is_refused(tiny, unchecked):
    for centring in ("mean", "z-score"):
        with pytest.raises(
            minqa.InputError, match=f"Centring by {centring} needs the statistics of a corpus"
        ):
            minqa.embed(replace(tiny, centring=centring), ["war"])
    known = minqa.calibrate(tiny, ["the war", "a theory"])
    with pytest.raises(minqa.InputError, match="Centring by median"):
        minqa.embed(replace(known, centring="median"), ["war"])


def test_the_baseline_is_what_other_texts_reach(tiny, monkeypatch):
    monkeypatch.setattr("minqa.corpus.statistics.QUERY_WORDS", 2)
    texts = ["naive theory of \u0e41\u0e21\u0e27 war", "world play \u0e2b\u0e21\u0e32", "world play"]
    texts += texts[2:]
    encoder = minqa.calibrate(tiny, texts)
    vectors = minqa.embed(replace(tiny, layer=1), texts, role="passage")
    words = [text.words / np.linalg.norm(text.words, axis=1, keepdims=True) for text in vectors]

    def score(query, *passages):
        """Of the last two words; what the model does not know is left out on both sides."""
        tokens = vectors[query].tokens
        weights = (encoder.statistics.idf(tokens.keys) * ~tokens.unknown)[-2:]
        known = np.concatenate([words[passage][~vectors[passage].tokens.unknown] for passage in passages])
        return weights @ (words[query][-2:] @ known.T).max(1) / weights.sum()

    # The last two texts are the same, so neither is compared with the other.
    expected = np.mean([score(0, 1, 2, 3), score(1, 2, 3, 0), score(2, 0, 1), score(3, 0, 1)])
    np.testing.assert_allclose(encoder.statistics.baseline[0, 1], expected, atol=1e-5)
    assert replace(encoder, layer=1).scale[0] == pytest.approx(expected, abs=1e-5)
    assert (minqa.calibrate(tiny, ["war"]).statistics.baseline == 0).all()
    with np.errstate(all="raise"):
        [text] = minqa.embed(replace(minqa.calibrate(tiny, ["war"]), centring="z-score"), ["war"])
    assert np.isfinite(text.array).all()


@pytest.mark.parametrize("name", SIMILARITIES)
def test_the_scale_is_that_of_the_similarity(either, name):
    texts = ["the theory of relativity", "world war a b c", "who played, naive"]
    similarity = SIMILARITIES[name]
    encoder = minqa.calibrate(either, texts, similarity=similarity)
    assert (encoder.statistics.frequency, encoder.statistics.documents) == (
        minqa.calibrate(either, texts).statistics.frequency,
        3,
    )
    vectors = minqa.embed(encoder, texts, role="passage")
    plain = {"similarity": similarity, "window": 0, "neighbours": 0.0}
    itself = np.mean([minqa.heat_map(text, text, **plain).score for text in vectors])
    assert encoder.scale[1] == pytest.approx(itself, rel=1e-4, abs=1e-4)
    if name != "dot":  # a vector's product with a longer one may exceed that with itself
        assert (encoder.statistics.baseline < encoder.statistics.identical).all()
    heat = minqa.heat_map(vectors[0], vectors[1], **plain)
    assert (heat.baseline, heat.identical) == encoder.scale


def test_equal_ids_have_equal_idf_and_weight(tiny):
    """An uncased model that strips accents never sees the difference, and so nor does a weight."""
    texts = ["the caf\u00e9 of the world"] * 14 + ["who played THE", "cafe\u0301!", "a war"]
    encoder = minqa.calibrate(tiny, texts)
    statistics = encoder.statistics
    assert statistics.frequency["cafe"] == 15 and "caf\u00e9" not in statistics.frequency
    [tokens] = encoder.tokenize(["cafe caf\u00e9 CAFE\u0301 Caf\u00e9 war"])
    weights = encoder.word_weights(tokens)
    assert len(set(weights[:4].tolist())) == 1 and weights[4] > weights[0]
    np.testing.assert_allclose(
        statistics.idf(["cafe", "war", "unheard"]), np.log1p(17 / np.float32([15.5, 1.5, 0.5]))
    )


FORMS = ["est\u00e1", "esta", "ESTA\u0301", "caf\u00e9", "cafe", "the", "The", "war", "\u0e41\u0e21\u0e27"]


@given(st.lists(st.lists(st.sampled_from(FORMS), max_size=6), min_size=1, max_size=6))
@settings(max_examples=50)
def test_frequencies_count_the_texts_that_hold_a_word(tiny, texts):
    tokens = tiny.tokenize([" ".join(words) for words in texts])
    counts = frequencies(tokens)
    assert counts == frequencies(tiny.tokenize(texts)), "a list holds the same words"
    seen = {}
    for number, text in enumerate(tokens):
        for word, key in enumerate(text.keys):
            pieces = tuple(text.ids[text.word == word])
            seen.setdefault((pieces, key), set()).add(number)
    assert counts == {key: len(numbers) for (_, key), numbers in seen.items()}
    known = [pieces for pieces, key in seen if key != "\u0e41\u0e21\u0e27"]
    assert len(known) == len(set(known)), "equal ids have one key"


def test_a_corpus_of_unknown_words_has_words(tiny):
    """The model sees nothing but [UNK], but words are counted, and nothing is compared."""
    texts = ["\u0e41\u0e21\u0e27", "\u0e2b\u0e21\u0e32", "\u0e41\u0e21\u0e27 \u0e2b\u0e21\u0e32"]
    encoder = minqa.calibrate(tiny, texts)
    assert encoder.statistics.frequency == {"\u0e41\u0e21\u0e27": 2, "\u0e2b\u0e21\u0e32": 2}
    assert (encoder.statistics.baseline == 0).all()
    mixed = minqa.calibrate(tiny, [*texts, "the war", "a theory"])
    assert np.isfinite(mixed.statistics.baseline).all()


def test_lists_of_words_are_a_corpus(either):
    texts = ["the theory of relativity", "world war a b c", "who played naive"]
    listed, joined = minqa.calibrate(either, [text.split() for text in texts]), minqa.calibrate(either, texts)
    assert listed.statistics.frequency == joined.statistics.frequency
    np.testing.assert_allclose(listed.statistics.mean, joined.statistics.mean, atol=1e-5)
    np.testing.assert_allclose(listed.statistics.baseline, joined.statistics.baseline, atol=1e-5)


def test_an_encoder_with_a_corpus_keeps_its_fingerprint(tiny):
    encoder = minqa.calibrate(tiny, ["the war", "a theory"])
    changed = replace(encoder, layer=1, centring="mean", weights="none")
    assert tiny.fingerprint == encoder.fingerprint == changed.fingerprint


def test_statistics_are_kept_whole_and_for_what_they_are_of(tiny, tmp_path):
    statistics = minqa.calibrate(tiny, ["the theory of relativity", "world war"]).statistics
    path = tmp_path / "statistics.safetensors"
    write_statistics(path, statistics, "a")
    read = read_statistics(path, "a")
    assert (read.documents, read.frequency) == (2, statistics.frequency)
    for name in ("mean", "deviation", "baseline", "identical"):
        np.testing.assert_array_equal(getattr(read, name), getattr(statistics, name))
    assert read_statistics(path, "b") is None
    content = path.read_bytes()
    for spoilt in (content[:-1], b"", content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]):
        path.write_bytes(spoilt)
        assert read_statistics(path, "a") is None


def test_the_leads_statistics_are_made_once(tiny, tmp_path, leads, monkeypatch):
    made = demo_statistics(tiny, tmp_path)
    assert made.documents == 1024 and list(tmp_path.glob("statistics/*.safetensors"))
    monkeypatch.setattr("minqa.corpus.statistics.calibrate", None)
    assert demo_statistics(tiny, tmp_path).frequency == made.frequency
