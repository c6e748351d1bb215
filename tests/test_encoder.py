"""Encoders: one's own in one call, fingerprints that are never stale, prompts, words that weigh."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import edit_json, make_bert_folder, sentence_folder
from flax import nnx
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

import minqa
from minqa.batches import as_batch
from minqa.embedding import encode
from minqa.tokens import TextTokenizer

WORDS = ["[UNK]", "[CLS]", "the", "war", "of", "worlds", "theory", "?"]


def own_tokenizer(max_tokens=16):
    """Not BERT's: words are tokens, and nothing stands around them."""
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.enable_truncation(max_tokens)
    return TextTokenizer(backend, max_tokens)


@jax.tree_util.register_dataclass
@dataclass
class Bag:
    """A model of one's own: two layers, the second of which sees the text as a whole."""

    table: jax.Array
    mix: jax.Array

    def __call__(self, ids, mask):
        words = self.table[ids]
        real = jnp.where(mask[..., None], words, 0).sum(1, keepdims=True)
        return jnp.stack([words, jnp.tanh(words @ self.mix + real)])


class Net(nnx.Module):
    """Likewise, as a module whose output has the hidden states by name."""

    num_layers = 1

    def __init__(self, *, rngs):
        self.table = nnx.Param(jax.random.normal(rngs.params(), (len(WORDS), 8)))
        self.mix = nnx.Linear(8, 8, rngs=rngs)

    def __call__(self, ids, mask):
        words = self.table[...][ids]

        @dataclass
        class Output:
            hidden: jax.Array

        return jax.tree_util.register_dataclass(Output)(jnp.stack([words, self.mix(words)]))


def hidden_states_of(parameters, ids, mask):
    words = parameters["table"][ids]
    return jnp.stack([words, words @ parameters["mix"]])


def parameters(seed=0):
    first, second = jax.random.split(jax.random.key(seed))
    return {"table": jax.random.normal(first, (len(WORDS), 8)), "mix": jax.random.normal(second, (8, 8))}


MODELS = {
    "dataclass": lambda: Bag(**parameters()),
    "partial": lambda: jax.tree_util.Partial(hidden_states_of, parameters()),
    "module": lambda: Net(rngs=nnx.Rngs(0)),
}


@pytest.fixture(params=MODELS)
def own(request):
    return minqa.Encoder(MODELS[request.param](), own_tokenizer(), minqa.Pooling(("max",), normalize=True))


TEXTS = ["The war of worlds", "theory", "the theory of war?", "", "war " * 40]


def test_an_encoder_of_ones_own_embeds(own):
    vectors = minqa.embed(own, TEXTS)
    assert own.num_layers == own.layer_number == 1
    for text, one in zip(TEXTS, vectors, strict=True):
        ids = one.tokens.ids
        assert one.array.shape == (len(ids), 8) and one.tokens.text == text
        windows = np.split(ids, np.cumsum(one.tokens.windows)[:-1])
        output = [own.model(window[None], np.ones((1, len(window)), bool)) for window in windows]
        hidden = [np.asarray(getattr(states, "hidden", states))[:, 0] for states in output]
        np.testing.assert_allclose(one.array, np.concatenate([states[1] for states in hidden]), atol=1e-5)
        pooled = hidden[0][1].max(0) if len(ids) else np.zeros(8)
        expected = pooled / max(np.linalg.norm(pooled), 1e-12)
        np.testing.assert_allclose(one.pooled, expected, atol=1e-5)
    [zeroth] = minqa.embed(replace(own, layer=0), TEXTS[:1])
    hidden = own.model(zeroth.tokens.ids[None], np.ones((1, 4), bool))
    np.testing.assert_allclose(zeroth.array, getattr(hidden, "hidden", hidden)[0, 0], atol=1e-6)


