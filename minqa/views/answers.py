"""Answers of one model or several to one question, passage by passage; one model is a comparison of one."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain, compress
from typing import Any

import numpy as np
from jaxtyping import Int
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.padding import Padding
from rich.text import Text

from minqa.answers.overall import Answer
from minqa.answers.spans import Answerer
from minqa.ask import Result, Results
from minqa.encoder import Encoder
from minqa.heatmap import NEIGHBOURS, WINDOW
from minqa.inside.compare import Comparison, Reply
from minqa.views.colours import query_heat, similarity_scale
from minqa.views.figure import Panel
from minqa.views.terminal import faint, heading, legend, shaded, side_by_side, style
from minqa.views.text import (
    as_json,
    counted,
    format_probability,
    format_score,
    one_line,
    phrase_parts,
    title_of,
)
from minqa.views.view import View

MAX_TITLE_CHARACTERS = 40
MAX_UNKNOWN_WORDS = 5
# Words of a question named in the reason of an answer.
WORDS_OF_REASON = 3


@dataclass(frozen=True)
class Answers(View):
    """What each model found, and how each sees what any of them found.

    The colours of a passage begin above the model's baseline and end at identity, so that any two pictures of
    one model can be compared. That is for the eye only: numbers are never rescaled.
    """

    names: Sequence[str]  # of the models
    comparisons: Sequence[Comparison]  # of each passage
    results: Sequence[Results]  # of each model
    max_answers: int = 1  # of all passages together, that are shown

    def overall(self) -> list[tuple[str, str, str, str]]:
        """The model's name if there are several, then what its passages answer together, how likely, and why.

        Nothing if no answer was looked for; one that is not likely enough only where several are asked for.
        """
        lines = []
        for name, results in zip(self.names, self.results, strict=True):
            if results.no_answer is None:
                continue
            name = name if len(self.names) > 1 else ""
            number = self.max_answers if results.answer or self.max_answers > 1 else 0
            none = format_probability(results.no_answer)
            if results.answer is None:
                lines.append((name, "No answer found", none, ""))
            for answer in results.answers[:number]:
                probability = format_probability(answer.probability)
                if answer is results.answer and answer.probability < results.no_answer:
                    probability += f", no answer {none}"
                lines.append((name, one_line(answer.text), probability, _why(results, answer)))
        return lines

    def title(self, comparison: Comparison, column: int) -> str:
        """What stands above a passage as one model sees it: the model's name, the rank and the title."""
        name = self.names[column] if len(self.names) > 1 else ""
        rank = f"{comparison.ranks[column] or '–'}" if len(self.comparisons) > 1 else ""
        return "  ".join(filter(None, [name, rank, title_of(comparison.passage, comparison.copies)]))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The passages, one column per model; without colours the answer or hot phrase stands in [[ ]]."""
        several, marks, overall = len(self.names) > 1, not console.color_system, self.overall()
        for name, text, probability, why in overall:
            yield Text.assemble(f"{name}  " if name else "", (text, "bold"), (f"  {probability}", "dim"))
            if why:
                yield Padding(faint(why), (0, 0, 0, 3))
        if overall:
            yield Text()
        if several and len(self.comparisons) > 1:
            yield side_by_side(self.names, [self._ranking(column) for column in range(len(self.names))])
            yield Text()
        for comparison in self.comparisons:
            columns = [
                _lines(comparison, column, "score" if several and len(self.comparisons) == 1 else rank, marks)
                for column, rank in enumerate(comparison.ranks)
            ]
            if several:
                if title := title_of(comparison.passage, comparison.copies):
                    yield heading(title)
                yield from (side_by_side(self.names, columns), _agreement(comparison), Text())
            else:
                [[entry, *lines]] = columns
                yield from (entry, Padding(Group(*lines), (0, 0, 1, 3)))
        if not several and not marks:
            yield from (legend(similarity_scale(self.comparisons[0].results[0].heat_map)), Text())

    def _ranking(self, column: int) -> list[Text]:
        """A model's own answers, best first."""
        own = [(one.ranks[column], one) for one in self.comparisons if one.ranks[column]]
        return [
            _entry(rank, one_line(title_of(one.passage) or one.passage.text, MAX_TITLE_CHARACTERS), result)
            for rank, one in sorted(own, key=lambda entry: entry[0] or 0)
            for result in [one.results[column]]
        ]

    def panels(self) -> list[list[Panel]]:
        """Every query word against every passage word, and the heat of the passage below."""
        return [
            [_panel(result, self.title(comparison, column))]
            for comparison in self.comparisons
            for column, result in enumerate(comparison.results)
        ]

    def data(self) -> dict[str, Any]:
        shown = []
        for comparison in self.comparisons:
            passage, text = comparison.passage, comparison.passage.text.rstrip()
            words = _words(text, comparison.words, heat=comparison.heat.T, hot=comparison.hot.T.tolist())
            numbers = [*map(_numbers, comparison.ranks, comparison.results)]
            found = {"words": words, "agreement": comparison.agreement, "by_model": numbers}
            shown.append(passage._asdict() | {"text": text, "extra": dict(passage.extra)} | as_json(found))
        query = self.comparisons[0].results[0].heat_map.query.text
        overall = [as_json(_overall(results, self.max_answers)) for results in self.results]
        return {"query": query, "overall": overall, "results": shown}


