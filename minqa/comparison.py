"""Several encoders' answers to one query → the heat maps of each passage, side by side on the same words."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, zip_longest
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from minqa.ask import Finder, Result, read
from minqa.clock import Clock
from minqa.embedding import Vectors
from minqa.encoder import Encoder
from minqa.heatmap import HeatMap, content_words
from minqa.records import Passage
from minqa.statistics import Measure, Statistics


class Answer(NamedTuple):
    """What one encoder answered.

    Attributes:
        encoder: as `load` returns it.
        statistics: of the corpus.
        query: as `embed_query` returns it.
        results: as `ask` returns them.
        measure: how words are compared.
        finder: finds the answers.
        clock: is told the time of what the encoder is asked to read besides.
    """

    encoder: Encoder
    statistics: Statistics
    query: Vectors
    results: Sequence[Result]
    measure: Measure
    finder: Finder | None
    clock: Clock


@dataclass(frozen=True)
class Comparison:
    """One passage as several encoders see it.

    Attributes:
        passage: its title and text.
        results: of each encoder on this passage.
        ranks: the passage's first place among each encoder's answers, from 1; None where it is not there.
        words: int32 [word, 2], start and end in characters: the smallest pieces of the text that cut through
            no encoder's word.
        heat: float32 [encoder, word], the highest of the encoder's own words there; -inf for punctuation,
            not a number where the encoder has no word there.
        hot: bool [encoder, word], whether a content word there is hot to the encoder: at least halfway from
            the mean of the content words to the hottest of them.
        agreement: how the encoders' heats of the same words go together, -1 to 1: Pearson's correlation, the
            mean of all pairs of encoders; not a number where there is nothing to correlate.
    """

    passage: Passage
    results: Sequence[Result]
    ranks: Sequence[int | None]
    words: Int[np.ndarray, "word 2"]
    heat: Float[np.ndarray, "encoder word"]
    hot: Bool[np.ndarray, "encoder word"]
    agreement: float


def compare(answers: Sequence[Answer]) -> list[Comparison]:
    """Bring together what several encoders answered; each of them reads what only others found.

    Returns:
        A comparison for each passage that anyone found: everyone's first, then everyone's second, and so on.
    """
    by_rank = zip_longest(*[answer.results for answer in answers])
    passages = list(dict.fromkeys(result.passage for row in by_rank for result in row if result))
    columns = []
    for encoder, statistics, query, results, measure, finder, clock in answers:
        found: dict[Passage, tuple[int | None, Result]] = {}
        for rank, result in enumerate(results, 1):
            found.setdefault(result.passage, (rank, result))
        if missing := [passage for passage in passages if passage not in found]:
            others = read(encoder, query, missing, statistics, measure=measure, finder=finder, clock=clock)
            found |= {result.passage: (None, result) for result in others}
        columns.append([found[passage] for passage in passages])
    return [_compare(*zip(*row, strict=True)) for row in zip(*columns, strict=True)]


def shared_words(
    words: Sequence[Int[np.ndarray, "_ 2"]],
) -> tuple[Int[np.ndarray, "word 2"], list[Int[np.ndarray, " _"]]]:
    """Words that several ways to split a text have in common.

    Args:
        words: start and end of each word by each of them, in order.

    Returns:
        Start and end of the smallest pieces that cut through none of the words; and for each of the words the
        number of the piece that it lies in.
    """
    pieces: list[list[int]] = []
    for start, end in sorted((int(start), int(end)) for one in words for start, end in one):
        if pieces and start < pieces[-1][1]:
            pieces[-1][1] = max(end, pieces[-1][1])
        else:
            pieces.append([start, end])
    shared = np.array(pieces, np.int32).reshape(-1, 2)
    return shared, [np.searchsorted(shared[:, 1], one[:, 0], side="right") for one in words]


def _compare(ranks: Sequence[int | None], results: Sequence[Result]) -> Comparison:
    maps = [result.heat_map for result in results]
    words, places = shared_words([one.passage.words for one in maps])
    heat = np.full((len(maps), len(words)), np.nan, np.float32)
    hot = np.zeros((len(maps), len(words)), bool)
    for row, one in enumerate(maps):
        np.fmax.at(heat[row], places[row], one.heat)
        np.logical_or.at(hot[row], places[row], _hot(one))
    return Comparison(results[0].passage, results, ranks, words, heat, hot, _agreement(heat))


def _hot(one: HeatMap) -> Bool[np.ndarray, " word"]:
    content = content_words(one.passage) & np.isfinite(one.heat)
    warm = one.heat[content]
    return content & (one.heat >= (warm.mean() + warm.max()) / 2) if len(warm) else content


def _agreement(heat: Float[np.ndarray, "encoder word"]) -> float:
    known = heat[:, np.isfinite(heat).all(0)]
    if known.shape[1] < 2 or not np.ptp(known, axis=1).all():
        return float("nan")
    return float(np.mean([np.corrcoef(known[[a, b]])[0, 1] for a, b in combinations(range(len(known)), 2)]))
