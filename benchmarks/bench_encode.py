"""Encoding beside PyTorch and ONNX Runtime, by shape."""

import tempfile
import warnings
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

import minqa
from benchmarks import harness
from benchmarks.harness import LeftOut, sweep, texts_of
from minqa.batches import as_batch
from minqa.bert import Bert
from minqa.devices import lay_out
from minqa.embedding import encode, hidden_states
from minqa.files.bert import TENSORS, bert_settings
from minqa.files.checkpoint import dump


@lru_cache(maxsize=1)  # as models are large
def encoder_of(name, dtype):
    encoder = harness.load_model(name, dtype)
    if not isinstance(encoder.model, Bert):
        pytest.skip(f"{name} is no BERT")
    return replace(encoder, pooling=minqa.Pooling(normalize=True))


def operations(config, lengths):
    """Floating-point operations in the matrix products for texts of these lengths."""
    dim, wide = config.hidden_size, config.intermediate_size
    each = 4 * dim * dim + 2 * dim * wide + 2 * lengths * dim
    return float(2 * config.num_hidden_layers * (lengths * each).sum())


@lru_cache(maxsize=1)
def torch_bert(name, dtype, attention):
    """The same model in transformers."""
    import torch
    from transformers import AutoModel, BertConfig

    encoder = encoder_of(name, dtype)
    config = BertConfig(**bert_settings(encoder.model.config))
    model = AutoModel.from_config(config, attn_implementation=attention, add_pooling_layer=False)
    tensors = dump(encoder.model, TENSORS["bert"]).items()
    model.load_state_dict({name: torch.tensor(tensor.astype(np.float32)) for name, tensor in tensors})
    return model.eval()


def in_pytorch(name, dtype, ids):
    import torch

    device = harness.torch_device()
    model = torch_bert(name, dtype, "sdpa").to(device, getattr(torch, dtype))
    model = torch.compile(model) if device == "cuda" else model
    inputs = {"input_ids": torch.tensor(ids, device=device).long()}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])

    def call():
        with torch.inference_mode():
            hidden = model(**inputs).last_hidden_state
            return torch.nn.functional.normalize(hidden.float().mean(1), dim=-1).cpu().numpy()

    return call


def in_onnx_runtime(name, dtype, ids):
    """ONNX Runtime on a graph exported here, after its BERT optimizer."""
    if jax.default_backend() != "cpu" or dtype != "float32":
        raise LeftOut("in float32 on the CPU alone")
    session = onnx_session(name)
    inputs = {"ids": ids.astype(np.int64), "mask": np.ones(ids.shape, np.int64)}
    inputs["types"] = np.zeros(ids.shape, np.int64)

    def call():
        pooled = session.run(None, inputs)[0].mean(1)
        return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)

    return call


@lru_cache(maxsize=1)
def onnx_session(name):
    import onnxruntime
    import torch
    from onnxruntime.transformers.optimizer import optimize_model

    config, names = encoder_of(name, "float32").model.config, ["ids", "mask", "types"]

    class Graph(torch.nn.Module):
        def forward(self, ids, mask, types):
            return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state

    graph = Graph()
    graph.model = torch_bert(name, "float32", "eager")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = str(Path(folder) / "model.onnx")
        example = torch.ones(2, 16, dtype=torch.int64)
        free = {name: {0: "batch", 1: "token"} for name in [*names, "hidden"]}
        torch.onnx.export(
            *(graph.eval(), (example, example, 0 * example), path),
            **dict(input_names=names, output_names=["hidden"], dynamic_axes=free, dynamo=False),
        )
        heads = {"num_heads": config.num_attention_heads, "hidden_size": config.hidden_size}
        optimize_model(path, model_type="bert", opt_level=1, **heads).save_model_to_file(path)
        return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@sweep(
    model=["minilm", "bert-base", "bert-large"],
    dtype=["float32", "bfloat16"],
    devices=[jax.local_device_count()],
    shape=[(1, 16), (1, 128), (8, 64), (32, 128), (8, 384)],
    quick={"model": ["minilm"], "shape": [(1, 16), (1, 128), (32, 128)]},
)
def bench_encode(compare, model, dtype, shape, devices):
    """End to end `embed_pooled` packs the texts; on the device they are a batch of just this shape."""
    encoder, (batch, token) = encoder_of(model, dtype), shape
    config = encoder.model.config
    if token > config.max_position_embeddings or devices > jax.local_device_count():
        pytest.skip(f"{model} reads {config.max_position_embeddings} tokens; {jax.local_devices()}")
    mesh = Mesh(np.array(jax.local_devices()[:devices]), ("batch",))
    tokens = texts_of(batch, token, config.vocab_size)
    given, ids = (encoder.model, as_batch(tokens, shape=shape)), np.stack([text.ids for text in tokens])
    shared = devices if batch % devices == 0 else 1
    weights, arrays = lay_out(*given, mesh) if shared > 1 else jax.device_put(given)
    compare(
        lambda: np.stack(hidden_states(encoder, tokens, (), mesh=mesh)[1]),
        {
            "PyTorch": partial(in_pytorch, model, dtype, ids),
            "ONNX Runtime": partial(in_onnx_runtime, model, dtype, ids),
        },
        device=lambda: encode(weights, arrays, layers=(), pooling=encoder.pooling)[1],
        agree=harness.agree_to(atol=2e-5) if dtype == "float32" else harness.agree_on_directions,
        what=f"encode, {encoder.name}" + (f", {devices} devices" if devices > 1 else ""),
        operations=operations(config, np.full(batch, token)),
        read=sum(leaf.nbytes for leaf in jax.tree.leaves(encoder.model.layers)),
        devices=shared,
        rate=batch * token,
        rate_of="tokens",
        padding=harness.padding(encoder, tokens, devices),
    )
