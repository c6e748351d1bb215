"""Views → HTML that needs nothing from elsewhere, for a file, a notebook or the app."""

import math
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files
from itertools import groupby
from typing import Any

import numpy as np
from jaxtyping import Float

from minqa.ask import Result
from minqa.files.extras import needed
from minqa.heatmap import HeatMap
from minqa.spans import Span, heat_sentence, heat_span
from minqa.text import Passage
from minqa.tokens import Tokens
from minqa.views.colours import SHADES, SHARES, query_heat, similarity_scale
from minqa.views.text import as_json, format_activation, format_score, one_line, phrase_parts, printable

jinja2 = needed("jinja2", "HTML", "app")
STYLE, SCRIPT = (files("minqa.views").joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
# A matrix of more cells makes a page slow.
MAX_CELLS = 20_000
# Of a longer text, a page holds the pictures of all heads, but not their numbers.
MAX_PARTS = 48


def document(heading: str, body: str, settings: Sequence[str]) -> str:
    """A whole page around a view's HTML; `settings` are lines at its end that say how it was made."""
    return str(TEMPLATE.document(heading, body, settings, STYLE, SCRIPT, source_of(SCRIPT)))


def source_of(script: str) -> str:
    """What a content security policy calls a script, so that no other may run."""
    return f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'"


def in_notebook(body: str) -> str:
    """A view's HTML as notebooks show it."""
    return f"<style>{STYLE}</style>{body}<script>{SCRIPT}</script>"


def notebook(heat: HeatMap) -> str:
    """A heat map as notebooks show it."""
    passage = Passage("", heat.passage.text)
    result = Result(passage, math.nan, heat, heat_span(heat), heat_sentence(heat))
    return in_notebook(str(TEMPLATE.heat_map(result, "")))


def marked(tokens: Tokens, **spans: Span | None) -> list[tuple[str, list[tuple[str, int]]]]:
    """A text in groups of (names of the spans around them, [(word or character, word number or -1)]).

    Spans that overlap are split where they cross: "sentence", "sentence phrase", "phrase".
    """

    def names(place: int) -> str:
        return " ".join(name for name, span in spans.items() if span and span.start <= place < span.end)

    text, pieces, place = tokens.text, [], 0
    for number, (start, end) in enumerate([*tokens.words.tolist(), (len(text), len(text))]):
        pieces += [(names(i), text[i], -1) for i in range(place, start)]
        pieces.append((names(start), text[start:end], number))
        place = end
    groups = groupby(pieces[:-1], key=lambda piece: piece[0])
    return [(name, [(text, number) for _, text, number in group]) for name, group in groups]


def squares(weights: Float[np.ndarray, "part part"]) -> dict[str, str]:
    """The squares of each colour in a map, as an SVG path."""
    paths: dict[str, str] = {}
    for i, j in np.argwhere(weights >= SHARES.limits[0]).tolist():
        if colour := SHARES.colour(weights[i, j]):
            paths[colour] = paths.get(colour, "") + f"M{j} {i}h1v1h-1z"
    return paths


ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("minqa", ""),
    autoescape=True,
    # Strings are made printable, then escaped; Markup, which is HTML already, is a type of its own.
    finalize=lambda value: printable(value) if type(value) is str else value,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.globals |= dict(marked=marked, phrase_parts=phrase_parts, as_json=as_json, squares=squares)
ENVIRONMENT.globals |= dict(similarity_scale=similarity_scale, query_heat=query_heat)
ENVIRONMENT.globals |= dict(SHADES=SHADES, SHARES=SHARES, MAX_CELLS=MAX_CELLS, MAX_PARTS=MAX_PARTS)
ENVIRONMENT.filters |= dict(score=format_score, activation=format_activation, one_line=one_line)
ENVIRONMENT.filters |= dict(is_finite=math.isfinite)
# The macros of page.html, among them one for each kind of view.
TEMPLATE: Any = ENVIRONMENT.get_template("views/page.html").module
