"""Embedding against sentence-transformers, and what must not change a vector."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from conftest import add_dense, rewrite, sentence_folder, sentence_transformer
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tokens import ANY_TEXT

import minqa
from minqa import embedding
from minqa.batches import as_batch
from minqa.embedding import embed_each, encode, hidden_states, word_means
from minqa.files.loading import DEMO_MODEL, model_folder
from minqa.tokens import tokens_of_words

TEXTS = ["the theory of relativity", "who", "", "war, war: play played playing!", "a b c d e f g h " * 20]


def test_minilm_equals_sentence_transformers(minilm, leads):
    texts = [lead.text for lead in leads[:32]]
    expected = sentence_transformer(model_folder(DEMO_MODEL)).encode(texts)
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
    ({"pooling_mode": "cls"}, True),
    ({"pooling_mode": ["mean", "cls"]}, True),
    ({"pooling_mode": ["max", "mean", "mean_sqrt_len_tokens"]}, False),
    ({"pooling_mode_mean_tokens": False, "pooling_mode_weightedmean_tokens": True}, False),
    ({"pooling_mode_lasttoken": True, "pooling_mode_weightedmean_tokens": True}, True),
    ({"pooling_mode": ["lasttoken", "cls", "weightedmean"]}, False),
]


@pytest.mark.parametrize(("pooling", "normalize"), POOLINGS, ids=str)
def test_pooling_equals_sentence_transformers(bert_folder, pooling, normalize):
    folder = sentence_folder(bert_folder, pooling=pooling, normalize=normalize)
    expected = sentence_transformer(folder).encode(TEXTS)
    np.testing.assert_allclose(
        minqa.pool(minqa.embed(minqa.load(folder), TEXTS)), expected, atol=1e-5, rtol=0
    )


TANH = "torch.nn.modules.activation.Tanh"
DENSE = {
    "one": [{"sizes": (32, 8), "bias": True, "activation_function": TANH}],
    "of sentence level": [
        {"sizes": (32, 32), "module_input_name": "sentence_embedding", "use_residual": True}
    ],
    "three": [
        {"sizes": (32, 40), "activation_function": "torch.nn.modules.activation.ReLU", "use_residual": True},
        {"sizes": (40, 40), "activation_function": "torch.nn.modules.activation.SiLU", "bias": True},
        {"sizes": (40, 5), "activation_function": "torch.nn.modules.activation.Sigmoid"},
    ],
}


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("layers", DENSE.values(), ids=DENSE.keys())
def test_dense_layers_after_pooling_equal_sentence_transformers(bert_folder, layers, normalize):
    folder = add_dense(sentence_folder(bert_folder, pooling={}, normalize=normalize, truncate_dim=4), *layers)
    expected, ours = sentence_transformer(folder).encode(TEXTS), minqa.load(folder)
    np.testing.assert_allclose(minqa.pool(minqa.embed(ours, TEXTS)), expected, atol=1e-5, rtol=0)
    assert ours.num_layers == 2 and minqa.embed(ours, ["war"])[0].array.shape == (3, 32)


@pytest.mark.parametrize("mode", ["mean", "weightedmean", "lasttoken"])
@pytest.mark.parametrize("include_prompt", [True, False])
def test_prompts_equal_sentence_transformers(bert_folder, include_prompt, mode):
    folder = sentence_folder(
        bert_folder,
        pooling={"pooling_mode": mode, "include_prompt": include_prompt},
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
        [vectors] = minqa.embed(replace(either, layer=layer), ["the theory"])
        np.testing.assert_allclose(vectors.array, hidden[layer, 0], atol=1e-5)
    for layer in (3, -4):
        with pytest.raises(minqa.InputError, match="has layers 0 to 2, but layer"):
            minqa.embed(replace(either, layer=layer), ["the theory"])


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
    [tokens] = either.tokenize(["the theory"])
    batch = as_batch([tokens])

    def loss(model):
        vectors, pooled = encode(model, batch, layers=(2,), pooling=either.pooling)
        return (vectors**3).sum() + (pooled**3).sum()

    gradients = jax.tree.leaves(jax.device_get(jax.jit(jax.grad(loss))(either.model)))
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert sum(np.abs(gradient).max() > 0 for gradient in gradients) >= len(gradients) - 1


def test_one_pass_of_the_model_gives_every_layer(either, monkeypatch):
    texts = ["the theory of relativity", "war", "theory " * 90]
    either = minqa.calibrate(either, texts)
    views = [either, replace(either, layer=0), replace(either, layer=1, centring="z-score", weights="none")]
    expected = [minqa.embed(view, texts) for view in views]
    passes, run = [], embedding.run_model
    monkeypatch.setattr(embedding, "run_model", lambda *a, **b: passes.append(a) or run(*a, **b))
    minqa.embed(either, texts)
    once = len(passes)
    together = embed_each(views, texts)
    assert len(passes) == 2 * once
    for ours, theirs in zip(together, expected, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one.array, other.array, atol=1e-6)
            np.testing.assert_allclose(one.pooled, other.pooled, atol=1e-6)
            np.testing.assert_array_equal(one.weights, other.weights)
            assert (one.baseline, one.identical) == (other.baseline, other.identical)


def test_a_key_turns_dropout_on(tiny):
    texts = ["the theory of relativity", "war"]
    first, again, other = (minqa.embed(tiny, texts, key=jax.random.key(seed)) for seed in (0, 0, 1))
    plain = minqa.embed(tiny, texts)
    for one, two, three, four in zip(first, again, other, plain, strict=True):
        np.testing.assert_array_equal(one.array, two.array)
        assert np.abs(one.array - three.array).max() > 0.01
        assert np.abs(one.array - four.array).max() > 0.01
        assert np.abs(one.pooled - four.pooled).max() > 0.001


def test_progress_is_told(either):
    tokens = either.tokenize(["the theory", "war", "", "theory " * 90])
    for work in (
        lambda done: minqa.embed_pooled(either, tokens, progress=done),
        lambda done: hidden_states(either, tokens, (0,), progress=done),
    ):
        done = []
        work(done.append)
        assert sum(done) == 4


@pytest.mark.parametrize("mode", ["mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"])
def test_a_text_without_tokens_is_pooled_to_numbers(either, mode):
    pooling = minqa.Pooling((mode,))
    texts = ["", "war", " "]
    vectors = minqa.embed(replace(either, pooling=pooling), texts)
    assert np.isfinite(minqa.pool(vectors)).all()


WORD_LISTS = [["Who", "played", "?"], ["relativity-theory,", "", "New York", "!"], [], ["war"] * 150]


def test_lists_of_words_are_embedded_word_by_word(either):
    for words, vectors in zip(WORD_LISTS, minqa.embed(either, WORD_LISTS, role="passage"), strict=True):
        assert vectors.words.shape == (len(words), 32) and vectors.tokens.word_texts == words
        assert vectors.weights.shape == (len(words),)
        assert (vectors.weights[~vectors.tokens.is_word] == 0).all()
        for number, vector in enumerate(vectors.words):
            rows = vectors.array[vectors.tokens.word == number]
            np.testing.assert_allclose(vector, rows.mean(0) if len(rows) else np.zeros(32), atol=1e-6)
    [second] = minqa.embed(either, WORD_LISTS[1:2])
    assert second.weights.tolist() == [0.5, 0, 0.5, 0] and not second.words[1].any()


@given(st.lists(st.sampled_from(["who", "played", "the", "theory", "war", "caf", "naive"]), max_size=20))
@settings(max_examples=20)
def test_a_list_of_plain_words_has_the_vectors_of_the_text(either, words):
    listed, joined = minqa.embed(either, [words, " ".join(words)])
    np.testing.assert_allclose(listed.array, joined.array, atol=1e-5)
    np.testing.assert_allclose(listed.words, joined.words, atol=1e-5)
    np.testing.assert_allclose(listed.pooled, joined.pooled, atol=1e-5)
    np.testing.assert_array_equal(listed.weights, joined.weights)


def test_the_mean_of_a_words_tokens_of_any_shape():
    rng = np.random.default_rng(0)
    of_tokens = {name: np.array([-1, 0, 0, 2, -1, 2, 2], np.int32) for name in ("word", "ids", "types")}
    tokens = replace(tokens_of_words(["a", "b", "c"]), **of_tokens)
    for shape in ((7, 5), (7, 2, 3), (7,)):
        array = rng.normal(size=shape).astype(np.float32)
        means = word_means(array, tokens)
        expected = [array[[1, 2]].mean(0), np.zeros(shape[1:]), array[[3, 5, 6]].mean(0)]
        assert means.dtype == np.float32
        np.testing.assert_allclose(means, expected, atol=1e-6)


def test_vectors_from_elsewhere():
    array = np.float32([[1, 0], [0, 2], [3, 4]])
    vectors = minqa.Vectors.of(["Fox", "ran", "!"], array)
    assert vectors.tokens.word_texts == ["Fox", "ran", "!"] and vectors.weights.tolist() == [0.5, 0.5, 0]
    np.testing.assert_array_equal(vectors.words, array)
    assert vectors.pooled is None and (vectors.baseline, vectors.identical) == (0, 1)
    heat = minqa.heat_map(minqa.Vectors.of(["fox"], np.float64([[3, 4]])), vectors)
    np.testing.assert_allclose(heat.word_similarity, [[0.6, 0.8, 1]], atol=1e-6)
    assert heat.score == pytest.approx(0.8) and minqa.heat_span(heat).text == "Fox ran"
    scores = minqa.rank(
        minqa.Vectors.of(["fox"], [[3, 4]]), [vectors, minqa.Vectors.of([], np.zeros((0, 2)))]
    )
    assert scores[0] == pytest.approx(0.8) and scores[1] == -np.inf
    page = heat._repr_html_()  # and looked at, word by word
    assert (
        all(word in page for word in ("fox", "Fox", "ran")) and minqa.heat_sentence(heat).text == "Fox ran !"
    )
    for words, wrong in ((["a"], array), (["a"], array[0]), (["a", "b"], array[None])):
        with pytest.raises(ValueError, match=r"words need an array \[word, dim\], not"):
            minqa.Vectors.of(words, wrong)


def test_numbers_that_are_not_finite_are_refused(bert_folder, elmo_folder):
    """The weights are finite; what is computed with them is not."""
    rewrite(
        bert_folder,
        lambda tensors: tensors | {"embeddings.word_embeddings.weight": np.full((102, 32), 3e38, np.float32)},
    )
    encoder = minqa.load(bert_folder)
    for work in (
        lambda: minqa.embed(encoder, ["war"]),
        lambda: minqa.embed(replace(encoder, layer=0), ["war", "theory"]),
        lambda: minqa.embed_pooled(encoder, encoder.tokenize(["war"])),
        lambda: minqa.calibrate(encoder, ["war", "theory"]),
    ):
        with pytest.raises(minqa.InputError, match="not finite") as error:
            work()
        assert "\n" not in str(error.value)


def test_a_number_that_is_not_finite_at_the_layer_alone_is_refused(bert_folder):
    """The last layer's norm makes numbers of what overflows before it."""

    def spoil(tensors):
        weight = np.array(tensors["embeddings.LayerNorm.weight"])
        weight[0] = 3e38
        return tensors | {"embeddings.LayerNorm.weight": weight * np.float32(1)}

    rewrite(bert_folder, spoil)
    encoder = minqa.load(bert_folder)
    with pytest.raises(minqa.InputError, match="not finite"):
        minqa.embed(replace(encoder, layer=0), ["war of the world " * 5])


