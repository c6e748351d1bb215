"""Encoding beside PyTorch and ONNX Runtime, by shape; texts end to end beside sentence-transformers.

MiniLM has its real weights; BERT-base and BERT-large have random ones, which cost the same.
"""

import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

import minqa
from benchmarks.harness import texts_of
from minqa.batches import padded_length
from minqa.files.loading import DEMO_MODEL, model_folder

SIZES = {
    "BERT-base": dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072),
    "BERT-large": dict(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
    ),
}
SHAPES = [(1, 16), (1, 128), (8, 64), (32, 128), (8, 384)]
LEADS = 1024


class Pair:
    """One BERT in minqa and in transformers."""

    def __init__(self, name, folder, dtype):
        torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
        if name in SIZES:
            torch.manual_seed(0)
            config = transformers.BertConfig(**SIZES[name])
            model = transformers.BertModel(config, add_pooling_layer=False)
            model.save_pretrained(folder)
            transformers.BertTokenizerFast.from_pretrained(model_folder(DEMO_MODEL)).save_pretrained(folder)
        else:
            folder = model_folder(DEMO_MODEL)
        self.folder = folder
        self.encoder = minqa.load(folder, dtype=dtype)
        longest = max(token for _, token in SHAPES)
        self.encoder = replace(self.encoder, tokenizer=replace(self.encoder.tokenizer, max_tokens=longest))
        device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
        self.device, self.dtype = torch.device(device), getattr(torch, dtype)
        self.peer = self.load_peer("sdpa").to(self.device, self.dtype)
        if device == "cuda":
            self.peer = torch.compile(self.peer)

    def load_peer(self, attention):
        from transformers import BertModel

        options = {"attn_implementation": attention, "add_pooling_layer": False}
        return BertModel.from_pretrained(self.folder, **options).eval()

    def operations(self, batch, token):
        config = self.peer.config
        dim, wide = config.hidden_size, config.intermediate_size
        each = 4 * dim * dim + 2 * dim * wide + 2 * token * dim
        return 2 * config.num_hidden_layers * batch * token * each

    def weights_read(self):
        """Bytes of every layer's weights."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self.encoder.model.layers))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Models, made on demand; only the last is kept, as they are large."""
    kept: dict[tuple[str, str], Pair] = {}

    def pair(name, dtype):
        if (name, dtype) not in kept:
            kept.clear()
            kept[name, dtype] = Pair(name, tmp_path_factory.mktemp(name), dtype)
        return kept[name, dtype]

    return pair


def in_pytorch(pair, ids):
    import torch

    inputs = {"input_ids": torch.tensor(ids).long().to(pair.device)}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])

    def call():
        with torch.inference_mode():
            hidden = pair.peer(**inputs).last_hidden_state
            return torch.nn.functional.normalize(hidden.float().mean(1), dim=-1).cpu().numpy()

    return call


def in_onnx_runtime(pair, ids):
    """ONNX Runtime on a graph exported here, after its BERT optimizer; None if it is not installed."""
    try:
        import onnxruntime
        import torch
        from onnxruntime.transformers.optimizer import optimize_model
    except ImportError:
        return None
    if not hasattr(pair, "session"):
        model, names = pair.load_peer("eager"), ["ids", "mask", "types"]

        class Graph(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.model = model

            def forward(self, ids, mask, types):
                return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state

        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = str(Path(folder) / "model.onnx")
            example = torch.ones(2, 16, dtype=torch.int64)
            free = {name: {0: "batch", 1: "token"} for name in [*names, "hidden"]}
            torch.onnx.export(
                *(Graph().eval(), (example, example, 0 * example), path),
                **dict(input_names=names, output_names=["hidden"], dynamic_axes=free, dynamo=False),
            )
            config = model.config
            heads = {"num_heads": config.num_attention_heads, "hidden_size": config.hidden_size}
            optimize_model(path, model_type="bert", opt_level=1, **heads).save_model_to_file(path)
            pair.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    inputs = {"ids": ids.astype(np.int64), "mask": np.ones(ids.shape, np.int64)}
    inputs["types"] = np.zeros(ids.shape, np.int64)

    def call():
        pooled = pair.session.run(None, inputs)[0].mean(1)
        return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)

    return call


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["MiniLM", *SIZES])
def bench_encode(compare, pairs, quick, name, dtype, shape):
    batch, token = shape
    slow = (name == "BERT-base") + (dtype == "bfloat16")
    if quick and (name == "BERT-large" or slow == 2 or (slow and batch * token > 128)):
        pytest.skip("not measured with --quick")
    pair = pairs(name, dtype)
    tokens = texts_of(batch, token)
    ids = np.stack([text.ids for text in tokens])
    encoder = replace(pair.encoder, pooling=minqa.Pooling(normalize=True))
    ours = lambda: minqa.embed_pooled(encoder, tokens)  # noqa: E731
    peers, absent = {"PyTorch": in_pytorch(pair, ids)}, []
    if dtype == "bfloat16":
        absent.append("ONNX Runtime (no bfloat16 on CPU)")
    elif jax.default_backend() != "cpu":
        absent.append("ONNX Runtime (CPU only here)")
    elif onnx := in_onnx_runtime(pair, ids):
        peers["ONNX Runtime"] = onnx
    else:
        absent.append("ONNX Runtime (not installed)")
    for call in peers.values():
        np.testing.assert_allclose(ours(), call(), atol=1e-4 if dtype == "float32" else 0.05)
    compare(
        ours,
        peers,
        what=f"encode, {name}",
        size=f"{batch} × {token}",
        dtype=dtype,
        operations=pair.operations(batch, token),
        read=pair.weights_read(),
        absent=absent,
        rate=batch * token,
        rate_of="tokens",
    )


def bench_embed_texts(compare, quick):
    """Texts → pooled vectors, tokenizing included."""
    peer = pytest.importorskip("sentence_transformers")
    model = peer.SentenceTransformer(str(model_folder(DEMO_MODEL)))
    encoder, passages = minqa.load(), minqa.demo_passages()
    number = LEADS // 8 if quick else LEADS
    rows = np.random.default_rng(0).permutation(len(passages))[:number]
    texts = [passages[row].text for row in rows]
    ours = lambda: minqa.embed_pooled(encoder, encoder.tokenize(texts))  # noqa: E731
    theirs = lambda: model.encode(texts, show_progress_bar=False)  # noqa: E731
    np.testing.assert_allclose(ours(), theirs(), atol=1e-5)
    lengths = np.array([text.windows[0] for text in encoder.tokenize(texts)])
    config = model[0].auto_model.config
    dim, wide = config.hidden_size, config.intermediate_size
    each = 4 * dim * dim + 2 * dim * wide + 2 * lengths * dim  # of the tokens, without their padding
    operations = 2 * config.num_hidden_layers * (lengths * each).sum()
    padding = sum(map(padded_length, lengths.tolist())) / lengths.sum() - 1
    compare(
        ours,
        {"sentence-transformers": theirs},
        what="embed Wikipedia leads, MiniLM, end to end",
        size=f"{number:,} texts, {lengths.sum():,} tokens",
        operations=float(operations),
        rate=int(lengths.sum()),
        rate_of="tokens",
        padding=padding,
    )
