"""What the terminal shows: safe, shaded where it is hot, and the same text as the passage."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from rich.console import Console
from test_heatmap import vectors
from test_tokens import ANY_TEXT

import minqa
from minqa.answers.overall import Answer
from minqa.ask import Result, Results
from minqa.heatmap import heat_map
from minqa.inside import compare as compare_module
from minqa.inside.compare import Comparison, Reply
from minqa.spans import Span, heat_sentence, heat_span
from minqa.text import Passage
from minqa.views.answers import Answers, described, notes
from minqa.views.colours import SHADES, similarity_scale
from minqa.views.text import as_json, format_duration, format_probability, format_score, one_line, printable


def result(text, rows, title="T", baseline=0.0, query="fox"):
    query = vectors(query, [[1, 0]] * len(query.split()))
    heat = heat_map(query, vectors(text, rows), window=0, neighbours=0.0)  # plain MaxSim
    heat = replace(heat, baseline=baseline)
    return Result(Passage(title, text), 0.5, heat, heat_span(heat), heat_sentence(heat))


@pytest.fixture
def fox():
    return result("the red fox ran", [[0, 1], [1, 1], [1, 0], [-1, 1]])


def alone(results):
    """What one model found."""
    comparisons = [compare_module._compare([rank], [result]) for rank, result in enumerate(results, 1)]
    return Answers(["model"], comparisons, [Results(results)])


def render(results, *, marks=False):
    """With colours, or with the marks that stand for them."""
    return show(alone(results), marks=marks, width=200)


def show(view, *, marks, width):
    console = Console(width=width, force_terminal=not marks, color_system=None if marks else "truecolor")
    with console.capture() as capture:
        console.print(view)
    return capture.get()


def scale(fox, baseline, identical=1.0):
    return similarity_scale(replace(fox.heat_map, baseline=baseline, identical=identical))


def test_the_hotter_the_word_the_darker_its_shade(fox):
    shown = render([fox])
    backgrounds = [tuple(int(shade[i : i + 2], 16) for i in (1, 3, 5)) for shade in SHADES]
    brightness = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in backgrounds]
    assert brightness == sorted(brightness, reverse=True)
    codes = [";".join(map(str, (48, 2, *rgb))) + "m" for rgb in backgrounds]
    assert codes[-1] + "fox" in shown, "the hottest word has the last shade"
    assert "the" in shown and not any(code + "the" in shown for code in codes)


def test_colours_begin_above_the_baseline_and_end_at_identity(fox):
    half = scale(fox, 0.5)
    assert [half.colour(heat) for heat in (-np.inf, 0.0, 0.5, 0.64)] == [None] * 4
    assert half.colour(0.66) == SHADES[0]
    assert half.colour(0.99) == half.colour(1.0) == SHADES[-1]
    low = scale(fox, 0.2)
    assert [low.colour(limit) for limit in low.limits] == list(SHADES)


def test_another_similarity_has_a_scale_that_ends_elsewhere(fox):
    wide = scale(fox, -9.0, 30.0)
    assert [wide.colour(value) for value in (2, 3, 30)] == [None, SHADES[0], SHADES[-1]]
    shown = render([replace(fox, heat_map=replace(fox.heat_map, baseline=-9.0, identical=30.0))])
    assert "baseline -9.00" in shown and " 2.70 " in shown and "30 identical" in shown
    assert "48;2" not in shown[: shown.index("baseline")], "all is below 2.7"


def passage_part(shown):
    """Without the legend, which has all colours."""
    return shown[: shown.index("baseline")]


def test_a_cold_passage_has_no_colour_and_no_picture_depends_on_the_next(fox):
    cold = result("grey wolf", [[0.2, 1], [0.1, 1]], query="fox")
    single = passage_part(render([cold]))
    assert "48;2" not in single
    together = passage_part(render([fox, cold]))
    assert "48;2" not in together[together.index("grey") - 20 :]
    line = next(line for line in single.splitlines() if "grey" in line)
    assert line in together


def test_the_querys_words_stand_with_what_they_contributed(fox):
    assert "fox 1.00" in render([fox], marks=True)
    assert "red 0.50  fox 0.50" in render([result("fox", [[1, 0]], query="red fox ?")], marks=True)


def comparison(rows, cold):
    """What two encoders think of one passage; the second's cosines are small."""
    text = "the red fox ran"
    results = [result(text, rows), result(text, cold, baseline=-8.0)]
    words = results[0].heat_map.passage.words
    heat = np.stack([result.heat_map.heat for result in results])
    return Comparison(results[0].passage, results, (1, None), words, heat, heat > 0.5, 0.25)


