"""Question-answering checkpoints against transformers' PyTorch and the classic rule by brute force."""

import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
import torch
import transformers
from conftest import edit_json, make_bert_folder, rewrite

import minqa
from minqa.answers.overall import SPANS_PER_PASSAGE, Trust, overall
from minqa.answers.reader import answer, load_reader, read_pairs
from minqa.answers.spans import Answerer, span_loss
from minqa.batches import as_batch, pad

QUESTION = "Who developed the theory?"
PASSAGE = "the naïve theory of relativity, a café's war; 42 developers of world-war theories (played) it. "


@pytest.fixture(scope="module", params=[0, 1])
def folder(request, tmp_path_factory):
    return make_bert_folder(
        tmp_path_factory.mktemp("reader"), seed=request.param, kind=transformers.BertForQuestionAnswering
    )


def oracle(folder):
    return transformers.BertForQuestionAnswering.from_pretrained(folder).eval()


def run_oracle(folder, **inputs):
    with torch.no_grad():
        output = oracle(folder)(**{name: torch.tensor(array).long() for name, array in inputs.items()})
    return np.stack([output.start_logits.numpy(), output.end_logits.numpy()])


@pytest.mark.parametrize(
    "sizes", [{}, dict(num_attention_heads=2, hidden_size=20, num_hidden_layers=5)], ids=str
)
def test_logits_equal_pytorch(tmp_path, sizes):
    folder = make_bert_folder(tmp_path, seed=3, kind=transformers.BertForQuestionAnswering, **sizes)
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 90, (3, 40)).astype(np.int32)
    mask = np.arange(40)[None] < np.array([[40], [17], [5]])
    types = (np.arange(40)[None] > np.array([[12], [6], [2]])).astype(np.int32)
    expected = run_oracle(folder, input_ids=ids, attention_mask=mask, token_type_ids=types)
    logits = np.stack(load_reader(folder).model(ids, mask, types))
    np.testing.assert_allclose(logits[:, mask], expected[:, mask], atol=1e-4, rtol=0)
    assert np.abs(expected).max() > 1, "logits large enough to tell"


def classic(folder, passage, *, window, overlap, k, max_length):
    """Start plus end, the end not before the start, no longer than allowed, in the passage; and no answer."""
    tokenizer = transformers.BertTokenizerFast.from_pretrained(folder)
    encoded = tokenizer(
        QUESTION, passage, max_length=window, stride=overlap, truncation="only_second",
        return_overflowing_tokens=True, return_offsets_mapping=True,
    )  # fmt: skip
    words = {}
    for i in range(len(encoded["input_ids"])):
        for word, part, (start, end) in zip(
            encoded.word_ids(i), encoded.sequence_ids(i), encoded["offset_mapping"][i], strict=True
        ):
            if part == 1:
                before = words.get(word, (start, end))
                words[word] = min(start, before[0]), max(end, before[1])
    best, none = {}, np.inf
    for i, ids in enumerate(encoded["input_ids"]):
        types = encoded["token_type_ids"][i]
        (start,), (end,) = run_oracle(
            folder, input_ids=[ids], token_type_ids=[types], attention_mask=[[1] * len(ids)]
        )
        none = min(none, start[0] + end[0])
        for first in range(len(ids)):
            for last in range(first, min(len(ids), first + max_length)):
                if all(part == 1 for part in encoded.sequence_ids(i)[first : last + 1]):
                    place = (words[encoded.word_ids(i)[first]][0], words[encoded.word_ids(i)[last]][1])
                    best[place] = max(best.get(place, -np.inf), start[first] + end[last])
    return sorted(best.items(), key=lambda item: (-item[1], item[0]))[:k], none, len(encoded["input_ids"])


@pytest.mark.parametrize(("length", "max_length"), [(1, 1), (5, 4)])
def test_answers_follow_the_classic_rule(folder, length, max_length):
    passages = [PASSAGE * length, "theory"]
    reader = load_reader(folder, window=40)
    answers = answer(reader, QUESTION, passages, k=6, max_length=max_length, overlap=9, no_answer=False)
    for passage, spans in zip(passages, answers, strict=True):
        expected, none, windows = classic(folder, passage, window=40, overlap=9, k=6, max_length=max_length)
        assert windows > 5 if length > 1 and passage != "theory" else windows < 4
        np.testing.assert_allclose(
            [span.score for span in spans], [score for _, score in expected], atol=1e-4
        )
        assert [(span.start, span.end) for span in spans] == [place for place, _ in expected]
        assert all(span.text == passage[span.start : span.end] for span in spans)
        [better] = answer(reader, QUESTION, [passage], k=6, max_length=max_length, overlap=9)
        assert len(better) == sum(score > none for _, score in expected)


