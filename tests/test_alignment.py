"""Word alignment on matrices made by hand, and the figures on the Edinburgh pairs."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from test_heatmap import map_of, vectors

import minqa
from minqa.alignment import align

ROOT = Path(__file__).parents[1]
MATRICES = st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.integers(-8, 8).map(lambda eighths: eighths / 8))
)


def map_with(similarity):
    passage = vectors(" ".join("w" * similarity.shape[1]), np.zeros((similarity.shape[1], 2))).tokens
    return map_of(passage, np.ones(similarity.shape[1]), similarity)


@given(MATRICES)
def test_mutual_pairs_are_each_others_best(similarity):
    pairs = align(map_with(similarity), method="mutual")
    for i, j in pairs:
        assert similarity[i, j] == similarity[i].max() == similarity[:, j].max()
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    assert np.unravel_index(similarity.argmax(), similarity.shape) in pairs


@given(MATRICES)
def test_itermax_adds_to_the_mutual_pairs(similarity):
    mutual, itermax = (align(map_with(similarity), method=method) for method in ("mutual", "itermax"))
    assert set(mutual) <= set(itermax)
    rows, columns = {i for i, _ in mutual}, {j for _, j in mutual}
    assert not any(i in rows and j in columns for i, j in set(itermax) - set(mutual))


def test_itermax_by_hand():
    # Two words of the query are about the first word of the passage; the better one is aligned at once, the
    # other in the second round, where the first word counts for 0.9 of itself and still wins.
    similarity = np.array([[0.9, 0.1], [0.8, 0.2]], np.float32)
    assert align(map_with(similarity), method="mutual") == [(0, 0)]
    assert align(map_with(similarity), method="itermax") == [(0, 0), (1, 0)]


def test_neighbours_decide_between_equals_and_leave_strangers_alone():
    # "the fox the dog" twice: either "the" fits either, the words behind them tell which.
    similarity = np.array([[0.9, 0, 0.9, 0], [0, 0.9, 0, 0], [0.9, 0, 0.9, 0], [0, 0, 0, 0.9]], np.float32)
    assert align(map_with(similarity)) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert align(map_with(np.full((3, 3), 0.1, np.float32))) == []
    assert align(map_with(np.array([[0.9]], np.float32))) == [(0, 0)]
    one_to_two = np.array([[0.8, 0.8]], np.float32)
    assert len(align(map_with(one_to_two), method="mutual")) == 1


def test_without_words_there_are_no_pairs(either):
    heat = minqa.heat_map(*minqa.embed(either, ["", "the theory"]))
    for method in ("mutual", "itermax", "neighbours"):
        assert align(heat, method=method) == []


def test_the_middle_layer_is_taken(tiny):
    assert minqa.alignment_measure(tiny) == minqa.Measure((1,), "z-score")


@pytest.fixture
def quality(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.quality")


def test_alignment_reaches_its_figure(minilm, quality, leads):
    path = ROOT.parent / "shared" / "data" / "alignment" / "edinburgh-train.json"
    if not path.is_file():
        pytest.skip("../shared/data/alignment is not there")
    pairs = json.loads(path.read_text("utf-8"))
    statistics = minqa.gather(minilm, [lead.text for lead in leads[:1024]])
    monkey = dict.fromkeys(["simalign"])
    with pytest.MonkeyPatch.context() as patch:
        for name in monkey:
            patch.setitem(sys.modules, name, None)  # its peer is for the benchmark
        measure = minqa.alignment_measure(minilm)
        rows = {row[0]: row[1:] for row in quality.alignment(minilm, pairs, statistics, [measure])}
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
    assert quality.holds(0, 9, "the U.S. x", [{"text": "U.S.", "answer_start": 4}]) == (True, True)
    assert quality.holds(0, 9, "in 19735 x", [{"text": "1973", "answer_start": 20}]) == (False, False)
    assert quality.string_match("a b a", "a b a") == {(0, 0), (1, 1), (2, 2)}


def test_the_benchmark_says_what_is_absent(quality, tmp_path, monkeypatch, capsys, bert_folder):
    monkeypatch.setattr(sys, "argv", ["quality", "--data", str(tmp_path), "--model", str(bert_folder)])
    quality.main()
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("left out: there is no") == 2
