"""Text and numbers as every view shows them: safe to print, and one format per kind of number."""

import math
import unicodedata
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from jaxtyping import Float

from minqa.text import Passage

if TYPE_CHECKING:
    from minqa.ask import Result, Results  # which imports JAX: the command line's first lines do without

# Words of a question named in the reason of an answer.
WORDS_OF_REASON = 3
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


def json_number(value: Number | Float[np.ndarray, "..."], digits: int = 6) -> Any:
    """A number, or nested lists of an array's numbers, for JSON: rounded, and None where it is not finite."""
    rounded = np.round(np.asarray(value, float), digits)
    return np.where(np.isfinite(rounded), rounded.astype(object), np.array(None)).tolist()


def plain(value: Any) -> Any:
    """Dataclasses, dictionaries and lists of them and of numbers, for JSON; see `json_number`."""
    if is_dataclass(value):
        value = vars(value)
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return json_number(value) if isinstance(value, float | np.floating | np.ndarray) else value


def title_of(passage: Passage, copies: int = 1) -> str:
    """The title of a passage and of its section, if it has one; and how many have its text, if several do."""
    alike = f"{copies} candidates with this text" if copies > 1 else ""
    return " · ".join(filter(None, [passage.title, passage.section, alike]))


def overall_parts(results: "Results", number: int) -> list[tuple[str, str, str]]:
    """What the passages answer together: a text, its probability and why; nothing if none was looked for.

    Why is the passage, the words that chose it, and the span's margin. An answer that is not likely enough
    is shown only where several are asked for.
    """
    if results.no_answer is None:
        return []
    none, lines = format_probability(results.no_answer), []
    if results.answer is None:
        lines.append(("No answer found", none, ""))
    for answer in results.answers[: number if results.answer or number > 1 else 0]:
        result, probability = results[answer.place], format_probability(answer.probability)
        if answer is results.answer and answer.probability < results.no_answer:
            probability += f", no answer {none}"
        words = zip(result.heat_map.contributions.tolist(), result.heat_map.query.word_texts, strict=True)
        best = sorted((pair for pair in words if pair[0] > 0), key=lambda pair: -pair[0])[:WORDS_OF_REASON]
        chosen = "  ".join(f"{word} {format_score(part)}" for part, word in best)
        place = f"{answer.place + 1}" if len(results) > 1 else ""
        where = "  ".join(filter(None, [place, title_of(result.passage)]))
        why = [where, chosen, f"margin {format_score(answer.span.margin or 0, 1, '+')}"]
        lines.append((one_line(answer.text), probability, one_line(" · ".join(filter(None, why)))))
    return lines


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
