"""What `save` writes, `load` reads: the same fingerprint, the same vectors."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from conftest import (
    VOCABULARY,
    add_dense,
    assert_same,
    edit_json,
    make_bert_folder,
    make_elmo_folder,
    sentence_folder,
    sentence_transformer,
    stanford_folder,
)

import minqa

TEXTS = ["Who DEVELOPED the theory?", "caf\u00e9 cafe\u0301", "", "\u65e5\u672c war", "a b c d e f g h " * 20]
MEAN = {"pooling_mode_mean_tokens": True}


def cased(folder):
    vocabulary = {piece: i for i, piece in enumerate(VOCABULARY)}
    transformers.BertTokenizerFast(vocabulary, do_lower_case=False).save_pretrained(folder)
    return folder


FOLDERS = {
    "plain": lambda folder: folder,
    "cased": cased,
    "lower-cased before a cased tokenizer": lambda folder: sentence_folder(cased(folder), pooling=MEAN),
    "prompts": lambda folder: sentence_folder(
        folder,
        pooling={"pooling_mode_max_tokens": True, "include_prompt": False},
        prompts={"query": "who played: ", "document": "war ", "plain": "theory: "},
        default="plain",
    ),
    "modes": lambda folder: sentence_folder(
        folder, pooling={"pooling_mode_cls_token": True, **MEAN}, normalize=False
    ),
    "truncate_dim": lambda folder: sentence_folder(
        folder, pooling=MEAN, truncate_dim=8, similarity_fn_name="dot"
    ),
    "dense": lambda folder: add_dense(
        sentence_folder(folder, pooling={"pooling_mode": ["cls", "lasttoken"]}),
        {"sizes": (64, 24), "bias": True, "activation_function": "torch.nn.GELU"},
        {"sizes": (24, 24), "use_residual": True}, {"sizes": (24, 4), "use_residual": True},
    ),
    "from the left": lambda folder: (
        edit_json(folder / "tokenizer_config.json", truncation_side="left", strip_accents=False),
        folder,
    )[1],
    "other sizes": lambda folder: make_bert_folder(
        folder.with_name("sizes"), num_hidden_layers=1, layer_norm_eps=1e-5, hidden_dropout_prob=0.3,
        type_vocab_size=1, max_position_embeddings=40,
    ),
}  # fmt: skip


def assert_round_trip(encoder, folder, **how):
    minqa.save(encoder, folder)
    again = minqa.load(folder, **how)
    assert_same(again.model, encoder.model)
    assert (again.pooling, again.prompts, again.default_prompt) == (
        encoder.pooling,
        encoder.prompts,
        encoder.default_prompt,
    )
    for role in ("query", "passage", None):
        for ours, theirs in zip(
            minqa.embed(again, TEXTS, role=role), minqa.embed(encoder, TEXTS, role=role), strict=True
        ):
            assert ours.tokens.keys == theirs.tokens.keys
            np.testing.assert_array_equal(ours.array, theirs.array)
            np.testing.assert_array_equal(ours.pooled, theirs.pooled)
    assert again.fingerprint == encoder.fingerprint
    return again


@pytest.mark.parametrize("make", FOLDERS.values(), ids=FOLDERS.keys())
def test_a_saved_bert_is_the_same(bert_folder, tmp_path, make):
    encoder = minqa.load(make(bert_folder))
    again = assert_round_trip(encoder, tmp_path / "new" / "folder")
    assert_round_trip(again, tmp_path / "new" / "folder")


@pytest.mark.parametrize(
    "lstm", [{}, {"use_skip_connections": False, "n_layers": 1, "cell_clip": 3}], ids=str
)
def test_a_saved_elmo_is_the_same(tmp_path, lstm):
    folder = make_elmo_folder(tmp_path / "elmo", lstm=lstm, char_cnn={"activation": "tanh", "n_highway": 1})
    assert_round_trip(minqa.load(folder), tmp_path / "saved")


def test_bfloat16_is_saved_as_it_is(bert_folder, tmp_path):
    encoder = minqa.load(bert_folder, dtype=jnp.bfloat16)
    minqa.save(encoder, tmp_path / "saved")
    again = minqa.load(tmp_path / "saved", dtype=jnp.bfloat16)
    assert_same(again.model, encoder.model)
    assert again.fingerprint == encoder.fingerprint


def test_what_was_trained_or_changed_is_what_is_saved(tiny, tmp_path):
    trained = replace(
        tiny,
        model=jax.tree.map(lambda parameter: parameter * 0.9, tiny.model),
        prompts={"query": "who "},
        pooling=minqa.Pooling(("max",), normalize=True, truncate_dim=5),
        layer=1,
    )
    again = minqa.load(minqa.save(trained, tmp_path) or tmp_path)
    assert again.fingerprint == trained.fingerprint != tiny.fingerprint
    assert (again.layer, again.statistics) == (-1, None), "which belong to a comparison"


@pytest.mark.parametrize("name", ["plain", "cased", "prompts", "modes", "truncate_dim", "dense"])
def test_sentence_transformers_reads_a_saved_bert(bert_folder, tmp_path, name):
    encoder = minqa.load(FOLDERS[name](bert_folder))
    minqa.save(encoder, tmp_path / "saved")
    expected = sentence_transformer(tmp_path / "saved").encode(TEXTS)
    np.testing.assert_allclose(minqa.pool(minqa.embed(encoder, TEXTS)), expected, atol=1e-5, rtol=0)


def test_the_real_model_is_saved(minilm, tmp_path):
    minqa.save(minilm, tmp_path)
    again = minqa.load(tmp_path)
    assert again.fingerprint == minilm.fingerprint
    assert_same(again.model, minilm.model)


def test_what_a_format_cannot_hold_is_refused(elmo_folder, tmp_path):
    """Rather than lost without a word."""
    encoder = minqa.load(elmo_folder)
    for changes in ({"prompts": {"query": "who "}}, {"pooling": minqa.Pooling(("max",))}):
        with pytest.raises(minqa.InputError, match="would be lost"):
            minqa.save(replace(encoder, **changes), tmp_path / "saved")


def test_a_colbert_is_not_saved(tmp_path):
    encoder = minqa.load(stanford_folder(tmp_path / "colbert", metadata={}))
    with pytest.raises(minqa.InputError, match="is a ColBERT, which can be loaded, but not saved"):
        minqa.save(encoder, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_model_of_no_known_kind_is_refused(tiny, tmp_path):
    own = replace(
        tiny, model=jax.tree_util.Partial(lambda table, ids, mask: table[ids][None], jnp.ones((102, 4)))
    )
    with pytest.raises(minqa.InputError, match="neither a BERT nor an ELMo"):
        minqa.save(own, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_folder_that_cannot_be_written_is_refused(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(minqa.InputError, match="cannot be written"):
        minqa.save(tiny, tmp_path / "file")
