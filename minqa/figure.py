"""Heat map → Matplotlib figure: the whole matrix, for papers."""

import io
import warnings
from importlib.util import find_spec
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np

from minqa.colours import SHADES
from minqa.errors import InputError
from minqa.heatmap import HeatMap
from minqa.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
# A figure of more words is wider than what a viewer opens.
WORDS = 400


def figure(heat: HeatMap, *, settings: str = "") -> "Figure":
    """Every word of the query against every word of the passage, and the heat of the passage beneath.

    Raises:
        InputError: the passage has more than `WORDS` words.

    Args:
        heat: the colours begin at what unrelated texts reach, and end at identity.
        settings: a line beneath that says how it was made.
    """
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    if max(len(heat.query.words), len(heat.passage.words)) > WORDS:
        raise InputError(f"A figure holds at most {WORDS} words of a text: ask for --html.")
    colours = LinearSegmentedColormap.from_list("heat", ["#ffffff", *SHADES, "#a83206"])
    query, passage = ([printable(word) for word in one.word_texts] for one in (heat.query, heat.passage))
    rows = np.vstack([heat.word_similarity, np.where(np.isfinite(heat.heat), heat.heat, np.nan)[None]])
    height, width = rows.shape[0] * 0.28 + 1.6, max(4.5, rows.shape[1] * 0.28 + 2.2)
    drawn = Figure(figsize=(width, height), layout="constrained")
    axes = drawn.subplots()
    picture = axes.pcolormesh(
        np.arange(rows.shape[1] + 1), [*range(len(query) + 1), len(query) + 1.4], rows,
        cmap=colours, vmin=heat.unrelated, vmax=1, edgecolors="white", linewidth=0.6,
    )  # fmt: skip
    axes.axhline(len(query), color="black", linewidth=1)
    axes.invert_yaxis()
    shares = [f"{word}  {added:.2f}" for word, added in zip(query, heat.contributions, strict=True)]
    labels = [*shares, f"heat, score {heat.score:.3f}"]
    # Without mathematics, a $ in a text is a $.
    axes.set_yticks([*(np.arange(len(query)) + 0.5), len(query) + 0.7], labels, parse_math=False)
    axes.set_xticks(
        np.arange(len(passage)) + 0.5,
        passage,
        rotation=60,
        ha="right",
        rotation_mode="anchor",
        parse_math=False,
    )
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = drawn.colorbar(picture, ax=axes, shrink=min(1, 2.5 / height), aspect=12)
    bar.set_label("cosine, from unrelated to identical")
    if settings:
        lines = "\n".join(wrap(printable(settings), int(width * 16)))
        drawn.supxlabel(lines, fontsize=7, color="0.4", parse_math=False)
    return drawn


def check_format(path: Path) -> None:
    """Raise InputError where no figure can be made for a file of this name."""
    if path.suffix not in FORMATS:
        raise InputError(f"{path} should end in {', '.join(FORMATS)}, which says what to draw.")
    if find_spec("matplotlib") is None:
        raise InputError(
            "A picture needs Matplotlib: install it with `uv sync --extra figure`, or ask for --html."
        )


def picture(heat: HeatMap, path: Path, *, settings: str = "") -> bytes:
    """The figure as the content of a file of this name. Raises InputError as `check_format` does."""
    check_format(path)
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box stands for it
        figure(heat, settings=settings).savefig(content, dpi=160, format=path.suffix[1:], bbox_inches="tight")
    return content.getvalue()
