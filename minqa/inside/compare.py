"""Several encoders' answers to one question → their heat maps of each passage, on the same words."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from minqa.answers.spans import Answerer
from minqa.ask import Index, Result, Results, ask
from minqa.clock import step
from minqa.embedding import embed_pooled
from minqa.encoder import Encoder
from minqa.heatmap import HeatMap, content_words
from minqa.text import Passage


class Reply(NamedTuple):
    """What `ask` returned for an encoder, which has the statistics of its corpus, and an answerer."""

    encoder: Encoder
    results: Results
    answerer: Answerer | None = None


@dataclass(frozen=True)
class Comparison:
    """One passage as several encoders see it, on words that they share: see `shared_words`."""

    passage: Passage
    results: Sequence[Result]  # of each encoder on this passage
    ranks: Sequence[int | None]  # the passage's first among each encoder's answers, from 1; None for none
    words: Int[np.ndarray, "word 2"]  # start and end, in characters
    heat: Float[np.ndarray, "encoder word"]  # the highest of its own words; -inf for marks, NaN for no word
    hot: Bool[np.ndarray, "encoder word"]  # heat ≥ (mean + maximum) / 2 of all content words, at one of them
    agreement: float  # Pearson's correlation of heats, the mean over pairs of encoders; NaN if there is none

    @property
    def copies(self) -> int:
        """How many of an encoder's candidates have the passage's text, at most."""
        return max(result.copies for result in self.results)


def read(
    encoder: Encoder, question: str, passages: Sequence[Passage], *, answerer: Answerer | None = None
) -> Results:
    """Ask a few passages that are embedded on the spot; all distinct ones are returned, best first."""
    with step("embed corpus"):
        tokens = encoder.tokenize([passage.text for passage in passages], "passage")
        index = Index(passages, embed_pooled(encoder, tokens))
    return ask(encoder, question, index, k=len(passages), rerank=len(passages), answerer=answerer)


def compare(question: str, replies: Sequence[Reply]) -> list[Comparison]:
    """Bring together several encoders' answers; each encoder reads the passages that only others found.

    Everyone's first passage comes first, then everyone's second, and so on.
    """
    passages: dict[str, Passage] = {}  # by their texts
    for row in zip_longest(*[reply.results for reply in replies]):
        for result in filter(None, row):
            passages.setdefault(_text(result), result.passage)
    columns = []
    for encoder, results, answerer in replies:
        seen: dict[str, tuple[int | None, Result]] = {
            _text(result): (rank, result) for rank, result in enumerate(results, 1)
        }
        if missing := [passage for text, passage in passages.items() if text not in seen]:
            for result in read(encoder, question, missing, answerer=answerer):
                span = result.span and replace(result.span, probability=None)  # it was not among all passages
                seen[_text(result)] = None, replace(result, span=span)
        columns.append([seen[text] for text in passages])
    return [_compare(*zip(*row, strict=True)) for row in zip(*columns, strict=True)]


def shared_words(
    splits: Sequence[Int[np.ndarray, "_ 2"]],
) -> tuple[Int[np.ndarray, "word 2"], list[Int[np.ndarray, " _"]]]:
    """The smallest pieces that divide no word of several ways to split a text, and the piece of each word."""
    words = np.concatenate(splits)
    words = words[np.argsort(words[:, 0], kind="stable")]
    ends = np.maximum.accumulate(words[:, 1])  # of this word and all before it
    is_first = words[:, 0] >= np.append(-1, ends[:-1])[: len(words)]
    shared = np.stack([words[is_first, 0], ends[np.roll(is_first, -1)]], axis=1)
    return shared, [np.searchsorted(shared[:, 1], words[:, 0], side="right") for words in splits]


def _text(result: Result) -> str:
    """What makes passages the same to `ask`."""
    return result.passage.text.rstrip()


def _compare(ranks: Sequence[int | None], results: Sequence[Result]) -> Comparison:
    words, places = shared_words([result.heat_map.passage.words for result in results])
    heat = np.full((len(results), len(words)), np.nan, np.float32)
    hot = np.zeros(heat.shape, bool)
    for row, result in enumerate(results):
        np.fmax.at(heat[row], places[row], result.heat_map.heat)
        np.logical_or.at(hot[row], places[row], _hot(result.heat_map))
    known, agreement = heat[:, np.isfinite(heat).all(0)], float("nan")
    if min(known.shape) >= 2 and np.ptp(known, axis=1).all():
        agreement = float(np.asarray(np.corrcoef(known))[np.triu_indices(len(known), 1)].mean())
    return Comparison(results[0].passage, results, ranks, words, heat, hot, agreement)


def _hot(heat_map: HeatMap) -> Bool[np.ndarray, " word"]:
    content = content_words(heat_map.passage) & np.isfinite(heat_map.heat)
    heat = heat_map.heat[content]
    return content & (heat_map.heat >= (heat.mean() + heat.max()) / 2) if len(heat) else content
