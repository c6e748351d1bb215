"""Units against PyTorch, and planted units that are found first."""

import sys

import jax
import numpy as np
import pytest
import torch
from conftest import VOCABULARY, make_bert_folder, make_elmo_folder, oracle

import minqa
from minqa.inside.features import FEATURES
from minqa.inside.units import Units
from minqa.tokens import tokens_of_words

TEXTS = [
    "the theory of relativity was developed 2 of 3",
    "who played 7 a war of 5 , 1 to world",
    "naive caf\u00e9s developed ( 4 world war )",
    "of a 9 , the 8 developing world who ?",
    "a war , a theory 6 , relativity 0 playing",
    "to the world : 3 wars",
]


def word_means(array, tokens):
    """By hand: the mean over each word's tokens."""
    return np.stack([array[..., tokens.word == i, :].mean(-2) for i in range(len(tokens.words))], -2)


def test_berts_units_equal_pytorch(bert_folder):
    encoder, model = minqa.load(bert_folder), oracle(bert_folder)
    seen = []
    for layer in model.encoder.layer:
        layer.intermediate.register_forward_hook(lambda *call: seen.append(call[-1][0]))
    for text in TEXTS:
        [tokens] = encoder.tokenize([text])
        seen.clear()
        with torch.no_grad():
            hidden = model(torch.tensor(tokens.ids)[None].long(), output_hidden_states=True).hidden_states
        found = minqa.units(encoder, text)
        assert (found.kind, found.layers, found.array.shape[2]) == ("feed-forward", (1, 2), 48)
        expected = word_means(torch.stack(seen).numpy(), tokens)
        np.testing.assert_allclose(found.array, expected, atol=2e-5, rtol=0)
        hidden = word_means(torch.cat(hidden).numpy(), tokens)
        again = minqa.units(encoder, text, kind="hidden")
        assert again.layers == (0, 1, 2)
        np.testing.assert_allclose(again.array, hidden, atol=2e-5, rtol=0)
        np.testing.assert_array_equal(again.unit(1, 5), again.array[1, :, 5])


def test_a_long_text_is_read_window_by_window(tiny):
    long = minqa.units(tiny, "war of the world " * 40)
    assert len(long.tokens.windows) > 1 and long.array.shape[1] == 160
    # The first window holds 62 words between [CLS] and [SEP].
    alone = minqa.units(tiny, ("war of the world " * 40)[: len("war of the world ") * 15] + "war of")
    np.testing.assert_allclose(long.array[:, :62], alone.array, atol=2e-5)


def plant_number(encoder):
    """Layer 1's feed-forward unit 7 is open at digits and shut elsewhere."""
    model = encoder.model
    digits = np.array([piece.lstrip("#").isdigit() for piece in VOCABULARY])
    words = model.embeddings.word
    words.embedding[...] = words.embedding[...].at[:, 3].set(np.where(digits, 8.0, -0.5))
    attended = model.layers[0].attention.output  # leaves alone what says so
    attended.kernel[...] = attended.kernel[...].at[3].set(0)
    attended.bias[...] = attended.bias[...].at[3].set(0)
    expand = model.layers[0].expand
    expand.kernel[...] = expand.kernel[...].at[7].set(0).at[7, 3].set(4.0)
    expand.bias[...] = expand.bias[...].at[7].set(-4.0)


def plant_fall(encoder):
    """Layer 2's forward cell 5 falls a little at every word; its forget gate does not leak."""
    lstm = encoder.model.layers[1].forward
    rows = lstm.projection.shape[1] * np.arange(4) + 5
    for weights in (lstm.input, lstm.recurrent):
        weights[...] = weights[...].at[rows].set(0)
    # In TensorFlow's order: input gate, candidate, forget gate, output gate.
    lstm.bias[...] = lstm.bias[...].at[rows].set(np.array([9, -0.01, 20, 0], np.float32))


def test_a_planted_unit_is_found_first_in_bert(tmp_path):
    encoder = minqa.load(make_bert_folder(tmp_path))
    before = minqa.find_units(encoder, TEXTS, FEATURES["number"], k=1)[0]
    encoder = minqa.load(tmp_path)
    plant_number(encoder)
    first, second = minqa.find_units(encoder, TEXTS, FEATURES["number"], k=2)
    assert (first.kind, first.layer, first.number) == ("feed-forward", 1, 7)
    assert first.correlation > 0.95 and first.held_out > 0.94
    assert abs(second.correlation) < 0.9 and abs(before.correlation) < 0.9


def test_a_planted_falling_cell_is_found_first_in_elmo(tmp_path):
    encoder = minqa.load(make_elmo_folder(tmp_path))
    plant_fall(encoder)
    first, second = minqa.find_units(encoder, TEXTS, FEATURES["position"], k=2)
    assert (first.kind, first.layer, first.number) == ("cell", 2, 5)
    assert first.correlation < -0.9999 and first.held_out < -0.9999 < second.correlation
    fall = minqa.units(encoder, TEXTS[0]).unit(2, 5)
    assert (np.diff(fall) < 0).all()