def render_comparison(comparisons, *, marks, width=100):
    return show(
        Answers(["first", "\x1b[31msecond"], comparisons, [Results([])] * 2), marks=marks, width=width
    )


def test_each_encoder_has_a_column_and_a_scale_of_its_own():
    both = comparison([[0, 1], [1, 1], [1, 0], [-1, 1]], [[1, 9], [1, 8], [1, 9], [1, 4]])
    shown = render_comparison([both], marks=False)
    hottest = "48;2;" + ";".join(str(int(SHADES[-1][i : i + 2], 16)) for i in (1, 3, 5)) + "m"
    assert hottest + "fox" in shown, "the first's hottest word"
    assert hottest + "ran" in shown, "the second's, though its cosine is low"
    plain = render_comparison([both], marks=True)
    assert "first" in plain and "second" in plain and "\x1b" not in plain
    assert "the [[red fox]] ran" in plain and plain.count("fox") >= 2
    assert "both: –  correlation 0.25" in plain


def test_rankings_stand_above_several_passages():
    rows = [[0, 1], [1, 1], [1, 0], [-1, 1]]
    both = comparison(rows, rows)
    both = [both, replace(both, ranks=(2, None))]
    plain = render_comparison(both, marks=True)
    head = plain[: plain.index("[[")].splitlines()
    assert head[1].startswith("1  T  ") and head[2].startswith("2  T  ")
    assert "both: red, fox" in plain
    narrow = render_comparison(both, marks=True, width=20)
    assert narrow.count("fox") >= 4 and max(map(len, narrow.splitlines())) <= 20


def test_columns_lose_nothing_of_a_text_without_spaces():
    text = "速度很快的汽车在高速公路上" * 5 + "automobile" * 9
    single = result(text, [[1, 0]])
    words, heat = single.heat_map.passage.words, single.heat_map.heat
    hot = np.ones((2, 1), bool)
    both = Comparison(single.passage, [single] * 2, (1, 1), words, np.stack([heat] * 2), hot, 1.0)
    shown = render_comparison([both], marks=True, width=40)
    assert all(shown.count(char) >= 2 * text.count(char) for char in set(text))


def test_without_colours_the_phrase_is_marked(fox):
    assert "the [[red fox]] ran" in render([fox], marks=True)


def test_without_heat_there_is_no_phrase():
    assert "no phrase stands out" in render([result("! ?", np.eye(2))], marks=True)


@given(ANY_TEXT)
def test_printable_text_keeps_its_length_and_steers_nothing(text):
    shown = printable(text)
    assert len(shown) == len(text)
    controls = {*map(chr, range(10)), *map(chr, range(11, 32)), "\x7f", "\x9b", "\u202e", "\u2066"}
    assert not set(shown) & controls
    assert printable(shown) == shown
    assert one_line(text) == shown.replace("\n", " ")


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
    assert "the [[red fox]] ran" in shown and "→ red fox  50 %" in shown
    assert "no plausible answer" in render([replace(fox, span=None, answered=True)], marks=True)
    assert "heat 0." in render([fox], marks=True), "a phrase is no answer, and says so"


def answered(results, number=1):
    """The lines above the passages."""
    return replace(alone(results), results=[results], max_answers=number).overall()


def test_one_answer_of_all_passages_stands_first_with_its_reason(fox):
    evil = "\x1b[31mred\nfox"
    answers = [
        Answer(evil, 0.998, 1, Span(evil, 4, 11, 3.0, 0.6, 2.53)),
        Answer("ran", 0.001, 0, Span("ran", 12, 15, 1.0, 0.001, -1.0)),
    ]
    results = Results([fox, result("the red fox", [[0, 1], [1, 1], [1, 0]], query="red ? fox")])
    results.answers, results.no_answer, results.answer = answers, 0.001, answers[0]
    first, second = answered(results, number=5)
    reason = "2  T · red 0.50  fox 0.50 · margin +2.5"
    assert first == ("", "\ufffd[31mred fox", "> 99 %", reason)
    assert second[1:3] == ("ran", "< 1 %") and "margin -1.0" in second[3]
    assert answered(results) == [first]
    shown = show(replace(alone(results), results=[results]), marks=True, width=100)
    assert shown.index("> 99 %") < shown.index(reason) < shown.index("1  T")


