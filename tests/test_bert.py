"""BERT against transformers' PyTorch BertModel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from conftest import make_bert_folder, oracle
from flax import nnx

import minqa
from minqa.bert import Bert, BertConfig


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


def test_the_tolerance_tells_the_exact_gelu_from_its_approximation(tmp_path, monkeypatch):
    folder = make_bert_folder(tmp_path)
    ids, mask, types = draw_batch(np.random.default_rng(0), 3, 9, 90)
    hidden, _ = run_oracle(oracle(folder), ids, mask, types)
    gelu = jax.nn.gelu
    monkeypatch.setattr(jax.nn, "gelu", lambda x, approximate: gelu(x, approximate=True))
    jax.clear_caches()
    ours = np.asarray(minqa.load(folder).model(ids, mask, types).hidden)
    jax.clear_caches()
    assert np.abs(ours - hidden)[:, mask].max() > 2e-5


def test_minilm_equals_pytorch_on_wikipedia(minilm, leads):
    from minqa import demo

    model = oracle(demo.model_folder())
    tokens = sorted(minilm.tokenize([lead.text for lead in leads[:64]]), key=len)
    for start in range(0, 64, 16):
        batch = tokens[start : start + 16]
        ids = np.zeros((16, len(batch[-1])), np.int32)
        for row, one in zip(ids, batch, strict=True):
            row[: len(one)] = one.ids
        mask = np.arange(ids.shape[1]) < np.array([[len(one)] for one in batch])
        hidden, attention = run_oracle(model, ids, mask, np.zeros_like(ids))
        output = minilm.model(ids, mask, attention=True)
        ours = np.asarray(output.hidden)[:, mask]
        np.testing.assert_allclose(ours, hidden[:, mask], atol=2e-5, rtol=0)
        ours, theirs = (
            np.moveaxis(np.asarray(maps), 3, 2)[:, mask] for maps in (output.attention, attention)
        )
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)


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


def test_dropout_drops_its_share_and_keeps_the_mean():
    config = BertConfig(10, 512, 1, 4, 8, 8, 1, hidden_dropout_prob=0.25)
    embeddings = Bert(config, rngs=nnx.Rngs(0)).embeddings
    ids = np.zeros((64, 8), np.int32)
    dropped = embeddings(ids, ids, None, jax.random.key(0))
    kept = embeddings(ids, ids, None, None)
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
    jax.clear_caches()
    ids = np.ones((1, 4), np.int32)
    jax.block_until_ready(tiny.model(ids, ids > 0, key=jax.random.key(0)).hidden)
    jax.effects_barrier()
    jax.clear_caches()
    heads = tiny.model.layers[0].attention.num_heads
    assert len(seen) == len(set(seen)) == 1 + (2 + heads) * tiny.model.num_layers


def test_gradients_reach_every_parameter(tiny):
    ids, mask, _ = draw_batch(np.random.default_rng(5), 2, 8, 90)

    def loss(model):
        return (model(ids, mask).hidden[-1] ** 3).mean()

    gradients = jax.grad(loss)(tiny.model)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert jnp.isfinite(gradient).all(), path
        # The key's bias adds the same to all scores of a row, which softmax does not see.
        if ".key.bias" not in jax.tree_util.keystr(path):
            assert jnp.abs(gradient).max() > 0, path


SIZES = dict(
    vocab_size=10, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
    max_position_embeddings=8, type_vocab_size=2,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (dict(model_type="roberta"), "model_type is 'roberta', but only 'bert' is supported"),
        (dict(model_type="gpt2"), "model_type is 'gpt2'"),
        (dict(hidden_act="relu"), "hidden_act is 'relu', but only 'gelu' is supported"),
        (dict(hidden_act="gelu_new"), "hidden_act"),
        (dict(position_embedding_type="relative_key"), "only 'absolute' is supported"),
        (dict(is_decoder=True), "is_decoder is True"),
        (dict(add_cross_attention=True), "add_cross_attention"),
        (dict(pruned_heads={"0": [1]}), "pruned_heads"),
        (dict(num_attention_heads=3), "no multiple"),
        (dict(hidden_size="8"), "hidden_size is '8', but must be a whole number"),
        (dict(num_hidden_layers=0), "num_hidden_layers is 0"),
        (dict(vocab_size=True), "vocab_size is True"),
        (dict(layer_norm_eps=float("nan")), "layer_norm_eps is nan, but must be a number from 0"),
        (dict(layer_norm_eps=10**400), "layer_norm_eps"),
        (dict(hidden_dropout_prob=True), "hidden_dropout_prob is True"),
        (dict(attention_probs_dropout_prob=1.5), "attention_probs_dropout_prob is 1.5"),
    ],
    ids=str,
)
def test_a_config_that_is_not_represented_is_refused(changes, complaint):
    with pytest.raises(minqa.InputError, match=complaint):
        BertConfig.from_dict(SIZES | changes)


def test_every_missing_key_is_named():
    with pytest.raises(minqa.InputError, match=r"vocab_size is missing; .*type_vocab_size is missing"):
        BertConfig.from_dict({"model_type": "bert"})
    for key in SIZES:
        with pytest.raises(minqa.InputError, match=f"{key} is missing"):
            BertConfig.from_dict({name: size for name, size in SIZES.items() if name != key})
    assert BertConfig.from_dict(SIZES).layer_norm_eps == 1e-12
