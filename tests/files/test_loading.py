"""A folder or a name → an encoder: every layout that is written loads; every broken one is refused."""

import json
import time

import numpy as np
import pytest
import torch
import transformers
from conftest import VOCABULARY, assert_same, edit_json, rewrite, sentence_folder
from safetensors.numpy import load_file

import minqa


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
        (
            lambda folder: (
                edit_json(folder / "tokenizer.json", post_processor=None),
                edit_json(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast"),
            ),
            "has 0 special tokens",
        ),
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


def test_modules_that_are_not_supported_are_refused(bert_folder):
    folder = sentence_folder(bert_folder, pooling={"pooling_mode_median": True})
    with pytest.raises(minqa.InputError, match=r"pools by .*median; supported are cls, .*, lasttoken"):
        minqa.load(folder)
    modules = json.loads((folder / "modules.json").read_text())
    modules[2]["type"] = "sentence_transformers.models.LSTM"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(minqa.InputError, match="chains Transformer, Pooling, LSTM; supported"):
        minqa.load(folder)


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("modules.json", "{}", "holds no JSON array"),
        ("modules.json", "[3, 4]", "chains nothing, nothing"),
        ("modules.json", '[{"type": 3}]', "type is 3, but a string is needed"),
        ("1_Pooling/config.json", '{"pooling_mode": 3}', "pools by 3; supported"),
        (
            "1_Pooling/config.json",
            '{"include_prompt": 0}',
            "include_prompt is 0, but true or false is needed",
        ),
        ("sentence_bert_config.json", '{"max_seq_length": "9"}', "max_seq_length is '9'"),
        ("config_sentence_transformers.json", '{"prompts": []}', "prompts is .*, but an object is needed"),
        (
            "config_sentence_transformers.json",
            '{"prompts": {"query": 1}}',
            "query is 1, but a string is needed",
        ),
        ("config_sentence_transformers.json", '{"default_prompt_name": "x"}', "there is no such prompt"),
        (
            "config_sentence_transformers.json",
            '{"similarity_fn_name": "jaccard"}',
            "must be cosine, dot, .*'jaccard'",
        ),
        ("config_sentence_transformers.json", '{"similarity_fn_name": 3}', "similarity_fn_name is 3"),
        ("config_sentence_transformers.json", '{"truncate_dim": 0}', "truncate_dim above 0"),
        ("config_sentence_transformers.json", '{"truncate_dim": "8"}', "truncate_dim is '8'"),
    ],
)
def test_settings_of_the_wrong_kind_are_refused(bert_folder, file, content, sentence):
    folder = sentence_folder(bert_folder, pooling={})
    (folder / file).write_text(content)
    with pytest.raises(minqa.InputError, match=sentence):
        minqa.load(folder)


def test_do_lower_case_comes_before_a_cased_tokenizer(bert_folder):
    vocabulary = {piece: i for i, piece in enumerate(VOCABULARY)}
    transformers.BertTokenizerFast(vocabulary, do_lower_case=False).save_pretrained(bert_folder)
    assert minqa.load(bert_folder).tokenize(["WAR"])[0].ids[1] != VOCABULARY.index("war")
    assert minqa.load(sentence_folder(bert_folder, pooling={})).tokenize(["WAR"])[0].ids[
        1
    ] == VOCABULARY.index("war")


def test_other_architectures_are_refused(tmp_path):
    sizes = dict(vocab_size=len(VOCABULARY), hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    for config, model in [
        (transformers.MPNetConfig(**sizes), transformers.MPNetModel),
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


def cross_encoder(folder, labels):
    """As transformers saves one."""
    config = transformers.BertConfig.from_pretrained(folder, num_labels=labels)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("version", ["", "4", "6"])
@pytest.mark.parametrize("labels", [1, 3])
def test_a_cross_encoder_is_refused(bert_folder, labels, version):
    cross_encoder(bert_folder, labels)
    if version == "4":
        edit_json(bert_folder / "config.json", sentence_transformers={"version": "4.1.0"})
    if version == "6":
        from sentence_transformers import CrossEncoder

        CrossEncoder(str(bert_folder), device="cpu").save_pretrained(str(bert_folder))
    if version or labels == 1:  # a classifier of three kinds may be anything
        with pytest.raises(minqa.InputError, match=r"cross-encoder|chains Transformer; supported"):
            minqa.load(bert_folder)


def test_an_encoder_that_was_a_classifier_loads(bert_folder):
    cross_encoder(bert_folder, 1)
    sentence_folder(bert_folder, pooling={"pooling_mode_mean_tokens": True})
    edit_json(bert_folder / "config_sentence_transformers.json", model_type="SentenceTransformer")
    edit_json(bert_folder / "config.json", architectures=["BertModel"])
    minqa.load(bert_folder)


def repository(folder, kind):
    """Change a BERT's folder into what a repository on the hub holds, with files that nobody needs."""
    (folder / "onnx").mkdir()
    (folder / "onnx/model.onnx").write_bytes(b"no")
    (folder / "tf_model.h5").write_bytes(b"no")
    (folder / "rust_model.ot").write_bytes(b"no")
    tensors = {name: torch.tensor(x) for name, x in load_file(folder / "model.safetensors").items()}
    if kind in ("0_Transformer", "1_Pooling"):
        sentence_folder(folder, pooling={"pooling_mode_cls_token": True})
    if kind == "new":
        torch.save(tensors, folder / "pytorch_model.bin")
        return
    if kind == "shards of safetensors":
        model = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False)
        model.save_pretrained(folder, max_shard_size="10KB")
    (folder / "model.safetensors").unlink()
    if kind in ("pytorch_model.bin", "1_Pooling"):
        torch.save(tensors, folder / "pytorch_model.bin")
    if kind == "shards":
        names = {name: f"pytorch_model-0000{1 + i % 2}-of-00002.bin" for i, name in enumerate(tensors)}
        for shard in set(names.values()):
            torch.save({name: tensors[name] for name in tensors if names[name] == shard}, folder / shard)
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))
    if kind == "0_Transformer":
        inner = folder / kind
        inner.mkdir()
        torch.save(tensors, inner / "pytorch_model.bin")
        for name in (
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "vocab.txt",
            "sentence_bert_config.json",
        ):
            (folder / name).rename(inner / name)
        modules = json.loads((folder / "modules.json").read_text())
        modules[0]["path"] = kind
        (folder / "modules.json").write_text(json.dumps(modules))


