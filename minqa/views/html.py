"""Results → HTML that needs nothing from elsewhere, for a file, a notebook or the app."""

import json
import math
from base64 import b64encode
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from html import escape
from importlib.resources import files
from itertools import groupby
from typing import Any

from minqa.ask import Result
from minqa.heatmap import HeatMap
from minqa.inside.compare import Comparison
from minqa.spans import Span, heat_sentence, heat_span
from minqa.text import InputError, Passage
from minqa.tokens import Tokens
from minqa.views.colours import SHADES, bounds, legend, query_heat, shade, shades, share
from minqa.views.text import format_activation, format_percent, format_score, json_number, one_line, printable

try:
    from jinja2 import Environment, StrictUndefined
except ImportError:
    raise InputError("HTML needs Jinja2: install it with `uv sync --extra app`.") from None

TEMPLATES, STYLE, SCRIPT = (
    files("minqa.views").joinpath(f"page.{kind}").read_text("utf-8") for kind in ("html", "css", "js")
)


def document(heading: str, blocks: Sequence[str], settings: Sequence[str]) -> str:
    """A whole page of HTML blocks; `settings` are lines at its end that say how it was made."""
    script_hash = b64encode(sha256(SCRIPT.encode()).digest()).decode()  # no other script may run
    return str(TEMPLATE.document(heading, blocks, settings, STYLE, SCRIPT, script_hash))


def html_results(results: Sequence[Result]) -> list[str]:
    """A block per result, best first; see `html`."""
    ranks = [f"{rank}  " if len(results) > 1 else "" for rank in range(1, len(results) + 1)]
    return [
        html(result, rank + title_of(result.passage)) for rank, result in zip(ranks, results, strict=True)
    ]


def html_comparison(names: Sequence[str], comparison: Comparison) -> str:
    """One passage as several encoders see it, side by side."""
    title = title_of(comparison.passage)
    columns = zip(comparison.results, comparison.ranks, names, strict=True)
    blocks = [html(result, f"{name}  {rank or '–'}  {title}") for result, rank, name in columns]
    return f'<div class="side">{"".join(blocks)}</div>'


def notebook(heat: HeatMap) -> str:
    """A heat map as notebooks show it."""
    passage = Passage("", heat.passage.text)
    result = Result(passage, math.nan, heat, heat_span(heat), heat_sentence(heat))
    return f"<style>{STYLE}</style>{html(result, '')}<script>{SCRIPT}</script>"


def html(result: Result, title: str, *, word: int = -1, more: str = "") -> str:
    """The query, shaded by what each word contributes, above the passage, shaded by its heat.

    Pointing at a query word shades the passage by that word alone, and a click keeps it so; a passage word
    names its partner. Without scripts, colours and partners are there all the same.

    Args:
        word: the number of the query word that shades the passage at first, -1 for all of them.
        more: HTML at the end of the block.
    """
    heat = result.heat_map
    data = {
        "rows": json_number(heat.word_similarity, 2),
        "heat": json_number(heat.heat, 3),
        "partner": heat.partners.tolist(),
        "bounds": bounds(heat.baseline, heat.identical),
        "shades": SHADES,
    }
    return str(TEMPLATE.heat_map(result, title, json.dumps(data), word, more))


def word_matrix(heat: HeatMap) -> str:
    """Every query word against every passage word."""
    colour = partial(shade, limits=bounds(heat.baseline, heat.identical))
    values = heat.word_similarity.tolist()
    return str(TEMPLATE.matrix(heat.query.word_texts, heat.passage.word_texts, values, colour))


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


def phrase_parts(result: Result) -> tuple[str, str, str]:
    """The answer or hot phrase in words: an arrow, its text and its number; or "", a sentence and ""."""
    span = result.span
    if span is None:
        return "", "no plausible answer" if result.answered else "no phrase stands out", ""
    probability, heat = span.probability, f"heat {format_score(span.score)}"
    number = heat if probability is None else format_percent(probability)
    return "→ ", printable(span.text), f"  {number}"


def title_of(passage: Passage) -> str:
    """The title of a passage, and of its section if it has one."""
    return " · ".join(filter(None, [passage.title, passage.section]))


def safe(text: str) -> str:
    """Text of any origin as HTML that shows it."""
    return escape(printable(text))


_environment = Environment(
    autoescape=True,
    # Strings are made printable, then escaped; Markup, which is HTML already, is a type of its own.
    finalize=lambda value: printable(value) if type(value) is str else value,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.globals |= dict(legend=legend, marked=marked, phrase_parts=phrase_parts, share=share)
_environment.globals |= dict(query_heat=query_heat, shades=shades)
_environment.filters |= {"score": format_score, "activation": format_activation}
_environment.filters |= {"one_line": one_line, "is_finite": math.isfinite}
# The macros of page.html.
TEMPLATE: Any = _environment.from_string(TEMPLATES).module
