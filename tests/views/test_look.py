"""What is looked at inside a model: the same numbers in the terminal, in HTML and as data, and safe."""

import json
import re

import numpy as np
import pytest
from rich.console import Console
from test_heatmap import made_tokens

import minqa
from minqa.inside.heads import Attention
from minqa.views import look
from minqa.views.colours import COLD, SHADES, SHARES, signed_scale
from minqa.views.view import Grid, Head, Heads, Listing, Shading

TIRED = "The animal didn't cross the street because it was too tired."
WIDE = "The animal didn't cross the street because it was too wide."
EVIL = '<script>a(1)</script> <img onerror="a(1)"> \x1b[31m & [bold]'


def planted(words, weights):
    """One head with this map of [CLS], the words, [SEP]."""
    ends = np.cumsum([len(word) + 1 for word in words]) - 1
    places = [(end - len(word), end) for word, end in zip(words, ends.tolist(), strict=True)]
    number = np.array([-1, *range(len(words)), -1], np.int32)
    tokens = made_tokens(" ".join(words), places, number)
    part = np.arange(len(number), dtype=np.int32)
    return Attention(
        tokens, np.array(weights, np.float32)[None, None], ("[CLS]", *words, "[SEP]"), part, number
    )


def printed(view, **console):
    console = Console(**{"width": 100, "color_system": None} | console)
    with console.capture() as capture:
        console.print(view)
    return capture.get()


def test_colours_of_numbers_around_zero():
    ten = signed_scale(np.array([3.0, -10.0]))
    assert [ten.colour(value) for value in (0.0, 0.9, -0.9)] == [None] * 3
    assert ten.colour(1.1) == SHADES[0] and ten.colour(10.0) == SHADES[-1]
    assert ten.colour(-1.1) == COLD[0] and ten.colour(-10.0) == COLD[-1]
    assert signed_scale(np.zeros(2)).colour(0.0) is None
    steps = [signed_scale(np.ones(1)).colour(value) for value in np.linspace(0.11, 1, 90).tolist()]
    assert list(dict.fromkeys(steps)) == list(SHADES)
    shares = [SHARES.colour(weight) for weight in (0.04, 0.05, 0.7, 1.0)]
    assert shares == [None, SHADES[0], SHADES[-1], SHADES[-1]]


@pytest.fixture
def shading():
    tokens = made_tokens("the fox ran", [(0, 3), (4, 7), (8, 11)])
    return Shading("a unit", tokens, np.array([0.01, -2, 1], np.float32))


def test_a_shaded_text_says_the_same_everywhere(shading):
    plain = printed(shading)
    assert "the fox ran" in plain and "fox -2  ran +1  the +0.01" in plain
    coloured = printed(shading, force_terminal=True, color_system="truecolor")
    cold = "48;2;" + ";".join(str(int(COLD[-1][i : i + 2], 16)) for i in (1, 3, 5)) + "m"
    assert cold + "fox" in coloured
    html = shading.html()
    assert f'the</b> <b style="background:{COLD[-1]}" title="-2">fox</b>' in html
    assert '<b title="+0.01">the</b>' in html, "what is next to nothing has no colour"
    assert json.loads(json.dumps(shading.data()))["values"] == [0.01, -2, 1]


def test_a_heads_map_is_drawn_as_arcs_and_as_a_matrix():
    maps = np.array([[1, 0, 0, 0], [0.7, 0, 0.3, 0], [0, 0.96, 0.04, 0], [0, 0, 0, 1]])
    attention = planted(["the", "fox"], maps)
    head = Head.of(attention, 1, 0)
    html = head.html()
    assert html.count("<path") == 3 and html.count('class="before"') == 2 and html.count("<circle") == 2
    assert re.search(r'<td style="background:#\w+" title="fox · the 0.96">', html)
    assert "fox → the 0.96" in " ".join(printed(head).split())
    assert "0.04" not in printed(head)
    assert head.data()["values"][1][2] == 0.3
    with pytest.raises(
        minqa.InputError, match="There is no head 1 in layer 1: layers are 1 to 1, heads 0 to 0"
    ):
        Head.of(attention, 1, 1)


def test_the_grid_has_a_map_for_each_head(tiny):
    [listing, heads] = look.heads(tiny, "the war of the world").views
    assert heads.html().count("<svg") == 8 and 'data-layer="2" data-head="3"' in heads.html()
    assert np.shape(heads.data()["attention"]) == (2, 4, 7, 7)
    scores = minqa.head_scores([heads.attention])
    best = np.unravel_index(scores["next word"].argmax(), (2, 4))
    row = next(row for row in listing.rows if row[0] == "next word")
    assert row[1] == f"{best[0] + 1}.{best[1]}  {scores['next word'].max():.2f}"
    assert ("punctuation", "–", "–", "–") in listing.rows, "there is none"


def test_a_flip_is_listed_and_its_best_head_drawn(minilm):
    [listing, first, second] = look.flipped(minilm, TIRED, WIDE, "it", ("animal", "street")).views
    best = minqa.flip(minilm, TIRED, WIDE, "it", ("animal", "street"))[0]
    assert listing.rows[0][:2] == (f"{best.layer}.{best.head}", f"{best.moved:+.2f}")
    assert first.title == second.title == f"layer {best.layer}, head {best.head}"
    assert len(listing.rows) == 10 and (first.text, second.text) == (TIRED, WIDE)


def test_units_are_looked_for_and_at(either):
    texts = ["the 2 wars", "who played 7 of it", "a theory of 5 worlds", "9 to the 1"]
    listing, chosen = look.search_units(either, texts, "number")
    shadings = look.shaded_by_units(either, "3 of the world", chosen).views
    found = minqa.find_units(either, texts, minqa.FEATURES["number"])
    assert len(listing.rows) == 10 and len(shadings) == 3
    assert listing.rows[0][0] == f"{found[0].layer}.{found[0].number}"
    expected = minqa.units(either, "3 of the world").unit(found[0].layer, found[0].number)
    np.testing.assert_allclose(shadings[0].values, expected, atol=1e-6)
    assert len(look.shaded_by_factors(either, "3 of the world", 2).views) == 2
    with pytest.raises(minqa.InputError, match="There is no feature colour: there are position, quotes"):
        look.search_units(either, texts, "colour")


def test_influence_shades_both_texts(tiny):
    [query, passage] = look.influence(tiny, "who developed it", "the theory").views
    assert query.tokens.text == "who developed it" and passage.tokens.text == "the theory"


def test_foreign_text_is_shown_as_text(tiny):
    [tokens] = tiny.tokenize([EVIL])
    maps = minqa.attention(tiny, EVIL)
    views = [
        Listing(EVIL, (EVIL,), [(EVIL,)]),
        Shading(EVIL, tokens, np.linspace(-1, 1, len(tokens.words)).astype(np.float32)),
        Heads(maps),
        Head.of(maps, 1, 0),
        Grid(EVIL, (EVIL,), (EVIL,), np.ones((1, 1)), SHARES, EVIL),
    ]
    for view in views:
        html = view.html()
        assert "<script" not in html and "<img" not in html and "\x1b" not in html
        assert "\x1b[31m" not in printed(view)