def test_an_encoder_of_ones_own_is_all_that_the_chain_needs(own):
    encoder = minqa.calibrate(own, TEXTS)
    assert encoder.statistics.mean.shape == (2, 8) and encoder.fingerprint == own.fingerprint
    vectors = minqa.embed(replace(encoder, centring="z-score"), TEXTS)
    cosines, rows = minqa.match(vectors[0].pooled, minqa.pool(vectors), k=2)
    assert rows[0] == 0 and cosines[0] == pytest.approx(1, abs=1e-5)
    scores = minqa.rank(vectors[0], vectors)
    assert scores.argmax() == 0 and scores[0] == pytest.approx(1, abs=1e-5)
    heat = minqa.heat_map(vectors[1], vectors[2])
    assert minqa.heat_span(heat).text.startswith("theory")
    [listed] = minqa.embed(own, [["The", "war", "of", "worlds"]])
    np.testing.assert_allclose(listed.array, minqa.embed(own, TEXTS[:1])[0].array, atol=1e-6)
    [unknown] = own.tokenize(["the cat"])
    assert unknown.unknown.tolist() == [False, True]


def test_a_fingerprint_changes_with_any_parameter(own, tiny):
    for encoder in (own, tiny):
        leaves, tree = jax.tree.flatten(encoder.model)
        seen = {encoder.fingerprint}
        for i, leaf in enumerate(leaves):
            other = jnp.asarray(leaf).at[(0,) * leaf.ndim].add(1e-3)
            model = jax.tree.unflatten(tree, [*leaves[:i], other, *leaves[i + 1 :]])
            seen.add(replace(encoder, model=model).fingerprint)
        assert len(seen) == 1 + len(leaves)
        assert replace(encoder, model=jax.tree.unflatten(tree, leaves)).fingerprint == encoder.fingerprint


def test_models_of_different_kinds_differ_though_their_parameters_are_equal():
    models = [MODELS["dataclass"](), MODELS["partial"]()]
    assert len({minqa.Encoder(model, own_tokenizer()).fingerprint for model in models}) == 2


CHANGES = {
    "prompts": lambda encoder: {"prompts": {"query": "the "}},
    "another prompt": lambda encoder: {"prompts": {"document": "the "}},
    "default_prompt": lambda encoder: {"prompts": {"query": "the "}, "default_prompt": "query"},
    "modes": lambda encoder: {"pooling": minqa.Pooling(("cls",))},
    "normalize": lambda encoder: {"pooling": minqa.Pooling(normalize=True)},
    "include_prompt": lambda encoder: {"pooling": minqa.Pooling(include_prompt=False)},
    "truncate_dim": lambda encoder: {"pooling": minqa.Pooling(truncate_dim=5)},
    "similarity": lambda encoder: {"pooling": minqa.Pooling(similarity="dot")},
    "max_tokens": lambda encoder: {"tokenizer": replace(encoder.tokenizer, max_tokens=9)},
    "tokenizer": lambda encoder: {"tokenizer": own_tokenizer()},
    "dtype": lambda encoder: {"model": jax.tree.map(lambda leaf: leaf.astype("bfloat16"), encoder.model)},
}


def test_a_replaced_part_never_keeps_a_stale_fingerprint(either):
    seen = {either.fingerprint}  # computed, and kept, before anything is replaced
    for name, change in CHANGES.items():
        other = replace(either, **change(either))
        assert other.fingerprint not in seen, name
        seen.add(other.fingerprint)
        assert replace(other, layer=0, centring="mean", weights="none").fingerprint == other.fingerprint
    assert either.fingerprint in seen and len(seen) == 1 + len(CHANGES)


