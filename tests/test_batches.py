"""Batches: every window once, few shapes, and nothing that leaks from one text into another."""

from dataclasses import replace
from types import MappingProxyType

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minqa
from minqa.batches import MAX_SEGMENTS, Batch, as_batch, by_text, cut, pack, pad, padded_length
from minqa.bert import Bert
from minqa.tokens import tokens_of_words

LENGTHS = st.lists(st.integers(0, 130), max_size=40)


@jax.tree_util.register_static
class Unused:
    """A model that is never called."""

    BATCH_TOKENS = MappingProxyType({"cpu": 512, "accelerator": 512})

    def __init__(self, packs):
        self.packs = packs

    def __call__(self, ids, mask):
        raise NotImplementedError


@given(LENGTHS, st.booleans())
@settings(max_examples=30)
def test_batches_hold_every_window_once_in_few_shapes(tiny, lengths, packs):
    tokens = tiny.tokenize(["a " * length for length in lengths])
    shapes, seen = set(), []

    def run(model, batch):
        batch = Batch(*map(np.asarray, batch))
        shapes.add(batch.ids.shape)
        for segments, positions in zip(batch.segments, batch.positions, strict=True):
            present = [*range(1, segments.max() + 1)]
            assert packs or len(present) <= 1
            for segment in present:
                [places] = np.nonzero(segments == segment)
                assert (np.diff(places) == 1).all() and positions[places].tolist() == [*range(len(places))]
                seen.append(len(places))
        return batch.ids[None, :, :, None].astype(np.float32), None

    results = dict(by_text(Unused(packs), tiny.tokenizer, tokens, run))
    assert sorted(seen) == sorted(length for text in tokens for length in text.windows)
    assert sorted(results) == [*range(len(tokens))]
    for row, text in enumerate(tokens):
        states, pooled = results[row]
        np.testing.assert_array_equal(states[0, :, 0], text.ids)
        assert pooled is None
    devices = len(jax.local_devices())
    if packs:
        assert len(shapes) <= 1 and shapes <= {(1, 64), (1, 128), (1, 192), (1, 256), (2 * devices, 256)}
    else:
        most = {16: 32, 32: 16, 48: 10, 64: 8}
        powers = {width: [devices * min(2**i, most[width]) for i in range(1, 6)] for width in most}
        assert all(rows == 1 or rows in powers[width] for rows, width in shapes)


def test_a_later_row_may_be_the_longest(tiny):
    tokens = [tokens_of_words(["a"] * length) for length in (96, 96, 95, 95, 66)]
    [(rows, shape)] = cut(Unused(True), tiny.tokenizer, tokens, 1)
    assert [sum(window.length for window in row) for row in rows] == [192, 256] and shape == (2, 256)
    assert as_batch(tokens, rows, shape).mask.sum() == 448


@given(LENGTHS)
def test_rows_are_full_and_no_fuller(tiny, lengths):
    tokens = tiny.tokenize(["a " * length for length in lengths])
    rows = [[window.length for window in row] for row in pack(tokens, True)]
    for number, row in enumerate(rows[:-1]):
        assert len(row) == MAX_SEGMENTS or sum(row) + min(map(min, rows[number + 1 :])) > 256
    assert all(sum(row) <= 256 for row in rows)


def test_wikipedia_fills_its_rows(minilm, leads):
    tokens = minilm.tokenize([lead.text for lead in leads[:256]])
    rows = [*pack(tokens, True)]
    assert sum(map(len, tokens)) / (256 * len(rows)) > 0.98


def test_a_text_longer_than_a_row_has_a_wider_one(tiny):
    wide = replace(tiny.tokenizer, max_tokens=512)
    wide.backend.enable_truncation(512)
    try:
        tokens = wide(["a " * 300, "a " * 100, "a " * 50])
    finally:
        wide.backend.enable_truncation(64)
    rows = [*pack(tokens, True)]
    assert [[window.text for window in row] for row in rows] == [[0, 2], [1]]
    assert [shape for _, shape in cut(Unused(True), wide, tokens, 1)] == [(1, 384), (2, 256)]


@pytest.mark.parametrize(
    ("rows", "devices", "shapes"),
    [(20, 1, [32]), (20, 2, [32]), (20, 3, [24]), (84, 1, [64, 32]), (1, 2, [1])],
)
def test_few_rows_are_no_whole_batch_of_an_accelerator(tiny, monkeypatch, rows, devices, shapes):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(Unused, "BATCH_TOKENS", Bert.BATCH_TOKENS)
    tokens = tiny.tokenize(["a " * 62] * 4 * rows)  # four in a row
    batches = [shape for _, shape in cut(Unused(True), tiny.tokenizer, tokens, devices)]
    assert batches == [(number, 256) for number in shapes]


