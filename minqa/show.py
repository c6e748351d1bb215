"""Heat maps → something to look at. The only module that knows colours."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from minqa.ask import Result
from minqa.text import printable

# Backgrounds from warm to hot, each with black text on it: legible on dark and light terminals alike, and
# told apart by lightness where hues are not.
SHADES = ("#fff3c4", "#ffe08a", "#ffc04d", "#ff9a2e", "#f26b1d")
# The part of the scale below the first shade.
UNSHADED = 0.3


def terminal(results: Sequence[Result], *, marks: bool) -> RenderableType:
    """The results as shaded passages, for rich to print.

    The scale runs from the median heat of all words shown to the hottest of them, so the passages of one
    answer can be compared. That is for the eye only: numbers are never rescaled.

    Args:
        results: best first.
        marks: enclose the matched phrase in [[ ]], for a terminal without colours.
    """
    heats = np.concatenate([result.heat_map.heat for result in results])
    heats = heats[np.isfinite(heats)]
    scale = (float(np.median(heats)), float(heats.max())) if len(heats) else (0.0, 1.0)
    return Group(*[_passage(rank, result, scale, marks) for rank, result in enumerate(results, 1)])


def print_answer(console: Console, results: Sequence[Result], seconds: Mapping[str, float]) -> None:
    """Print shaded passages, and one line with the time of each step."""
    times = [f"{step} {_duration(spent)}" for step, spent in seconds.items()]
    if console.color_system:  # lines break between the items alone
        times = [item.replace(" ", "\xa0") for item in times]
    answer = Group(terminal(results, marks=not console.color_system), Text(" · ".join(times), style="dim"))
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
                "score": _number(result.heat_map.score),
                "cosine": _number(result.cosine),
                "text": result.heat_map.passage.text,
                "truncated": result.heat_map.passage.truncated,
                "words": [
                    {"text": text, "start": int(start), "end": int(end), "heat": _number(heat)}
                    for text, (start, end), heat in zip(
                        result.heat_map.passage.word_texts,
                        result.heat_map.passage.words,
                        result.heat_map.heat.tolist(),
                        strict=True,
                    )
                ],
                "span": result.span
                and {
                    "text": result.span.text,
                    "start": result.span.start,
                    "end": result.span.end,
                    "score": _number(result.span.score),
                },
            }
            for rank, result in enumerate(results, 1)
        ],
        **facts,
    }


def _passage(rank: int, result: Result, scale: tuple[float, float], marks: bool) -> RenderableType:
    passage, span = result.heat_map.passage, result.span
    body = Text(printable(passage.text))
    for (start, end), heat in zip(passage.words, result.heat_map.heat, strict=True):
        body.stylize(_shade(float(heat), *scale), int(start), int(end))
    read = int(passage.words[-1, 1]) if len(passage.words) else 0
    if passage.truncated:
        body.stylize("dim", read)
    if span and marks:
        body = Text.assemble(body[: span.start], "[[", body[span.start : span.end], "]]", body[span.end :])
    elif span:
        body.stylize("bold underline", span.start, span.end)
    name = printable(result.passage.title).replace("\n", " ")
    score = f"{result.heat_map.score:.2f}" if math.isfinite(result.heat_map.score) else ""
    title = Text.assemble((f"{rank}  ", "dim"), (f"{name}  " if name else "", "bold"), (score, "dim"))
    found = Text("no phrase stands out", style="dim italic")
    if span:
        found = Text.assemble(("→ ", "dim"), (printable(span.text), "bold"), (f"  {span.score:.2f}", "dim"))
    if passage.truncated:
        found.append(f"   (the last {len(passage.text) - read:,} characters were not read)", style="dim")
    return Padding(Group(title, Padding(body, (0, 0, 0, 3)), Padding(found, (0, 0, 0, 3))), (0, 0, 1, 0))


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
