"""ColBERT in three layouts: the vectors, scores and tokens are those of sentence-transformers."""

import json
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import edit_json, indexed, pylate_folder, rewrite, stanford_folder

import minqa
from minqa.ask import Results, ask
from minqa.files.colbert import InputWarning
from minqa.inside.compare import Reply, read
from minqa.text import Passage
from minqa.views.answers import notes

SETTINGS = "config_sentence_transformers.json"
QUERIES = ["who played the theory of relativity?", "war", "", "Naive, (1915)! - " * 9, "[MASK] war"]
PASSAGES = [
    "The theory of relativity, developed in 1915.",
    "war!",
    ",",
    "who played - " * 12,
    "a world war's play",
]


def oracle(folder):
    from sentence_transformers import MultiVectorEncoder

    return MultiVectorEncoder(str(folder), device="cpu")


def native_folder(folder, source, **changes):
    """What sentence-transformers writes of a ColBERT that it has read."""
    model = oracle(source)
    for name, value in changes.items():
        setattr(model[0], name, value)
    model.save_pretrained(str(folder))
    return folder


def both(path):
    """PyLate's folder in whose weights the authors' own layer stands too."""
    linear = {"linear.weight": np.ones((4, 32), np.float32)}
    rewrite(pylate_folder(path), lambda old: {f"bert.{name}": old[name] for name in old} | linear)
    return path


def native(change=lambda folder: folder, source=pylate_folder, **how):
    def make(path):
        folder = native_folder(path, source(path.with_name("source")), **how)
        change(folder)
        return folder

    return make


