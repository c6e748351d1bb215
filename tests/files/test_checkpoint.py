"""Tensors → parameters: every one lands in its place, and whatever does not fit is refused in one error."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_same, edit_json, rewrite
from flax import nnx
from safetensors.numpy import load_file, save_file

import minqa
from minqa.bert import Bert, Linear
from minqa.elmo import Elmo
from minqa.files import bert, elmo
from minqa.files.checkpoint import dump, load_parameters, read_json, read_settings


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_short_floats_are_read(bert_folder, dtype):
    exact = minqa.load(bert_folder).model
    rewrite(bert_folder, lambda tensors: {name: x.astype(dtype) for name, x in tensors.items()})
    for a, b in zip(jax.tree.leaves(minqa.load(bert_folder).model), jax.tree.leaves(exact), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3)


def without(tensors, name):
    return {other: tensor for other, tensor in tensors.items() if other != name}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda tensors: without(tensors, "encoder.layer.1.output.dense.bias"),
            "encoder.layer.1.output.dense.bias is missing",
        ),
        (
            lambda tensors: (
                tensors | {"encoder.layer.0.intermediate.dense.weight": np.zeros((48, 31), np.float32)}
            ),
            "encoder.layer.0.intermediate.dense.weight has shape (48, 31) instead of (48, 32)",
        ),
        (
            lambda tensors: tensors | {"embeddings.LayerNorm.weight": np.ones(32, np.int64)},
            "embeddings.LayerNorm.weight is int64, which is no floating point",
        ),
        (
            lambda tensors: tensors | {"encoder.layer.2.output.dense.bias": np.zeros(32, np.float32)},
            "encoder.layer.2.output.dense.bias is unknown",
        ),
        (
            lambda tensors: tensors | {"bert.embeddings.LayerNorm.bias": np.zeros(32, np.float32)},
            "are the same parameter",
        ),
        (
            lambda tensors: tensors | {"embeddings.LayerNorm.bias": np.full(32, np.nan, np.float32)},
            "embeddings.LayerNorm.bias holds numbers that are not finite",
        ),
    ],
)
def test_each_complaint_is_named(bert_folder, change, complaint):
    rewrite(bert_folder, change)
    with pytest.raises(minqa.InputError) as error:
        minqa.load(bert_folder)
    assert complaint in str(error.value) and "more complaints" not in str(error.value)


def test_one_error_names_three_complaints_and_counts_the_rest(bert_folder):
    def spoil(tensors):
        del tensors["encoder.layer.1.output.dense.bias"]
        tensors["encoder.layer.0.intermediate.dense.weight"] = np.zeros((48, 31), np.float32)
        tensors["embeddings.LayerNorm.weight"] = np.ones(32, np.int64)
        tensors["encoder.layer.2.output.dense.bias"] = np.zeros(32, np.float32)
        tensors["bert.embeddings.LayerNorm.bias"] = np.zeros(32, np.float32)
        return tensors

    rewrite(bert_folder, spoil)
    with pytest.raises(minqa.InputError, match="and 2 more complaints") as error:
        minqa.load(bert_folder)
    possible = ["is missing", "has shape", "no floating point", "is unknown", "are the same parameter"]
    assert sum(complaint in str(error.value) for complaint in possible) == 3


def test_a_complaint_about_every_tensor_is_short(bert_folder):
    rewrite(bert_folder, lambda tensors: {f"x.{name}": tensor for name, tensor in tensors.items()})
    number = len(load_file(bert_folder / "model.safetensors"))
    with pytest.raises(minqa.InputError, match=f"and {2 * number - 3} more complaints") as error:
        minqa.load(bert_folder)
    assert len(str(error.value)) < 300
    edit_json(bert_folder / "config.json", hidden_size=64)
    with pytest.raises(minqa.InputError, match="more complaints") as error:
        minqa.load(bert_folder)
    assert len(str(error.value)) < 400


class Unread:
    """A tensor that must not be read."""

    def __init__(self, tensor):
        self.shape, self.dtype = tensor.shape, tensor.dtype

    def __array__(self, *_, **__):
        raise AssertionError("it was read")


def test_nothing_is_read_before_all_of_it_fits(tiny):
    model = tiny.model
    tensors = {name: Unread(tensor) for name, tensor in dump(model, bert.TENSORS["bert"]).items()}
    tensors["embeddings.LayerNorm.bias"] = Unread(np.zeros(31, np.float32))
    with pytest.raises(minqa.InputError, match="has shape"):
        load_parameters(partial(Bert, model.config), tensors, bert.TENSORS["bert"], settings="config.json")


def test_what_is_dumped_loads_the_same(either):
    kind = type(either.model)
    make, names = partial(kind, either.model.config), {Bert: bert.TENSORS["bert"], Elmo: elmo.TENSORS}[kind]
    assert_same(load_parameters(make, dump(either.model, names), names, settings="here"), either.model)
    assert_same(load_parameters(make, dump(either.model), settings="here"), either.model)


def test_a_model_without_names_in_files_is_stored_under_its_own():
    model = Linear(3, 5, rngs=nnx.Rngs(0))
    tensors = dump(model)
    assert tensors.keys() == {"kernel", "bias"}
    assert_same(load_parameters(partial(Linear, 3, 5), tensors, settings="here"), model)


@pytest.mark.parametrize(
    ("content", "kind", "sentence"),
    [
        (b"{", dict, "x.json cannot be read"),
        (b"[]", dict, "x.json holds no JSON object"),
        (b"{}", list, "x.json holds no JSON array"),
        (b"\xff", dict, "x.json cannot be read"),
        (b"[" * 10**5, list, "x.json cannot be read"),
        (None, dict, "holds no x.json"),
    ],
)
def test_json_of_another_kind_is_refused(tmp_path, content, kind, sentence):
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(minqa.InputError, match=sentence):
        read_json(tmp_path / "x.json", kind)


def test_settings_are_of_their_type_or_absent(tmp_path):
    (tmp_path / "x.json").write_text('{"a": 1, "b": null, "c": true, "d": "x"}')
    settings = read_settings(tmp_path / "x.json")
    assert (settings.get("a", int), settings.get("b", int), settings.get("e", int)) == (1, None, None)
    assert (settings.get("c", bool), settings.get("d", str)) == (True, "x")
    for key, kind in (("a", bool), ("c", int), ("d", int), ("a", str), ("a", dict)):
        with pytest.raises(minqa.InputError, match=rf"x\.json: {key} is .* is needed"):
            settings.get(key, kind)
    assert read_settings(tmp_path / "none.json", optional=True).values == {}


def test_every_tensor_is_needed_and_lands_in_its_place(bert_folder):
    """Leaving out any one is refused; changing any one changes exactly one leaf."""
    tensors = load_file(bert_folder / "model.safetensors")
    before = jax.tree.leaves(minqa.load(bert_folder).model)
    for name in tensors:
        save_file(without(tensors, name), bert_folder / "model.safetensors")
        with pytest.raises(minqa.InputError, match=f"{name} is missing"):
            minqa.load(bert_folder)
        save_file(tensors | {name: tensors[name] + 1}, bert_folder / "model.safetensors")
        after = jax.tree.leaves(minqa.load(bert_folder).model)
        changed = sum(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))
        assert changed == 1, name
