"""Numbers → colours: one scale for every picture, so that two pictures can be compared."""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from jaxtyping import Float

from minqa.heatmap import HeatMap
from minqa.views.text import Number, format_score

# From warm to hot, for black text: legible on dark and light grounds alike, and told apart by lightness where
# hues are not.
SHADES = ("#fff3c4", "#ffe08a", "#ffc04d", "#ff9a2e", "#f26b1d")
# From cool to cold, for numbers below zero: all kinds of colour vision tell orange from blue.
COLD = ("#e1effb", "#bcdcf5", "#8cc3ee", "#5aa5e2", "#2f86d0")
# The part of the scale, from the baseline to identity, that has no colour.
UNSHADED = 0.3


def bounds(baseline: float, identical: float = 1.0) -> list[float]:
    """The similarity at which each of the `SHADES` begins, from 0.3 of the way to identity."""
    parts = [UNSHADED + (1 - UNSHADED) * step / len(SHADES) for step in range(len(SHADES))]
    return [baseline + (identical - baseline) * part for part in parts]


def shade(value: Number, limits: Sequence[float]) -> str | None:
    """The colour of a number: the last of the `SHADES` whose limit it reaches."""
    steps = sum(value >= limit for limit in limits)
    return SHADES[steps - 1] if steps else None


# The colour of a part of a whole, such as attention.
SHARES = (0.05, 0.1, 0.2, 0.4, 0.7)
share = partial(shade, limits=SHARES)


def shades(heat: HeatMap, similarity: Float[np.ndarray, " word"]) -> list[str | None]:
    """The colour of each word on the scale of a heat map."""
    limits = bounds(heat.baseline, heat.identical)
    return [shade(value, limits) for value in similarity.tolist()]


def signed(value: Number, largest: float) -> str | None:
    """The colour of a number around zero: five steps from a tenth of `largest`, cold below zero."""
    part = abs(float(value)) / largest if largest > 0 else 0.0
    steps = min(len(SHADES), math.ceil((part - 0.1) / 0.9 * len(SHADES))) if part > 0.1 else 0
    return (SHADES if value > 0 else COLD)[steps - 1] if steps else None


def query_heat(heat: HeatMap) -> Float[np.ndarray, " query_word"]:
    """Contributions as similarities: baseline + (contribution - baseline · weight) / max weight."""
    above = heat.contributions - heat.baseline * heat.weights
    return heat.baseline + above / max(heat.weights.max(initial=0), np.float32(1e-9))


def legend(heat: HeatMap) -> tuple[str, list[tuple[str, str]], str]:
    """The start of the scale, each shade with the similarity where it begins, and the end of the scale."""
    steps = zip(SHADES, map(format_score, bounds(heat.baseline, heat.identical)), strict=True)
    return f"baseline {format_score(heat.baseline)}", list(steps), f"{heat.identical:.3g} identical"
