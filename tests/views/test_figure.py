"""Figures: what the text says, on the scale of the heat map."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_heatmap import vectors
from test_look import planted
from test_terminal import result

import minqa
from minqa.heatmap import heat_map
from minqa.views.look import Head, Heads, Shading

pytest.importorskip("matplotlib", reason="the extra figure is not installed")
from minqa.views.figure import MAX_WORDS, check_format, figure, picture, views_figure


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_a_heat_map_is_drawn_from_the_baseline_to_identity():
    heat = result("fox $x$ \x1b[31m", np.eye(3, 2), query="fox").heat_map
    drawn = figure(replace(heat, baseline=0.2, identical=2.0), settings="made by $x$")
    axes, bar = drawn.axes
    [squares] = axes.collections
    assert squares.get_clim() == (0.2, 2.0) and "baseline" in bar.get_ylabel()
    assert labels(axes.xaxis) == ["fox", "$x$", "�[31m"]
    assert labels(axes.yaxis) == ["fox  1.00", "heat, score 1.000"]
    np.testing.assert_allclose(squares.get_array()[0], heat.word_similarity[0])
    for suffix, start in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        assert picture(drawn, Path(f"map{suffix}")).startswith(start)


def test_heads_and_shadings_are_drawn():
    maps = planted(["the", "fox"], np.eye(4))
    assert [axes.get_title() for axes in views_figure([Heads(maps)]).axes] == ["1.0"]
    two = views_figure([Head(maps, 1, 0), Head(maps, 1, 0)])
    assert [axes.get_title() for axes in two.axes if axes.get_title()] == ["layer 1, head 0"] * 2
    shading = Shading("a unit", maps.tokens, np.array([-2, 1], np.float32))
    axes = views_figure([shading, shading]).axes[0]
    assert labels(axes.yaxis) == ["a unit, up to ± 2"] * 2 and labels(axes.xaxis) == ["the", "fox"]
    assert axes.collections[0].get_array().tolist() == [[-1, 0.5]] * 2 and axes.collections[0].get_clim() == (
        -1,
        1,
    )


def test_what_cannot_be_drawn_is_told():
    text = "w " * (MAX_WORDS + 1)
    long = vectors(text, np.ones((MAX_WORDS + 1, 2)))
    with pytest.raises(minqa.InputError, match=f"at most {MAX_WORDS} words"):
        figure(heat_map(vectors("w", [[1, 0]]), long))
    with pytest.raises(minqa.InputError, match=r"should end in \.png, \.svg, \.pdf"):
        check_format(Path("map.doc"))
