"""Heat maps → something to look at. The only module that knows colours."""

import math
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from minqa.ask import Result
from minqa.comparison import Comparison
from minqa.text import printable
from minqa.tokens import Tokens

# Backgrounds from warm to hot, each with black text on it: legible on dark and light terminals alike, and
# told apart by lightness where hues are not.
SHADES = ("#fff3c4", "#ffe08a", "#ffc04d", "#ff9a2e", "#f26b1d")
# The part of the scale below the first shade.
UNSHADED = 0.3

Scale = tuple[float, float]


def terminal(results: Sequence[Result], *, marks: bool) -> RenderableType:
    """The results as shaded passages, for rich to print.

    The scale runs from the median heat of all words shown to the hottest of them, so the passages of one
    answer can be compared. That is for the eye only: numbers are never rescaled.

    Args:
        results: best first.
        marks: enclose the matched phrase in [[ ]], for a terminal without colours.
    """
    scale = _scale(result.heat_map.heat for result in results)
    blocks = []
    for rank, result in enumerate(results, 1):
        words, heat = result.heat_map.passage.words, result.heat_map.heat
        name = _line(result.passage.title)
        title = Text.assemble(
            (f"{rank}  ", "dim"), (f"{name}  " if name else "", "bold"), (_score(result), "dim")
        )
        body = Group(_shaded(result, words, heat, scale, marks), _phrase(result))
        blocks.append(Padding(Group(title, Padding(body, (0, 0, 0, 3))), (0, 0, 1, 0)))
    return Group(*blocks)


def terminal_comparison(
    names: Sequence[str],
    answers: Sequence[Sequence[Result]],
    comparisons: Sequence[Comparison],
    *,
    marks: bool,
) -> RenderableType:
    """Several encoders' rankings and shaded passages, an encoder a column, for rich to print.

    Cosines of different encoders are not alike, so each has a scale of its own, made as in `terminal`.

    Args:
        names: of the encoders.
        answers: each encoder's results, best first.
        comparisons: as `compare` makes them of these.
        marks: enclose the matched phrase in [[ ]], for a terminal without colours.
    """
    scales = [_scale(one.heat[row] for one in comparisons) for row in range(len(names))]
    blocks: list[RenderableType] = []
    if len(comparisons) > 1:
        table = _columns(names)
        for rank, row in enumerate(zip_longest(*answers), 1):
            table.add_row(*[_entry(rank, result) if result else "" for result in row])
        blocks += [table, Text()]
    for one in comparisons:
        table = _columns(names)
        ranks = [f"{rank or '–'}  " if len(comparisons) > 1 else "score " for rank in one.ranks]
        found = zip(ranks, one.results, strict=True)
        table.add_row(*[Text(f"{rank}{_score(result) or '–'}", style="dim") for rank, result in found])
        cells = zip(one.results, one.heat, scales, strict=True)
        table.add_row(*[_shaded(result, one.words, heat, scale, marks) for result, heat, scale in cells])
        table.add_row(*[_phrase(result) for result in one.results])
        title = [Text(_line(one.passage.title), style="bold")] if one.passage.title else []
        blocks += [*title, table, _agreed(one), Text()]
    return Group(*blocks)


def print_answer(console: Console, answer: RenderableType, seconds: Iterable[tuple[str, float]]) -> None:
    """Print what `terminal` or `terminal_comparison` made, and one line with the time of each step."""
    times = [f"{_line(step)} {_duration(spent)}" for step, spent in seconds]
    if console.color_system:  # lines break between the items alone
        times = [item.replace(" ", "\xa0") for item in times]
    answer = Group(answer, Text(" · ".join(times), style="dim"))
    if console.color_system:
        console.print(answer)
    else:
        with console.capture() as capture:
            console.print(answer)
        print("\n".join(line.rstrip() for line in capture.get().splitlines()))


def as_json(results: Sequence[Result], **facts: Any) -> dict[str, Any]:
    """The results as plain data for `json.dumps`, with `facts` added; the README documents the keys."""
    return {
        "query": results[0].heat_map.query.text,
        "results": [
            {
                "rank": rank,
                "title": result.passage.title,
                "text": result.heat_map.passage.text,
                **_numbers(result),
                "words": [
                    {**word, "heat": _number(heat)}
                    for word, heat in zip(
                        _places(result.heat_map.passage.text, result.heat_map.passage.words),
                        result.heat_map.heat.tolist(),
                        strict=True,
                    )
                ],
            }
            for rank, result in enumerate(results, 1)
        ],
        **facts,
    }