def test_equal_encoders_share_a_fingerprint_and_others_do_not(tmp_path):
    folders = [make_bert_folder(tmp_path / name, seed=seed) for name, seed in [("a", 0), ("b", 0), ("c", 1)]]
    first, same, other = (minqa.load(folder).fingerprint for folder in folders)
    assert first == same != other
    assert minqa.load(folders[0], dtype=jnp.bfloat16).fingerprint != first
    mean, most = {"pooling_mode_mean_tokens": True}, {"pooling_mode_max_tokens": True}
    changes = [
        lambda folder: edit_json(folder / "tokenizer_config.json", model_max_length=30),
        lambda folder: edit_json(folder / "config.json", layer_norm_eps=1e-6),
        lambda folder: sentence_folder(folder, pooling=mean, normalize=False),
        lambda folder: sentence_folder(folder, pooling=most, normalize=False),
        lambda folder: sentence_folder(folder, pooling=most),
        lambda folder: sentence_folder(folder, pooling=most, prompts={"query": "a"}),
        lambda folder: sentence_folder(folder, pooling=most, truncate_dim=7),
        lambda folder: sentence_folder(folder, pooling=most, truncate_dim=7, similarity_fn_name="dot"),
        lambda folder: edit_json(folder / "tokenizer_config.json", strip_accents=False),
    ]
    seen = {first}
    for change in changes:
        change(folders[1])
        fingerprint = minqa.load(folders[1]).fingerprint
        assert fingerprint not in seen
        seen.add(fingerprint)


def test_an_index_and_a_head_of_another_encoder_are_refused(tiny, tmp_path):
    """Of altered weights, and of another width."""
    from conftest import indexed

    index = indexed(tiny, ["the war", "a theory"], tmp_path / "index")
    assert tiny.fingerprint and len(index.passages) == 2
    altered = replace(tiny, model=jax.tree.map(lambda leaf: leaf * 1.001, tiny.model))
    wide = replace(tiny, model=minqa.load(make_bert_folder(tmp_path / "wide", hidden_size=64)).model)
    for other in (altered, wide, replace(tiny, prompts={"document": "a "})):
        with pytest.raises(minqa.InputError):
            minqa.open_index(tmp_path / "index", other)


def test_a_prompt_is_chosen_by_role(tiny):
    prompts = {"query": "q ", "document": "d ", "passage": "p ", "corpus": "c ", "other": "o "}
    encoder = replace(tiny, prompts=prompts, default_prompt="other")
    assert [encoder.prompt(role) for role in ("query", "passage", None)] == ["q ", "d ", "o "]
    del prompts["document"]
    assert replace(tiny, prompts=prompts).prompt("passage") == "p "
    empty = replace(tiny, prompts={"query": "", "document": "", "passage": "p "})
    assert (empty.prompt("query"), empty.prompt("passage"), empty.prompt(None)) == ("", "p ", "")


def test_a_prompt_without_room_for_a_text_is_refused_when_the_encoder_is_made(either):
    most = either.tokenizer.max_tokens
    with pytest.raises(minqa.InputError, match=f"prompt query .* leaves no room for a text: at most {most}"):
        replace(either, prompts={"document": "a ", "query": "war " * most})


@pytest.mark.parametrize("layer", [3, -4])
def test_a_layer_that_is_not_there_is_refused(either, layer):
    with pytest.raises(minqa.InputError, match="has layers 0 to 2, but layer"):
        replace(either, layer=layer).layer_number  # noqa: B018


def test_weights_are_1_in_sum_and_0_for_punctuation(either):
    encoder = minqa.calibrate(either, ["the war of the world", "the theory", "who, the war?"])
    [tokens, none, given] = encoder.tokenize(["the theory, relativity?", "?!", ["the", "", "war"]])
    weights = encoder.word_weights(tokens)
    assert weights.sum() == pytest.approx(1) and weights[[2, 4]].tolist() == [0, 0]
    assert weights[0] < weights[1] < weights[3], "the rarer the heavier"
    assert encoder.word_weights(none).tolist() == [0, 0]
    weights = encoder.word_weights(given)
    assert weights[1] == 0 < weights[0] < weights[2]
    uniform = replace(encoder, weights="none").word_weights(tokens)
    np.testing.assert_allclose(uniform, [1 / 3, 1 / 3, 0, 1 / 3, 0], rtol=1e-6)


def test_an_encoder_of_ones_own_is_trained_through_encode(own):
    batch = as_batch(own.tokenize(TEXTS[:3]))

    @jax.jit
    def loss(model):
        hidden, pooled = encode(model, batch, layers=(0, 1), pooling=own.pooling)
        return (hidden**2).sum() + pooled.sum()

    for gradient in jax.tree.leaves(jax.grad(loss)(own.model)):
        assert jnp.isfinite(gradient).all()
