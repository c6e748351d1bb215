"""Figures: what the text says, on the scale of the heat map."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_heatmap import vectors
from test_look import planted
from test_terminal import alone, result

import minqa
from minqa.heatmap import heat_map
from minqa.views.view import Head, Heads, Listing, Shading, Stack

pytest.importorskip("matplotlib", reason="the extra figure is not installed")
from minqa.views.figure import MAX_WORDS, check_format, picture


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_a_heat_map_is_drawn_from_the_baseline_to_identity():
    found = result("fox $x$ \x1b[31m", np.eye(3, 2), query="fox")
    heat = replace(found.heat_map, baseline=0.2, identical=2.0)
    drawn = alone([replace(found, heat_map=heat)]).figure("made by $x$")
    axes, bar = drawn.axes
    [squares] = axes.collections
    assert squares.get_clim() == (0.2, 2.0) and "baseline" in bar.get_ylabel()
    assert labels(axes.xaxis) == ["fox", "$x$", "�[31m"]
    assert labels(axes.yaxis) == ["fox  1.00", "", "heat, score 1.000"]
    np.testing.assert_allclose(squares.get_array()[0], heat.word_similarity[0])
    for suffix, start in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        assert picture(drawn, Path(f"map{suffix}")).startswith(start)


def test_heads_and_shadings_are_drawn():
    maps = planted(["the", "fox"], np.eye(4))
    assert [axes.get_title() for axes in Heads(maps).figure().axes] == ["1.0"]
    two = Stack("", [Head.of(maps, 1, 0), Head.of(maps, 1, 0)]).figure()
    assert [axes.get_title() for axes in two.axes if axes.get_title()] == ["layer 1, head 0"] * 2
    shading = Shading("a unit", maps.tokens, np.array([-2, 1], np.float32))
    axes = Stack("", [shading, shading]).figure().axes[0]
    assert labels(axes.yaxis) == ["a unit, up to ± 2"] * 2 and labels(axes.xaxis) == ["the", "fox"]
    assert axes.collections[0].get_array().tolist() == [[-1, 0.5]] * 2 and axes.collections[0].get_clim() == (
        -1,
        1,
    )


def test_what_cannot_be_drawn_is_told():
    text = "w " * (MAX_WORDS + 1)
    long = vectors(text, np.ones((MAX_WORDS + 1, 2)))
    with pytest.raises(minqa.InputError, match=f"at most {MAX_WORDS} words"):
        alone([replace(result("w", [[1, 0]]), heat_map=heat_map(vectors("w", [[1, 0]]), long))]).figure()
    with pytest.raises(minqa.InputError, match="no matrix in this to draw"):
        Listing("heading", (), []).figure()
    with pytest.raises(minqa.InputError, match=r"should end in \.png, \.svg, \.pdf"):
        check_format(Path("map.doc"))


def test_several_models_and_passages_are_drawn_one_below_the_other():
    view = alone([result("fox", [[1, 0]], title=title) for title in ("A", "$B$")])
    assert [axes.get_title() for axes in view.figure().axes if axes.get_title()] == ["1  A", "2  $B$"]
