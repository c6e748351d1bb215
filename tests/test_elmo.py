"""ELMo against the original's numbers, and against a forward pass written out in NumPy."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import edit_json, make_elmo_folder, read_hdf5

import minqa
from minqa.batches import as_batch
from minqa.elmo import ScalarMix, boundaries
from minqa.embedding import encode
from minqa.files.elmo import spell

DATA = Path(__file__).parent.parent.parent / "shared/data/elmo"
TEXTS = ["the theory of relativity was developed", "who", "caf\u00e9 naive " + "x" * 70, "a b c d e f g"]


def pad(texts, length=0):
    """Character ids and mask of texts that are split at spaces, padded to this many words or the longest."""
    words = [text.split() for text in texts]
    ids = np.zeros((len(texts), max(length, *map(len, words)), 50), np.int32)
    mask = np.zeros(ids.shape[:2], bool)
    for row, spelled in enumerate(map(spell, words)):
        ids[row, : len(spelled)], mask[row, : len(spelled)] = spelled, True
    return ids, mask


class NumPyElmo:
    """ELMo word by word, as ELMO_FORMAT has it; `slip` plants a mistake that is often made."""

    def __init__(self, folder, slip=""):
        self.options = json.loads((folder / "options.json").read_text())
        self.file = {name: x.astype(np.float64) for name, x in read_hdf5(folder / "weights.hdf5").items()}
        self.slip = slip
        self.clipped = set()
        self.trace = {}

    def word(self, word):
        """The vector of a word, given as bytes or as the name of a boundary."""
        code = [{"start": 256, "end": 257}[word]] if isinstance(word, str) else list(word)[:48]
        code = [258, *code, 259]
        table = self.file["char_embed"]
        x = np.stack([table[i] for i in code + [260] * (50 - len(code))])
        banks = []
        for i, (width, _) in enumerate(self.options["char_cnn"]["filters"]):
            kernel, bias = self.file[f"CNN/W_cnn_{i}"][0], self.file[f"CNN/b_cnn_{i}"]
            places = [np.einsum("wc,wcn->n", x[p : p + width], kernel) for p in range(50 - width + 1)]
            banks.append(np.max(places, axis=0) + bias)
        x = np.concatenate(banks)
        x = np.maximum(x, 0) if self.options["char_cnn"]["activation"] == "relu" else np.tanh(x)
        for i in range(self.options["char_cnn"]["n_highway"]):
            gate = sigmoid(x @ self.file[f"CNN_high_{i}/W_carry"] + self.file[f"CNN_high_{i}/b_carry"])
            new = x @ self.file[f"CNN_high_{i}/W_transform"] + self.file[f"CNN_high_{i}/b_transform"]
            x = gate * np.maximum(new, 0) + (1 - gate) * x
        return x @ self.file["CNN_proj/W_proj"] + self.file["CNN_proj/b_proj"]

    def __call__(self, text, state=None):
        """[layer+1, word, dim] of one text, and its state, a dictionary, afterwards."""
        sizes = self.options["lstm"]
        state = dict(state or {})
        words = ["start", *(word.encode() for word in text.split()), "end"]
        embedded = [self.word(word) for word in words]
        layers = [np.stack([np.concatenate([x, x]) for x in embedded])]
        inputs = {0: embedded, 1: embedded[::-1]}
        for layer in range(sizes["n_layers"]):
            for direction in range(2):
                c, h = state.get((direction, layer), (np.zeros(sizes["dim"]), np.zeros(len(embedded[0]))))
                outputs, trace = [], []
                for x in inputs[direction]:
                    c, h = self.step(f"RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell", x, c, h)
                    skip = sizes["use_skip_connections"] != (self.slip == "skip")
                    outputs.append(h + x if skip and layer else h)
                    trace.append((c, h))
                self.trace[direction, layer] = trace[:: 1 - 2 * direction][1:-1]
                state[direction, layer] = c, h
                inputs[direction] = outputs
            both = zip(inputs[0], inputs[1][::-1], strict=True)
            layers.append(np.stack([np.concatenate(pair) for pair in both]))
        return np.stack(layers)[:, 1:-1], state

    def step(self, prefix, x, c, h):
        z = np.concatenate([x, h]) @ self.file[f"{prefix}/W_0"] + self.file[f"{prefix}/B"]
        i, j, f, o = np.split(z, 4)
        if self.slip == "gates":
            j, f = f, j
        if self.slip != "forget":
            f = f + 1
        c = self.clip(sigmoid(f) * c + sigmoid(i) * np.tanh(j), "cell_clip")
        h = self.clip((sigmoid(o) * np.tanh(c)) @ self.file[f"{prefix}/W_P_0"], "proj_clip")
        return c, h

    def clip(self, x, name):
        limit = self.options["lstm"][name]
        if (np.abs(x) > limit).any():
            self.clipped.add(name)
        return x if self.slip == name else np.clip(x, -limit, limit)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.fixture
def fixture():
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is not there")
    return minqa.load_elmo(DATA / "options.json", DATA / "lm_weights.hdf5")


def test_the_top_layer_equals_the_original_with_carried_state(fixture):
    lists = json.loads((DATA / "sentences.json").read_text())
    files = [h5py.File(DATA / f"lm_embeddings_{k}.hdf5") for k in range(3)]
    run = jax.jit(lambda *arguments: fixture.model(*arguments))
    longest = max(len(text.split()) for sentences in lists for text in sentences)
    state, compared = None, 0
    for i in range(10):
        texts = [sentences[i] for sentences in lists]
        hidden, state, _ = run(*pad(texts, longest), state)
        hidden = np.asarray(hidden)
        if i == 0:
            stateless = hidden
        for k, text in enumerate(texts):
            expected = np.concatenate(files[k][str(i)][...], -1)
            assert np.allclose(hidden[-1, k, : len(text.split())], expected, atol=1e-6), (k, i)
            compared += 1
    assert compared == 30

    # The first ones again, each by itself and without a state.
    for k, sentences in enumerate(lists):
        words = sentences[0].split()
        [tokens] = fixture.tokenize([words])
        batch = as_batch([tokens])
        [[alone]], _ = encode(fixture.model, batch, layers=(2,), pooling=fixture.pooling)
        alone = alone[: len(words)]
        np.testing.assert_allclose(alone, stateless[-1, k, : len(words)], atol=1e-6)
        expected = np.concatenate(files[k]["0"][...], -1)
        assert np.allclose(alone, expected, atol=1e-6)


def test_the_word_encoder_equals_the_original(fixture):
    words = (DATA / "vocab_test.txt").read_text("utf-8").split("\n")
    words = [word.strip() for word in words if word.strip()]
    assert len(words) == 458 and (words[20], words[224]) == ("<S>", "</S>")
    ids = spell(words)
    ids[[20, 224]] = boundaries()
    expected = h5py.File(DATA / "elmo_token_embeddings.hdf5")["embedding"][...]
    assert np.allclose(fixture.model.words(ids[None])[0], expected, atol=1e-6)


CONFIGS = [
    {},
    {"lstm": {"use_skip_connections": False}},
    {"char_cnn": {"activation": "tanh"}},
    {"lstm": {"n_layers": 3, "dim": 8, "projection_dim": 12}, "char_cnn": {"n_highway": 1}},
    {"lstm": {"n_layers": 1}, "char_cnn": {"filters": [[3, 5]], "embedding": {"dim": 2}}},
]


@pytest.mark.parametrize("options", CONFIGS, ids=str)
def test_every_layer_equals_numpy(tmp_path, options):
    folder = make_elmo_folder(tmp_path, **options)
    numpy = NumPyElmo(folder)
    model = minqa.load(folder).model
    run = jax.jit(lambda *arguments: model(*arguments))
    states = [None] * len(TEXTS)
    state = None
    for texts in (TEXTS, TEXTS[::-1]):  # the second time with the state that the first has left
        hidden, state, _ = run(*pad(texts), state)
        for row, text in enumerate(texts):
            expected, states[row] = numpy(text, states[row])
            ours = hidden[:, row, : len(text.split())]
            np.testing.assert_allclose(ours, expected, atol=2e-6, rtol=0)
            for (direction, layer), (c, h) in states[row].items():
                np.testing.assert_allclose(state.cell[layer, direction, row], c, atol=2e-6)
                np.testing.assert_allclose(state.output[layer, direction, row], h, atol=2e-6)
    assert numpy.clipped == {"cell_clip", "proj_clip"}


def test_units_are_the_cells_and_projections_of_numpy(elmo_folder):
    numpy, encoder = NumPyElmo(elmo_folder), minqa.load(elmo_folder)
    for text in TEXTS:
        numpy(text)
        for i, kind in enumerate(("cell", "projection")):
            found = minqa.units(encoder, text, kind=kind)
            assert found.layers == (1, 2)
            plain = np.asarray(encoder.model(*pad([text], 8), units=True).units[kind])
            np.testing.assert_allclose(plain[:, 0, : len(found.tokens)], found.array, atol=1e-6)
            for layer in range(2):
                directions = [[state[i] for state in numpy.trace[way, layer]] for way in range(2)]
                expected = np.concatenate(directions, axis=1)
                np.testing.assert_allclose(found.array[layer], expected, atol=2e-6, rtol=0)
    assert numpy.clipped == {"cell_clip", "proj_clip"}


@pytest.mark.parametrize("slip", ["gates", "forget", "skip", "cell_clip", "proj_clip"])
def test_the_tolerance_tells_a_slip_from_the_truth(elmo_folder, slip):
    right, wrong = (NumPyElmo(elmo_folder, slip)(TEXTS[0])[0] for slip in ("", slip))
    assert np.abs(right - wrong).max() > 1e-2


def test_the_ordinary_path_is_stateless(elmo_folder):
    numpy = NumPyElmo(elmo_folder)
    encoder = minqa.load(elmo_folder)
    texts = ["who played ?", *TEXTS, "who played ?"]
    vectors = minqa.embed(encoder, texts)
    for layer in range(3):
        for text, one in zip(texts, minqa.embed(replace(encoder, layer=layer), texts), strict=True):
            np.testing.assert_allclose(one.array, numpy(text)[0][layer], atol=2e-6, rtol=0)
    np.testing.assert_allclose(vectors[0].array, vectors[-1].array, atol=1e-6)
    np.testing.assert_allclose(vectors[0].pooled, numpy(texts[0])[0][-1].mean(0), atol=2e-6)


def test_a_list_of_words_is_read_word_by_word(elmo_folder):
    """Whatever the words hold: numpy reads the same words, of which one holds a space."""
    numpy, encoder = NumPyElmo(elmo_folder), minqa.load(elmo_folder)
    words = ["Don't", "caf\u00e9-theory,", "x" * 70, "\u65e5\u672c", "."]
    [vectors] = minqa.embed(encoder, [words])
    assert vectors.tokens.word_texts == words
    np.testing.assert_allclose(vectors.words, numpy(" ".join(words))[0][-1], atol=2e-6, rtol=0)
    listed, joined = minqa.embed(encoder, [TEXTS[0].split(), TEXTS[0]])
    np.testing.assert_allclose(listed.array, joined.array, atol=1e-6)
    np.testing.assert_allclose(listed.pooled, joined.pooled, atol=1e-6)


def test_state_goes_in_and_out_and_is_not_kept(elmo_folder):
    model = minqa.load(elmo_folder).model
    batch = pad(TEXTS)
    first, state, _ = model(*batch)
    zeros = jax.tree.map(jnp.zeros_like, state)
    np.testing.assert_array_equal(model(*batch, zeros).hidden, first)
    second, third = (model(*batch, state).hidden for _ in range(2))
    np.testing.assert_array_equal(second, third)
    assert np.abs(second - first)[1:].max() > 0.1
    np.testing.assert_array_equal(second[0], first[0], err_msg="the word encoder has no state")


def test_padding_changes_no_word_and_no_state(elmo_folder):
    model = minqa.load(elmo_folder).model
    ids, mask = pad(TEXTS)
    hidden, state, _ = model(ids, mask)
    rng = np.random.default_rng(0)
    ids = np.where(mask[..., None], ids, rng.integers(0, 262, ids.shape)).astype(np.int32)
    ids = np.concatenate([ids, rng.integers(0, 262, (len(ids), 9, 50)).astype(np.int32)], axis=1)
    more = np.pad(mask, ((0, 0), (0, 9)))
    beside, after, _ = model(ids, more)
    np.testing.assert_allclose(beside[:, more], hidden[:, mask], atol=1e-6)
    for a, b in zip(after, state, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_text_without_a_word_is_finite(elmo_folder):
    output = minqa.load(elmo_folder).model(np.zeros((2, 4, 50), np.int32), np.zeros((2, 4), bool))
    assert all(jnp.isfinite(part).all() for part in jax.tree.leaves(output))


def test_bfloat16_stays_close_to_float32(elmo_folder):
    exact, short = (minqa.load(elmo_folder, dtype=dtype).model for dtype in (jnp.float32, jnp.bfloat16))
    ids, mask = pad(TEXTS)
    hidden, state, _ = short(ids, mask)
    assert {part.dtype for part in (hidden, *state)} == {jnp.dtype(jnp.bfloat16)}
    expected = np.asarray(exact(ids, mask).hidden)[:, mask]
    error = np.sqrt(((np.asarray(hidden, np.float32)[:, mask] - expected) ** 2).mean())
    assert 0 < error < 0.02 * expected.std()


def test_a_longer_sentence_is_no_longer_a_program(elmo_folder):
    model = minqa.load(elmo_folder).model
    sizes = []
    for token in (30, 94):  # more words than are encoded at once, either way
        ids, mask = np.zeros((2, token, 50), np.int32), np.ones((2, token), bool)
        sizes.append(len(jax.make_jaxpr(lambda i, m: model(i, m).hidden)(ids, mask).eqns))
    assert sizes[0] == sizes[1]


def test_gradients_reach_every_parameter(elmo_folder):
    batch = pad(TEXTS)
    gradient_of = jax.jit(jax.grad(lambda model: (model(*batch).hidden ** 3).sum()))
    gradients = jax.device_get(gradient_of(minqa.load(elmo_folder).model))
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0, path


def test_the_scalar_mix_is_the_mean_until_it_learns_which_layer_counts():
    hidden = jax.random.normal(jax.random.key(0), (3, 2, 5, 8))
    mix = ScalarMix(2)
    np.testing.assert_allclose(mix(hidden), hidden.mean(0), atol=1e-6)

    def loss(mix):
        return ((mix(hidden) - 2 * hidden[1]) ** 2).mean()

    optimizer = optax.adam(0.1)
    state = optimizer.init(mix)

    @jax.jit
    def step(mix, state):
        updates, state = optimizer.update(jax.grad(loss)(mix), state)
        return optax.apply_updates(mix, updates), state

    with jax.numpy_dtype_promotion("standard"):  # optax promotes inside
        for _ in range(300):
            mix, state = step(mix, state)
    weights = jax.nn.softmax(mix.weights[...])
    assert weights[1] > 0.95 and abs(float(mix.scale[...]) - 2) < 0.1
    by_hand = sum(w * h for w, h in zip(weights, hidden, strict=True)) * mix.scale[...]
    np.testing.assert_allclose(mix(hidden), by_hand, atol=1e-5)


def test_equal_elmos_share_a_fingerprint_and_others_do_not(tmp_path):
    folders = [make_elmo_folder(tmp_path / name, seed=seed) for name, seed in [("a", 0), ("b", 0), ("c", 1)]]
    first, same, other = (minqa.load(folder).fingerprint for folder in folders)
    assert first == same != other
    assert minqa.load(folders[0], dtype=jnp.bfloat16).fingerprint != first
    options = json.loads((folders[1] / "options.json").read_text())
    edit_json(folders[1] / "options.json", lstm=options["lstm"] | {"cell_clip": 3})
    assert minqa.load(folders[1]).fingerprint != first
