"""What is shown: safe, shaded where it is hot, and the same text as the passage."""

import numpy as np
import pytest
from hypothesis import given
from rich.console import Console
from test_heatmap import vectors
from test_tokens import ANY_TEXT

from minqa import show
from minqa.ask import Result
from minqa.corpus import Passage
from minqa.heatmap import heat_map
from minqa.spans import heat_span


def result(text, rows, title="T"):
    heat = heat_map(vectors("fox", [[1, 0]]), vectors(text, rows))
    return Result(Passage(title, text), 0.5, heat, heat_span(heat))


@pytest.fixture
def fox():
    return result("the red fox ran", [[0, 1], [1, 1], [1, 0], [-1, 1]])


def render(results, *, marks=False):
    """With colours, or with the marks that stand for them."""
    console = Console(width=200, force_terminal=not marks, color_system=None if marks else "truecolor")
    with console.capture() as capture:
        console.print(show.terminal(results, marks=marks))
    return capture.get()


def test_the_hotter_the_word_the_darker_its_shade(fox):
    shown = render([fox])
    backgrounds = [tuple(int(shade[i : i + 2], 16) for i in (1, 3, 5)) for shade in show.SHADES]
    brightness = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in backgrounds]
    assert brightness == sorted(brightness, reverse=True)
    codes = [";".join(map(str, (48, 2, *rgb))) + "m" for rgb in backgrounds]
    assert codes[-1] + "fox" in shown, "the hottest word has the last shade"
    assert "the" in shown and not any(code + "the" in shown for code in codes)


def test_the_scale_spans_all_passages_of_an_answer(fox):
    cold = result("grey wolf", [[0.2, 1], [0.1, 1]])
    assert "48;2" in render([cold])
    together = render([fox, cold])
    assert "48;2" not in together[together.index("grey") - 20 :]


def test_without_colours_the_phrase_is_marked(fox):
    assert "the [[red fox]] ran" in render([fox], marks=True)


def test_without_heat_there_is_no_phrase():
    assert "no phrase stands out" in render([result("! ?", np.eye(2))], marks=True)


@given(ANY_TEXT)
def test_printable_text_keeps_its_length_and_steers_nothing(text):
    shown = show.printable(text)
    assert len(shown) == len(text)
    assert not set(shown) & {
        *map(chr, range(10)),
        *map(chr, range(11, 32)),
        "\x7f",
        "\x9b",
        "\u202e",
        "\u2066",
    }
    assert show.printable(shown) == shown


def test_titles_and_passages_cannot_steer_the_terminal():
    evil = "\x1b]0;owned\x07 \x9b31m \u202eabc [bold]x[/bold] [link=http://x]y[/link]\r\tz"
    evil = "fox " + evil
    results = [
        result("fox", [[1, 0]], title=evil + "\n2  Fake"),
        result(evil, np.ones((len(evil.split()), 2))),
    ]
    shown = render(results, marks=True)
    assert not {"\x1b", "\x9b", "\u202e", "\x07"} & set(shown)
    assert shown.count("[bold]x[/bold]") >= 2, "no markup is read"
    assert "\n2  Fake" not in shown
    assert not {"\u202e", "\x07"} & set(render(results))
