"""Results → coloured text for the terminal, JSON, and the line that says how they were made."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from itertools import chain, compress, count, zip_longest
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from minqa.answers.spans import Answerer
from minqa.ask import Result
from minqa.encoder import Encoder
from minqa.heatmap import NEIGHBOURS, WINDOW
from minqa.inside.compare import Comparison
from minqa.spans import Span
from minqa.tokens import Tokens
from minqa.views.colours import legend, query_heat, shades
from minqa.views.html import phrase_parts, title_of
from minqa.views.text import format_duration, format_score, json_number, one_line, printable

MAX_TITLE_CHARACTERS = 40
MAX_UNKNOWN_WORDS = 5


def terminal(results: Sequence[Result], *, marks: bool) -> RenderableType:
    """The results, best first, as shaded passages for rich to print.

    The colours begin above the baseline and end at identity, so any two pictures of one encoder can be
    compared. That is for the eye only: numbers are never rescaled.

    Args:
        marks: enclose the answer or hot phrase in [[ ]], for a terminal without colours.
    """
    blocks: list[RenderableType] = []
    for rank, result in enumerate(results, 1):
        lines = _lines(result, result.heat_map.passage.words, result.heat_map.heat, marks)
        body = Padding(Group(*lines), (0, 0, 0, 3))
        blocks.append(Padding(Group(_entry(rank, title_of(result.passage), result), body), (0, 0, 1, 0)))
    if not marks:
        start, steps, end = legend(results[0].heat_map)
        swatches = [(f" {bound} ", f"not dim {style(colour)}") for colour, bound in steps]
        blocks += [Text.assemble(f"{start} ", *swatches, f"  {end}", style="dim"), Text()]
    return Group(*blocks)


def terminal_comparison(
    names: Sequence[str],
    answers: Sequence[Sequence[Result]],
    comparisons: Sequence[Comparison],
    *,
    marks: bool,
) -> RenderableType:
    """Several encoders' rankings and shaded passages, one column per encoder, for rich to print.

    Each encoder has its own baseline, and so its own colour scale. `comparisons` are of these answers, as
    `compare` returns them; for `marks` see `terminal`.
    """
    blocks: list[RenderableType] = []
    several = len(comparisons) > 1
    if several:
        blocks += [_columns(names, [[*map(_ranked, count(1), results)] for results in answers]), Text()]
    for comparison in comparisons:
        ranks = [rank or "–" if several else "score" for rank in comparison.ranks]
        columns = [
            [_entry(rank, "", result), *_lines(result, comparison.words, heat, marks)]
            for rank, result, heat in zip(ranks, comparison.results, comparison.heat, strict=True)
        ]
        if title := one_line(title_of(comparison.passage)):
            blocks.append(Text(title, style="bold"))
        blocks += [_columns(names, columns), _agreement(comparison), Text()]
    return Group(*blocks)


def print_answer(
    console: Console, answer: RenderableType, settings: Iterable[str], seconds: Iterable[tuple[str, float]]
) -> None:
    """Print what `terminal` or `terminal_comparison` returned, how it was made, and the time of each step."""
    times = [f"{one_line(step)} {format_duration(spent)}" for step, spent in seconds]
    if console.color_system:  # break lines only between the items
        times = [item.replace(" ", "\xa0") for item in times]
    lines = [Text(one_line(line), style="dim") for line in [*settings, " · ".join(times)]]
    print_group(console, [answer, *lines])


def print_group(console: Console, shown: Sequence[RenderableType]) -> None:
    """Print one thing below the other; without colours, as in a file, no line ends in spaces."""
    if console.color_system:
        console.print(Group(*shown))
    else:
        with console.capture() as capture:
            console.print(Group(*shown))
        print("\n".join(line.rstrip() for line in capture.get().splitlines()))


def described(encoder: Encoder, answerer: Answerer | None = None) -> str:
    """One line that says how a result was made; it ends in a hash of all of it, to quote next to numbers."""
    statistics = encoder.statistics
    line = (
        f"layer {encoder.layer_number} · centring {encoder.centring} · "
        f"weights {encoder.weights if statistics else 'none'} · window {WINDOW} · neighbours {NEIGHBOURS} · "
        f"{f'answers of {answerer.name}' if answerer else 'spans by heat'} · "
        f"statistics of {statistics.documents if statistics else 0:,} passages · minqa {version('minqa')}"
    )
    fingerprints = encoder.fingerprint, answerer and answerer.fingerprint
    frequency = sorted(statistics.frequency.items()) if statistics else []
    digest = hashlib.sha256(f"{fingerprints} {line} {frequency}".encode()).hexdigest()
    return f"{encoder.name} · {line} · {digest[:8]}"


def unknown_note(encoder_name: str, tokens_list: Sequence[Tokens]) -> str | None:
    """A sentence that names the words that the model does not know; None where it knows all of them."""
    found = [compress(tokens.word_texts, tokens.unknown & tokens.is_word) for tokens in tokens_list]
    unknown = [*dict.fromkeys(chain.from_iterable(found))]
    if not unknown:
        return None
    named, more = ", ".join(unknown[:MAX_UNKNOWN_WORDS]), len(unknown) - MAX_UNKNOWN_WORDS
    words, match = ("word", "it matches") if len(unknown) == 1 else ("words", "they match")
    rest = f" and {more:,} more" if more > 0 else ""
    return one_line(
        f"{encoder_name} does not know the {words} {named}{rest}: {match} only words spelled the same."
    )


def as_json(results: Sequence[Result], **facts: Any) -> dict[str, Any]:
    """The results and `facts` as plain data for `json.dumps`; the README documents the keys."""
    shown = []
    for rank, result in enumerate(results, 1):
        tokens, heat = result.heat_map.passage, json_number(result.heat_map.heat)
        words = _words(tokens.text, tokens.words, heat=heat)
        article = {**result.passage._asdict(), "text": tokens.text, "words": words}
        shown.append(article | _numbers(rank, result))
    return {"query": results[0].heat_map.query.text, "results": shown, **facts}


def comparison_as_json(comparisons: Sequence[Comparison], **facts: Any) -> dict[str, Any]:
    """Comparisons and `facts` as plain data for `json.dumps`; the README documents the keys."""
    shown = []
    for comparison in comparisons:
        text, heat, hot = comparison.passage.text, json_number(comparison.heat.T), comparison.hot.T.tolist()
        words = _words(text, comparison.words, heat=heat, hot=hot)
        numbers = [*map(_numbers, comparison.ranks, comparison.results)]
        article = {**comparison.passage._asdict(), "text": text.rstrip(), "words": words}
        shown.append(article | {"agreement": json_number(comparison.agreement), "by_model": numbers})
    return {"query": comparisons[0].results[0].heat_map.query.text, "results": shown, **facts}


def _words(text: str, places: Int[np.ndarray, "word 2"], **columns: list[Any]) -> list[dict[str, Any]]:
    rows = zip(places.tolist(), *columns.values(), strict=True)
    return [
        {"text": text[start:end], "start": start, "end": end, **dict(zip(columns, values, strict=True))}
        for (start, end), *values in rows
    ]


def _numbers(rank: int | None, result: Result) -> dict[str, Any]:
    heat = result.heat_map
    columns = {"weight": json_number(heat.weights), "contribution": json_number(heat.contributions)}
    return {
        "rank": rank,
        "score": json_number(heat.score),
        "cosine": json_number(result.cosine),
        "contributions": _words(heat.query.text, heat.query.words, **columns),
        "truncated": len(heat.passage.windows) > 1,
        "answered": result.answered,
        "span": _span(result.span),
        "sentence": _span(result.sentence),
    }


def _span(span: Span | None) -> dict[str, Any] | None:
    if span is None:
        return None
    values = asdict(span).items()
    return {name: json_number(value) if isinstance(value, float) else value for name, value in values}


def style(colour: str | None) -> str:
    """The rich style of text on a colour, "" for none."""
    return f"#000000 on {colour}" if colour else ""


def shaded(text: str, words: Int[np.ndarray, "word 2"], colours: Sequence[str | None]) -> Text:
    """A text with its words on their colours."""
    body = Text(printable(text))
    for (start, end), colour in zip(words.tolist(), colours, strict=True):
        body.stylize(style(colour), start, end)
    return body


def _entry(rank: object, title: str, result: Result) -> Text:
    title = f"{one_line(title)}  " if title else ""
    return Text.assemble((f"{rank}  ", "dim"), (title, "bold"), (format_score(result.heat_map.score), "dim"))


def _lines(
    result: Result, words: Int[np.ndarray, "word 2"], heat: Float[np.ndarray, " word"], marks: bool
) -> tuple[Text, Text, Text]:
    """The query's words with what each contributes, the passage, and the answer or hot phrase."""
    scale, span, sentence, query = result.heat_map, result.span, result.sentence, Text()
    values = zip(scale.query.word_texts, scale.contributions, shades(scale, query_heat(scale)), strict=True)
    for word, contribution, colour in values:
        if contribution and np.isfinite(contribution):
            query.append(one_line(word), style=style(colour))
            query.append(f" {format_score(contribution)}  ", style="dim")
    passage = shaded(scale.passage.text, words, shades(scale, heat))
    if sentence:
        passage.stylize("italic", sentence.start, sentence.end)
    if span and marks:
        before, inside, after = passage.divide([span.start, span.end])
        passage = Text.assemble(before, "[[", inside, "]]", after)
    elif span:
        passage.stylize("bold underline", span.start, span.end)
    arrow, text, number = phrase_parts(result)
    found = Text.assemble((arrow, "dim"), (text, "bold" if span else "dim italic"), (number, "dim"))
    return query, passage, found


def _ranked(rank: int, result: Result) -> Text:
    title = title_of(result.passage) or result.passage.text
    return _entry(rank, one_line(title, MAX_TITLE_CHARACTERS), result)


def _agreement(comparison: Comparison) -> Text:
    """The words that are hot to all encoders, and how their heats correlate."""
    hot = comparison.words[comparison.hot.all(0)].tolist()
    words = dict.fromkeys(one_line(comparison.passage.text[start:end]).lower() for start, end in hot)
    everyone = "both" if len(comparison.results) == 2 else "all"
    correlation = f"  correlation {format_score(comparison.agreement)}"
    return Text.assemble((f"{everyone}: ", "dim"), ", ".join(words) or "–", (correlation, "dim"))


def _columns(names: Sequence[str], columns: Sequence[Sequence[Text]]) -> Table:
    table = Table.grid(padding=(0, 3, 0, 0), pad_edge=True, expand=True)  # columns that break lines alike
    for _ in names:
        table.add_column(ratio=1, overflow="fold")
    table.add_row(*[Text(one_line(name), style="bold cyan") for name in names])
    for row in zip_longest(*columns, fillvalue=Text()):
        table.add_row(*row)
    return table