def described(encoder: Encoder, answerer: Answerer | None = None) -> str:
    """One line that says how a result was made; it ends in a hash of all of it, to quote next to numbers."""
    statistics = encoder.statistics
    how = ["the sum over tokens" if encoder.is_late else f"layer {encoder.layer_number}"]
    how.append(f"centring {encoder.centring}")
    if not encoder.is_late:
        weights = encoder.weights if statistics else "none"
        how += [f"weights {weights}", f"window {WINDOW}", f"neighbours {NEIGHBOURS}"]
    how.append(f"answers of {answerer.name}" if answerer else "spans by heat")
    how.append(f"statistics of {counted(statistics.documents if statistics else 0, 'passage')}")
    line = " · ".join([*how, f"minqa {version('minqa')}"])
    fingerprints = encoder.fingerprint, answerer and answerer.fingerprint
    frequency = sorted(statistics.frequency.items()) if statistics else []
    digest = hashlib.sha256(f"{fingerprints} {line} {frequency}".encode()).hexdigest()
    return f"{encoder.name} · {line} · {digest[:8]}"


def notes(reply: Reply, *, passages_too: bool = False) -> list[str]:
    """What there is to know about how a model read the query, and the passages if they are the user's."""
    encoder, query, sentences = reply.encoder, reply.results[0].heat_map.query, []
    texts = [query, *(result.heat_map.passage for result in reply.results if passages_too)]
    found = [compress(tokens.word_texts, tokens.unknown & tokens.is_word) for tokens in texts]
    if unknown := [*dict.fromkeys(chain.from_iterable(found))]:
        words, match = ("word", "it matches") if len(unknown) == 1 else ("words", "they match")
        named, more = ", ".join(unknown[:MAX_UNKNOWN_WORDS]), len(unknown) - MAX_UNKNOWN_WORDS
        named += f" and {more:,} more" if more > 0 else ""
        known = f"{encoder.name} does not know the {words} {named}"
        sentences.append(one_line(f"{known}: {match} only words spelled the same."))
    if encoder.is_late:
        for name, text in zip(("query", "passage"), texts, strict=False):
            if len(text.windows) > 1:
                limit = f"the {text.windows[text.pooled_window]} tokens that {encoder.name} compares"
                sentences.append(f"The {name} is longer than {limit}: the rest is left out.")
    elif len(query.windows) > 1 and not passages_too:
        most, part = encoder.tokenizer.max_tokens, "end" if query.pooled_window else "beginning"
        sentences.append(
            f"The query is longer than the {most} tokens that {encoder.name} reads at once; its {part} alone "
            "picks the candidates."
        )
    return sentences


def _why(results: Results, answer: Answer) -> str:
    """The passage of an answer, the words that chose it, and its span's margin."""
    result = results[answer.place]
    words = zip(result.heat_map.contributions.tolist(), result.heat_map.query.word_texts, strict=True)
    best = sorted((pair for pair in words if pair[0] > 0), key=lambda pair: -pair[0])[:WORDS_OF_REASON]
    chosen = "  ".join(f"{word} {format_score(part)}" for part, word in best)
    place = f"{answer.place + 1}" if len(results) > 1 else ""
    where = "  ".join(filter(None, [place, title_of(result.passage)]))
    margin = f"margin {format_score(answer.span.margin or 0, 1, '+')}"
    return one_line(" · ".join(filter(None, [where, chosen, margin])))