SETTINGS_OF_POOLING = [
    {"truncate_dim": 8},
    {"truncate_dim": 8, "similarity_fn_name": "dot"},
    {"truncate_dim": 1000},
    {"similarity_fn_name": "dot"},
    {"similarity_fn_name": "euclidean"},
    {"similarity_fn_name": "manhattan"},
    {"similarity_fn_name": "cosine"},
    {"similarity_fn_name": None, "truncate_dim": None},
    {"similarity_fn_name": "manhattan", "truncate_dim": 3},
]


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("configured", SETTINGS_OF_POOLING, ids=str)
def test_truncation_and_order_equal_sentence_transformers(bert_folder, configured, normalize):
    pooling = {"pooling_mode_mean_tokens": True}
    folder = sentence_folder(bert_folder, pooling=pooling, normalize=normalize, **configured)
    texts = [*TEXTS, "theory of war", "who played", "relativity, world war", "naive"]
    ours, theirs = minqa.load(folder), sentence_transformer(folder)
    vectors, expected = minqa.pool(minqa.embed(ours, texts)), theirs.encode(texts)
    np.testing.assert_allclose(vectors, expected, atol=1e-5, rtol=0)
    np.testing.assert_allclose(minqa.embed_pooled(ours, ours.tokenize(texts)), expected, atol=1e-5, rtol=0)
    similarities = theirs.similarity(expected, expected).numpy()
    scores, rows = minqa.match(vectors, vectors, k=len(texts), similarity=ours.pooling.compare)
    for i in range(len(texts)):
        np.testing.assert_allclose(scores[i], similarities[i][rows[i]], atol=1e-3, rtol=1e-4)
        others = [row for row in np.asarray(rows[i]).tolist() if row != i]
        assert others == [row for row in np.argsort(-similarities[i], kind="stable").tolist() if row != i]


def test_vectors_without_a_pooled_one_are_not_left_out_in_silence(tiny):
    one, other = minqa.embed(tiny, ["the war", "a theory"])
    with pytest.raises(ValueError, match="have no pooled vector"):
        minqa.pool([one, replace(other, pooled=None)])