def serve(folder, monkeypatch, cache):
    """Let the hub's client fetch from a folder what the patterns allow; returns the names it has fetched."""
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    fetched = set()

    def snapshot_download(source, *, allow_patterns=None, **_):
        names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
        for name in filter_repo_objects(names, allow_patterns=allow_patterns):
            fetched.add(name)
            (cache / name).parent.mkdir(parents=True, exist_ok=True)
            (cache / name).write_bytes((folder / name).read_bytes())
        return str(cache)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return fetched


KINDS = ["new", "pytorch_model.bin", "shards", "shards of safetensors", "0_Transformer", "1_Pooling"]


@pytest.mark.parametrize("kind", KINDS)
def test_old_and_new_repositories_are_fetched_and_read(bert_folder, tmp_path, monkeypatch, kind):
    expected = minqa.load(bert_folder).model
    repository(bert_folder, kind)
    fetched = serve(bert_folder, monkeypatch, tmp_path / "cache")
    encoder = minqa.load("somebody/some-bert")
    assert_same(encoder.model, expected)
    assert encoder.pooling.modes == (("cls",) if kind[1] == "_" else ("mean",))
    assert not fetched & {"onnx/model.onnx", "tf_model.h5", "rust_model.ot"}
    assert ("pytorch_model.bin" in fetched) == (kind in ("pytorch_model.bin", "1_Pooling"))


def test_a_repository_of_elmo_is_fetched_and_read(elmo_folder, tmp_path, monkeypatch):
    expected = minqa.load(elmo_folder).model
    serve(elmo_folder, monkeypatch, tmp_path / "cache")
    assert_same(minqa.load("somebody/some-elmo").model, expected)


def test_a_repository_without_weights_is_refused(bert_folder, tmp_path, monkeypatch):
    (bert_folder / "model.safetensors").unlink()
    serve(bert_folder, monkeypatch, tmp_path / "cache")
    with pytest.raises(minqa.InputError, match="holds no weights"):
        minqa.load("somebody/some-bert")


def test_an_old_layout_in_a_folder_is_read(bert_folder):
    expected = minqa.load(bert_folder).model
    repository(bert_folder, "0_Transformer")
    assert_same(minqa.load(bert_folder).model, expected)


def test_a_billion_layers_are_refused_at_once(bert_folder, elmo_folder):
    edit_json(bert_folder / "config.json", num_hidden_layers=10**9)
    start = time.perf_counter()
    with pytest.raises(minqa.InputError, match="num_hidden_layers is 1000000000, but must be"):
        minqa.load(bert_folder)
    assert time.perf_counter() - start < 1


def with_cls(folder, number):
    content = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    content["post_processor"]["special_tokens"]["[CLS]"]["ids"] = [number]
    (folder / "tokenizer.json").write_text(json.dumps(content), "utf-8")


def test_a_special_token_beyond_the_vocabulary_is_refused(bert_folder):
    with_cls(bert_folder, len(VOCABULARY) - 1)
    minqa.load(bert_folder)
    with_cls(bert_folder, len(VOCABULARY))
    with pytest.raises(minqa.InputError, match="knows more tokens than vocab_size"):
        minqa.load(bert_folder)


@pytest.mark.parametrize("role", ["query", "document", "any"])
def test_a_prompt_that_fills_the_window_is_refused(bert_folder, role):
    for words, fits in ((21, True), (22, False), (500, False)):
        sentence_folder(bert_folder, pooling={}, prompts={role: "war " * words})
        if fits:  # [CLS], 21 words, one word, [SEP]: 24 tokens
            minqa.load(bert_folder)
            continue
        with pytest.raises(minqa.InputError, match=f"prompt {role} .* leaves no room for a text: at most 24"):
            minqa.load(bert_folder)