def ids_of(length):
    return st.lists(st.integers(5, 60), min_size=length, max_size=length)


def packed(*texts) -> Batch:
    """Texts, given as token ids, in one row of 64."""
    ids, segments, positions = np.zeros((3, 1, 64), np.int32)
    end = 0
    for number, text in enumerate(texts, 1):
        start, end = end, end + len(text)
        ids[0, start:end], segments[0, start:end] = text, number
        positions[0, start:end] = np.arange(len(text))
    return Batch(ids, segments, np.zeros_like(ids), positions, segments)


@given(st.lists(st.sampled_from([1, 2, 12]).flatmap(ids_of), min_size=2, max_size=5), st.data())
@settings(max_examples=20)
def test_nothing_leaks_from_a_rows_other_texts(tiny, texts, data):
    """Not even what is no number: 0 × NaN is NaN, so a weight of 0 would not keep it away."""
    number = data.draw(st.integers(0, len(texts) - 1))
    value = data.draw(st.sampled_from([np.nan, np.inf, 1e38, -1e38, 1e4]))
    batch = packed(*([70] * len(text) if i != number else text for i, text in enumerate(texts)))

    def plant(path, leaf):
        return leaf.at[70].set(value) if "word" in jax.tree_util.keystr(path) else leaf

    planted = jax.tree_util.tree_map_with_path(plant, tiny.model)
    hidden = np.asarray(planted(*batch[:4]).hidden)
    alone = tiny.model(np.array([texts[number]], np.int32), np.ones((1, len(texts[number])), bool)).hidden
    ours = hidden[:, 0, batch.segments[0] == number + 1]
    np.testing.assert_allclose(ours, np.asarray(alone)[:, 0], atol=1e-5)
    if not np.isfinite(value):
        others = (batch.segments[0] != number + 1) & (batch.segments[0] > 0)
        assert not np.isfinite(hidden[-1, 0, others]).any(), "a broken text is not mended"


def test_maps_and_units_of_a_packed_text_are_its_own(tiny):
    texts = [[6, 7, 8, 9], [20, 21], [30, 31, 32, 33, 34, 35]]
    batch, start = packed(*texts), 0
    output = jax.device_get(tiny.model(*batch[:4], attention=True, units=True))
    for text in texts:
        ids = np.array([text], np.int32)
        alone = jax.device_get(tiny.model(ids, np.ones_like(ids) > 0, attention=True, units=True))
        place = slice(start, start + len(text))
        start += len(text)
        np.testing.assert_allclose(output.attention[:, 0, :, place, place], alone.attention[:, 0], atol=1e-6)
        for kind, units in output.units.items():
            np.testing.assert_allclose(units[:, 0, place], alone.units[kind][:, 0], atol=1e-5)


@pytest.mark.parametrize("devices", [1, 2])
def test_a_mesh_of_ones_own_changes_nothing(either, devices):
    texts = ["the theory of relativity", "war", "theory " * 90, "who played"] * 5
    mesh = jax.make_mesh((devices,), ("rows",), devices=jax.local_devices()[:devices])
    for one, other in zip(minqa.embed(either, texts), minqa.embed(either, texts, mesh=mesh), strict=True):
        np.testing.assert_allclose(one.array, other.array, atol=1e-5)
        np.testing.assert_allclose(one.pooled, other.pooled, atol=1e-5)


def test_a_row_that_is_alone_is_computed_on_the_mesh(either):
    """On its first device, whatever the number of rows: a mesh of one's own may leave out the default one."""
    [_, second] = jax.local_devices()
    mesh = jax.make_mesh((1,), ("rows",), devices=[second])
    for number in (1, 20):
        used = []

        def run(model, batch, used=used):
            arrays = [*jax.tree.leaves(model), *batch]
            used.extend(device for array in arrays for device in array.devices())
            return batch.ids[None], None

        tokens = either.tokenize(["theory " * 60] * number)
        assert len([*by_text(either.model, either.tokenizer, tokens, run, mesh=mesh)]) == number
        assert {*used} == {second}


def test_lengths_are_padded_to_few():
    for steps, most in ((8, 16), (1, 6)):
        padded = [padded_length(length, steps) for length in range(513)]
        assert len(set(padded)) == most
        for length, longer in enumerate(padded):
            assert length <= longer < max(1, length) + max(16, length * 2 / steps)
            assert padded_length(longer, steps) == longer
    np.testing.assert_array_equal(pad(np.ones((2, 3)), 4), [[1] * 3] * 2 + [[0] * 3] * 2)
