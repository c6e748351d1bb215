"""Embedding against sentence-transformers, and what must not change a vector."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from conftest import VOCABULARY, edit_json, make_bert_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tokens import ANY_TEXT

import minqa
from minqa import demo
from minqa.embedding import batches, bucket, encode
from minqa.statistics import Measure

TEXTS = ["the theory of relativity", "who", "", "war, war: play played playing!", "a b c d e f g h " * 20]


def sentence_transformer(folder):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


def sentence_folder(folder, *, pooling, normalize=True, prompts=None, default=None):
    """Turn a BERT folder into one of sentence-transformers in its older form."""
    kinds = ["Transformer", "Pooling", "Normalize"][: 2 + normalize]
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, paths, strict=False))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling/config.json").write_text(json.dumps({"word_embedding_dimension": 32} | pooling))
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": 24, "do_lower_case": True})
    )
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": prompts or {}, "default_prompt_name": default})
    )
    return folder


def test_minilm_equals_sentence_transformers(minilm, leads):
    texts = [lead.text for lead in leads[:64]]
    expected = sentence_transformer(demo.model_folder()).encode(texts)
    np.testing.assert_allclose(minqa.pool(minqa.embed(minilm, texts)), expected, atol=1e-5, rtol=0)
    pooled = minqa.embed_pooled(minilm, minilm.tokenize(texts))
    np.testing.assert_allclose(pooled, expected, atol=1e-5, rtol=0)


POOLINGS = [
    ({"pooling_mode_mean_tokens": True}, True),
    ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, False),
    ({"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": False}, True),
    ({"pooling_mode_mean_sqrt_len_tokens": True, "pooling_mode_mean_tokens": False}, False),
    ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, True),
    ({"pooling_mode_mean_tokens": False}, False),
]


@pytest.mark.parametrize(("pooling", "normalize"), POOLINGS, ids=str)
def test_pooling_equals_sentence_transformers(bert_folder, pooling, normalize):
    folder = sentence_folder(bert_folder, pooling=pooling, normalize=normalize)
    expected = sentence_transformer(folder).encode(TEXTS)
    np.testing.assert_allclose(
        minqa.pool(minqa.embed(minqa.load(folder), TEXTS)), expected, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("include_prompt", [True, False])
def test_prompts_equal_sentence_transformers(bert_folder, include_prompt):
    folder = sentence_folder(
        bert_folder,
        pooling={"pooling_mode_mean_tokens": True, "include_prompt": include_prompt},
        prompts={"query": "who played: ", "document": "war ", "plain": "theory: "},
        default="plain",
    )
    theirs, ours = sentence_transformer(folder), minqa.load(folder)
    for role, expected in [
        ("query", theirs.encode_query(TEXTS)),
        ("passage", theirs.encode_document(TEXTS)),
        (None, theirs.encode(TEXTS)),
    ]:
        np.testing.assert_allclose(
            minqa.pool(minqa.embed(ours, TEXTS, role=role)), expected, atol=1e-5, rtol=0
        )


def test_what_sentence_transformers_6_writes_loads_the_same(bert_folder, tmp_path):
    folder = sentence_folder(bert_folder, pooling={"pooling_mode_max_tokens": True})
    theirs = sentence_transformer(folder)
    theirs.save_pretrained(str(tmp_path / "newer"))
    ours = minqa.load(tmp_path / "newer")
    assert ours.tokenizer.max_tokens == 24
    np.testing.assert_allclose(minqa.pool(minqa.embed(ours, TEXTS)), theirs.encode(TEXTS), atol=1e-5, rtol=0)


def test_a_plain_folder_is_pooled_by_the_mean(bert_folder):
    expected = sentence_transformer(bert_folder).encode(TEXTS)
    np.testing.assert_allclose(
        minqa.pool(minqa.embed(minqa.load(bert_folder), TEXTS)), expected, atol=1e-5, rtol=0
    )


def test_modules_that_are_not_supported_are_refused(bert_folder):
    folder = sentence_folder(bert_folder, pooling={"pooling_mode_lasttoken": True})
    with pytest.raises(minqa.InputError, match=r"pools by .*lasttoken; supported are mean, cls"):
        minqa.load(folder)
    modules = json.loads((folder / "modules.json").read_text())
    modules[2]["type"] = "sentence_transformers.models.Dense"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(minqa.InputError, match="chains Transformer, Pooling, Dense; supported"):
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


@given(st.lists(ANY_TEXT, min_size=1, max_size=6), st.randoms())
@settings(max_examples=30)
def test_batch_mates_and_order_change_nothing(either, texts, random):
    order = random.sample(range(len(texts)), len(texts))
    together = minqa.embed(either, [texts[i] for i in order])
    for place, i in enumerate(order):
        [alone] = minqa.embed(either, [texts[i]])
        assert together[place].tokens.text == alone.tokens.text
        np.testing.assert_allclose(together[place].array, alone.array, atol=1e-5, rtol=0)
        np.testing.assert_allclose(together[place].pooled, alone.pooled, atol=1e-5, rtol=0)


ODD_TEXTS = {
    "empty": "", "spaces": " \t\n ", "emoji": "👩‍🚀❤️🍕", "long": "theory " * 2000, "one word": "x" * 10000,
    "right to left": "שלום עולם مرحبا", "controls": "\x00\x07\x1b[31m", "surrogate": "a\ud800b",
    "special": "[CLS] [SEP] [PAD]",
}  # fmt: skip


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS.keys())
def test_odd_texts_embed(either, text):
    [query, odd] = minqa.embed(either, ["who", text])
    assert np.isfinite(odd.array).all() and np.isfinite(odd.pooled).all()
    assert odd.array.shape == (len(odd.tokens), 32)
    heat = minqa.heat_map(query, odd)
    assert heat.heat.shape == (len(odd.tokens.words),)
    minqa.heat_map(odd, query)
    minqa.heat_span(heat)


@given(ANY_TEXT)
@settings(max_examples=50)
def test_any_text_embeds_and_is_compared(either, text):
    [query, passage] = minqa.embed(either, ["who " + text, text])
    assert np.isfinite(passage.array).all()
    span = minqa.heat_span(minqa.heat_map(query, passage))
    assert span is None or passage.tokens.text[span.start : span.end] == span.text != ""


def test_layers_are_those_of_the_model(either):
    ids = either.tokenize(["the theory"])[0].ids[None]
    hidden = either.model(ids, np.ones(ids.shape[:2], bool)).hidden
    for layer in (0, 1, 2, -1, -3):
        [vectors] = minqa.embed(either, ["the theory"], measure=Measure((layer,)))
        np.testing.assert_allclose(vectors.array, hidden[layer, 0], atol=1e-5)
    for layer in (3, -4):
        with pytest.raises(minqa.InputError, match="has layers 0 to 2, but layer"):
            minqa.embed(either, ["the theory"], measure=Measure((layer,)))


def test_a_long_text_is_pooled_by_its_beginning_and_read_whole(tiny):
    [long, first, rest] = minqa.embed(tiny, ["theory " * 62 + "war", "theory " * 62, "war"])
    assert len(long.words) == 63
    np.testing.assert_allclose(long.array, np.concatenate([first.array, rest.array]), atol=1e-5)
    np.testing.assert_allclose(long.pooled, first.pooled, atol=1e-5)
    np.testing.assert_allclose(minqa.embed_pooled(tiny, [long.tokens])[0], first.pooled, atol=1e-5)


def test_a_words_vector_is_the_mean_of_its_tokens(either):
    [one] = minqa.embed(either, ["relativity, the played theory"])
    for number, vector in enumerate(one.words):
        np.testing.assert_allclose(vector, one.array[one.tokens.word == number].mean(0), atol=1e-6)


def test_no_texts_have_no_vectors(either):
    assert minqa.embed(either, []) == []


def test_gradients_flow_through_encode(either):
    ids = either.tokenize(["the theory"])[0].ids[None]
    mask = np.ones(ids.shape[:2], bool)

    def loss(model):
        vectors, pooled = encode(model, ids, mask, mask, layers=(2,), pooling=either.pooling)
        return (vectors**3).sum() + (pooled**3).sum()

    gradients = jax.tree.leaves(jax.grad(loss)(either.model))
    assert all(jnp.isfinite(gradient).all() for gradient in gradients)
    assert sum(float(jnp.abs(gradient).max()) > 0 for gradient in gradients) >= len(gradients) - 1


def test_lengths_fall_into_few_buckets():
    assert all(length <= bucket(length) < length + max(16, length / 4) for length in range(1, 513))
    assert len({bucket(length) for length in range(1, 513)}) == 16


@given(st.lists(st.integers(0, 512), max_size=80), st.sampled_from([256, 1000]))
def test_batches_hold_every_text_once_and_no_more_than_fits(lengths, budget):
    seen = []
    for rows, length in batches(lengths, {"cpu": budget, "accelerator": budget}):
        seen += rows
        assert all(lengths[row] <= length for row in rows) and length > 0
        assert len(rows).bit_count() == 1 and (len(rows) == 1 or len(rows) * length <= budget)
    assert sorted(seen) == list(range(len(lengths)))


def test_equal_encoders_share_a_fingerprint_and_others_do_not(tmp_path):
    folders = [make_bert_folder(tmp_path / name, seed=seed) for name, seed in [("a", 0), ("b", 0), ("c", 1)]]
    first, same, other = (minqa.load(folder).fingerprint for folder in folders)
    assert first == same != other
    assert minqa.load(folders[0], dtype=jnp.bfloat16).fingerprint != first
    changes = [
        lambda folder: edit_json(folder / "tokenizer_config.json", model_max_length=30),
        lambda folder: edit_json(folder / "config.json", layer_norm_eps=1e-6),
        lambda folder: sentence_folder(folder, pooling={"pooling_mode_mean_tokens": True}, normalize=False),
        lambda folder: sentence_folder(folder, pooling={"pooling_mode_max_tokens": True}, normalize=False),
        lambda folder: sentence_folder(folder, pooling={"pooling_mode_max_tokens": True}),
        lambda folder: sentence_folder(
            folder, pooling={"pooling_mode_max_tokens": True}, prompts={"query": "a"}
        ),
    ]
    seen = {first}
    for change in changes:
        change(folders[1])
        fingerprint = minqa.load(folders[1]).fingerprint
        assert fingerprint not in seen
        seen.add(fingerprint)


def test_vectors_without_a_pooled_one_are_not_left_out_in_silence(tiny):
    one, other = minqa.embed(tiny, ["the war", "a theory"])
    with pytest.raises(ValueError, match="have no pooled vector"):
        minqa.pool([one, replace(other, pooled=None)])
