"""Files of weights: every way they are written down loads the same."""

import json
import sys

import h5py
import numpy as np
import pytest
import torch
import transformers
from conftest import assert_same
from safetensors.numpy import load_file, save_file

import minqa
from minqa.files.weights import read_tensors


def test_shards_load_the_same(bert_folder):
    expected = minqa.load(bert_folder).model
    transformers.BertModel.from_pretrained(bert_folder, add_pooling_layer=False).save_pretrained(
        bert_folder, max_shard_size="10KB"
    )
    (bert_folder / "model.safetensors").unlink()
    assert len(list(bert_folder.glob("model-*.safetensors"))) > 1
    assert_same(minqa.load(bert_folder).model, expected)

    shard = sorted(bert_folder.glob("model-*.safetensors"))[0]
    shard.rename(bert_folder / "elsewhere")
    with pytest.raises(minqa.InputError, match=f"holds no {shard.name}"):
        minqa.load(bert_folder)
    save_file({"embeddings.LayerNorm.bias": np.zeros(32, np.float32)}, shard)
    with pytest.raises(minqa.InputError, match=r"puts elsewhere|names tensors that no shard holds"):
        minqa.load(bert_folder)


def test_pytorch_weights_load_the_same_without_unpickling(bert_folder, monkeypatch):
    expected = minqa.load(bert_folder).model
    tensors = {name: torch.tensor(x) for name, x in load_file(bert_folder / "model.safetensors").items()}
    torch.save(tensors, bert_folder / "pytorch_model.bin")
    (bert_folder / "model.safetensors").unlink()
    assert_same(minqa.load(bert_folder).model, expected)

    class Trap:
        def __reduce__(self):
            return print, ("sprung",)

    torch.save(tensors | {"trap": Trap()}, bert_folder / "pytorch_model.bin")
    with pytest.raises(minqa.InputError, match="cannot be read as PyTorch weights"):
        minqa.load(bert_folder)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(minqa.InputError, match=r"Reading .* needs PyTorch"):
        minqa.load(bert_folder)


def torch_shards(folder):
    """Turn model.safetensors into two shards of PyTorch's and their index."""
    tensors = {name: torch.tensor(x) for name, x in load_file(folder / "model.safetensors").items()}
    shards = {f"pytorch_model-0000{i + 1}-of-00002.bin": sorted(tensors)[i::2] for i in range(2)}
    for name, keys in shards.items():
        torch.save({key: tensors[key] for key in keys}, folder / name)
    index = {"metadata": {}, "weight_map": {key: name for name, keys in shards.items() for key in keys}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    return sorted(shards)


def test_shards_of_pytorch_load_the_same(bert_folder):
    expected = minqa.load(bert_folder).model
    _, last = torch_shards(bert_folder)
    assert_same(minqa.load(bert_folder).model, expected)
    (bert_folder / last).unlink()
    with pytest.raises(minqa.InputError, match=f"holds no {last}, which pytorch_model.bin.index.json names"):
        minqa.load(bert_folder)


def test_bfloat16_of_pytorch_is_read(bert_folder):
    tensors = load_file(bert_folder / "model.safetensors")
    torch.save(
        {name: torch.tensor(x).bfloat16() for name, x in tensors.items()}, bert_folder / "pytorch_model.bin"
    )
    (bert_folder / "model.safetensors").unlink()
    read = read_tensors(bert_folder)
    for name, tensor in tensors.items():
        np.testing.assert_allclose(np.asarray(read[name], np.float32), tensor, rtol=1e-2, atol=1e-3)


def test_a_foreign_dataset_is_refused_before_it_is_read(elmo_folder, monkeypatch):
    """It would be 16 GB in memory; on disk, where nothing was written to it, it is nothing."""
    with h5py.File(elmo_folder / "weights.hdf5", "a") as file:
        file.create_dataset("foreign/x", (2**32,), np.float32, chunks=(2**20,))
    read = h5py.Dataset.__array__

    def small(self, *arguments, **how):
        assert self.size < 2**20, "it is read"
        return read(self, *arguments, **how)

    monkeypatch.setattr(h5py.Dataset, "__array__", small)
    monkeypatch.setattr(h5py.Dataset, "__getitem__", None)
    with pytest.raises(minqa.InputError, match="foreign/x is unknown"):
        minqa.load(elmo_folder)


def test_a_dataset_of_a_foreign_size_is_refused_before_it_is_read(elmo_folder, monkeypatch):
    with h5py.File(elmo_folder / "weights.hdf5", "a") as file:
        del file["char_embed"]
        file.create_dataset("char_embed", (2**32, 5), np.float32, chunks=(2**20, 5))
    monkeypatch.setattr(h5py.Dataset, "__array__", None)
    monkeypatch.setattr(h5py.Dataset, "__getitem__", None)
    with pytest.raises(minqa.InputError, match=r"char_embed has shape \(4294967296, 5\)"):
        minqa.load(elmo_folder)


def test_parts_of_an_hdf5_file_that_are_no_datasets_are_no_tensors(elmo_folder):
    expected = minqa.load(elmo_folder).model
    with h5py.File(elmo_folder / "weights.hdf5", "a") as file:
        file.create_group("notes")
        file.attrs["written"] = "in 2018"
    assert_same(minqa.load(elmo_folder).model, expected)