def test_probabilities_are_those_of_one_softmax_over_all_spans_and_none(folder):
    reader = load_reader(folder)
    [spans] = answer(reader, QUESTION, ["a café war"], k=100, no_answer=False)
    expected, none, _ = classic(folder, "a café war", window=64, overlap=9, k=100, max_length=30)
    assert len(spans) == len(expected) == 6
    powers = np.exp([*(score for _, score in expected), none])
    probabilities = [span.probability for span in spans]
    np.testing.assert_allclose(probabilities, powers[:-1] / powers.sum(), rtol=1e-3)


def test_a_reader_is_an_answerer_for_every_encoder(folder, tiny):
    reader = load_reader(folder)
    assert isinstance(reader, Answerer) and reader.layer is None
    reader.check_encoder(tiny)
    texts = [PASSAGE, "theory", "", "war " * 90]
    [question], passages = minqa.embed(tiny, [QUESTION]), minqa.embed(tiny, texts)
    scores, cosines = [0.5, 0.4, -0.1, 0.3], [0.1, 0.3, 0.0, 0.2]
    found = reader.answers(question, passages, scores, cosines)
    every = answer(reader, QUESTION, texts, k=SPANS_PER_PASSAGE, no_answer=False)
    assert found == overall(every, scores, cosines, Trust())
    altered = replace(reader, model=load_reader(folder, dtype="bfloat16").model)
    assert replace(reader, name="another name").fingerprint == reader.fingerprint != altered.fingerprint


def test_readers_of_one_tokenizer_do_not_disturb_each_other(folder):
    """Truncation is part of a tokenizer's state."""
    reader = load_reader(folder, window=40)
    before = reader.tokenizer([PASSAGE * 3])[0]
    first = answer(reader, QUESTION, [PASSAGE * 3], overlap=9)
    answer(reader, "who " * 25, [PASSAGE * 3], overlap=30)
    assert answer(reader, QUESTION, [PASSAGE * 3], overlap=9) == first
    assert reader.tokenizer([PASSAGE * 3])[0].windows == before.windows


def test_a_tokenizer_that_truncates_at_the_left_gives_the_same_answers(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "left")
    edit_json(tmp_path / "left" / "tokenizer_config.json", truncation_side="left")
    left, right = load_reader(tmp_path / "left", window=40), load_reader(folder, window=40)
    texts = [PASSAGE * 3, "theory"]
    assert answer(left, QUESTION, texts, k=9, overlap=9) == answer(right, QUESTION, texts, k=9, overlap=9)


def test_a_reader_is_trained_under_ones_own_jit(folder):
    """On a passage that fits one window: the loss of the marked words falls, dropout included."""
    reader = load_reader(folder)
    [tokens] = read_pairs(reader.tokenizer, QUESTION, ["a café war"])
    batch = as_batch([tokens])
    mask = pad(tokens.word >= 0, batch.ids.shape[1])[None]
    first, target = int(np.flatnonzero(mask[0])[-1]), np.zeros((*mask.shape, 4), np.float32)
    target[0, first, 0] = 1

    @jax.jit
    def loss(model, key=None):
        start, end = model(*batch[:4], key=key)
        return span_loss(start, end, start[:, 0] + end[:, 0], mask, target)

    @jax.jit
    def step(model, key):
        gradients = jax.grad(loss)(model, key)
        return jax.tree.map(lambda leaf, slope: leaf - 0.005 * slope, model, gradients)

    model = reader.model
    for number in range(30):
        model = step(model, jax.random.key(number))
    assert float(loss(model)) < 0.5 * float(loss(reader.model))
    [[span]] = answer(replace(reader, model=model), QUESTION, ["a café war"])
    assert span.text == "war"


def test_empty_texts(folder):
    reader = load_reader(folder)
    assert answer(reader, QUESTION, []) == []
    assert answer(reader, "", ["", "war"], no_answer=False)[0] == []


def test_what_cannot_be_read_is_told(folder, tmp_path):
    with pytest.raises(
        minqa.InputError, match=r"The question is too long: at most 64 tokens are read at once"
    ):
        answer(load_reader(folder), "war " * 70, [PASSAGE])
    with pytest.raises(minqa.InputError, match=r"qa_outputs\.weight is missing"):
        load_reader(make_bert_folder(tmp_path / "plain"))
    other = make_bert_folder(tmp_path / "other", kind=transformers.BertForQuestionAnswering)
    edit_json(other / "config.json", hidden_act="silu")
    with pytest.raises(minqa.InputError, match=r"hidden_act is 'silu'"):
        load_reader(other)
    single = make_bert_folder(
        tmp_path / "single", kind=transformers.BertForQuestionAnswering, type_vocab_size=1
    )
    with pytest.raises(
        minqa.InputError, match=r"cannot tell a question from a passage: its type_vocab_size is 1"
    ):
        load_reader(single)
    extra = make_bert_folder(tmp_path / "extra", kind=transformers.BertForQuestionAnswering)
    rewrite(extra, lambda tensors: tensors | {"qa_outputs.scale": tensors["qa_outputs.bias"].copy()})
    with pytest.raises(minqa.InputError, match=r"qa_outputs\.scale is unknown"):
        load_reader(extra)
