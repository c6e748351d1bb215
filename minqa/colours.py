"""Heat → colour: one scale for every picture, so that two pictures can be compared."""

# From warm to hot, each with black text on it: legible on dark and light grounds alike, and told apart by
# lightness where hues are not.
SHADES = ("#fff3c4", "#ffe08a", "#ffc04d", "#ff9a2e", "#f26b1d")
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
