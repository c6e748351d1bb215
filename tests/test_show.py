"""What is shown: safe, shaded where it is hot, and the same text as the passage."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from rich.console import Console
from test_heatmap import vectors
from test_tokens import ANY_TEXT

from minqa import show
from minqa.ask import Result
from minqa.colours import SHADES, bounds, shade
from minqa.comparison import Comparison
from minqa.heatmap import heat_map
from minqa.records import Passage
from minqa.spans import Span, heat_sentence, heat_span


def result(text, rows, title="T", unrelated=0.0, query="fox"):
    asked = vectors(query, [[1, 0]] * len(query.split()))
    heat = replace(heat_map(asked, vectors(text, rows)), unrelated=unrelated)
    return Result(Passage(title, text), 0.5, heat, heat_span(heat), heat_sentence(heat))


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
    backgrounds = [tuple(int(shade[i : i + 2], 16) for i in (1, 3, 5)) for shade in SHADES]
    brightness = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in backgrounds]
    assert brightness == sorted(brightness, reverse=True)
    codes = [";".join(map(str, (48, 2, *rgb))) + "m" for rgb in backgrounds]
    assert codes[-1] + "fox" in shown, "the hottest word has the last shade"
    assert "the" in shown and not any(code + "the" in shown for code in codes)


def test_colours_begin_above_what_unrelated_texts_reach_and_end_at_identity():
    assert [shade(heat, 0.5) for heat in (-np.inf, 0.0, 0.5, 0.64)] == [None] * 4
    assert shade(0.66, 0.5) == SHADES[0] and shade(0.99, 0.5) == shade(1.0, 0.5) == SHADES[-1]
    assert [shade(limit, 0.2) for limit in bounds(0.2)] == list(SHADES)


def passage_part(shown):
    """Without the legend, which has all colours."""
    return shown[: shown.index("unrelated")]


def test_a_cold_passage_has_no_colour_and_no_picture_depends_on_the_next(fox):
    cold = result("grey wolf", [[0.2, 1], [0.1, 1]], query="fox")
    alone = passage_part(render([cold]))
    assert "48;2" not in alone
    together = passage_part(render([fox, cold]))
    assert "48;2" not in together[together.index("grey") - 20 :]
    line = next(line for line in alone.splitlines() if "grey" in line)
    assert line in together


def test_the_querys_words_stand_with_what_they_contributed(fox):
    assert "fox 1.00" in render([fox], marks=True)
    assert "red 0.50  fox 0.50" in render([result("fox", [[1, 0]], query="red fox ?")], marks=True)


def comparison(rows, cold):
    """What two encoders think of one passage; the second's cosines are small."""
    text = "the red fox ran"
    results = [result(text, rows), result(text, cold, unrelated=-8.0)]
    words = results[0].heat_map.passage.words
    heat = np.stack([one.heat_map.heat for one in results])
    return Comparison(results[0].passage, results, (1, None), words, heat, heat > 0.5, 0.25)


def render_comparison(comparisons, *, marks, width=100):
    answers = [[one.results[0] for one in comparisons], []]
    console = Console(width=width, force_terminal=not marks, color_system=None if marks else "truecolor")
    with console.capture() as capture:
        console.print(
            show.terminal_comparison(["first", "\x1b[31msecond"], answers, comparisons, marks=marks)
        )
    return capture.get()


def test_each_encoder_has_a_column_and_a_scale_of_its_own():
    one = comparison([[0, 1], [1, 1], [1, 0], [-1, 1]], [[1, 9], [1, 8], [1, 9], [1, 4]])
    shown = render_comparison([one], marks=False)
    hottest = "48;2;" + ";".join(str(int(SHADES[-1][i : i + 2], 16)) for i in (1, 3, 5)) + "m"
    assert hottest + "fox" in shown, "the first's hottest word"
    assert hottest + "ran" in shown, "the second's, though its cosine is low"
    plain = render_comparison([one], marks=True)
    assert "first" in plain and "second" in plain and "\x1b" not in plain
    assert "the [[red fox]] ran" in plain and plain.count("fox") >= 2
    assert "both: –  correlation 0.25" in plain


def test_rankings_stand_above_several_passages():
    rows = [[0, 1], [1, 1], [1, 0], [-1, 1]]
    plain = render_comparison([comparison(rows, rows)] * 2, marks=True)
    head = plain[: plain.index("[[")].splitlines()
    assert head[1].startswith("1  T  ") and head[2].startswith("2  T  ")
    assert "both: red, fox" in plain
    narrow = render_comparison([comparison(rows, rows)] * 2, marks=True, width=20)
    assert narrow.count("fox") >= 4 and max(map(len, narrow.splitlines())) <= 20


def test_columns_lose_nothing_of_a_text_without_spaces():
    text = "速度很快的汽车在高速公路上" * 5 + "automobile" * 9
    one = result(text, [[1, 0]])
    words, heat = one.heat_map.passage.words, one.heat_map.heat
    both = Comparison(one.passage, [one] * 2, (1, 1), words, np.stack([heat] * 2), np.ones((2, 1), bool), 1.0)
    shown = render_comparison([both], marks=True, width=40)
    assert all(shown.count(char) >= 2 * text.count(char) for char in set(text))


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


def test_answers_come_with_their_probability_and_none_is_said(fox):
    span = Span("red fox", 4, 11, 3.0, 0.5)
    shown = render([replace(fox, span=span, answered=True)], marks=True)
    assert "the [[red fox]] ran" in shown and "→ red fox  50%" in shown
    assert "no plausible answer" in render([replace(fox, span=None, answered=True)], marks=True)
    assert "heat 0." in render([fox], marks=True), "a phrase is no answer, and says so"


def test_a_page_marks_spans_that_overlap():
    text = "A fox ran. It hid."
    one = result(text, np.eye(5, 2))
    crossing = replace(one, span=Span("ran. It", 6, 13, 1.0), sentence=Span("A fox ran.", 0, 10, 1.0))
    page = show.page("fox", [crossing], "")
    assert "<p>→ ran. It  heat 1.00</p>" in page
    passage = re.sub(r"</?b[^>]*>", "", page[page.index('<p class="passage">') :].split("</p>")[0])
    assert passage.endswith(
        '<span class="sentence">A fox </span><span class="sentence phrase">ran.</span>'
        '<span class="phrase"> It</span> hid.'
    )
