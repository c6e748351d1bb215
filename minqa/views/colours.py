"""Numbers → colours, and the legend that says so; two pictures on one scale can be compared."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from minqa.heatmap import HeatMap
from minqa.views.text import Number, format_activation, format_score

# From warm to hot, for black text: legible on dark and light grounds alike, and told apart by lightness where
# hues are not.
SHADES = ("#fff3c4", "#ffe08a", "#ffc04d", "#ff9a2e", "#f26b1d")
# From cool to cold, for numbers below zero: all kinds of colour vision tell orange from blue.
COLD = ("#e1effb", "#bcdcf5", "#8cc3ee", "#5aa5e2", "#2f86d0")
# The part of the scale, from the baseline to identity, that has no colour; and of one around zero.
UNSHADED = 0.3
UNSHADED_AROUND_ZERO = 0.1


@dataclass(frozen=True)
class Scale:
    """A colour for each number from `low` to `high`, and a legend that says what the colours are."""

    low: float
    high: float
    limits: Sequence[float]  # where each of the `SHADES` begins
    ends: tuple[str, str]  # what the legend says at its start and its end
    label: str  # what is coloured
    signed: bool = False  # whether numbers below zero are cold

    def colour(self, value: Number) -> str | None:
        """The colour of a number: that of the last limit that it reaches."""
        size = abs(float(value)) if self.signed else float(value)
        steps = sum(size >= limit for limit in self.limits)
        return (COLD if self.signed and value < 0 else SHADES)[steps - 1] if steps else None

    def reached(self, values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """How many of the limits each number reaches; NaN for one that is not finite."""
        return np.where(np.isfinite(values), (values[..., None] >= np.array(self.limits)).sum(-1), np.nan)

    def colours(self, values: Float[np.ndarray, " word"]) -> list[str | None]:
        return [self.colour(value) for value in values.tolist()]

    @property
    def steps(self) -> list[tuple[str, str]]:
        """The colours of the legend, with the number where each begins; none around zero."""
        if self.signed:
            return [(colour, "") for colour in (*COLD[::-1], *SHADES)]
        return [*zip(SHADES, map(format_score, self.limits), strict=True)]


def _limits(low: float, high: float, unshaded: float) -> list[float]:
    parts = [unshaded + (1 - unshaded) * step / len(SHADES) for step in range(len(SHADES))]
    return [low + (high - low) * part for part in parts]


def similarity_scale(heat: HeatMap) -> Scale:
    """Colours begin 0.3 of the way from the baseline to identity."""
    low, high = heat.baseline, heat.identical
    ends = f"baseline {format_score(low)}", f"{high:.3g} identical"
    return Scale(low, high, _limits(low, high, UNSHADED), ends, "similarity, from baseline to identical")


def signed_scale(values: Float[np.ndarray, "..."]) -> Scale:
    """Five steps on either side of zero, from a tenth of the largest number."""
    largest = float(np.abs(values).max(initial=0)) or 1.0
    ends = format_activation(-largest), format_activation(largest)
    limits = _limits(0, largest, UNSHADED_AROUND_ZERO)
    return Scale(-largest, largest, limits, ends, "part of the row's largest", signed=True)


# Parts of a whole, such as attention.
SHARES = Scale(0.0, 1.0, (0.05, 0.1, 0.2, 0.4, 0.7), ("none", "all"), "attention")


def query_heat(heat: HeatMap) -> Float[np.ndarray, " query_word"]:
    """Contributions as similarities: baseline + (contribution - baseline · weight) / full weight."""
    above = heat.contributions - heat.baseline * heat.weights
    return heat.baseline + above / heat.full_weight