def _entry(rank: object, title: str, result: Result) -> Text:
    title = f"{one_line(title)}  " if title else ""
    return Text.assemble((f"{rank}  ", "dim"), (title, "bold"), (format_score(result.heat_map.score), "dim"))


def _lines(comparison: Comparison, column: int, rank: object, marks: bool) -> list[Text]:
    """An entry, the query's words with what each contributes, the passage, and the answer or hot phrase."""
    result = comparison.results[column]
    heat, span, query = result.heat_map, result.span, Text()
    title = "" if len(comparison.results) > 1 else title_of(comparison.passage, comparison.copies)
    scale = similarity_scale(heat)
    colours = scale.colours(query_heat(heat))
    for word, contribution, colour in zip(heat.query.word_texts, heat.contributions, colours, strict=True):
        if contribution and np.isfinite(contribution):
            query.append(one_line(word), style=style(colour))
            query.append(f" {format_score(contribution)}  ", style="dim")
    query.append("".join(f"{name} {format_score(part)}  " for name, part in heat.others), style="dim")
    passage = shaded(heat.passage.text, comparison.words, scale.colours(comparison.heat[column]))
    if result.sentence:
        passage.stylize("italic", result.sentence.start, result.sentence.end)
    if span and marks:
        before, inside, after = passage.divide([span.start, span.end])
        passage = Text.assemble(before, "[[", inside, "]]", after)
    elif span:
        passage.stylize("bold underline", span.start, span.end)
    arrow, text, number = phrase_parts(result)
    phrase = Text.assemble((arrow, "dim"), (text, "bold" if span else "dim italic"), (number, "dim"))
    return [_entry(rank or "–", title, result), query, passage, phrase]


def _agreement(comparison: Comparison) -> Text:
    """The words that are hot to all models, and how their heats correlate."""
    hot = comparison.words[comparison.hot.all(0)].tolist()
    words = dict.fromkeys(one_line(comparison.passage.text[start:end]).lower() for start, end in hot)
    everyone = "both" if len(comparison.results) == 2 else "all"
    correlation = f"  correlation {format_score(comparison.agreement)}"
    return Text.assemble((f"{everyone}: ", "dim"), ", ".join(words) or "–", (correlation, "dim"))


def _panel(result: Result, title: str) -> Panel:
    """The words of both texts with their similarities, and the heat as the last row."""
    heat = result.heat_map
    query = zip(heat.query.word_texts, heat.contributions, strict=True)
    rows = [f"{word}  {format_score(contribution)}" for word, contribution in [*query, *heat.others]]
    rows += ["", f"heat, score {format_score(heat.score, 3)}"]
    empty = np.full((len(heat.others) + 1, len(heat.heat)), np.nan, np.float32)
    values = np.vstack([heat.word_similarity, empty, heat.heat])
    return Panel(title, rows, heat.passage.word_texts, values, similarity_scale(heat))


def _words(text: str, places: Int[np.ndarray, "word 2"], **columns: Iterable[Any]) -> list[dict[str, Any]]:
    rows = zip(places.tolist(), *columns.values(), strict=True)
    return [
        {"text": text[start:end], "start": start, "end": end, **dict(zip(columns, values, strict=True))}
        for (start, end), *values in rows
    ]


def _numbers(rank: int | None, result: Result) -> dict[str, Any]:
    heat = result.heat_map
    columns = {"weight": heat.weights, "contribution": heat.contributions}
    return {
        "rank": rank,
        "score": heat.score,
        "cosine": result.cosine,
        "contributions": _words(heat.query.text, heat.query.words, **columns),
        "others": [{"text": name, "contribution": part} for name, part in heat.others],
        "truncated": len(heat.passage.windows) > 1,
        "answered": result.answered,
        "copies": result.copies,
        "span": result.span,
        "sentence": result.sentence,
    }


def _overall(results: Results, number: int) -> dict[str, Any] | None:
    if results.no_answer is None:
        return None
    answers = [
        {"text": one.text, "probability": one.probability, "rank": one.place + 1, "span": one.span}
        for one in results.answers[:number]
    ]
    answer = results.answer and results.answer.text
    return {"answer": answer, "no_answer": results.no_answer, "answers": answers}