def test_correlations_are_pearsons(tiny):
    def length(tokens):
        numbers = np.array([len(word) for word in tokens.word_texts], float)
        numbers[0] = np.nan  # is left out
        return numbers

    found = minqa.find_units(tiny, TEXTS[:3], length, held_out=TEXTS[3:], kind="hidden", k=96)
    assert len(found) == 96
    for texts, field in ((TEXTS[:3], "correlation"), (TEXTS[3:], "held_out")):
        read = [minqa.units(tiny, text, kind="hidden") for text in texts]
        x = np.concatenate([one.array[:, 1:] for one in read], axis=1)
        y = np.concatenate([length(one.tokens)[1:] for one in read])
        for one in found:
            expected = np.corrcoef(x[one.layer, :, one.number], y)[0, 1]
            assert abs(getattr(one, field) - expected) < 1e-5
    strengths = [abs(one.correlation) for one in found]
    assert strengths == sorted(strengths, reverse=True)
    halves = minqa.find_units(tiny, [*sum(zip(TEXTS[:3], TEXTS[3:], strict=True), ())], length, kind="hidden")
    assert halves == found[:10], "every second text is held out"


def test_chance_finds_do_not_hold(tiny):
    found = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        found += minqa.find_units(tiny, TEXTS, lambda tokens, rng=rng: rng.random(len(tokens.words)), k=1)
    assert np.mean([abs(one.correlation) for one in found]) > 0.3
    assert abs(np.mean([np.sign(one.correlation) * one.held_out for one in found])) < 0.15


@pytest.mark.parametrize("text", ["", "\u200b", "?"])
def test_texts_without_words_have_units_of_none(either, text):
    found = minqa.units(either, text)
    assert found.array.shape[1] == len(found.tokens.words)
    assert minqa.find_units(either, [*TEXTS, text], FEATURES["number"], k=1)


def test_where_nothing_varies_in_what_is_held_out_nothing_is_known(either):
    found = minqa.find_units(either, TEXTS[:3], FEATURES["number"], held_out=["the war"], k=3)
    assert all(np.isnan(one.held_out) and abs(one.correlation) > 0 for one in found)


def test_an_idle_unit_follows_nothing(tmp_path):
    encoder = minqa.load(make_bert_folder(tmp_path))
    encoder.model.layers[0].expand.kernel[...] = 0 * encoder.model.layers[0].expand.kernel[...]
    found = minqa.find_units(encoder, TEXTS, FEATURES["number"], k=96)
    assert {one.correlation for one in found if one.layer == 1} == {0}
    assert all(np.isfinite(one[3:]).all() for one in found)


def test_factors_bring_out_what_was_mixed():
    rng = np.random.default_rng(0)
    strength, weights = np.zeros((2, 9)), rng.random((2, 2, 20))
    strength[0, :5], strength[1, 4:] = 3, 1
    array = np.einsum("kw,klu->lwu", strength, weights).astype(np.float32)
    made = Units(tokens_of_words("abcdefghi"), "feed-forward", (1, 2), array - 1e-3)
    found = minqa.factors(made, 2)
    np.testing.assert_allclose(np.einsum("kw,klu->lwu", *found), np.maximum(made.array, 0), atol=0.02)
    for row, expected in zip(found.strength, strength, strict=True):
        assert np.corrcoef(row, expected)[0, 1] > 0.99
    np.testing.assert_allclose(np.linalg.norm(found.weights.reshape(2, -1), axis=1), 1, atol=1e-5)
    with pytest.raises(minqa.InputError, match="10 factors were asked for, but the text has 9 words"):
        minqa.factors(made, 10)


def test_what_cannot_be_asked_for_is_said_in_a_sentence(either, monkeypatch):
    offered = {"Bert": "feed-forward and hidden", "Elmo": "cell and projection"}[type(either.model).__name__]
    with pytest.raises(minqa.InputError, match=f"no units of the kind gate: it has {offered}"):
        minqa.units(either, "who", kind="gate")
    with pytest.raises(minqa.InputError, match=r"There is no .* unit 99 in layer 1: layers are 1 to 2"):
        minqa.units(either, "who").unit(1, 99)
    with pytest.raises(minqa.InputError, match="the same for every word"):
        minqa.find_units(either, TEXTS, lambda tokens: np.ones(len(tokens.words)))
    with pytest.raises(ValueError, match=r"gave \(1,\) numbers for"):
        minqa.find_units(either, TEXTS, lambda tokens: np.ones(1))
    monkeypatch.setitem(sys.modules, "sklearn.decomposition", None)
    with pytest.raises(minqa.InputError, match="A factorization needs scikit-learn"):
        minqa.factors(minqa.units(either, "who"))


def test_reading_units_under_jit_is_the_same(tiny):
    ids, mask = np.ones((1, 4), np.int32), np.ones((1, 4), bool)
    run = jax.jit(lambda model: model(ids, mask, units=True).units["feed-forward"])
    np.testing.assert_allclose(
        run(tiny.model), tiny.model(ids, mask, units=True).units["feed-forward"], atol=1e-5
    )
