"""Heat maps, heads and units → Matplotlib figures, for papers."""

import io
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np

from minqa.colours import COLD, SHADES
from minqa.errors import InputError
from minqa.heatmap import HeatMap
from minqa.look import Head, Heads, Shading, View
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
    from matplotlib.figure import Figure

    _check_words(len(heat.query.words), len(heat.passage.words))
    query, passage = ([printable(word) for word in one.word_texts] for one in (heat.query, heat.passage))
    rows = np.vstack([heat.word_similarity, np.where(np.isfinite(heat.heat), heat.heat, np.nan)[None]])
    height, width = rows.shape[0] * 0.28 + 1.6, max(4.5, rows.shape[1] * 0.28 + 2.2)
    drawn = Figure(figsize=(width, height), layout="constrained")
    axes = drawn.subplots()
    picture = axes.pcolormesh(
        np.arange(rows.shape[1] + 1), [*range(len(query) + 1), len(query) + 1.4], rows,
        cmap=_colours(), vmin=heat.unrelated, vmax=1, edgecolors="white", linewidth=0.6,
    )  # fmt: skip
    axes.axhline(len(query), color="black", linewidth=1)
    axes.invert_yaxis()
    shares = [f"{word}  {added:.2f}" for word, added in zip(query, heat.contributions, strict=True)]
    labels = [*shares, f"heat, score {heat.score:.3f}"]
    # Without mathematics, a $ in a text is a $.
    axes.set_yticks([*(np.arange(len(query)) + 0.5), len(query) + 0.7], labels, parse_math=False)
    _name_columns(axes, passage)
    bar = drawn.colorbar(picture, ax=axes, shrink=min(1, 2.5 / height), aspect=12)
    bar.set_label("cosine, from unrelated to identical")
    return _signed_off(drawn, settings, width)


def views_figure(views: Sequence[View], *, settings: str = "") -> "Figure":
    """All heads, or one, or shaded texts, of what there is to look at.

    Raises:
        InputError: a text has more than `WORDS` words.
    """
    from matplotlib.figure import Figure

    for view in views:
        if isinstance(view, Heads):
            return _all_heads(view, settings)
    if heads := [view for view in views if isinstance(view, Head)]:
        return _each_head(heads, settings)
    shadings = [view for view in views if isinstance(view, Shading)]
    # Each on a scale of its own.
    rows = np.stack([one.values / max(one.largest, 1e-9) for one in shadings])
    titles = [f"{one.title}, up to ± {one.largest:.2g}" for one in shadings]
    words = shadings[0].tokens.word_texts
    colours = _colours([*COLD[::-1], "#ffffff", *SHADES])
    _check_words(len(words))
    height, width = len(rows) * 0.28 + 1.6, max(4.5, len(words) * 0.28 + 2.4)
    drawn = Figure(figsize=(width, height), layout="constrained")
    axes = drawn.subplots()
    picture = _squares(axes, rows, titles, words, colours, (-1, 1))
    bar = drawn.colorbar(picture, ax=axes, shrink=min(1, 2.5 / height), aspect=12)
    bar.set_label("of a row's largest")
    return _signed_off(drawn, settings, width)


def _each_head(heads: Sequence[Head], settings: str) -> "Figure":
    """A head's map of each of several texts, one beneath the other."""
    from matplotlib.figure import Figure

    most = max(len(view.attention.parts) for view in heads)
    _check_words(most)
    side = most * 0.28 + 1.6
    drawn = Figure(figsize=(max(4.5, side + 1), side * len(heads)), layout="constrained")
    for view, axes in zip(heads, drawn.subplots(len(heads), squeeze=False).flat, strict=True):
        parts = list(view.attention.parts)
        picture = _squares(axes, view.weights, parts, parts, _colours(), (0, 1))
        axes.set_title(f"layer {view.layer}, head {view.head}", fontsize=10)
        drawn.colorbar(picture, ax=axes, shrink=0.5, aspect=12).set_label("attention")
    return _signed_off(drawn, settings, max(4.5, side + 1))


def _all_heads(view: Heads, settings: str) -> "Figure":
    from matplotlib.figure import Figure

    maps = view.attention.words
    _check_words(len(view.attention.parts))
    layers, heads = maps.shape[:2]
    drawn = Figure(figsize=(heads * 0.9 + 0.6, layers * 0.95 + 0.5), layout="constrained")
    for (layer, head), axes in np.ndenumerate(drawn.subplots(layers, heads, squeeze=False)):
        axes.imshow(maps[layer, head], cmap=_colours(), vmin=0, vmax=1)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(f"{layer + 1}.{head}", fontsize=7, pad=2)
    return _signed_off(drawn, settings, heads * 0.9 + 0.6)


def _squares(axes, values, rows, columns, colours, limits):
    picture = axes.pcolormesh(
        values, cmap=colours, vmin=limits[0], vmax=limits[1], edgecolors="white", linewidth=0.6
    )
    axes.invert_yaxis()
    axes.set_yticks(np.arange(len(rows)) + 0.5, [printable(row) for row in rows], parse_math=False)
    _name_columns(axes, columns)
    return picture


def _name_columns(axes, columns: Sequence[str]) -> None:
    axes.set_xticks(
        np.arange(len(columns)) + 0.5,
        [printable(column) for column in columns],
        rotation=60,
        ha="right",
        rotation_mode="anchor",
        parse_math=False,
    )
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _colours(colours: Sequence[str] = ("#ffffff", *SHADES, "#a83206")):
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("minqa", colours)


def _check_words(*numbers: int) -> None:
    if max(numbers) > WORDS:
        raise InputError(f"A figure holds at most {WORDS} words of a text: ask for --html.")


def _signed_off(drawn: "Figure", settings: str, width: float) -> "Figure":
    """The figure, with a line beneath that says how it was made."""
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


def picture(drawn: "Figure", path: Path) -> bytes:
    """A figure as the content of a file of this name, whose format was checked."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box stands for it
        drawn.savefig(content, dpi=160, format=path.suffix[1:], bbox_inches="tight")
    return content.getvalue()
