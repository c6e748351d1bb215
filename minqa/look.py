"""Heads, units and influence → coloured text for the terminal, HTML and plain data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from minqa.activations import FoundUnit, factors, find_units, units
from minqa.colours import COLD, SHADES, share, signed
from minqa.encoder import Encoder
from minqa.errors import InputError
from minqa.features import FEATURES
from minqa.heads import Attention, Flip, attention, flip, head_scores
from minqa.influence import Saliency
from minqa.page import marked, matrix, safe
from minqa.text import printable
from minqa.tokens import Tokens

# A weight below this is not drawn, nor listed.
LEAST = 0.05
# How many words are named beneath a shaded text, and beside a word that looks at them.
STRONGEST = 5
# How many heads of a kind, and units, are listed.
BEST = 3
UNITS_SHADED = 3


@runtime_checkable
class View(Protocol):
    """Something to look at."""

    def terminal(self) -> RenderableType:
        """For rich to print."""

    def html(self) -> str:
        """As HTML that shows foreign text as text."""

    def data(self) -> dict[str, Any]:
        """For `json.dumps`."""


def look_at_heads(
    encoder: Encoder, text: str, head: tuple[int, int] | None = None, *, grid: bool = False
) -> list[View]:
    """All heads of a text and what they do; or one head, (layer, number); or with `grid` all of that.

    Raises:
        InputError: there is no such head, or as `attention` does.
    """
    one = attention(encoder, text)
    chosen: list[View] = [Head(one, *head)] if head else []
    if chosen and not grid:
        return chosen
    done = listed_scores(head_scores([one]))
    return [Heads(one), *chosen, done] if chosen else [done, Heads(one)]


def look_at_flip(
    encoder: Encoder, text_a: str, text_b: str, from_word: str | int, to_words: tuple[str | int, str | int]
) -> list[View]:
    """The heads whose attention moves between two texts, and the first of them on both. Raises as `flip`."""
    flips = flip(encoder, text_a, text_b, from_word, to_words)
    best = flips[0].layer, flips[0].head
    heads = [Head(attention(encoder, text), *best) for text in (text_a, text_b)]
    return [listed_flips(flips, from_word, to_words), *heads]


def look_at_units(
    encoder: Encoder, text: str, chosen: Sequence[tuple[int, int]], *, kind: str | None = None
) -> list[View]:
    """A text shaded by each of some units, (layer, number). Raises as `units` does."""
    found = units(encoder, text, kind=kind)
    name = f"{found.kind} unit"
    return [
        Shading(f"{name} {layer}.{number}", found.tokens, found.unit(layer, number))
        for layer, number in chosen
    ]


def search_units(
    encoder: Encoder,
    texts: Sequence[str],
    feature: str,
    *,
    kind: str | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple["Listing", list[tuple[int, int]]]:
    """The units that follow a feature of `FEATURES`: a list, and (layer, number) of the best.

    Raises:
        InputError: there is no such feature; or as `find_units` does.
    """
    if feature not in FEATURES:
        raise InputError(f"There is no feature {feature}: there are {', '.join(FEATURES)}.")
    found = find_units(encoder, texts, FEATURES[feature], kind=kind, progress=progress)
    return listed_units(found, feature), [(one.layer, one.number) for one in found[:UNITS_SHADED]]


def look_at_factors(encoder: Encoder, text: str, k: int, *, kind: str | None = None) -> list[View]:
    """A text shaded by each factor of its units. Raises as `units` and `factors` do."""
    found = units(encoder, text, kind=kind)
    return [
        Shading(f"factor {number} of {found.kind} units", found.tokens, strength)
        for number, strength in enumerate(factors(found, k).strength)
    ]


@dataclass(frozen=True)
class Listing:
    """A table of text.

    Attributes:
        heading: stands above.
        columns: the names of its columns.
        rows: as many cells each.
    """

    heading: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def terminal(self) -> RenderableType:
        table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
        for column in self.columns:
            table.add_column(Text(_line(column)))
        for row in self.rows:
            table.add_row(*[Text(_line(cell)) for cell in row])
        return Group(Text(_line(self.heading), style="bold"), table, Text())

    def html(self) -> str:
        head = "".join(f"<th>{safe(column)}</th>" for column in self.columns)
        rows = ["".join(f"<td>{safe(cell)}</td>" for cell in row) for row in self.rows]
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return (
            f'<div class="minqa listing"><h2>{safe(self.heading)}</h2>'
            f'<div class="scroll" tabindex="0"><table><tbody><tr>{head}</tr>{body}</tbody></table>'
            "</div></div>"
        )

    def data(self) -> dict[str, Any]:
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return {"heading": self.heading, "rows": rows}


def listed_scores(scores: Mapping[str, Float[np.ndarray, "layer head"]]) -> Listing:
    """For each thing that heads do, the heads that do it most."""
    rows = []
    for name, score in scores.items():
        order = np.argsort(-np.nan_to_num(score), axis=None, kind="stable")[:BEST]
        best = zip(*np.unravel_index(order, score.shape), strict=True)
        cells = [f"{layer + 1}.{head}  {score[layer, head]:.2f}" for layer, head in best]
        known = bool(np.isfinite(score).all())
        rows.append((name, *(cells if known else ["–"] * len(cells)), *[""] * (BEST - len(cells))))
    columns = ("attends to", *(f"{i}." for i in range(1, BEST + 1)))
    return Listing("What heads do: layer.head, and how much of its attention it gives", columns, rows)


def listed_flips(flips: Sequence[Flip], from_word: str | int, to_words: Sequence[str | int]) -> Listing:
    """The ten heads whose attention moves furthest."""
    rows = [
        (
            f"{one.layer}.{one.head}",
            f"{one.moved:+.2f}",
            *(" / ".join(f"{weight:.2f}" for weight in pair) for pair in (one.first, one.second)),
        )
        for one in flips[:10]
    ]
    looked = f"{to_words[0]} / {to_words[1]}"
    columns = ("layer.head", "moved", f"to {looked} in the first text", "in the second")
    return Listing(f"How far the attention of {from_word} moves between {looked}", columns, rows)


def listed_units(found: Sequence[FoundUnit], feature: str) -> Listing:
    """Units that follow a feature."""
    rows = [(f"{one.layer}.{one.number}", f"{one.correlation:+.2f}", _known(one.held_out)) for one in found]
    columns = ("layer.unit", "correlation", "on texts held out")
    return Listing(f"{found[0].kind} units that follow the feature {feature}", columns, rows)


@dataclass(frozen=True)
class Shading:
    """A text whose words are shaded by numbers around zero.

    Attributes:
        title: what the numbers are.
        tokens: the text.
        values: float [word].
    """

    title: str
    tokens: Tokens
    values: Float[np.ndarray, " word"]

    @property
    def largest(self) -> float:
        return float(np.abs(self.values).max(initial=0))

    @property
    def strongest(self) -> str:
        """The words with the largest numbers, either way, first."""
        order = np.argsort(-np.abs(self.values), kind="stable")[:STRONGEST]
        words = self.tokens.word_texts
        return "  ".join(f"{_line(words[i])} {_number(float(self.values[i]))}" for i in order)

    def terminal(self) -> RenderableType:
        body = Text(printable(self.tokens.text))
        for (start, end), value in zip(self.tokens.words.tolist(), self.values.tolist(), strict=True):
            if colour := signed(value, self.largest):
                body.stylize(f"#000000 on {colour}", start, end)
        title = Text(_line(self.title), style="bold")
        return Group(title, body, Text(self.strongest, style="dim"), Text())

    def html(self) -> str:
        marks = {}
        for (start, end), value in zip(self.tokens.words.tolist(), self.values.tolist(), strict=True):
            colour = signed(value, self.largest)
            style = f' style="background:{colour}"' if colour else ""
            word = safe(self.tokens.text[start:end])
            marks[start] = f'<b{style} title="{_number(value)}">{word}</b>'
        swatches = "".join(f'<i style="background:{colour}">&nbsp;</i>' for colour in (*COLD[::-1], *SHADES))
        return (
            f'<div class="minqa"><h2>{safe(self.title)}</h2>'
            f'<p class="passage">{marked(self.tokens, marks)}</p><p><small>{safe(self.strongest)}</small></p>'
            f'<small class="legend">{-self.largest:.2g} {swatches} {self.largest:.2g}</small></div>'
        )

    def data(self) -> dict[str, Any]:
        values = [round(value, 6) for value in self.values.tolist()]
        words = self.tokens.word_texts
        return {"title": self.title, "text": self.tokens.text, "words": words, "values": values}


def influence(found: Saliency) -> list[View]:
    """Both texts shaded by how much each word moves the score."""
    return [
        Shading("Influence of the query's words on the score", found.query, found.query_words),
        Shading("Influence of the passage's words", found.passage, found.passage_words),
    ]


@dataclass(frozen=True)
class Heads:
    """All heads side by side, a layer a row: a small map each, from the part down to the part across."""

    attention: Attention

    def terminal(self) -> RenderableType:
        number = self.attention.words.shape[1]
        return Text(f"One of them: --head LAYER.HEAD, with heads 0 to {number - 1}.", style="dim")

    def html(self) -> str:
        rows = []
        for layer, heads in enumerate(self.attention.words, 1):
            cells = []
            for head, weights in enumerate(heads):
                paths = [
                    f'<path fill="{colour}" d="{"".join(places)}"/>'
                    for colour, places in _squares(weights).items()
                ]
                name, size = f"layer {layer}, head {head}", len(weights)
                cells.append(
                    f'<td><svg role="img" data-layer="{layer}" data-head="{head}" aria-label="{name}" '
                    f'viewBox="0 0 {size} {size}"><title>{name}</title>{"".join(paths)}</svg></td>'
                )
            rows.append(f"<tr><th>{layer}</th>{''.join(cells)}</tr>")
        names = "".join(f"<th>{head}</th>" for head in range(self.attention.words.shape[1]))
        return (
            '<div class="minqa heads"><h2>Every head: layers down, heads across</h2>'
            f'<div class="scroll" tabindex="0"><table><tbody><tr><td></td>{names}</tr>{"".join(rows)}</tbody>'
            "</table></div></div>"
        )

    def data(self) -> dict[str, Any]:
        maps = np.round(self.attention.words.astype(float), 6).tolist()
        return {"parts": list(self.attention.parts), "attention": maps}


@dataclass(frozen=True)
class Head:
    """One head. Raises InputError where there is no such head."""

    attention: Attention
    layer: int
    head: int

    def __post_init__(self) -> None:
        self.attention.place(self.layer, self.head)

    @property
    def weights(self) -> Float[np.ndarray, "part part"]:
        return self.attention.words[self.attention.place(self.layer, self.head)]

    def terminal(self) -> RenderableType:
        """Where each word looks."""
        table = Table.grid(padding=(0, 2, 0, 0))
        for part, row in zip(self.attention.parts, self.weights, strict=True):
            looked = Text()
            for place in np.argsort(-row, kind="stable")[:STRONGEST]:
                if row[place] >= LEAST:
                    colour = share(float(row[place]))
                    style = f"#000000 on {colour}" if colour else ""
                    looked.append(_line(self.attention.parts[place]), style=style)
                    looked.append(f" {row[place]:.2f}  ", style="dim")
            table.add_row(Text(_line(part), style="bold"), Text("→", style="dim"), looked)
        title = Text(f"Layer {self.layer}, head {self.head}", style="bold")
        return Group(title, Text(_line(self.attention.tokens.text), style="dim"), table, Text())

    def html(self) -> str:
        """Arcs, and the matrix."""
        parts, rows = list(self.attention.parts), []
        for i, part in enumerate(parts):
            looked = np.flatnonzero(self.weights[i] >= LEAST).tolist()
            arcs = "".join(_arc(i, j, float(self.weights[i, j])) for j in looked)
            name = part if len(part) <= 16 else f"{part[:15]}…"
            rows.append(f'<g tabindex="0"><text x="160" y="{20 * i + 15}">{safe(name)}</text>{arcs}</g>')
        return (
            f'<div class="minqa"><h2>Layer {self.layer}, head {self.head}</h2>'
            f"<p>{safe(self.attention.tokens.text)}</p>"
            f'<svg class="arcs" viewBox="0 0 320 {20 * len(parts) + 4}" role="img" '
            f'aria-label="arcs of layer {self.layer}, head {self.head}">{"".join(rows)}</svg>'
            "<p><small>From a word, arcs on the left lead to words before it, on the right to words behind "
            "it; a dot looks at itself. Point at a word to see its own.</small></p>"
            "<details><summary>As a matrix, from the word down to the word across</summary>"
            f"{matrix(parts, parts, self.weights, share)}</details></div>"
        )

    def data(self) -> dict[str, Any]:
        maps = np.round(self.weights.astype(float), 6).tolist()
        parts = list(self.attention.parts)
        return {"layer": self.layer, "head": self.head, "parts": parts, "attention": maps}


STYLE = """
.minqa.listing td,.minqa.listing th{text-align:left;padding:.15em 1.2em .15em 0;border:0}
.minqa.listing th{opacity:.75}
.minqa.heads td{border:0;padding:1px;min-width:0}
.minqa.heads th{text-align:center}
.minqa.heads svg{width:3.6em;height:3.6em;border:1px solid #8886;background:#fff;display:block}
.minqa svg.arcs{max-width:26em;display:block;font:13px system-ui,sans-serif}
.minqa svg.arcs text{text-anchor:middle;fill:currentColor}
.minqa svg.arcs path{fill:none;stroke:#d2601a}
.minqa svg.arcs path.before{stroke:#2f86d0}
.minqa svg.arcs circle{fill:#8a8a8a}
.minqa svg.arcs:is(:hover,:focus-within) g:not(:hover,:focus) :is(path,circle){opacity:.07}
"""


def _squares(weights: Float[np.ndarray, "part part"]) -> dict[str, list[str]]:
    """Squares of each colour, as parts of an SVG path."""
    found: dict[str, list[str]] = {}
    for i, j in np.argwhere(weights >= LEAST).tolist():
        if colour := share(float(weights[i, j])):
            found.setdefault(colour, []).append(f"M{j} {i}h1v1h-1z")
    return found


def _arc(i: int, j: int, weight: float) -> str:
    """From row i to row j: on the left where j stands before, on the right where it stands behind."""
    if i == j:
        return f'<circle cx="95" cy="{20 * i + 11}" r="{1 + 3 * weight:.1f}" opacity="{weight:.2f}"/>'
    side = -1 if j < i else 1
    edge, far = 160 + side * 60, 160 + side * (60 + min(95, 12 + 9 * abs(i - j)))
    start, end = 20 * i + 11, 20 * j + 11
    before = ' class="before"' if j < i else ""
    return (
        f'<path{before} d="M{edge} {start}C{far} {start} {far} {end} {edge} {end}" '
        f'stroke-width="{0.6 + 3 * weight:.1f}" opacity="{0.25 + 0.75 * weight:.2f}"/>'
    )


def _known(value: float) -> str:
    return f"{value:+.2f}" if np.isfinite(value) else "–"


def _number(value: float) -> str:
    return f"{value:+.2g}"


def _line(text: str) -> str:
    return printable(text).replace("\n", " ")
