"""What an accelerator compiles can be lowered for it here, with the sizes that are chosen for it."""

import jax
import numpy as np
import pytest
from flax import nnx

import minqa
from minqa.answers.span_head import QuestionPassageBatch
from minqa.batches import as_batch
from minqa.bert import Bert, BertConfig
from minqa.elmo import Elmo, ElmoConfig
from minqa.embedding import encode
from minqa.tokens import tokens_of_words

PLATFORMS = ("cuda", "tpu", "rocm")


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
    assert exported.platforms == PLATFORMS and len(exported.mlir_module_serialized)
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
    output = lower(lambda model, batch: model(*batch[:4], attention=True, units=True), model, batch)
    assert output[:2] == [(4, 3, 23, 24), (3, 3, 3, 23, 23)]


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
    batch = QuestionPassageBatch(
        array(3, 5, 24), words, array(3, 23, 24), mask, array(3, 23), array(3, 5, 23, dtype=bool)
    )
    assert lower(lambda head, batch: head(batch), head, batch) == [(3, 23), (3, 23), (3,)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_elmo_lowers(dtype):
    config = ElmoConfig(50, 4, ((1, 4), (2, 8)), "relu", 1, 8, 16, 2, 3.0, 3.0, True)
    model = jax.eval_shape(
        lambda: jax.tree.map(lambda leaf: leaf.astype(dtype), Elmo(config, rngs=nnx.Rngs(0)))
    )
    ids, mask = array(3, 23, 50, dtype=np.int32), array(3, 23, dtype=bool)
    assert lower(lambda model, *arrays: model(*arrays).hidden, model, ids, mask) == [(3, 3, 23, 16)]