def test_an_answer_that_is_less_likely_than_none_says_so(fox):
    doubtful = Answer("ran", 0.3, 0, Span("ran", 12, 15, 1.0, 0.3, 0.5))
    [line] = answered(Results([fox], [doubtful], 0.6, doubtful))
    assert line[1:3] == ("ran", "30 %, no answer 60 %")
    untitled = replace(fox, passage=Passage("", fox.passage.text))
    [line] = answered(Results([untitled], [doubtful], 0.6, doubtful))
    assert line[3] == "fox 1.00 · margin +0.5", "neither a place among one nor an empty title"


def test_a_probability_is_never_quite_none_nor_all():
    shown = [format_probability(value) for value in (0.0, 0.005, 0.0051, 0.5, 0.9949, 0.995, 1.0)]
    assert shown == ["< 1 %", "< 1 %", "1 %", "50 %", "99 %", "> 99 %", "> 99 %"]


def test_no_answer_is_said_and_a_guess_shown_only_where_several_are_asked_for(fox):
    guess = Answer("ran", 0.1, 0, Span("ran", 12, 15, 1.0, 0.1, -1.0))
    results = Results([fox], [guess], 0.9, None)
    assert answered(results) == [("", "No answer found", "90 %", "")]
    assert [line[1] for line in answered(results, number=2)] == ["No answer found", "ran"]
    assert answered(Results([fox])) == [], "none was looked for"


def test_numbers_have_one_format_each():
    assert [format_score(value) for value in (0.126, -2.0, -np.inf, np.nan)] == ["0.13", "-2.00", "–", "–"]
    assert format_score(0.5, 3) == "0.500" and format_score(0.5, sign="+") == "+0.50"
    assert [format_duration(seconds) for seconds in (0.0123, 0.9994, 1.26)] == ["12 ms", "999 ms", "1.3 s"]
    assert as_json(np.float32(0.1234567)) == 0.123457 and as_json(float("nan")) is None
    assert as_json(np.array([[0.5, -np.inf], [np.nan, 1e-9]], np.float32)) == [[0.5, None], [None, 0.0]]


def unknown(text, *words):
    """Tokens of a text of which these words are unknown."""
    tokens = vectors(text, np.ones((len(text.split()), 2))).tokens
    return replace(tokens, unknown=np.array([word in words for word in text.split()], bool))


def unknown_note(tiny, *texts):
    """What is said of these texts, the first being the query, the others passages."""
    heats = [replace(result("fox", [[1, 0]]).heat_map, query=texts[0], passage=text) for text in texts]
    results = [replace(result("fox", [[1, 0]]), heat_map=heat) for heat in heats]
    return notes(Reply(replace(tiny, name="tiny"), Results(results)), passages_too=True)


def test_words_that_the_model_does_not_know_are_named(tiny):
    assert unknown_note(tiny, unknown("the fox"), unknown("! fox", "!")) == []
    texts = [unknown("the แมว ?", "แมว", "?"), unknown("หมา and แมว", "หมา", "แมว")]
    assert unknown_note(tiny, *texts) == [
        "tiny does not know the words แมว, หมา: they match only words spelled the same."
    ]
    assert unknown_note(tiny, texts[0]) == [
        "tiny does not know the word แมว: it matches only words spelled the same."
    ]
    many = unknown("a b c d e f g", *"abcdefg")
    assert "the words a, b, c, d, e and 2 more: they" in unknown_note(tiny, many)[0]
    assert "\x1b" not in unknown_note(tiny, unknown("\x1b[31mx", "\x1b[31mx"))[0]


def test_the_line_of_settings_changes_with_whatever_changes_a_result(tiny):
    encoders = [
        tiny,
        minqa.calibrate(tiny, ["the world war", "a theory of relativity"]),
        minqa.calibrate(tiny, ["the world war", "a theory of war"]),
    ]
    encoders += [replace(encoders[1], **changes) for changes in ({"layer": 1}, {"weights": "none"})]
    lines = [described(encoder) for encoder in encoders]
    assert "layer 2 · centring none · weights none · window 24 · neighbours 0.1 · spans by heat" in lines[0]
    assert "weights idf" in lines[1] and "statistics of 2 passages" in lines[1]
    assert lines[1].rpartition(" · ")[0] == lines[2].rpartition(" · ")[0]
    assert len({line.rpartition(" · ")[2] for line in lines}) == len(lines)
