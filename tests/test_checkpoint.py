"""Every way a checkpoint is written down loads the same; every way it is broken is refused in one error."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from conftest import VOCABULARY, edit_json
from safetensors.numpy import load_file, save_file

import minqa


def rewrite(folder, change):
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)


def assert_same(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


def with_prefix(tensors):
    head = {
        "cls.predictions.bias": np.zeros(3, np.float32),
        "classifier.weight": np.ones((2, 32), np.float32),
    }
    return {f"bert.{name}": tensor for name, tensor in tensors.items()} | head


def with_old_names(tensors):
    def old(name):
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        return name.replace("LayerNorm.bias", "LayerNorm.beta")

    buffer = {"embeddings.position_ids": np.arange(64)[None]}
    return {old(name): tensor for name, tensor in tensors.items()} | buffer


@pytest.mark.parametrize("change", [with_prefix, with_old_names])
def test_other_names_load_the_same(bert_folder, change):
    expected = minqa.load(bert_folder).model
    rewrite(bert_folder, change)
    assert_same(minqa.load(bert_folder).model, expected)


@pytest.mark.parametrize(
    "head",
    ["BertForMaskedLM", "BertForPreTraining", "BertForQuestionAnswering", "BertForSequenceClassification"],
)
def test_models_with_a_head_load(tmp_path, bert_folder, head):
    config = transformers.BertConfig.from_pretrained(bert_folder)
    model = getattr(transformers, head)(config)
    model.save_pretrained(bert_folder)
    encoder = minqa.load(bert_folder)
    ids = torch.arange(8)[None]
    with torch.no_grad():
        expected = model.eval().bert(ids).last_hidden_state.numpy()
    hidden = encoder.model(ids.numpy().astype(np.int32), np.ones((1, 8), bool)).hidden[-1]
    np.testing.assert_allclose(hidden, expected, atol=1e-5)


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
    with pytest.raises(minqa.InputError, match="needs PyTorch to be read"):
        minqa.load(bert_folder)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_short_floats_are_read(bert_folder, dtype):
    exact = minqa.load(bert_folder).model
    rewrite(bert_folder, lambda tensors: {name: x.astype(dtype) for name, x in tensors.items()})
    for a, b in zip(jax.tree.leaves(minqa.load(bert_folder).model), jax.tree.leaves(exact), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3)


def test_one_error_lists_all_complaints(bert_folder):
    def spoil(tensors):
        del tensors["encoder.layer.1.output.dense.bias"]
        tensors["encoder.layer.0.intermediate.dense.weight"] = np.zeros((48, 31), np.float32)
        tensors["embeddings.LayerNorm.weight"] = np.ones(32, np.int64)
        tensors["encoder.layer.2.output.dense.bias"] = np.zeros(32, np.float32)
        tensors["bert.embeddings.LayerNorm.bias"] = np.zeros(32, np.float32)
        return tensors

    rewrite(bert_folder, spoil)
    with pytest.raises(minqa.InputError) as error:
        minqa.load(bert_folder)
    for complaint in [
        "encoder.layer.1.output.dense.bias is missing",
        "encoder.layer.0.intermediate.dense.weight has shape (48, 31) instead of (48, 32)",
        "embeddings.LayerNorm.weight is int64, which is no floating point",
        "encoder.layer.2.output.dense.bias is unknown",
        "are the same parameter",
    ]:
        assert complaint in str(error.value)


def test_every_tensor_is_needed_and_lands_in_its_place(bert_folder):
    """Leaving out any one is refused; changing any one changes exactly one leaf."""
    tensors = load_file(bert_folder / "model.safetensors")
    before = jax.tree.leaves(minqa.load(bert_folder).model)
    for name in tensors:
        save_file(
            {other: x for other, x in tensors.items() if other != name}, bert_folder / "model.safetensors"
        )
        with pytest.raises(minqa.InputError, match=f"{name} is missing"):
            minqa.load(bert_folder)
        save_file(tensors | {name: tensors[name] + 1}, bert_folder / "model.safetensors")
        after = jax.tree.leaves(minqa.load(bert_folder).model)
        changed = sum(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))
        assert changed == 1, name


def poison(folder):
    rewrite(folder, lambda tensors: tensors | {"embeddings.LayerNorm.bias": np.full(32, np.nan, np.float32)})


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights: model.safetensors is"),
        (truncate, "cannot be read as safetensors, is it cut short"),
        (poison, "embeddings.LayerNorm.bias holds numbers that are not finite"),
        (lambda folder: (folder / "config.json").write_text("[" * 10**5), "config.json cannot be read"),
        (lambda folder: (folder / "tokenizer_config.json").write_text("[]"), "holds no JSON object"),
        (
            lambda folder: edit_json(folder / "tokenizer_config.json", model_max_length="64"),
            "model_max_length is '64', but a whole number is needed",
        ),
        (
            lambda folder: edit_json(folder / "tokenizer_config.json", model_max_length=2),
            "has 2 special tokens",
        ),
        (lambda folder: edit_json(folder / "tokenizer_config.json", model_max_length=-1), "and room for -1"),
        (lambda folder: edit_json(folder / "tokenizer.json", post_processor=None), "has 0 special tokens"),
        (lambda folder: edit_json(folder / "config.json", vocab_size=2**50), "has shape .* instead of"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "cannot be read as safetensors"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json holds no JSON object"),
        (lambda folder: (folder / "config.json").write_bytes(b"\xff"), "config.json cannot be read"),
        (lambda folder: edit_json(folder / "config.json", hidden_size=...), "hidden_size is missing"),
        (lambda folder: edit_json(folder / "config.json", num_hidden_layers=3), "layer.2.* is missing"),
        (lambda folder: edit_json(folder / "config.json", vocab_size=50), "knows more tokens"),
        (
            lambda folder: (folder / "model.safetensors.index.json").write_text(
                json.dumps({"weight_map": {}})
            ),
            "names no tensors",
        ),
    ],
)
def test_broken_folders_are_refused(bert_folder, spoil, sentence):
    spoil(bert_folder)
    with pytest.raises(minqa.InputError, match=sentence):
        minqa.load(bert_folder)


def test_other_architectures_are_refused(tmp_path):
    sizes = dict(vocab_size=len(VOCABULARY), hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    for config, model in [
        (transformers.RobertaConfig(**sizes), transformers.RobertaModel),
        (transformers.GPT2Config(vocab_size=99, n_embd=32, n_layer=1, n_head=2), transformers.GPT2Model),
    ]:
        folder = tmp_path / config.model_type
        model(config).save_pretrained(folder)
        with pytest.raises(minqa.InputError, match=f"model_type is '{config.model_type}'"):
            minqa.load(folder)


def test_a_folder_of_the_default_name_is_that_folder(bert_folder, monkeypatch):
    folder = bert_folder.rename(bert_folder.parent / "all-MiniLM-L6-v2")
    monkeypatch.chdir(folder.parent)
    assert minqa.load("all-MiniLM-L6-v2").fingerprint == minqa.load(folder).fingerprint


def test_a_model_that_is_nowhere_is_refused(tmp_path):
    with pytest.raises(minqa.InputError, match=r"no config\.json, as a BERT .* as an ELMo does"):
        minqa.load(tmp_path)
    with pytest.raises(minqa.InputError, match="There is no model folder"):
        minqa.load(tmp_path / "nothing")
    with pytest.raises(minqa.InputError, match="There is no model folder"):
        minqa.load(str(tmp_path / "nothing"))
    for name in ("~nobody-here/x", "x" * 5000):
        with pytest.raises(minqa.InputError, match="There is no model folder"):
            minqa.load(name)
    with pytest.raises(minqa.InputError, match="neither a folder nor a Hugging Face hub id"):
        minqa.load("no such model!")
    with pytest.raises(minqa.InputError, match=r"could not be fetched .* without a network name a folder"):
        minqa.load("somebody/some-bert")
