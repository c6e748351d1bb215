"""The whole chain on one screen: a question and an index → the passages that echo it, and where."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from minqa.clock import step
from minqa.embedding import as_vectors, embed_each
from minqa.encoder import Encoder, Statistics
from minqa.heatmap import HeatMap, heat_map, rank
from minqa.similarity import Searchable, match
from minqa.spans import Span, heat_sentence, heat_span
from minqa.text import InputError, Passage

# How many candidates are read closely: fewer if they must be embedded for it, 50 in 0.8 s on 2 cores.
RERANK = 50
RERANK_STORED = 100


@dataclass(frozen=True)
class Index:
    """What is searched."""

    passages: Sequence[Passage]  # in memory, or read when they are asked for
    vectors: Searchable  # pooled, float32 [passage, dim], as `match` takes them
    statistics: Statistics | None = None  # what is usual in the corpus
    token_vectors: Any = None  # by a passage's number, its last layer's [token, dim], if they are stored
    complete: bool = True  # whether the passages are all of the corpus


@dataclass(frozen=True)
class Result:
    """A passage that echoes the question."""

    passage: Passage
    cosine: float  # the similarity of the pooled vectors of question and passage
    heat_map: HeatMap  # of the question on the passage; its `score` ranks the results
    span: Span | None  # the answer; or, if none was looked for, the phrase that the heat points to
    sentence: Span | None  # the sentence that echoes the question most
    copies: int = 1  # how many of the candidates have this text
    answered: bool = False  # whether an answer was looked for


class Results(list[Result]):
    """The passages, best first, and what they answer together, if an answerer read them; see `overall`."""

    answers: Sequence[Any]  # distinct ones, likeliest first
    no_answer: float | None  # the probability that none of them is right
    answer: Any  # the likeliest; None if it is too likely that there is none

    def __init__(self, results: Iterable[Result], answers=(), no_answer=None, answer=None):
        super().__init__(results)
        self.answers, self.no_answer, self.answer = answers, no_answer, answer


def ask(
    encoder: Encoder,
    question: str,
    index: Index,
    *,
    k: int = 3,
    rerank: int | None = None,
    answerer: Any = None,
) -> Results:
    """The k distinct passages that echo a question most, where they do, and what they answer.

    The similarity of pooled vectors picks candidates from the whole corpus, and MaxSim over their words puts
    them in order (Khattab and Zaharia 2020, arXiv:2004.12832, section 4.5).

    Args:
        encoder: without statistics it takes the index's.
        question: any Unicode with a word in it.
        index: what is searched.
        k: how many passages to return at most; copies of one count as candidates alone.
        rerank: how many candidates to order; 0: none; None: `RERANK`, of stored ones `RERANK_STORED`.
        answerer: finds answers in the passages, see `Answerer`; without one the heat marks a phrase.

    Raises:
        InputError: the question has no word, or the answerer is for another encoder.
    """
    check_question(encoder, question)
    if answerer:
        answerer.check_encoder(encoder)
    encoder = replace(encoder, statistics=encoder.statistics or index.statistics)
    views = [encoder]  # of the same hidden states: at the encoder's layer, and at the one the answerer reads
    if answerer and answerer.layer is not None:
        views.append(replace(encoder, layer=answerer.layer, centring="none"))
    stored = index.token_vectors is not None and encoder.layer_number == encoder.num_layers
    rerank = (RERANK_STORED if stored else RERANK) if rerank is None else rerank
    with step("embed query"):
        queries = [vectors for [vectors] in embed_each(views, [question], role="query")]
    with step("match"):
        hits = match(queries[0].pooled, index.vectors, k=max(k, rerank), similarity=encoder.pooling.compare)
        similarities, rows = (array.tolist() for array in jax.device_get(hits))
    passages = [index.passages[row] for row in rows]
    texts = [passage.text.rstrip() for passage in passages]
    with step("read vectors" if stored else "embed passages"):
        if stored:
            tokens = zip(encoder.tokenize(texts, "passage"), rows, strict=True)
            candidates = [[as_vectors(encoder, text, index.token_vectors[row]) for text, row in tokens]]
        else:
            candidates = embed_each(views, texts, role="passage")
    with step("rank"):
        # Rounded, so that equal passages stay in the order of their cosines whatever batch they were in.
        scores = np.round(rank(queries[0], candidates[0]), 4) if rerank else np.zeros(len(rows))
        first: dict[str, int] = {}  # of the candidates of each text, the best
        for row in np.argsort(-scores, kind="stable").tolist():
            first.setdefault(texts[row], row)
        best = [*first.values()][:k]
    with step("heat maps"):
        heats = [heat_map(queries[0], candidates[0][row]) for row in best]
    with step("spans"):
        if not answerer:
            spans, overall = [heat_span(heat) for heat in heats], []
        else:
            closer = [candidates[-1][row] for row in best]
            if len(candidates) < len(views):  # one view is stored: embed the other
                [closer] = embed_each(views[1:], [texts[row] for row in best], role="passage")
            known = [heat.score for heat in heats], [similarities[row] for row in best]
            spans, *overall = answerer.answers(queries[-1], closer, *known)
        alike = [texts.count(texts[row]) for row in best]
        results = [
            Result(passages[row], similarities[row], heat, span, heat_sentence(heat), copies, bool(answerer))
            for row, heat, span, copies in zip(best, heats, spans, alike, strict=True)
        ]
        return Results(results, *overall)


def check_question(encoder: Encoder, text: str) -> None:
    """Raise InputError if a question has no word to look for."""
    if not encoder.tokenize([text], "query")[0].is_word.any():
        raise InputError("The query holds no word.")
