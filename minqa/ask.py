"""The whole chain on one screen: a query, a corpus and an encoder → the passages that echo it, and where."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float

from minqa.clock import Clock
from minqa.corpus import Passage
from minqa.embedding import Vectors, embed, embed_pooled
from minqa.encoder import Encoder
from minqa.errors import InputError
from minqa.heatmap import HeatMap, content_words, heat_map
from minqa.similarity import match
from minqa.spans import Span, heat_span

# The candidates that are read closely: so many passages, and so many tokens of them, at most. Reading them
# is most of a query's work, 0.13 s on 2 cores.
CANDIDATES = 16
CANDIDATE_TOKENS = 832


@dataclass(frozen=True)
class Result:
    """A passage that echoes the query.

    Attributes:
        passage: its title and text.
        cosine: of the pooled vectors of query and passage.
        heat_map: of the query on the passage; its `score` ranks the results.
        span: the phrase that the heat points to.
    """

    passage: Passage
    cosine: float
    heat_map: HeatMap
    span: Span | None


def embed_query(encoder: Encoder, text: str, *, clock: Clock) -> Vectors:
    """The query's vectors. Raises InputError where it holds no word to look for."""
    with clock.step("embed query"):
        [query] = embed(encoder, [text], role="query")
    if not content_words(query.tokens).any():
        raise InputError("The query holds no word.")
    return query


def read(encoder: Encoder, query: Vectors, passages: Sequence[Passage], *, clock: Clock) -> list[Result]:
    """Ask of a few passages that are embedded on the spot; all of them are returned, best first."""
    with clock.step("embed corpus"):
        tokens = encoder.tokenize([passage.text for passage in passages], "passage")
        vectors = embed_pooled(encoder, tokens)
    return ask(encoder, query, passages, vectors, k=len(passages), clock=clock)


def ask(
    encoder: Encoder,
    query: Vectors,
    passages: Sequence[Passage],
    vectors: Float[np.ndarray, "passage dim"],
    *,
    k: int,
    clock: Clock,
) -> list[Result]:
    """Find the passages that echo the query most, and where they do.

    The cosine of pooled vectors picks candidates from the whole corpus, as many as `CANDIDATE_TOKENS`
    allows and at least k; their heat maps rank them.

    Args:
        encoder: as `load` returns it.
        query: as `embed_query` returns it.
        passages: the corpus.
        vectors: the pooled vectors of the first of them, as `read_index` returns them; these are searched.
        k: how many passages to return at most.
        clock: is told the time of each step.
    """
    with clock.step("match"):
        [cosines], [rows] = jax.device_get(match(query.pooled[None], vectors, k=max(k, CANDIDATES)))
        texts = [passages[row].text for row in rows]
        lengths = [len(tokens) for tokens in encoder.tokenize(texts, "passage")]
        number = max(k, int((np.cumsum(lengths) <= CANDIDATE_TOKENS).sum()))
    with clock.step("embed passages"):
        candidates = embed(encoder, texts[:number], role="passage")
    with clock.step("heat maps"):
        maps = [heat_map(query, candidate) for candidate in candidates]
    with clock.step("spans"):
        spans = [heat_span(heat) for heat in maps]
    results = [
        Result(passages[row], float(cosine), heat, span)
        for row, cosine, heat, span in zip(rows[:number], cosines[:number], maps, spans, strict=True)
    ]
    # Rounded, so that equal passages stay in the order of their cosines whatever batch they were in.
    return sorted(results, key=lambda result: -round(result.heat_map.score, 6))[:k]
