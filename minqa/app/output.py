"""Answers and views → the terminal, JSON, a page and a picture, as the options ask for."""

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from minqa.app.progress import note
from minqa.clock import Clock
from minqa.corpus.storage import write_file
from minqa.encoder import Encoder
from minqa.inside.compare import Answer, compare
from minqa.text import InputError
from minqa.views import figure, html, terminal
from minqa.views.look import View


def describe(answer: Answer, clock: Clock, **facts: Any) -> dict[str, Any]:
    """How an answer was made and what it took, as the JSON has it."""
    seconds = {name: round(spent, 6) for name, spent in clock.seconds.items()}
    settings = terminal.described(answer.encoder, answer.answerer)
    return {"model": answer.encoder.name, "settings": settings, **facts, "seconds": seconds}


def show_answers(options: Namespace, answers: Sequence[Answer], descriptions: Sequence[dict]) -> None:
    """Show one encoder's answer, or several side by side, in each way that the options ask for."""
    query = answers[0].results[0].heat_map.query.text
    with Clock() as clock:
        comparisons = compare(query, answers) if len(answers) > 1 else []
    names, settings, seconds = (
        [one[key] for one in descriptions] for key in ("model", "settings", "seconds")
    )
    notes = [sentence for answer in answers for sentence in _notes(answer, "passage" in options)]
    if options.html:
        blocks = [html.html_comparison(names, comparison) for comparison in comparisons]
        blocks = blocks or html.html_results(answers[0].results)
        _write(options.html, html.document(query, blocks, [*settings, *notes]).encode("utf-8"))
    if getattr(options, "png", None):
        drawn = figure.figure(answers[0].results[0].heat_map, settings=settings[0])
        _write(options.png, figure.picture(drawn, options.png))
    console = Console()
    marks = not console.color_system
    if options.json and comparisons:
        print(json.dumps(terminal.comparison_as_json(comparisons, models=descriptions), indent=2))
    elif options.json:
        print(json.dumps(terminal.as_json(answers[0].results, **descriptions[0]), indent=2))
    elif comparisons:
        results = [answer.results for answer in answers]
        totals = [*zip(names, [sum(steps.values()) for steps in seconds], strict=True)]
        if clock.seconds:  # some encoder read what only others had found
            totals.append(("compare", sum(clock.seconds.values())))
        terminal.print_answer(
            console, terminal.terminal_comparison(names, results, comparisons, marks=marks), settings, totals
        )
    else:
        terminal.print_answer(
            console, terminal.terminal(answers[0].results, marks=marks), settings, seconds[0].items()
        )
    for sentence in notes:
        note(sentence)


def show_views(options: Namespace, encoder: Encoder, views: Sequence[View]) -> None:
    """Show what was looked at, in each way that the options ask for."""
    if options.html:
        text = html.document(options.text, [view.html() for view in views], [encoder.name])
        _write(options.html, text.encode("utf-8"))
    if options.png:
        _write(options.png, figure.picture(figure.views_figure(views, settings=encoder.name), options.png))
    if options.json:
        shown = {"model": encoder.name, "text": options.text, "views": [view.data() for view in views]}
        print(json.dumps(shown, indent=2))
    else:
        terminal.print_group(Console(), [view.terminal() for view in views])


def _notes(answer: Answer, passages_too: bool) -> list[str]:
    """What there is to know about how the model read the query, and the passage if the user gave one."""
    encoder, maps = answer.encoder, [result.heat_map for result in answer.results]
    texts = [maps[0].query, *(heat_map.passage for heat_map in maps if passages_too)]
    notes = [terminal.unknown_note(encoder.name, texts)]
    if len(texts[0].windows) > 1 and not passages_too:
        part = "end" if texts[0].pooled_window else "beginning"
        notes.append(
            f"The query is longer than the {encoder.tokenizer.max_tokens} tokens that {encoder.name} reads "
            f"at once; its {part} alone picks the candidates."
        )
    return [*filter(None, notes)]


def _write(path: Path, content: bytes) -> None:
    """Write a file whole, or leave what was there."""
    path = path.resolve()
    if path.exists() and not path.is_file():
        raise InputError(f"{path} cannot be written: it is there, and is no file.")
    try:
        write_file(path, content)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}).") from error
