"""Pieces of coloured text for the terminal, which views are put together from."""

from collections.abc import Sequence
from itertools import zip_longest

from jaxtyping import Int
from numpy import ndarray
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from minqa.views.colours import Scale
from minqa.views.text import one_line, printable


def print_view(shown: RenderableType) -> None:
    """Print to standard output; without colours, as in a file, no line ends in spaces."""
    console = Console()
    if console.color_system:
        console.print(shown)
    else:
        with console.capture() as capture:
            console.print(shown)
        print("\n".join(line.rstrip() for line in capture.get().splitlines()))


def heading(text: str) -> Text:
    return Text(one_line(text), style="bold")


def faint(text: str) -> Text:
    return Text(one_line(text), style="dim")


def style(colour: str | None) -> str:
    """The rich style of text on a colour, "" for none."""
    return f"#000000 on {colour}" if colour else ""


def shaded(text: str, words: Int[ndarray, "word 2"], colours: Sequence[str | None]) -> Text:
    """A text with its words on their colours."""
    body = Text(printable(text))
    for (start, end), colour in zip(words.tolist(), colours, strict=True):
        body.stylize(style(colour), start, end)
    return body


def legend(scale: Scale) -> Text:
    swatches = [(f" {text or ' '} ", f"not dim {style(colour)}") for colour, text in scale.steps]
    return Text.assemble(f"{scale.ends[0]} ", *swatches, f"  {scale.ends[1]}", style="dim")


def side_by_side(names: Sequence[str], columns: Sequence[Sequence[Text]]) -> RenderableType:
    """Columns of equal width, each with its name above."""
    grid = Table.grid(padding=(0, 3, 0, 0), pad_edge=True, expand=True)  # columns that break lines alike
    for _ in names:
        grid.add_column(ratio=1, overflow="fold")
    grid.add_row(*[Text(one_line(name), style="bold cyan") for name in names])
    for row in zip_longest(*columns, fillvalue=Text()):
        grid.add_row(*row)
    return grid