GELU = "torch.nn.modules.activation.GELU"
AT_LEAST = {"strategy": "min", "attend": True, "length": 12, "token": "[UNK]"}
STANFORD = {"": {}, "attended": {"attend_to_mask_tokens": True}, "punctuation": {"mask_punctuation": False}}
PYLATE = {
    "": {},
    "attended": {"attend_to_expansion_tokens": True, "skiplist_words": ["the", "@", "war"]},
    "no expansion": {"do_query_expansion": False},
    "prompts": {"prompts": {"query": "who: ", "document": "[D] a "}},
    "no markers": {"query_prefix": "", "document_prefix": ...},
    "unused": {"query_prefix": "[unused1]", "document_prefix": "[unused0] "},
    "before version 2": {"model_type": ..., "do_query_expansion": ...},
    "defaults": {"query_length": ..., "document_length": None, "skiplist_words": ...},
    "three layers": {
        "dense": ((32, 24), (24, 24), (24, 8)),
        "layer": {"bias": True, "use_residual": True, "activation_function": GELU},
    },
}
LAYOUTS = {
    **{f"stanford {how}": partial(stanford_folder, metadata=said) for how, said in STANFORD.items()},
    **{f"pylate {how}": partial(pylate_folder, **said) for how, said in PYLATE.items()},
    "pylate and stanford": both,
    "native": native(),
    "native, from stanford": native(source=partial(stanford_folder, metadata={})),
    "native, at least": native(query_expansion=AT_LEAST, query_length=20),
    "native, mean": native(lambda folder: edit_json(folder / SETTINGS, similarity_fn_name="meanmaxsim")),
    "native, skipped in queries": native(
        lambda folder: edit_json(
            folder / "2_MultiVectorMask/config.json", skiplist_tasks=["query", "document"]
        )
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_vectors_and_scores_are_the_original_s(tmp_path, layout):
    folder = LAYOUTS[layout](tmp_path / "model")
    theirs, ours = oracle(folder), minqa.load(folder)
    theirs_query, theirs_passages = theirs.encode_query(QUERIES), theirs.encode_document(PASSAGES)
    queries = minqa.embed(ours, QUERIES, role="query")
    passages = minqa.embed(ours, PASSAGES, role="passage")
    worst = 0
    for one, other in [
        *zip(queries, theirs_query, strict=True),
        *zip(passages, theirs_passages, strict=True),
    ]:
        counted = one.array[one.tokens.scored > 0]
        assert counted.shape == other.shape
        worst = max(worst, np.abs(counted - other.numpy()).max())
    expected = theirs.similarity(theirs_query, theirs_passages).numpy()
    scores = np.stack([minqa.rank(query, passages) for query in queries])
    heats = np.array([[minqa.heat_map(query, passage).score for passage in passages] for query in queries])
    assert worst < 1e-5
    np.testing.assert_allclose(scores, expected, atol=1e-5, rtol=0)
    np.testing.assert_allclose(heats, expected, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def colbert(tmp_path_factory):
    return minqa.load(stanford_folder(tmp_path_factory.mktemp("colbert") / "tiny", metadata={}))


def embed(encoder, query, passage):
    [first] = minqa.embed(encoder, [query], role="query")
    [second] = minqa.embed(encoder, [passage], role="passage")
    return first, second


@pytest.mark.parametrize("query", QUERIES)
def test_contributions_of_words_and_special_tokens_add_up_to_the_score(colbert, query):
    query, passage = embed(colbert, query, PASSAGES[0])
    heat = minqa.heat_map(query, passage)
    parts = np.append(heat.contributions, np.float32([part for _, part in heat.others]))
    assert np.float32(heat.score) == parts.sum()
    # Each token's is its highest similarity, and what is not compared is not in the map.
    scored = query.tokens.scored > 0
    best = np.where(scored, heat.token_similarity.max(1), 0)
    assert best.sum() == pytest.approx(heat.score, abs=1e-5)
    assert not np.isfinite(heat.token_similarity[:, passage.tokens.scored == 0]).any()
    for number, contribution in enumerate(heat.contributions):
        assert contribution == pytest.approx(best[query.tokens.word == number].sum(), abs=1e-5)
    names = [name for name, _ in heat.others]
    assert names[:3] == ["[CLS]", "[unused0]", "[SEP]"]
    masks = (~query.tokens.attended).sum()
    assert names[3:] == ([f"[MASK] × {masks}"] if masks > 1 else [])


def test_the_marker_stands_before_whatever_is_read(colbert):
    prompts = replace(colbert, prompts={"query": "who ", "document": "a "})
    for role, marker, prompt in (("query", 0, "who"), ("passage", 1, "a"), (None, 1, "")):
        for encoder, texts in ((colbert, ["theory"]), (prompts, [*prompt.split(), "theory"])):
            [tokens] = encoder.tokenize(["theory"], role)
            names = [encoder.tokenizer.backend.id_to_token(i) for i in tokens.ids.tolist()]
            assert names[: len(texts) + 3] == ["[CLS]", f"[unused{marker}]", *texts, "[SEP]"]
            assert tokens.word_texts == ["theory"]


def test_a_question_mark_counts_but_gives_no_word_its_heat(colbert):
    heat = minqa.heat_map(*embed(colbert, "who ?", "the war ? a theory of who"))
    assert heat.weights.tolist() == [1, 1] and heat.contributions[1] != 0
    assert set(heat.partners.tolist()) == {0, -1} and heat.partners[2] == -1


def test_the_end_of_a_long_text_is_not_compared_and_that_is_said(colbert):
    query, passage = embed(colbert, "who played " * 9 + "relativity", "war " * 40 + "relativity")
    assert query.tokens.scored.sum() == 16 and passage.tokens.scored.sum() == 24
    heat = minqa.heat_map(query, passage)
    assert heat.contributions[-1] == 0 and heat.weights[-1] == 0 and heat.heat[-1] == -np.inf
    [first] = read(colbert, query.tokens.text, [Passage("", passage.tokens.text)])
    said = notes(Reply(colbert, Results([first])), passages_too=True)
    assert [sentence.partition(" is longer than the ")[::2] for sentence in said] == [
        ("The query", f"16 tokens that {colbert.name} compares: the rest is left out."),
        ("The passage", f"24 tokens that {colbert.name} compares: the rest is left out."),
    ]


def test_a_text_s_vectors_do_not_depend_on_its_row(colbert):
    texts = [*QUERIES, *PASSAGES] * 3
    for role in ("query", "passage", None):
        for text, together in zip(texts, minqa.embed(colbert, texts, role=role), strict=True):
            [alone] = minqa.embed(colbert, [text], role=role)
            np.testing.assert_allclose(together.array, alone.array, atol=1e-5, rtol=0)
            np.testing.assert_allclose(together.pooled, alone.pooled, atol=1e-5, rtol=0)
            assert np.linalg.norm(alone.pooled) == pytest.approx(1, abs=1e-5)


def test_a_list_of_words_is_marked_too(colbert):
    for role in ("query", "passage"):
        [text], [listed] = (
            minqa.embed(colbert, [one], role=role)
            for one in ("the theory , war", ["the", "theory", ",", "war"])
        )
        np.testing.assert_array_equal(text.tokens.ids, listed.tokens.ids)
        np.testing.assert_array_equal(text.tokens.scored, listed.tokens.scored)
        assert text.tokens.word_texts == listed.tokens.word_texts


def test_a_look_inside_a_colbert(colbert):
    maps = minqa.attention(colbert, "the theory")
    assert maps.array.shape == (2, 4, 5, 5)  # the marker is read too
    assert minqa.units(colbert, "the theory").layers == (1, 2)
    assert minqa.units(colbert, "the theory", kind="hidden").layers == (0, 1, 2)
    moved = minqa.saliency(colbert, QUERIES[0], PASSAGES[0])
    assert moved.score == pytest.approx(
        minqa.heat_map(*embed(colbert, QUERIES[0], PASSAGES[0])).score, abs=1e-4
    )
    assert (len(moved.query_words), len(moved.passage_words)) == (7, 9)


def test_bfloat16(tmp_path, colbert):
    folder = stanford_folder(tmp_path / "model", metadata={})
    short = minqa.load(folder, dtype=jnp.bfloat16)
    [exact] = minqa.embed(colbert, ["a war"], role="query")
    with jax.numpy_dtype_promotion("standard"):  # flax's layer norm computes bfloat16 in float32
        [rounded] = minqa.embed(short, ["a war"], role="query")
    np.testing.assert_allclose(np.linalg.norm(rounded.array, axis=1), 1, atol=1e-5)
    assert np.abs(exact.array - rounded.array).max() < 0.1


def test_an_index_of_a_colbert_ranks_as_it_does(colbert, tmp_path):
    texts = [text for text in PASSAGES if text != "," and len(text) < 60]  # which are one passage each
    index = indexed(colbert, texts, tmp_path / "index", store_tokens=True)
    results = ask(colbert, QUERIES[0], index, k=3)
    vectors = minqa.embed(colbert, texts, role="passage")
    scores = minqa.rank(minqa.embed(colbert, QUERIES[:1], role="query")[0], vectors)
    assert [result.passage.text for result in results] == [texts[row] for row in np.argsort(-scores)]
    np.testing.assert_allclose([one.heat_map.score for one in results], np.sort(scores)[::-1], atol=0.1)
    with pytest.raises(minqa.InputError, match="layers 0 to 0"):
        ask(replace(colbert, layer=1), "who", index)


def test_what_is_read_changes_the_fingerprint(tmp_path):
    prints = set()
    for number, metadata in enumerate(
        [{}, {"query_maxlen": 20}, {"attend_to_mask_tokens": True}, {"mask_punctuation": False}]
    ):
        prints.add(minqa.load(stanford_folder(tmp_path / str(number), metadata=metadata)).fingerprint)
    assert len(prints) == 4


def test_without_artifact_metadata_the_usual_is_taken_and_said(tmp_path):
    folder = stanford_folder(tmp_path / "model", metadata=None)
    with pytest.warns(
        InputWarning, match="no artifact.metadata, so the markers are .*, and passages at most 64"
    ):
        ours = minqa.load(folder)
    theirs = oracle(folder)
    [query], [expected] = minqa.embed(ours, ["who"], role="query"), theirs.encode_query(["who"])
    assert expected.shape == (32, 16)
    np.testing.assert_allclose(query.array, expected, atol=1e-5, rtol=0)


def without_linear(path):
    folder = stanford_folder(path, metadata={})
    rewrite(folder, lambda old: {name: old[name] for name in old if name != "linear.weight"})
    return folder


def spoiled(name, content):
    def make(path):
        folder = stanford_folder(path, metadata={}) if "artifact" in name else pylate_folder(path)
        (folder / name).write_text(content)
        return folder

    return make


TOO_LONG = {"prompts": {"query": "a b c d e f g h i j k l m n o p"}}
MASK_ALONE = json.dumps([{"type": "a.Transformer", "path": ""}, {"type": "a.MultiVectorMask"}])
BROKEN = {
    "vocabulary of the tokenizer lacks the token '.Q2.', which marks": {"query_prefix": "[Q2] "},
    "vocabulary of the tokenizer lacks the token 'zzz'": partial(
        stanford_folder, metadata={"doc_token_id": "zzz"}
    ),
    "query_maxlen is '9', but must be a whole number": partial(
        stanford_folder, metadata={"query_maxlen": "9"}
    ),
    "in_features is 20 and out_features 8, but 24 numbers come in": {"dense": ((32, 24), (20, 8))},
    "activation_function is Softmax; supported are": {"layer": {"activation_function": "torch.nn.Softmax"}},
    "dense.0.linear.weight is missing": without_linear,
    "1_Dense/config.json cannot be read": spoiled("1_Dense/config.json", "{"),
    "artifact.metadata cannot be read": spoiled("artifact.metadata", "{"),
    "similarity is 'l2', but only 'cosine' is supported": partial(
        stanford_folder, metadata={"similarity": "l2"}
    ),
    "strategy is 'max', but only 'fixed', 'min' are": {"query_expansion": {"strategy": "max"}},
    "query_length is 3, but must be a whole number above 3": {"query_length": 3},
    "document_prefix is 3, but must be a string": {"document_prefix": 3},
    "skiplist_words is 'the', but must be a list": {"skiplist_words": "the"},
    "query_expansion is 3, but must be an object": {"query_expansion": 3},
    "query is 3, but a string is needed": {"prompts": {"query": 3}},
    "chains Transformer, MultiVectorMask; supported": spoiled("modules.json", MASK_ALONE),
    "The prompt query of .* leaves no room": TOO_LONG,
    "holds a cross-encoder": {"model_type": "CrossEncoder"},
}


@pytest.mark.parametrize("sentence", BROKEN)
def test_a_broken_colbert_is_refused_in_one_sentence(tmp_path, sentence):
    make = BROKEN[sentence]
    folder = make(tmp_path / "model") if callable(make) else pylate_folder(tmp_path / "model", **make)
    with pytest.raises(minqa.InputError, match=sentence) as error:
        minqa.load(folder)
    assert "\n" not in str(error.value)
