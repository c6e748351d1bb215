"""What an accelerator compiles can be lowered for it here, with the sizes that are chosen for it."""

import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax._src.cudnn import fused_attention_stablehlo

import minqa
from minqa import bert
from minqa.answers import span_head
from minqa.batches import Batch, as_batch, run_model
from minqa.bert import Bert, BertConfig
from minqa.elmo import Elmo, ElmoConfig
from minqa.embedding import encode
from minqa.tokens import tokens_of_words

PLATFORMS = ("cuda", "tpu", "rocm")
# Accelerators compute these in fewer bits unless asked.
PRODUCT = r"stablehlo\.(dot_general|convolution).*f32"


@pytest.fixture(autouse=True)
def accelerator(monkeypatch):
    """What is traced in these tests, none of it of a shape that others use, is traced for an accelerator."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


def array(*shape, dtype=np.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def lower(function, *arguments):
    """The shapes of what a function returns, once it is lowered for all platforms."""
    with jax.numpy_dtype_promotion("standard"):  # flax's layer norm computes bfloat16 in float32
        exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)(*arguments)
    products = [line for line in exported.mlir_module().splitlines() if re.search(PRODUCT, line)]
    assert exported.platforms == PLATFORMS and [line for line in products if "HIGHEST" not in line] == []
    return [output.shape for output in exported.out_avals]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bert_lowers_and_pools(dtype):
    config = BertConfig(90, 24, 3, 3, 40, max_position_embeddings=64, type_vocab_size=2)
    model = jax.eval_shape(
        lambda: jax.tree.map(lambda leaf: leaf.astype(dtype), Bert(config, rngs=nnx.Rngs(0)))
    )
    batch = as_batch([tokens_of_words(["w"] * 23)] * 3, shape=(3, 23))

    def run(model, batch):
        return encode(model, batch, layers=(0, 3), pooling=minqa.Pooling(normalize=True))

    assert lower(run, model, batch) == [(2, 3, 23, 24), (3, 64, 24)]
    output = lower(lambda model, batch: run_model(model, batch, attention=True, units=True), model, batch)
    assert output[:2] == [(4, 3, 23, 24), (3, 3, 3, 23, 23)]


@pytest.mark.parametrize(
    ("dtype", "shape", "platform", "version", "capability", "fits"),
    [
        ("bfloat16", (2, 16, 2, 64), "gpu", "PJRT C API cuda 13000", "9.0", True),
        ("float16", (2, 16, 2, 128), "gpu", "PJRT C API cuda 12090", "8.0", True),
        ("float32", (2, 16, 2, 64), "gpu", "PJRT C API cuda 13000", "9.0", False),
        ("bfloat16", (2, 17, 2, 64), "gpu", "PJRT C API cuda 13000", "9.0", False),
        ("bfloat16", (2, 16, 2, 60), "gpu", "PJRT C API cuda 13000", "9.0", False),
        ("bfloat16", (2, 16, 2, 136), "gpu", "PJRT C API cuda 13000", "9.0", False),
        ("bfloat16", (2, 16, 2, 64), "gpu", "PJRT C API cuda 12090", "7.5", False),
        ("bfloat16", (2, 16, 2, 64), "gpu", "PJRT C API rocm 60300", "gfx942", False),
        ("bfloat16", (2, 16, 2, 64), "tpu", "PJRT C API TFRT TPU v5e", None, False),
        ("bfloat16", (2, 16, 2, 64), "cpu", "cpu", None, False),
    ],
)
def test_cudnn_is_used_where_it_can_be(monkeypatch, dtype, shape, platform, version, capability, fits):
    client = SimpleNamespace(platform_version=version)
    device = SimpleNamespace(platform=platform, client=client, compute_capability=capability)
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    assert bert.uses_cudnn(jnp.zeros(shape, dtype)) == fits


@pytest.fixture
def small_bert():
    """A BERT in bfloat16, and rows of two texts, the end of one of them not attended to, and padding."""
    model = Bert(BertConfig(90, 32, 2, 2, 40, 64, 2), rngs=nnx.Rngs(0))
    segments = np.tile(np.repeat([1, 2, -2, 0], [9, 7, 3, 3]), (3, 1))
    ids = np.random.default_rng(0).integers(0, 80, segments.shape)
    return jax.tree.map(lambda leaf: leaf.astype("bfloat16"), model), ids, segments


def test_16_bits_lower_to_cudnn(small_bert, monkeypatch):
    monkeypatch.setattr(bert, "uses_cudnn", lambda head: True)
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    target = "__cudnn$fmhaScaleBiasSoftmax"
    allowed = [jax.export.DisabledSafetyCheck.custom_call(target)]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        run = jax.jit(lambda model, *arrays: model(*arrays).hidden)
        exported = jax.export.export(run, platforms=["cuda"], disabled_checks=allowed)(*small_bert)
        for_cpu = jax.export.export(run, platforms=["cpu"])(*small_bert)  # such as of a mesh of one's own
    assert exported.out_avals[0].shape == (3, 3, 22, 32) and target in exported.mlir_module()
    assert target not in for_cpu.mlir_module()


def test_fused_attention_is_the_same_and_nothing_leaks(small_bert, monkeypatch):
    """JAX's own implementation stands in for cuDNN's, with the arguments that it gets."""
    model, ids, segments = small_bert
    poisoned = ids.copy()
    poisoned[:, 0] = 85
    table = model.embeddings.word.embedding
    table[...] = table[...].at[85].set(np.nan)

    def hidden(ids):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return np.asarray(model(ids, segments).hidden, np.float32)

    expected = hidden(ids)
    fused, calls = jax.nn.dot_product_attention, []

    def in_xla(*arrays, mask, implementation):
        calls.append(implementation)
        return fused(*arrays, mask=mask, implementation="xla")

    def choose(*arrays, cuda, default):
        return cuda(*arrays)

    monkeypatch.setattr(bert, "uses_cudnn", lambda head: True)
    monkeypatch.setattr(jax.nn, "dot_product_attention", in_xla)
    monkeypatch.setattr(jax.lax, "platform_dependent", choose)
    for layer in model.layers:
        layer.another = True  # nothing reads it: another static attribute lets the layer be compiled again
    np.testing.assert_allclose(hidden(ids), expected, atol=0.04)
    assert {*calls} == {"cudnn"}
    result = hidden(poisoned)
    np.testing.assert_array_equal(result[:, :, 9:19], hidden(ids)[:, :, 9:19])
    assert np.isnan(result[:, :, 0]).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("prepared", [False, True])
def test_match_lowers(dtype, prepared):
    passages = array(5001, 24, dtype=dtype)

    def run(queries, passages):
        return minqa.match(queries, minqa.prepare(passages) if prepared else passages, k=7)

    found = lower(run, array(3, 24), passages)
    assert found == [(3, 7), (3, 7)]


def test_maxsim_and_spans_lower():
    scores = lower(
        lambda *arrays: minqa.maxsim(*arrays, window=24, neighbours=0.1),
        *(array(5, 24), array(5), array(7, 23, 24), array(7, 23, dtype=bool)),
    )
    assert scores == [(7, 5)]
    spans = lower(
        lambda *arrays: minqa.best_spans(*arrays, k=6, max_length=9),
        *(array(3, 23), array(3, 23), array(3, 23, dtype=bool)),
    )
    assert spans == [(3, 6), (3, 6), (3, 6), (3,)]


def test_the_span_head_lowers():
    head = jax.eval_shape(lambda: minqa.SpanHead(24, hidden=8, rngs=nnx.Rngs(0)))
    mask, words = array(3, 23, dtype=bool), array(3, 5, dtype=bool)
    spelling, echoed, comparable = array(3, 23, 4), array(3, 23), array(3, 5, 23, dtype=bool)
    batch = span_head.QuestionPassageBatch(
        array(3, 5, 24), words, array(3, 23, 24), mask, spelling, echoed, comparable
    )
    spans = lower(lambda head, batch: span_head._read(head, batch, k=6, max_length=9), head, batch)
    assert spans == [(3, 6), (3, 6), (3, 6), (3,), (3,)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_elmo_lowers(dtype):
    config = ElmoConfig(50, 4, ((1, 4), (2, 8)), "relu", 1, 8, 16, 2, 3.0, 3.0, True)
    model = jax.eval_shape(
        lambda: jax.tree.map(lambda leaf: leaf.astype(dtype), Elmo(config, rngs=nnx.Rngs(0)))
    )
    batch = Batch(array(3, 23, 50, dtype=np.int32), *[array(3, 23, dtype=np.int32)] * 4)
    assert lower(lambda model, batch: run_model(model, batch).hidden, model, batch) == [(3, 3, 23, 16)]
