"""Text and numbers as every view shows them: safe to print, and one format per kind of number."""

import math
import unicodedata
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from minqa.text import Passage

if TYPE_CHECKING:
    from minqa.ask import Result  # which imports JAX: the command line's first lines do without

Number: TypeAlias = float | np.floating | int
# Embeddings, overrides and isolates of writing direction.
_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    """The text without a character that could steer a terminal, at the same length.

    Control characters except the line feed, and controls of writing direction, become U+FFFD; or a space, if
    they are white space.
    """

    def replace(char: str) -> str:
        if char == "\n" or (unicodedata.category(char) not in ("Cc", "Cs") and char not in _DIRECTIONS):
            return char
        return " " if char.isspace() else "\ufffd"

    return text if text.isprintable() else "".join(map(replace, text))


def one_line(text: str, max_characters: int | None = None) -> str:
    """The text, `printable`, without line breaks, and shortened if it is longer than `max_characters`."""
    line = printable(text).replace("\n", " ")
    return line if max_characters is None or len(line) <= max_characters else f"{line[: max_characters - 1]}…"


def format_score(value: Number, digits: int = 2, sign: str = "") -> str:
    """A similarity, weight, contribution or correlation; with `sign` "+", always with its sign."""
    return f"{value:{sign}.{digits}f}" if math.isfinite(value) else "–"


def format_activation(value: Number) -> str:
    """A number of any size around zero: two significant digits."""
    return f"{value:+.2g}" if math.isfinite(value) else "–"


def format_duration(seconds: float) -> str:
    """Seconds, or milliseconds below one second."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def as_json(value: Any, digits: int = 6) -> Any:
    """For JSON: numbers and arrays of them rounded, None where one is not finite; and what holds them."""
    if is_dataclass(value):
        value = vars(value)
    if isinstance(value, dict):
        return {name: as_json(part, digits) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(part, digits) for part in value]
    if isinstance(value, float | np.floating | np.ndarray):
        rounded = np.round(np.asarray(value, float), digits)
        return np.where(np.isfinite(rounded), rounded.astype(object), np.array(None)).tolist()
    return value


def title_of(passage: Passage, copies: int = 1) -> str:
    """The title of a passage and of its section, if it has one; and how many have its text, if several do."""
    alike = f"{copies} candidates with this text" if copies > 1 else ""
    return " · ".join(filter(None, [passage.title, passage.section, alike]))


def counted(number: int, noun: str) -> str:
    """So many of what a regular noun names: "1 passage", "1,024 passages"."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def format_probability(value: float) -> str:
    """A probability in percent; never 0 or 100, which nobody knows."""
    return "< 1 %" if value <= 0.005 else "> 99 %" if value >= 0.995 else f"{100 * value:.0f} %"


def phrase_parts(result: "Result") -> tuple[str, str, str]:
    """The answer or hot phrase in words: an arrow, its text and its number; or "", a sentence and ""."""
    span = result.span
    if span is None:
        return "", "no plausible answer" if result.answered else "no phrase stands out", ""
    number = f"  heat {format_score(span.score)}"
    if result.answered:
        number = "" if span.probability is None else f"  {format_probability(span.probability)}"
    return "→ ", printable(span.text), number
