"""Matrices of numbers → Matplotlib figures, for papers."""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from minqa.files.extras import needed
from minqa.text import InputError
from minqa.views.colours import COLD, SHADES, Scale
from minqa.views.text import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
# A figure of more words is wider than viewers open.
MAX_WORDS = 400
SQUARE_INCHES = 0.28
SMALL_INCHES = 0.95  # the side of a panel without names
WARM = ("#ffffff", *SHADES, "#a83206")
AROUND_ZERO = (*COLD[::-1], "#ffffff", *SHADES)


@dataclass(frozen=True)
class Panel:
    """Numbers with a name for each row and each column; without names they are drawn small."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Float[np.ndarray, "row column"]
    scale: Scale


def draw(rows: Sequence[Sequence[Panel]], settings: str = "") -> "Figure":
    """Rows of panels; rows of numbers about one text are one panel.

    `settings` is a line at the bottom that says how it was made. Raises InputError if there is nothing to
    draw, or if a text has more than `MAX_WORDS` words.
    """
    from matplotlib.figure import Figure

    rows = _joined(rows)
    if not rows:
        raise InputError("There is no matrix in this to draw: ask for --html.")
    if max(max(panel.values.shape) for row in rows for panel in row) > MAX_WORDS:
        raise InputError(f"A figure holds at most {MAX_WORDS} words of a text: ask for --html.")
    width = max(sum(_inches(panel)[0] for panel in row) for row in rows)
    heights = [max(_inches(panel)[1] for panel in row) for row in rows]
    drawn = Figure(figsize=(width, sum(heights)), layout="constrained")
    parts = drawn.subfigures(len(rows), squeeze=False, height_ratios=heights).flat
    for part, row in zip(parts, rows, strict=True):
        for axes, panel in zip(part.subplots(1, len(row), squeeze=False).flat, row, strict=True):
            _draw(panel, axes)
    if settings:
        lines = "\n".join(wrap(one_line(settings), int(width * 16)))
        drawn.text(0.5, 0, lines, ha="center", va="top", fontsize=7, color="0.4", parse_math=False)
    return drawn


def _joined(rows: Sequence[Sequence[Panel]]) -> list[Sequence[Panel]]:
    """Panels without a title that have the same columns become one."""
    joined: list[Sequence[Panel]] = []
    for row in rows:
        panel, above = row[0], joined[-1][0] if joined else None
        if panel.title or above is None or above.title or above.columns != panel.columns:
            joined.append(row)
        else:
            values = np.vstack([above.values, panel.values])
            joined[-1] = [replace(above, values=values, rows=[*above.rows, *panel.rows])]
    return joined


def _inches(panel: Panel) -> tuple[float, float]:
    if not panel.rows:
        return SMALL_INCHES, SMALL_INCHES
    return max(4.5, len(panel.columns) * SQUARE_INCHES + 2.4), len(panel.rows) * SQUARE_INCHES + 1.6


def _draw(panel: Panel, axes: Any) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("minqa", AROUND_ZERO if panel.scale.signed else WARM)
    how = {"cmap": colours, "vmin": panel.scale.low, "vmax": panel.scale.high}
    if not panel.rows:
        axes.imshow(panel.values, **how)
        axes.set(xticks=[], yticks=[])
        axes.set_title(panel.title, fontsize=7, pad=2)
        return
    values = np.where(np.isfinite(panel.values), panel.values, np.nan)
    drawn = axes.pcolormesh(values, **how, edgecolors="white", linewidth=0.6)
    slanted = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"}
    for axis, names, style in ((axes.yaxis, panel.rows, {}), (axes.xaxis, panel.columns, slanted)):
        # Without parse_math, a $ in a text is a $.
        axis.set_ticks(np.arange(len(names)) + 0.5, [*map(one_line, names)], parse_math=False, **style)
    axes.invert_yaxis()
    axes.set_title(one_line(panel.title), fontsize=10, parse_math=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = axes.figure.colorbar(drawn, ax=axes, shrink=min(1, 2.5 / _inches(panel)[1]), aspect=12)
    bar.set_label(panel.scale.label)


def check_format(path: Path) -> None:
    """Raise InputError if no figure can be made for a file of this name."""
    if path.suffix not in FORMATS:
        raise InputError(f"{path} should end in {', '.join(FORMATS)}, which says what to draw.")
    needed("matplotlib", "A picture", "figure", instead="ask for --html")


def picture(drawn: "Figure", path: Path) -> bytes:
    """The figure in the format of a file of this name, which `check_format` has checked."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box stands for it
        drawn.savefig(content, dpi=160, format=path.suffix[1:], bbox_inches="tight")
    return content.getvalue()
