"""HTML pages and notebooks: the same text as the passage, partners that count, nothing from elsewhere."""

import base64
import hashlib
import html as standard_html
import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
from test_heatmap import vectors
from test_terminal import alone, result

import minqa
from minqa.answers.overall import Answer
from minqa.ask import Results
from minqa.heatmap import heat_map
from minqa.spans import Span
from minqa.tokens import tokens_of_words
from minqa.views import html
from minqa.views.colours import SHADES, similarity_scale

EVIL = "<script>a(1)</script> <img onerror='a(1)'> </style> {{ x }} {% raw %} $style \x1b[31m \u202e & \" '"


def partners_of(page):
    """(partner, similarity, word) of the passage's words that have one."""
    passage = page[page.index('<p class="passage">') :].split("</p>")[0]
    return re.findall(r'<b[^>]* title="(\S+) (-?\d\.\d\d)">(\S+)</b>', passage)


def data_of(page):
    return json.loads(standard_html.unescape(page.split(' data-map="')[1].split('"')[0]))


def test_a_page_marks_spans_that_overlap():
    text = "A fox ran. It hid."
    crossing = replace(
        result(text, np.eye(5, 2)), span=Span("ran. It", 6, 13, 1.0), sentence=Span("A fox ran.", 0, 10, 1.0)
    )
    page = html.document("fox", alone([crossing]).html(), ["settings"])
    assert "<p>→ ran. It  heat 1.00</p>" in page
    passage = re.sub(r"</?b[^>]*>", "", page[page.index('<p class="passage">') :].split("</p>")[0])
    assert passage.endswith(
        '<span class="sentence">A fox </span><span class="sentence phrase">ran.</span>'
        '<span class="phrase"> It</span> hid.'
    )


def test_a_word_without_weight_is_never_a_partner():
    """Fault 4: "?" resembles all of the passage here, and was named for most of its words."""
    query = vectors("who ran ?", [[1, 0], [0, 1], [3, 4]])
    heat = heat_map(query, vectors("the fox ran off .", [[3, 4], [4, 3], [0, 1], [1, 2], [3, 4]]))
    page = alone([replace(result("fox", [[1, 0]]), heat_map=heat)]).html()
    assert data_of(page)["partner"] == [1, 0, 1, 1, -1]
    partners = [
        ("ran", "0.80", "the"),
        ("who", "0.80", "fox"),
        ("ran", "1.00", "ran"),
        ("ran", "0.89", "off"),
    ]
    assert partners_of(page) == partners


def test_real_words_never_have_a_question_mark_as_partner(minilm):
    question = "Who developed the theory of relativity?"
    passage = "Einstein, who was a physicist, published it in 1915 (in Berlin). Was it new? It was!"
    [query], [vectors] = (
        minqa.embed(minilm, [text], role=role) for text, role in ((question, "query"), (passage, "passage"))
    )
    page = html.notebook(heat_map(query, vectors))
    assert len(partners_of(page)) == vectors.tokens.is_word.sum()
    assert "?" not in [partner for partner, _, _ in partners_of(page)]
    assert query.tokens.word_texts.index("?") not in data_of(page)["partner"]


def test_a_page_needs_nothing_from_elsewhere_and_runs_its_own_script_alone():
    evil = result(f"fox {EVIL}", np.ones((1 + len(EVIL.split()), 2)), title=EVIL)
    answer = Answer(EVIL, 0.5, 1, Span(EVIL, 0, len(EVIL), 1.0, 0.5, 0.5))
    view = replace(alone([evil, evil]), results=[Results([evil, evil], [answer], 0.5, answer)])
    page = html.document(EVIL, view.html(), [EVIL, EVIL])
    assert page.count("<script") == 1 and page.count("</style>") == 1
    script = page.split("<script>")[1].split("</script>")[0]
    assert script == html.SCRIPT
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'" in page
    assert "&lt;script&gt;" in page and "<img" not in page
    assert not {"\x1b", "\u202e"} & set(page)
    assert not re.search(r"https?:|src=|@import|url\(", page)
    assert "{{ x }}" in standard_html.unescape(page) and "$style" in page, "no template of theirs is read"


def test_the_text_of_a_passage_is_all_there():
    text = "  The fox,\n\nwho ran\t(fast) – it's \U0001f98a <b>!"
    shown = alone([result(text, np.ones((len(text.split()), 2)))]).html()
    passage = shown[shown.index('<p class="passage">') + len('<p class="passage">') :].split("</p>")[0]
    assert standard_html.unescape(re.sub(r"<[^>]*>", "", passage)) == text.replace("\t", " ")


def test_an_empty_word_of_a_list_keeps_its_place():
    assert html.marked(tokens_of_words(["a", "", "b"])) == [
        ("", [("a", 0), (" ", -1), ("", 1), (" ", -1), ("b", 2)])
    ]


def test_what_is_not_finite_is_null_in_the_data():
    heat = result("fox .", np.eye(2)).heat_map
    rows = np.where(np.eye(1, 2) > 0, heat.word_similarity, -np.inf).astype(np.float32)
    shown = alone([replace(result("fox .", np.eye(2)), heat_map=replace(heat, word_similarity=rows))]).html()
    assert data_of(shown)["rows"] == [[1.0, None]] and data_of(shown)["heat"][1] is None
    assert 'title="fox · . –"' in shown


def test_the_script_shades_as_the_page_does_on_however_narrow_a_scale():
    close, narrow = np.array([[0.99951, 0.99945]], np.float32), {"baseline": 0.999, "identical": 1.0}
    heat = replace(result("fox ran", np.eye(2)).heat_map, word_similarity=close, **narrow)
    data = data_of(alone([replace(result("fox ran", np.eye(2)), heat_map=heat)]).html())
    colours = [data["shades"][int(step) - 1] for step in data["heat"]]
    assert colours == similarity_scale(heat).colours(heat.heat) == [SHADES[1], SHADES[1]]
    assert data["steps"] == [[2, 2]]


def test_a_scale_says_where_it_begins_and_ends():
    shown = alone([result("fox", [[1, 0]], baseline=0.23)]).html()
    assert "baseline 0.23" in shown and "1 identical" in shown and "what unrelated texts reach" in shown


def test_a_notebook_needs_neither_matplotlib_nor_the_terminal():
    program = (
        "import sys, minqa.views.html; "
        "absent = 'matplotlib', 'minqa.views.terminal', 'rich'; "
        "sys.exit(any(name in sys.modules for name in absent))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_a_notebook_shows_a_heat_map_as_a_page_does():
    shown = heat_map(vectors("fox", [[1, 0]]), vectors("<b>fox</b> ran", np.eye(2)))._repr_html_()
    assert shown.startswith("<style>") and shown.count("<script>") == 1
    assert "&lt;b&gt;fox" in shown and 'class="minqa"' in shown


def test_without_jinja2_a_sentence_names_the_extra():
    program = "import sys; sys.modules['jinja2'] = None; import minqa.views.html"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "InputError: HTML needs Jinja2: install it with `uv sync --extra app`." in done.stderr
