"""The whole chain on one screen: a query, a corpus and an encoder → the passages that echo it, and where."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TypeAlias

import jax
import numpy as np
from jaxtyping import Float, Int

from minqa.clock import Clock
from minqa.embedding import Vectors, bucket, embed, embed_pooled
from minqa.encoder import Encoder
from minqa.errors import InputError
from minqa.heatmap import HeatMap, heat_map
from minqa.index import Index
from minqa.reader import Reader, answer
from minqa.records import Passage
from minqa.similarity import match, maxsim
from minqa.span_head import SpanHead, read_answers
from minqa.spans import Span, heat_sentence, heat_span
from minqa.statistics import RANKING, Measure, Statistics, centred, word_weights

# What finds answers: a head for the encoder's vectors, or a model of its own.
Finder: TypeAlias = SpanHead | Reader
# How many candidates are read closely: fewer where they must be embedded for it, 50 in 0.8 s on 2 cores.
RERANK = 50
RERANK_STORED = 100
# How many words of passages are compared at once, which bounds the memory.
RANK_WORDS = 32768


@dataclass(frozen=True)
class Result:
    """A passage that echoes the query.

    Attributes:
        passage: its title and text.
        cosine: of the pooled vectors of query and passage.
        heat_map: of the query on the passage; its `score` ranks the results.
        span: the answer, where one was looked for, and otherwise the phrase that the heat points to; None
            where no answer is plausible, or there is no word.
        sentence: the sentence with the most heat.
        answered: whether an answer was looked for.
    """

    passage: Passage
    cosine: float
    heat_map: HeatMap
    span: Span | None
    sentence: Span | None
    answered: bool = False


def check_query(encoder: Encoder, text: str) -> None:
    """Raise InputError where a query holds no word to look for."""
    [tokens] = encoder.tokenize([text], "query")
    if not tokens.spelled.any():
        raise InputError("The query holds no word.")


def embed_query(
    encoder: Encoder, text: str, statistics: Statistics, *, measure: Measure = RANKING, clock: Clock
) -> Vectors:
    """The query's vectors. Raises InputError where it holds no word to look for."""
    check_query(encoder, text)
    with clock.step("embed query"):
        [query] = embed(encoder, [text], role="query", measure=measure, statistics=statistics)
    return query


def read(
    encoder: Encoder,
    query: Vectors,
    passages: Sequence[Passage],
    statistics: Statistics,
    *,
    measure: Measure = RANKING,
    finder: Finder | None = None,
    clock: Clock,
) -> list[Result]:
    """Ask of a few passages that are embedded on the spot; all of them are returned, best first."""
    with clock.step("embed corpus"):
        tokens = encoder.tokenize([passage.text for passage in passages], "passage")
        index = Index(passages, embed_pooled(encoder, tokens), statistics)
    number = len(passages)
    return ask(*(encoder, query, index), k=number, rerank=number, measure=measure, finder=finder, clock=clock)


def ask(
    encoder: Encoder,
    query: Vectors,
    index: Index,
    *,
    k: int,
    rerank: int | None = None,
    measure: Measure = RANKING,
    finder: Finder | None = None,
    clock: Clock,
) -> list[Result]:
    """Find the passages that echo the query most, and where they do.

    The cosine of pooled vectors picks candidates from the whole corpus, and MaxSim over their words puts them
    in order (Khattab and Zaharia 2020, arXiv:2004.12832, section 4.5).

    Args:
        encoder: as `load` returns it.
        query: as `embed_query` returns it for the same measure.
        index: what is searched, as `open_index` returns it.
        k: how many passages to return at most.
        rerank: how many candidates to put in order, at least k; 0 leaves them in the order of their cosines,
            None takes `RERANK`, or `RERANK_STORED` where the index stores the layer's token vectors.
        measure: how words are compared.
        finder: finds the answer in each passage returned; without one the heat marks a phrase.
        clock: is told the time of each step.
    """
    assert query.pooled is not None
    statistics = index.statistics
    last = encoder.model.num_layers
    stored = index.tokens is not None and measure.layers_of(last) == (last,)
    if rerank is None:
        rerank = RERANK_STORED if stored else RERANK
    with clock.step("match"):
        found = match(
            query.pooled[None], index.vectors, k=max(k, rerank), normalized=encoder.pooling.normalize
        )
        [cosines], [rows] = jax.device_get(found)
    passages = [index.passages[int(row)] for row in rows]
    texts = [passage.text.rstrip() for passage in passages]
    with clock.step("read vectors" if stored else "embed passages"):
        if stored:
            candidates = _stored(encoder, texts, rows, index, measure)
        else:
            candidates = embed(encoder, texts, role="passage", measure=measure, statistics=statistics)
    order = np.arange(len(rows))
    if rerank:
        with clock.step("rank"):
            # Rounded, so that equal passages stay in the order of their cosines whatever batch they were in.
            scores = np.round(rank(query, candidates, measure, statistics), 4)
            order = np.argsort(-scores, kind="stable")
    with clock.step("heat maps"):
        best = [
            (row, heat_map(query, candidates[row], measure=measure, statistics=statistics))
            for row in order[:k]
        ]
    with clock.step("spans"):
        if finder is None:
            spans = [heat_span(heat) for _, heat in best]
        else:
            spans = find_answers(encoder, finder, query.tokens.text, [heat.passage.text for _, heat in best])
        return [
            Result(passages[row], float(cosines[row]), heat, span, heat_sentence(heat), finder is not None)
            for (row, heat), span in zip(best, spans, strict=True)
        ]