def comparison_as_json(comparisons: Sequence[Comparison], **facts: Any) -> dict[str, Any]:
    """Comparisons as plain data for `json.dumps`, with `facts` added; the README documents the keys."""
    return {
        "query": comparisons[0].results[0].heat_map.query.text,
        "results": [
            {
                "title": one.passage.title,
                "text": one.passage.text,
                "agreement": _number(one.agreement),
                "by_model": [
                    {"rank": rank, **_numbers(result)}
                    for rank, result in zip(one.ranks, one.results, strict=True)
                ],
                "words": [
                    {**word, "heat": [_number(value) for value in heat], "hot": hot}
                    for word, heat, hot in zip(
                        _places(one.passage.text, one.words),
                        one.heat.T.tolist(),
                        one.hot.T.tolist(),
                        strict=True,
                    )
                ],
            }
            for one in comparisons
        ],
        **facts,
    }


def _numbers(result: Result) -> dict[str, Any]:
    span = result.span
    return {
        "score": _number(result.heat_map.score),
        "cosine": _number(result.cosine),
        "truncated": result.heat_map.passage.truncated,
        "span": span
        and {"text": span.text, "start": span.start, "end": span.end, "score": _number(span.score)},
    }


def _places(text: str, words: Int[np.ndarray, "word 2"]) -> list[dict[str, Any]]:
    return [{"text": text[start:end], "start": start, "end": end} for start, end in words.tolist()]


def _scale(heats: Iterable[Float[np.ndarray, " word"]]) -> Scale:
    known = np.concatenate(list(heats))
    known = known[np.isfinite(known)]
    return (float(np.median(known)), float(known.max())) if len(known) else (0.0, 1.0)


def _shaded(
    result: Result,
    words: Int[np.ndarray, "word 2"],
    heats: Float[np.ndarray, " word"],
    scale: Scale,
    marks: bool,
) -> Text:
    passage, span = result.heat_map.passage, result.span
    body = Text(printable(passage.text))
    for (start, end), heat in zip(words, heats, strict=True):
        body.stylize(_shade(float(heat), *scale), int(start), int(end))
    if passage.truncated:
        body.stylize("dim", _read(passage))
    if span and marks:
        return Text.assemble(body[: span.start], "[[", body[span.start : span.end], "]]", body[span.end :])
    if span:
        body.stylize("bold underline", span.start, span.end)
    return body


def _phrase(result: Result) -> Text:
    passage, span = result.heat_map.passage, result.span
    found = Text("no phrase stands out", style="dim italic")
    if span:
        found = Text.assemble(("→ ", "dim"), (printable(span.text), "bold"), (f"  {span.score:.2f}", "dim"))
    if passage.truncated:
        unread = len(passage.text) - _read(passage)
        found.append(f"   (the last {unread:,} characters were not read)", style="dim")
    return found


def _read(passage: Tokens) -> int:
    """How many characters of a passage the model has read."""
    return int(passage.words[-1, 1]) if len(passage.words) else 0


def _agreed(comparison: Comparison) -> Text:
    """The words that all encoders find hot, and how alike their heats are."""
    words = _places(comparison.passage.text, comparison.words[comparison.hot.all(0)])
    distinct = dict.fromkeys(_line(word["text"]).lower() for word in words)
    everyone = "both" if len(comparison.results) == 2 else "all"
    agreed = Text.assemble((f"{everyone}: ", "dim"), ", ".join(distinct) or "–")
    if math.isfinite(comparison.agreement):
        agreed.append(f"  correlation {comparison.agreement:.2f}", style="dim")
    return agreed


def _columns(names: Sequence[str]) -> Table:
    table = Table.grid(padding=(0, 3, 0, 0), pad_edge=True, expand=True)  # columns that break lines alike
    for _ in names:
        table.add_column(ratio=1, overflow="fold")
    table.add_row(*[Text(_line(name), style="bold cyan") for name in names])
    return table


def _entry(rank: int, result: Result) -> Text:
    name = _line(result.passage.title or result.passage.text)
    name = name if len(name) <= 40 else f"{name[:39]}…"
    return Text.assemble((f"{rank}  ", "dim"), f"{name}  ", (_score(result), "dim"))


def _score(result: Result) -> str:
    return f"{result.heat_map.score:.2f}" if math.isfinite(result.heat_map.score) else ""


def _line(text: str) -> str:
    return printable(text).replace("\n", " ")


def _shade(heat: float, cold: float, hot: float) -> str:
    place = (heat - cold) / (hot - cold) if hot > cold else 0.0
    if not place > UNSHADED:
        return ""
    step = (min(place, 1.0) - UNSHADED) / (1 - UNSHADED)
    return f"#000000 on {SHADES[min(int(step * len(SHADES)), len(SHADES) - 1)]}"


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _number(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
