"""Heat maps, heads and units → Matplotlib figures, for papers."""

import io
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from minqa.heatmap import HeatMap
from minqa.text import InputError
from minqa.views.colours import COLD, SHADES
from minqa.views.look import Head, Heads, Shading, View
from minqa.views.text import format_activation, format_score, one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
# A figure of more words is wider than viewers open.
MAX_WORDS = 400
SQUARE_INCHES = 0.28
WARM = ("#ffffff", *SHADES, "#a83206")
AROUND_ZERO = (*COLD[::-1], "#ffffff", *SHADES)


class Panel(NamedTuple):
    """A matrix to draw, with the names of its rows and columns; `limits` and `label` are of its colours."""

    values: Float[np.ndarray, "row column"]
    rows: Sequence[str]
    columns: Sequence[str]
    limits: tuple[float, float]
    label: str
    title: str = ""
    colours: Sequence[str] = WARM


def figure(heat: HeatMap, *, settings: str = "") -> "Figure":
    """Every query word against every passage word, and the heat of the passage below.

    `settings` is a line at the bottom that says how it was made. Raises InputError if a text has more than
    `MAX_WORDS` words.
    """
    query = zip(heat.query.word_texts, heat.contributions, strict=True)
    rows = [f"{word}  {format_score(contribution)}" for word, contribution in query]
    rows += [f"heat, score {format_score(heat.score, 3)}"]
    values = np.vstack([heat.word_similarity, heat.heat])
    values = np.where(np.isfinite(values), values, np.nan)
    label = "similarity, from baseline to identical"
    panel = Panel(values, rows, heat.passage.word_texts, (heat.baseline, heat.identical), label)
    drawn = _draw([panel], settings)
    drawn.axes[0].axhline(len(rows) - 1, color="black", linewidth=1)
    return drawn


def views_figure(views: Sequence[View], *, settings: str = "") -> "Figure":
    """The figure of all heads, or of single heads, or of shadings of one text; see `figure`."""
    for view in views:
        if isinstance(view, Heads):
            return _draw_heads(view.attention.words, settings)
    panels = [
        Panel(view.weights, view.attention.parts, view.attention.parts, (0.0, 1.0), "attention", view.name)
        for view in views
        if isinstance(view, Head)
    ]
    if not panels:
        shadings = [view for view in views if isinstance(view, Shading)]
        values = np.stack([view.values / max(view.largest, 1e-9) for view in shadings])
        rows = [f"{view.title}, up to ± {format_activation(view.largest)[1:]}" for view in shadings]
        words, label = shadings[0].tokens.word_texts, "part of the row's largest"
        panels = [Panel(values, rows, words, (-1.0, 1.0), label, colours=AROUND_ZERO)]
    return _draw(panels, settings)


def _draw(panels: Sequence[Panel], settings: str) -> "Figure":
    """The panels one below the other, each with a colour bar."""
    rows, columns = (max(len(panel[axis]) for panel in panels) for axis in (1, 2))
    width, height = max(4.5, columns * SQUARE_INCHES + 2.4), rows * SQUARE_INCHES + 1.6
    drawn = _new(max(rows, columns), width, height * len(panels), settings)
    slanted = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"}
    for panel, axes in zip(panels, drawn.subplots(len(panels), squeeze=False).flat, strict=True):
        colours = _scale(panel.colours, *panel.limits)
        squares = axes.pcolormesh(panel.values, **colours, edgecolors="white", linewidth=0.6)
        for axis, names, style in ((axes.yaxis, panel.rows, {}), (axes.xaxis, panel.columns, slanted)):
            # Without parse_math, a $ in a text is a $.
            axis.set_ticks(np.arange(len(names)) + 0.5, [*map(one_line, names)], parse_math=False, **style)
        axes.invert_yaxis()
        axes.set_title(panel.title, fontsize=10)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        drawn.colorbar(squares, ax=axes, shrink=min(1, 2.5 / height), aspect=12).set_label(panel.label)
    return drawn


def _draw_heads(maps: Float[np.ndarray, "layer head part part"], settings: str) -> "Figure":
    """A small map per head: layers down, heads across."""
    layers, heads, words, _ = maps.shape
    drawn = _new(words, heads * 0.9 + 0.6, layers * 0.95 + 0.5, settings)
    for (layer, head), axes in np.ndenumerate(drawn.subplots(layers, heads, squeeze=False)):
        axes.imshow(maps[layer, head], **_scale(WARM, 0.0, 1.0))
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"{layer + 1}.{head}", fontsize=7, pad=2)
    return drawn


def _new(words: int, width: float, height: float, settings: str) -> "Figure":
    """An empty figure, with a line at the bottom that says how it was made."""
    from matplotlib.figure import Figure

    if words > MAX_WORDS:
        raise InputError(f"A figure holds at most {MAX_WORDS} words of a text: ask for --html.")
    drawn = Figure(figsize=(width, height), layout="constrained")
    if settings:
        lines = "\n".join(wrap(one_line(settings), int(width * 16)))
        drawn.supxlabel(lines, fontsize=7, color="0.4", parse_math=False)
    return drawn


def _scale(colours: Sequence[str], low: float, high: float) -> dict[str, Any]:
    from matplotlib.colors import LinearSegmentedColormap

    return {"cmap": LinearSegmentedColormap.from_list("minqa", colours), "vmin": low, "vmax": high}


def check_format(path: Path) -> None:
    """Raise InputError if no figure can be made for a file of this name."""
    if path.suffix not in FORMATS:
        raise InputError(f"{path} should end in {', '.join(FORMATS)}, which says what to draw.")
    if find_spec("matplotlib") is None:
        raise InputError(
            "A picture needs Matplotlib: install it with `uv sync --extra figure`, or ask for --html."
        )


def picture(drawn: "Figure", path: Path) -> bytes:
    """The figure in the format of a file of this name, which `check_format` has checked."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box stands for it
        drawn.savefig(content, dpi=160, format=path.suffix[1:], bbox_inches="tight")
    return content.getvalue()