def find_answers(
    encoder: Encoder, finder: Finder, question: str, passages: Sequence[str]
) -> list[Span | None]:
    """The best answer that each passage holds; None where there being none is at least as plausible.

    Raises:
        InputError: the question is too long for the finder, or the head is for another encoder.
    """
    if isinstance(finder, Reader):
        found = answer(finder, question, passages)
    else:
        if finder.encoder != encoder.fingerprint:
            raise InputError(f"The span head was not trained on vectors of {encoder.name}.")
        measure = Measure(layers=(finder.layer,))
        asked = embed(encoder, [question], role="query", measure=measure) * len(passages)
        found = read_answers(finder, asked, embed(encoder, passages, role="passage", measure=measure))
    return [spans[0] if spans else None for spans in found]


def settings(encoder: Encoder, statistics: Statistics, measure: Measure, finder: Finder | None = None) -> str:
    """One line that says how a result was made; its end is a hash of that, to be quoted beside numbers."""
    found = "spans by heat" if finder is None else f"answers of {finder.name}"
    layers = "+".join(map(str, measure.layers_of(encoder.model.num_layers)))
    said = (
        f"layer {layers} · centring {measure.centring} · weights {measure.weights} · "
        f"window {measure.window} · neighbours {measure.neighbours} · "
        f"{found} · statistics of {statistics.documents:,} passages · minqa {version('minqa')}"
    )
    used = encoder.fingerprint, finder and finder.fingerprint
    digest = hashlib.sha256(f"{used} {said} {sorted(statistics.frequency.items())}".encode())
    return f"{encoder.name} · {said} · {digest.hexdigest()[:8]}"


def rank(
    query: Vectors, passages: Sequence[Vectors], measure: Measure, statistics: Statistics | None
) -> Float[np.ndarray, " passage"]:
    """The score of each passage, `maxsim` over words, as its heat map has it."""
    rows, length = (bucket(max(len(one.tokens.words) for one in some)) for some in ([query], passages))
    asked = np.zeros((rows, query.array.shape[1]), np.float32)
    asked[: len(query.tokens.words)] = query.words
    weights = np.zeros(rows, np.float32)
    weights[: len(query.tokens.words)] = word_weights(query.tokens, measure, statistics)
    scores = []
    block = max(1, RANK_WORDS // length)
    for start in range(0, len(passages), block):
        some = passages[start : start + block]
        words = np.zeros((len(some), length, query.array.shape[1]), np.float32)
        mask = np.zeros((len(some), length), bool)
        for i, one in enumerate(some):
            words[i, : len(one.tokens.words)] = one.words
            mask[i, : len(one.tokens.words)] = one.tokens.spelled
        added = maxsim(asked, weights, words, mask, window=measure.window, neighbours=measure.neighbours)
        scores.append(np.asarray(added).sum(1))
    return np.concatenate(scores)


def _stored(
    encoder: Encoder, texts: Sequence[str], rows: Int[np.ndarray, " _"], index: Index, measure: Measure
) -> list[Vectors]:
    assert index.tokens is not None
    return [
        Vectors(tokens, centred(index.tokens[int(row)][None], measure, index.statistics), None)
        for tokens, row in zip(encoder.tokenize(texts, "passage"), rows, strict=True)
    ]
