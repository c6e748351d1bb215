"""Word alignment on matrices made by hand, and the figures on the Edinburgh pairs."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import minqa
from minqa.answers.overall import Answer
from minqa.ask import Result, Results
from minqa.inside.align import align, alignment_encoder
from minqa.spans import Span
from minqa.text import Passage
from minqa.tokens import tokens_of_words

ROOT = Path(__file__).parents[2]
MATRICES = st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.integers(-8, 8).map(lambda eighths: eighths / 8))
)


def map_with(similarity):
    query, passage = (tokens_of_words(["w"] * size) for size in similarity.shape)
    weights = np.full(len(similarity), 1 / len(similarity), np.float32)
    return minqa.HeatMap(query, passage, similarity, similarity, weights, weights, 0.0)


@pytest.fixture(scope="module")
def quality():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        yield importlib.import_module("benchmarks.quality")


@given(similarity=MATRICES)
def test_mutual_pairs_are_each_others_best(quality, similarity):
    pairs = np.argwhere(quality.mutual(similarity)).tolist()
    for i, j in pairs:
        assert similarity[i, j] == similarity[i].max() == similarity[:, j].max()
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    assert [*np.unravel_index(similarity.argmax(), similarity.shape)] in pairs


def test_neighbours_decide_between_equals_and_leave_strangers_alone(quality):
    # "the fox the dog" twice: either "the" fits either, the words after them tell which.
    similarity = np.array([[0.9, 0, 0.9, 0], [0, 0.9, 0, 0], [0.9, 0, 0.9, 0], [0, 0, 0, 0.9]], np.float32)
    assert align(map_with(similarity)) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert align(map_with(np.full((3, 3), 0.1, np.float32))) == []
    assert align(map_with(np.array([[0.9]], np.float32))) == [(0, 0)]
    one_to_two = np.array([[0.8, 0.8]], np.float32)
    assert quality.mutual(one_to_two).sum() == 1


def test_without_words_there_are_no_pairs(either):
    for texts in (["", "the theory"], ["the theory", ""], ["", ""]):
        assert align(minqa.heat_map(*minqa.embed(either, texts))) == []


def test_the_middle_layer_is_taken(tiny):
    encoder = alignment_encoder(tiny)
    assert encoder == replace(tiny, layer=1, centring="z-score")
    with pytest.raises(minqa.InputError, match="needs the statistics of a corpus"):
        minqa.embed(encoder, ["the theory"])


def test_unknown_words_align_only_with_words_spelled_the_same(tiny):
    texts = ["the แมว played หมา", "the หมา played แมว", "a war"]
    encoder = alignment_encoder(minqa.calibrate(tiny, texts))
    cat_dog, dog_cat, _ = minqa.embed(encoder, texts)
    assert cat_dog.tokens.unknown.tolist() == [False, True, False, True]
    assert align(minqa.heat_map(cat_dog, cat_dog)) == [(i, i) for i in range(4)]
    # All four are [UNK] to the model, and by place and neighbours each resembles the other word most.
    similarity = minqa.cosine(cat_dog.words, dog_cat.words)
    assert align(map_with(np.asarray(similarity))) == [(i, i) for i in range(4)]
    assert not {(1, 1), (3, 3)} & {*align(minqa.heat_map(cat_dog, dog_cat))}


def test_alignment_reaches_its_figure(minilm, quality, leads):
    path = ROOT.parent / "shared" / "data" / "alignment" / "edinburgh-train.json"
    if not path.is_file():
        pytest.skip("../shared/data/alignment is not there")
    pairs = json.loads(path.read_text("utf-8"))
    encoder = alignment_encoder(minqa.calibrate(minilm, [lead.text for lead in leads[:256]]))
    rows = {row[0]: row[1:] for row in quality.alignment(pairs, [encoder])}
    f1 = {name.split(",")[0]: float(figures[-1]) for name, figures in rows.items()}
    assert f1["neighbours"] >= 87.4
    assert f1["mutual"] >= 86.3
    assert 79 < f1["the same string"] < 80.5


def test_the_scores_of_pairs_and_ranks(quality):
    assert quality.precision_recall([{(0, 0), (1, 2)}], [{(0, 0), (1, 1), (2, 2)}]) == (
        "50.0",
        "33.3",
        "40.0",
    )
    assert quality.reciprocal_ranks(np.array([[3, 1], [0, 2]]), np.array([1, 5])) == ("0.0", "50.0", "0.250")
    assert quality.holds(0, 9, "the U.S. x", [("U.S.", 4)]) == (True, True)
    assert quality.holds(0, 9, "in 19735 x", [("1973", 20)]) == (False, False)
    assert quality.string_match("a b a", "a b a") == {(0, 0), (1, 1), (2, 2)}


def test_questions_of_ones_own(quality, tmp_path):
    path, line = tmp_path / "questions.jsonl", '{"question": "Who?", "answers": ["Bohr"], "titles": ["Bohr"]}'
    path.write_text(f'{line}\n{{"question": "What?", "answers": []}}\n')
    who, what = questions = quality.read_questions(path)
    assert who == ("Who?", ["Bohr"], ["Bohr"]) and what == ("What?", [], [])
    wrongs = ("{", "[]", "{}", '{"question": 1, "answers": []}', '{"question": "x", "answers": "y"}')
    for wrong in (*wrongs, '{"question": "x", "answers": [1]}', '{"question": "x", "answers": {"y": 1}}'):
        path.write_text(f"{line}\n{wrong}\n")
        with pytest.raises(minqa.InputError, match=r"questions\.jsonl, line 2, is no object with question"):
            quality.read_questions(path)

    with pytest.raises(minqa.InputError, match=r"absent, line 1, .*No such file"):
        quality.read_questions(tmp_path / "absent")

    def found(text, probability, *titles, given):
        answer = Answer(text, probability, 0, Span(text, 0, len(text), 1.0))
        heat = map_with(np.ones((1, 1), np.float32))
        results = [Result(Passage(title, ""), 0.5, heat, None, None) for title in titles]
        return Results(results, [answer], 1 - probability, answer if given else None)

    one, other = found("Niels Bohr", 0.9, "x", "Bohr", given=True), found("x", 0.2, "y", "z", given=False)
    assert [*quality.together(questions, [one, other])] == [
        ("1 with an answer: its passage first", "0.0"),
        ("… among three", "100.0"),
        ("… a right answer", "100.0"),
        ("… refused", "0.0"),
        ("1 without: refused", "100.0"),
        ("calibration error", "15.0"),
    ]
    assert quality.verdict(who, one) == ("Who?", "x", "0.00", "Niels Bohr", "90.0", "right")
    assert quality.verdict(what, other)[3:] == ("(x)", "20.0", "right")
    assert quality.likeliest(Results([])).probability == 0


def test_the_benchmark_says_what_is_absent(quality, tmp_path, monkeypatch, capsys, bert_folder):
    monkeypatch.setattr(sys, "argv", ["quality", "--data", str(tmp_path), "--model", str(bert_folder)])
    quality.main()
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("left out: there is no") == 2
