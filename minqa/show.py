"""Results → text for the terminal, HTML pages and JSON."""

import dataclasses
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
from minqa.colours import SHADES, bounds, shade
from minqa.comparison import Comparison
from minqa.page import block, document, own_heat, side_by_side
from minqa.records import Passage
from minqa.spans import Span
from minqa.text import printable


def terminal(results: Sequence[Result], *, marks: bool) -> RenderableType:
    """The results as shaded passages, for rich to print.

    The colours begin above what unrelated texts reach and end at identity, so any two pictures of one encoder
    can be compared. That is for the eye only: numbers are never rescaled.

    Args:
        results: best first.
        marks: enclose the matched phrase in [[ ]], for a terminal without colours.
    """
    blocks = []
    for rank, result in enumerate(results, 1):
        name = _line(title_of(result.passage))
        title = Text.assemble(
            (f"{rank}  ", "dim"), (f"{name}  " if name else "", "bold"), (_score(result), "dim")
        )
        words, heat = result.heat_map.passage.words, result.heat_map.heat
        body = Group(_asked(result), _shaded(result, words, heat, marks), _phrase(result))
        blocks.append(Padding(Group(title, Padding(body, (0, 0, 0, 3))), (0, 0, 1, 0)))
    return Group(*blocks, *([] if marks else [_legend(results[0].heat_map.unrelated), Text()]))


def terminal_comparison(
    names: Sequence[str],
    answers: Sequence[Sequence[Result]],
    comparisons: Sequence[Comparison],
    *,
    marks: bool,
) -> RenderableType:
    """Several encoders' rankings and shaded passages, an encoder a column, for rich to print.

    What unrelated texts reach is another for each encoder, so each has a scale of its own.

    Args:
        names: of the encoders.
        answers: each encoder's results, best first.
        comparisons: as `compare` makes them of these.
        marks: enclose the matched phrase in [[ ]], for a terminal without colours.
    """
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
        table.add_row(*[_asked(result) for result in one.results])
        cells = zip(one.results, one.heat, strict=True)
        table.add_row(*[_shaded(result, one.words, heat, marks) for result, heat in cells])
        table.add_row(*[_phrase(result) for result in one.results])
        name = title_of(one.passage)
        title = [Text(_line(name), style="bold")] if name else []
        blocks += [*title, table, _agreed(one), Text()]
    return Group(*blocks)


def print_answer(
    console: Console, answer: RenderableType, settings: Iterable[str], seconds: Iterable[tuple[str, float]]
) -> None:
    """Print what `terminal` or `terminal_comparison` made, how it was made, and the time of each step."""
    times = [f"{_line(step)} {_duration(spent)}" for step, spent in seconds]
    if console.color_system:  # lines break between the items alone
        times = [item.replace(" ", "\xa0") for item in times]
    lines = [Text(_line(line), style="dim") for line in [*settings, " · ".join(times)]]
    print_group(console, [answer, *lines])


def print_group(console: Console, shown: Sequence[RenderableType]) -> None:
    """Print one thing beneath the other; without colours, as in a file, no line ends in spaces."""
    if console.color_system:
        console.print(Group(*shown))
    else:
        with console.capture() as capture:
            console.print(Group(*shown))
        print("\n".join(line.rstrip() for line in capture.get().splitlines()))


