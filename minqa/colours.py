"""Heat → colour: one scale for every picture, so that two pictures can be compared."""

import numpy as np

# From warm to hot, each with black text on it: legible on dark and light grounds alike, and told apart by
# lightness where hues are not.
SHADES = ("#fff3c4", "#ffe08a", "#ffc04d", "#ff9a2e", "#f26b1d")
# From cool to cold, for what lies below zero: orange and blue are told apart by all kinds of colour vision.
COLD = ("#e1effb", "#bcdcf5", "#8cc3ee", "#5aa5e2", "#2f86d0")
# Of the way from what unrelated texts reach to identity, the part that is left without colour.
UNSHADED = 0.3


def shade(heat: float, unrelated: float) -> str | None:
    """The colour of a heat: none up to 0.3 of the way from `unrelated` to 1, then five steps."""
    limits = bounds(unrelated)
    steps = sum(heat >= limit for limit in limits)
    return SHADES[steps - 1] if steps else None


def bounds(unrelated: float) -> list[float]:
    """The heat at which each of the `SHADES` begins."""
    parts = [UNSHADED + (1 - UNSHADED) * step / len(SHADES) for step in range(len(SHADES))]
    return [unrelated + (1 - unrelated) * part for part in parts]


def signed(value: float, largest: float) -> str | None:
    """The colour of a number around zero: none up to a tenth of the largest, then five steps, cold below."""
    part = abs(value) / largest if largest > 0 else 0.0
    steps = min(len(SHADES), int(np.ceil((part - 0.1) / 0.9 * len(SHADES)))) if part > 0.1 else 0
    return (SHADES if value > 0 else COLD)[steps - 1] if steps else None


def share(weight: float) -> str | None:
    """The colour of a part of a whole, as of attention: none below 0.05, then five steps."""
    steps = sum(weight >= limit for limit in (0.05, 0.1, 0.2, 0.4, 0.7))
    return SHADES[steps - 1] if steps else None
