"""An ELMo's two files: every dataset lands in its place, and what does not belong together is refused."""

import json

import h5py
import jax
import numpy as np
import pytest
from conftest import edit_json, read_hdf5

import minqa


def rewrite(folder, change):
    tensors = change(read_hdf5(folder / "weights.hdf5"))
    with h5py.File(folder / "weights.hdf5", "w") as file:
        for name, tensor in tensors.items():
            file[name] = tensor


def test_every_dataset_is_needed_and_lands_in_its_place(elmo_folder):
    tensors = read_hdf5(elmo_folder / "weights.hdf5")
    before = jax.tree.leaves(minqa.load(elmo_folder).model)
    assert len(tensors) == 1 + 6 + 8 + 2 + 12
    for name in tensors:
        rewrite(elmo_folder, lambda _, name=name: {n: x for n, x in tensors.items() if n != name})
        with pytest.raises(minqa.InputError, match=f"do not fit options.json: {name} is missing.$"):
            minqa.load(elmo_folder)
        rewrite(elmo_folder, lambda _, name=name: tensors | {name: tensors[name] + 1})
        after = jax.tree.leaves(minqa.load(elmo_folder).model)
        changed = sum(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))
        assert changed == (2 if name.endswith("W_0") else 1), name


def without(folder, *names):
    path = folder / "options.json"
    options = json.loads(path.read_text())
    part = options
    for name in names[:-1]:
        part = part[name]
    del part[names[-1]]
    path.write_text(json.dumps(options))


def with_option(folder, part, **changes):
    options = json.loads((folder / "options.json").read_text())
    edit_json(folder / "options.json", **{part: options[part] | changes})


def truncate(folder):
    path = folder / "weights.hdf5"
    path.write_bytes(path.read_bytes()[:-1000])


CELL = "RNN_1/RNN/MultiRNNCell/Cell1/LSTMCell"


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (truncate, "weights.hdf5 cannot be read as HDF5, is it cut short"),
        (lambda folder: (folder / "weights.hdf5").write_bytes(b"no"), "cannot be read as HDF5"),
        (lambda folder: (folder / "weights.hdf5").write_bytes(b""), "cannot be read as HDF5"),
        (
            lambda folder: (folder / "weights.hdf5").unlink(),
            r"not one \*options.json and one \*weights.hdf5, .* but options.json",
        ),
        (
            lambda folder: (folder / "options.json").unlink(),
            r"not one \*options.json and one \*weights.hdf5, .* but weights.hdf5",
        ),
        (
            lambda folder: (folder / "b_weights.hdf5").write_bytes(b""),
            "but options.json, b_weights.hdf5, weights.hdf5",
        ),
        (lambda folder: (folder / "options.json").write_text("{"), "options.json cannot be read"),
        (lambda folder: (folder / "options.json").write_text("[]"), "options.json holds no JSON object"),
        (
            lambda folder: edit_json(folder / "options.json", lstm=3),
            "lstm.projection_dim is missing; lstm.dim",
        ),
        (lambda folder: without(folder, "lstm", "cell_clip"), "lstm.cell_clip is missing"),
        (lambda folder: without(folder, "lstm", "use_skip_connections"), "use_skip_connections is missing"),
        (lambda folder: without(folder, "char_cnn", "filters"), "char_cnn.filters is missing"),
        (lambda folder: without(folder, "char_cnn"), "char_cnn.embedding.dim is missing"),
        (lambda folder: with_option(folder, "lstm", dim="24"), "dim is '24', but must be a whole number"),
        (lambda folder: with_option(folder, "lstm", proj_clip=-1), "proj_clip is -1, but must be a number"),
        (lambda folder: with_option(folder, "lstm", cell_clip=10**400), "cell_clip is 1.*must be a number"),
        (lambda folder: with_option(folder, "lstm", use_skip_connections=1), "must be true or false"),
        (lambda folder: with_option(folder, "char_cnn", activation="gelu"), "must be 'relu' or 'tanh'"),
        (lambda folder: with_option(folder, "char_cnn", activation=[]), "must be 'relu' or 'tanh'"),
        (
            lambda folder: with_option(folder, "char_cnn", filters=[[1, 2], 3]),
            r"a list of up to 64 \[width, number\]",
        ),
        (lambda folder: with_option(folder, "lstm", n_layers=10**9), "a whole number from 1 to 64"),
        (lambda folder: with_option(folder, "char_cnn", n_highway=10**6), "a whole number from 1 to 64"),
        (
            lambda folder: with_option(folder, "char_cnn", max_characters_per_token=10**9),
            "a whole number from 3 to 1000",
        ),
        (lambda folder: with_option(folder, "char_cnn", filters=[[51, 2]]), "wider than max_characters"),
        (
            lambda folder: with_option(folder, "char_cnn", n_characters=261),
            "n_characters is 261, but only 262 is supported",
        ),
        (
            lambda folder: edit_json(folder / "options.json", bidirectional=False),
            "bidirectional is False, but only True is supported",
        ),
        (
            lambda folder: with_option(folder, "lstm", dim=25),
            r"LSTMCell/W_0 has shape \(32, 96\) instead of \(32, 100\)",
        ),
        (
            lambda folder: with_option(folder, "lstm", projection_dim=15),
            r"LSTMCell/W_0 has shape \(32, 96\) instead of \(30, 96\)",
        ),
        (lambda folder: with_option(folder, "lstm", n_layers=3), "Cell2/LSTMCell/W_0 is missing"),
        (
            lambda folder: with_option(folder, "lstm", n_layers=1),
            "Cell1/LSTMCell/W_0 is unknown; .*and 3 more complaints",
        ),
        (lambda folder: with_option(folder, "char_cnn", n_highway=1), "CNN_high_1/W_carry is unknown"),
        (
            lambda folder: rewrite(folder, lambda x: x | {f"{CELL}/B": x[f"{CELL}/B"][1:]}),
            rf"{CELL}/B has shape \(95,\) instead of \(96,\)",
        ),
        (lambda folder: rewrite(folder, lambda x: x | {"extra/x": np.ones(3)}), "extra/x is unknown"),
        (
            lambda folder: rewrite(folder, lambda x: x | {"CNN/b_cnn_0": np.arange(4)}),
            "CNN/b_cnn_0 is int64, which is no floating point",
        ),
        (
            lambda folder: rewrite(folder, lambda x: x | {"CNN/b_cnn_0": x["CNN/b_cnn_0"] * np.nan}),
            "CNN/b_cnn_0 holds numbers that are not finite",
        ),
        (
            lambda folder: rewrite(folder, lambda x: x | {"CNN/b_cnn_0": np.full(4, 1e300)}),
            "CNN/b_cnn_0 holds numbers that are not finite",
        ),
    ],
)
def test_broken_files_are_refused_in_one_sentence(elmo_folder, spoil, sentence):
    spoil(elmo_folder)
    with pytest.raises(minqa.InputError, match=sentence) as error:
        minqa.load(elmo_folder)
    assert "\n" not in str(error.value)


def test_files_that_are_not_there_are_named(elmo_folder):
    with pytest.raises(minqa.InputError, match=r"holds no no\.json"):
        minqa.load_elmo(elmo_folder / "no.json", elmo_folder / "weights.hdf5")
    with pytest.raises(minqa.InputError, match=r"There is no file .*no\.hdf5"):
        minqa.load_elmo(elmo_folder / "options.json", elmo_folder / "no.hdf5")