def as_json(results: Sequence[Result], **facts: Any) -> dict[str, Any]:
    """The results as plain data for `json.dumps`, with `facts` added; the README documents the keys."""
    return {
        "query": results[0].heat_map.query.text,
        "results": [
            {
                "rank": rank,
                **_place(result.passage),
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
                **_place(one.passage),
                "text": one.passage.text.rstrip(),
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


def page(query: str, results: Sequence[Result], settings: str) -> str:
    """The results as one HTML file that needs nothing from elsewhere; `settings` stands beneath."""
    ranks = [f"{rank}  " if len(results) > 1 else "" for rank in range(1, len(results) + 1)]
    found = zip(ranks, results, strict=True)
    blocks = [html(result, rank + title_of(result.passage)) for rank, result in found]
    return document(query, blocks, [settings])


def page_comparison(
    query: str, names: Sequence[str], comparisons: Sequence[Comparison], settings: Sequence[str]
) -> str:
    """The same for several encoders, side by side."""
    return document(query, [html_comparison(names, one) for one in comparisons], settings)


def html_comparison(names: Sequence[str], one: Comparison) -> str:
    """One passage as several encoders see it, side by side."""
    ranked = zip(one.results, one.ranks, names, strict=True)
    return side_by_side(
        [html(result, f"{name}  {rank or '–'}  {title_of(one.passage)}") for result, rank, name in ranked]
    )


def html(result: Result, title: str, *, word: int = -1, more: str = "") -> str:
    """One result as `minqa.page.block` shows it."""
    return block(
        result.heat_map,
        title=title,
        sentence=result.sentence,
        phrase=result.span,
        caption=_phrase(result).plain,
        word=word,
        more=more,
    )


def _numbers(result: Result) -> dict[str, Any]:
    heat = result.heat_map
    query = zip(heat.weights.tolist(), heat.contributions.tolist(), strict=True)
    return {
        "score": _number(heat.score),
        "cosine": _number(result.cosine),
        "contributions": [
            {**word, "weight": _number(weight), "contribution": _number(added)}
            for word, (weight, added) in zip(_places(heat.query.text, heat.query.words), query, strict=True)
        ],
        "truncated": len(heat.passage.windows) > 1,
        "answered": result.answered,
        "span": _span(result.span),
        "sentence": _span(result.sentence),
    }


def _span(span: Span | None) -> dict[str, Any] | None:
    if span is None:
        return None
    numbers = {name: getattr(span, name) for name in ("score", "probability", "margin")}
    rounded = {name: None if value is None else _number(value) for name, value in numbers.items()}
    return dataclasses.asdict(span) | rounded


def _places(text: str, words: Int[np.ndarray, "word 2"]) -> list[dict[str, Any]]:
    return [{"text": text[start:end], "start": start, "end": end} for start, end in words.tolist()]


def _asked(result: Result) -> Text:
    """The query's words, shaded by what each contributed."""
    heat = result.heat_map
    line = Text()
    for word, added, own in zip(heat.query.word_texts, heat.contributions, own_heat(heat), strict=True):
        if added and math.isfinite(added):
            line.append(_line(word), style=_style(float(own), heat.unrelated))
            line.append(f" {added:.2f}  ", style="dim")
    return line


def _shaded(
    result: Result, words: Int[np.ndarray, "word 2"], heats: Float[np.ndarray, " word"], marks: bool
) -> Text:
    span, sentence = result.span, result.sentence
    body = Text(printable(result.heat_map.passage.text))
    for (start, end), heat in zip(words, heats, strict=True):
        body.stylize(_style(float(heat), result.heat_map.unrelated), int(start), int(end))
    if sentence:
        body.stylize("italic", sentence.start, sentence.end)
    if span and marks:
        return Text.assemble(body[: span.start], "[[", body[span.start : span.end], "]]", body[span.end :])
    if span:
        body.stylize("bold underline", span.start, span.end)
    return body


def _phrase(result: Result) -> Text:
    span = result.span
    if not span:
        found = "no plausible answer" if result.answered else "no phrase stands out"
        return Text(found, style="dim italic")
    number = f"heat {span.score:.2f}" if span.probability is None else f"{span.probability:.0%}"
    return Text.assemble(("→ ", "dim"), (printable(span.text), "bold"), (f"  {number}", "dim"))


def _legend(unrelated: float) -> Text:
    line = Text(f"unrelated {unrelated:.2f} ", style="dim")
    for colour, bound in zip(SHADES, bounds(unrelated), strict=True):
        line.append(f" {bound:.2f} ", style=f"not dim #000000 on {colour}")
    return line.append(" 1 identical", style="dim")


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
    name = _line(title_of(result.passage) or result.passage.text)
    name = name if len(name) <= 40 else f"{name[:39]}…"
    return Text.assemble((f"{rank}  ", "dim"), f"{name}  ", (_score(result), "dim"))


def title_of(passage: Passage) -> str:
    """A passage's title, and its section's where it has one."""
    return " · ".join(filter(None, [passage.title, passage.section]))


def _place(passage: Passage) -> dict[str, Any]:
    return {"title": passage.title, "section": passage.section, "id": passage.id, "start": passage.start}


def _score(result: Result) -> str:
    return f"{result.heat_map.score:.2f}" if math.isfinite(result.heat_map.score) else ""


def _line(text: str) -> str:
    return printable(text).replace("\n", " ")


def _style(heat: float, unrelated: float) -> str:
    colour = shade(heat, unrelated)
    return f"#000000 on {colour}" if colour else ""


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _number(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
