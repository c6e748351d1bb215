"""What can be looked at: each view as terminal text, HTML, a figure and plain data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from minqa.inside.heads import Attention
from minqa.tokens import Tokens
from minqa.views.colours import SHARES, Scale, signed_scale
from minqa.views.figure import Panel, draw
from minqa.views.terminal import faint, heading, shaded, style
from minqa.views.text import as_json, format_activation, format_score, one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Words named below a shaded text, and beside a word that attends to them.
WORDS_NAMED = 5


class View:
    """Something to look at. A kind of view says what rich prints of it, what it is as panels and as data.

    Its HTML is the macro of page.html that has the name of the class.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        raise NotImplementedError

    def html(self, **how: Any) -> str:
        """A block for a page, a notebook or the app; `how` are further arguments of the macro."""
        from minqa.views.html import TEMPLATE  # which needs Jinja2

        return str(getattr(TEMPLATE, type(self).__name__.lower())(self, **how))

    def panels(self) -> list[list[Panel]]:
        """What a figure shows, in rows; nothing if it is all text."""
        return []

    def data(self) -> dict[str, Any]:
        """Plain data for `json.dumps`, which schema.json describes."""
        raise NotImplementedError

    def figure(self, settings: str = "") -> "Figure":
        """A Matplotlib figure; see `draw`."""
        return draw(self.panels(), settings)

    def _repr_html_(self) -> str:
        from minqa.views.html import in_notebook

        return in_notebook(self.html())


@dataclass(frozen=True)
class Stack(View):
    """Views of one text, one below the other."""

    text: str
    views: Sequence[View]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self.views

    def html(self, **how: Any) -> str:
        return "".join(view.html(**how) for view in self.views)

    def panels(self) -> list[list[Panel]]:
        return [row for view in self.views for row in view.panels()]

    def data(self) -> dict[str, Any]:
        return {"text": self.text, "views": [view.data() for view in self.views]}


@dataclass(frozen=True)
class Listing(View):
    """A table of text: rows of as many cells as there are columns."""

    heading: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
        for column in self.columns:
            table.add_column(Text(one_line(column)))
        for row in self.rows:
            table.add_row(*[Text(one_line(cell)) for cell in row])
        yield from (heading(self.heading), table, Text())

    def data(self) -> dict[str, Any]:
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return {"heading": self.heading, "rows": rows}


@dataclass(frozen=True)
class Grid(Panel, View):
    """Numbers with a name for each row and each column, such as words against words."""

    text: str = ""  # that it is about

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The columns that are coloured in each row, the strongest first."""
        grid = Table.grid(padding=(0, 2, 0, 0))
        for name, row in zip(self.rows, self.values, strict=True):
            strongest = Text()
            for place in np.argsort(-row, kind="stable")[:WORDS_NAMED]:
                if colour := self.scale.colour(row[place]):
                    strongest.append(one_line(self.columns[place]), style=style(colour))
                    strongest.append(f" {format_score(row[place])}  ", style="dim")
            grid.add_row(heading(name), faint("→"), strongest)
        yield heading(self.title.capitalize())
        if self.text:
            yield faint(self.text)
        yield from (grid, Text())

    def panels(self) -> list[list[Panel]]:
        return [[self]]

    def data(self) -> dict[str, Any]:
        names = {"rows": [*self.rows], "columns": [*self.columns]}
        return {"title": self.title, "text": self.text, **names, "values": as_json(self.values, 4)}


class Head(Grid):
    """One head of attention, from the parts of a text to its parts; HTML draws arcs too."""

    @classmethod
    def of(cls, maps: Attention, layer: int, head: int) -> "Head":
        """Raises InputError if there is no such head."""
        name, weights = f"layer {layer}, head {head}", maps.words[maps.place(layer, head)]
        return cls(name, maps.parts, maps.parts, weights, SHARES, maps.tokens.text)


@dataclass(frozen=True)
class Heads(View):
    """All heads, a row per layer: a small map per head, from the part down to the part across."""

    attention: Attention

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        heads = self.attention.words.shape[1]
        yield faint(f"One of them: --head LAYER.HEAD, with heads 0 to {heads - 1}.")

    def panels(self) -> list[list[Panel]]:
        return [
            [Panel(f"{layer}.{head}", (), (), weights, SHARES) for head, weights in enumerate(row)]
            for layer, row in enumerate(self.attention.words, 1)
        ]

    def data(self) -> dict[str, Any]:
        return {"parts": [*self.attention.parts], "attention": as_json(self.attention.words, 4)}


@dataclass(frozen=True)
class Shading(View):
    """A text whose words are shaded by numbers around zero; `title` says what the numbers are."""

    title: str
    tokens: Tokens
    values: Float[np.ndarray, " word"]

    @property
    def scale(self) -> Scale:
        return signed_scale(self.values)

    @property
    def strongest(self) -> str:
        """The words with the largest numbers of either sign, largest first."""
        order = np.argsort(-np.abs(self.values), kind="stable")[:WORDS_NAMED]
        words = self.tokens.word_texts
        return "  ".join(f"{one_line(words[i])} {format_activation(float(self.values[i]))}" for i in order)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        body = shaded(self.tokens.text, self.tokens.words, self.scale.colours(self.values))
        yield from (heading(self.title), body, faint(self.strongest), Text())

    def panels(self) -> list[list[Panel]]:
        name, shares = f"{self.title}, up to ± {self.scale.ends[1][1:]}", self.values[None] / self.scale.high
        return [[Panel("", [name], self.tokens.word_texts, shares, signed_scale(shares))]]

    def data(self) -> dict[str, Any]:
        words, values = self.tokens.word_texts, as_json(self.values)
        return {"title": self.title, "text": self.tokens.text, "words": words, "values": values}
