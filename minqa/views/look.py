"""Heads, units and influence → coloured text for the terminal, HTML and plain data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from minqa.encoder import Encoder
from minqa.inside.features import FEATURES
from minqa.inside.heads import Attention, attention, flip, head_scores
from minqa.inside.saliency import Saliency
from minqa.inside.units import factors, find_units, units
from minqa.text import InputError
from minqa.tokens import Tokens
from minqa.views.colours import COLD, SHADES, SHARES, share, signed
from minqa.views.html import TEMPLATE
from minqa.views.terminal import shaded, style
from minqa.views.text import format_activation, format_score, json_number, one_line

# Words named below a shaded text, and beside a word that attends to them.
WORDS_NAMED = 5
HEADS_LISTED = 3
FLIPS_LISTED = 10
UNITS_SHADED = 3
_with_sign = partial(format_score, sign="+")


@dataclass(frozen=True)
class Listing:
    """A table of text: rows of as many cells as there are columns."""

    heading: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def terminal(self) -> RenderableType:
        table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
        for column in self.columns:
            table.add_column(Text(one_line(column)))
        for row in self.rows:
            table.add_row(*[Text(one_line(cell)) for cell in row])
        return Group(Text(one_line(self.heading), style="bold"), table, Text())

    def html(self) -> str:
        return str(TEMPLATE.listing(self))

    def data(self) -> dict[str, Any]:
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return {"heading": self.heading, "rows": rows}


@dataclass(frozen=True)
class Shading:
    """A text whose words are shaded by numbers around zero; `title` says what the numbers are."""

    title: str
    tokens: Tokens
    values: Float[np.ndarray, " word"]

    @property
    def largest(self) -> float:
        return float(np.abs(self.values).max(initial=0))

    @property
    def colours(self) -> list[str | None]:
        return [signed(value, self.largest) for value in self.values.tolist()]

    @property
    def strongest(self) -> str:
        """The words with the largest numbers of either sign, largest first."""
        order = np.argsort(-np.abs(self.values), kind="stable")[:WORDS_NAMED]
        words = self.tokens.word_texts
        return "  ".join(f"{one_line(words[i])} {format_activation(float(self.values[i]))}" for i in order)

    def terminal(self) -> RenderableType:
        title, strongest = Text(one_line(self.title), style="bold"), Text(self.strongest, style="dim")
        return Group(title, shaded(self.tokens.text, self.tokens.words, self.colours), strongest, Text())

    def html(self) -> str:
        return str(TEMPLATE.shading(self, [(colour, "\xa0") for colour in (*COLD[::-1], *SHADES)]))

    def data(self) -> dict[str, Any]:
        words, values = self.tokens.word_texts, json_number(self.values)
        return {"title": self.title, "text": self.tokens.text, "words": words, "values": values}


@dataclass(frozen=True)
class Heads:
    """All heads, a row per layer: a small map per head, from the part down to the part across."""

    attention: Attention

    def terminal(self) -> RenderableType:
        heads = self.attention.words.shape[1]
        return Text(f"One of them: --head LAYER.HEAD, with heads 0 to {heads - 1}.", style="dim")

    def html(self) -> str:
        maps = [[_squares(weights) for weights in layer] for layer in self.attention.words]
        return str(TEMPLATE.heads(maps, len(self.attention.parts)))

    def data(self) -> dict[str, Any]:
        return {"parts": list(self.attention.parts), "attention": json_number(self.attention.words)}


@dataclass(frozen=True)
class Head:
    """One head. Raises InputError if there is no such head."""

    attention: Attention
    layer: int
    head: int

    def __post_init__(self) -> None:
        self.attention.place(self.layer, self.head)

    @property
    def weights(self) -> Float[np.ndarray, "part part"]:
        return self.attention.words[self.attention.place(self.layer, self.head)]

    @property
    def name(self) -> str:
        return f"layer {self.layer}, head {self.head}"

    def terminal(self) -> RenderableType:
        """What each word attends to."""
        table = Table.grid(padding=(0, 2, 0, 0))
        for part, row in zip(self.attention.parts, self.weights, strict=True):
            targets = Text()
            for place in np.argsort(-row, kind="stable")[:WORDS_NAMED]:
                if colour := share(row[place]):
                    targets.append(one_line(self.attention.parts[place]), style=style(colour))
                    targets.append(f" {format_score(row[place])}  ", style="dim")
            table.add_row(Text(one_line(part), style="bold"), Text("→", style="dim"), targets)
        text = Text(one_line(self.attention.tokens.text), style="dim")
        return Group(Text(self.name.capitalize(), style="bold"), text, table, Text())

    def html(self) -> str:
        """Arcs, and the matrix."""
        return str(TEMPLATE.head(self))

    def data(self) -> dict[str, Any]:
        parts, weights = list(self.attention.parts), json_number(self.weights)
        return {"layer": self.layer, "head": self.head, "parts": parts, "attention": weights}


View: TypeAlias = Listing | Shading | Heads | Head


def look_at_heads(
    encoder: Encoder, text: str, head: tuple[int, int] | None = None, *, grid: bool = False
) -> list[View]:
    """All heads of a text and what they do; or one head, (layer, number); or, with `grid`, all of these.

    Raises InputError if there is no such head, or as `attention`.
    """
    maps = attention(encoder, text)
    chosen = [Head(maps, *head)] if head else []
    if chosen and not grid:
        return [*chosen]
    listing = _list_scores(maps)
    return [Heads(maps), *chosen, listing] if chosen else [listing, Heads(maps)]


def _list_scores(maps: Attention) -> Listing:
    """For each thing that heads do, the heads that do it most."""
    rows = []
    for name, scores in head_scores([maps]).items():
        order = np.argsort(-np.nan_to_num(scores), axis=None, kind="stable")[:HEADS_LISTED]
        best = zip(*np.unravel_index(order, scores.shape), strict=True)
        cells = [f"{layer + 1}.{head}  {format_score(scores[layer, head])}" for layer, head in best]
        cells = cells if np.isfinite(scores).all() else ["–"] * len(cells)
        rows.append((name, *cells, *[""] * (HEADS_LISTED - len(cells))))
    columns = ("attends to", *(f"{place}." for place in range(1, HEADS_LISTED + 1)))
    return Listing("What heads do: layer.head, and how much of its attention it gives", columns, rows)


def look_at_flip(
    encoder: Encoder, text_a: str, text_b: str, from_word: str | int, to_words: tuple[str | int, str | int]
) -> list[View]:
    """The heads whose attention moves between two texts, and the first of them on both. Raises as `flip`."""
    flips = flip(encoder, text_a, text_b, from_word, to_words)
    rows = []
    for head in flips[:FLIPS_LISTED]:
        weights = [" / ".join(map(format_score, pair)) for pair in (head.first, head.second)]
        rows.append((f"{head.layer}.{head.head}", _with_sign(head.moved), *weights))
    words = f"{to_words[0]} / {to_words[1]}"
    columns = ("layer.head", "moved", f"to {words} in the first text", "in the second")
    listing = Listing(f"How far the attention of {from_word} moves between {words}", columns, rows)
    best = flips[0].layer, flips[0].head
    return [listing, *(Head(attention(encoder, text), *best) for text in (text_a, text_b))]


def look_at_units(
    encoder: Encoder, text: str, chosen: Sequence[tuple[int, int]], *, kind: str | None = None
) -> list[View]:
    """A text shaded by each of some units, (layer, number). Raises as `units`."""
    read = units(encoder, text, kind=kind)
    return [Shading(f"{read.kind} unit {i}.{j}", read.tokens, read.unit(i, j)) for i, j in chosen]


def search_units(
    encoder: Encoder,
    texts: Sequence[str],
    feature: str,
    *,
    kind: str | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[Listing, list[tuple[int, int]]]:
    """The units that follow a feature of `FEATURES`: a list, and (layer, number) of the best.

    Raises InputError if there is no such feature, or as `find_units`.
    """
    if feature not in FEATURES:
        raise InputError(f"There is no feature {feature}: there are {', '.join(FEATURES)}.")
    best = find_units(encoder, texts, FEATURES[feature], kind=kind, progress=progress)
    rows = [
        (f"{unit.layer}.{unit.number}", _with_sign(unit.correlation), _with_sign(unit.held_out))
        for unit in best
    ]
    columns = ("layer.unit", "correlation", "on texts held out")
    listing = Listing(f"{best[0].kind} units that follow the feature {feature}", columns, rows)
    return listing, [(unit.layer, unit.number) for unit in best[:UNITS_SHADED]]


def look_at_factors(encoder: Encoder, text: str, k: int, *, kind: str | None = None) -> list[View]:
    """A text shaded by each factor of its units. Raises as `units` and `factors`."""
    read = units(encoder, text, kind=kind)
    strengths = enumerate(factors(read, k).strength)
    return [Shading(f"factor {i} of {read.kind} units", read.tokens, values) for i, values in strengths]


def influence(saliency: Saliency) -> list[View]:
    """Both texts shaded by how much each word moves the score."""
    return [
        Shading("Influence of the query's words on the score", saliency.query, saliency.query_words),
        Shading("Influence of the passage's words", saliency.passage, saliency.passage_words),
    ]


def _squares(weights: Float[np.ndarray, "part part"]) -> dict[str, str]:
    """The squares of each colour in a map, as an SVG path."""
    paths: dict[str, str] = {}
    for i, j in np.argwhere(weights >= SHARES[0]).tolist():
        if colour := share(weights[i, j]):
            paths[colour] = paths.get(colour, "") + f"M{j} {i}h1v1h-1z"
    return paths
