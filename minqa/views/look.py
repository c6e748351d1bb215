"""What there is to look at inside a model: its heads, its units, and what a score depends on."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from minqa.embedding import embed
from minqa.encoder import Encoder
from minqa.heatmap import heat_map
from minqa.inside.align import align, alignment_encoder
from minqa.inside.features import FEATURES
from minqa.inside.heads import Attention, attention, flip, head_scores
from minqa.inside.saliency import saliency
from minqa.inside.units import factors, find_units, units
from minqa.text import InputError
from minqa.views.colours import similarity_scale
from minqa.views.text import format_score
from minqa.views.view import Grid, Head, Heads, Listing, Shading, Stack

HEADS_LISTED = 3
FLIPS_LISTED = 10
UNITS_SHADED = 3
# Passages in which units are looked for that follow a feature.
PASSAGES_READ_FOR_UNITS = 256
_with_sign = partial(format_score, sign="+")


def heads(encoder: Encoder, text: str, head: tuple[int, int] | None = None, *, grid: bool = False) -> Stack:
    """What the heads do in a text, and all of them; or one head, (layer, number); or, with `grid`, all these.

    Raises InputError if there is no such head, or as `attention`.
    """
    maps = attention(encoder, text)
    if head and not grid:
        return Stack(text, [Head.of(maps, *head)])
    listing = _list_scores(maps)
    return Stack(text, [Heads(maps), Head.of(maps, *head), listing] if head else [listing, Heads(maps)])


def _list_scores(maps: Attention) -> Listing:
    """For each thing that heads do, the heads that do it most."""
    rows = []
    for name, scores in head_scores([maps]).items():
        order = np.argsort(-np.nan_to_num(scores), axis=None, kind="stable")[:HEADS_LISTED]
        best = zip(*np.unravel_index(order, scores.shape), strict=True)
        cells = [f"{layer + 1}.{head}  {format_score(scores[layer, head])}" for layer, head in best]
        cells = cells if np.isfinite(scores).all() else ["–"] * len(cells)
        rows.append((name, *cells, *[""] * (HEADS_LISTED - len(cells))))
    columns = ("attends to", *(f"{place}." for place in range(1, HEADS_LISTED + 1)))
    return Listing("What heads do: layer.head, and how much of its attention it gives", columns, rows)


def flipped(
    encoder: Encoder, text_a: str, text_b: str, from_word: str | int, to_words: tuple[str | int, str | int]
) -> Stack:
    """The heads whose attention moves between two texts, and the first of them on both. Raises as `flip`."""
    flips = flip(encoder, text_a, text_b, from_word, to_words)
    rows = []
    for head in flips[:FLIPS_LISTED]:
        weights = [" / ".join(map(format_score, pair)) for pair in (head.first, head.second)]
        rows.append((f"{head.layer}.{head.head}", _with_sign(head.moved), *weights))
    words = f"{to_words[0]} / {to_words[1]}"
    columns = ("layer.head", "moved", f"to {words} in the first text", "in the second")
    listing = Listing(f"How far the attention of {from_word} moves between {words}", columns, rows)
    best = flips[0].layer, flips[0].head
    return Stack(text_a, [listing, *(Head.of(attention(encoder, text), *best) for text in (text_a, text_b))])


def shaded_by_units(
    encoder: Encoder, text: str, chosen: Sequence[tuple[int, int]], kind: str | None = None
) -> Stack:
    """A text shaded by each of some units, (layer, number). Raises as `units`."""
    read = units(encoder, text, kind=kind)
    named = [(f"{read.kind} unit {i}.{j}", read.unit(i, j)) for i, j in chosen]
    return Stack(text, [Shading(name, read.tokens, values) for name, values in named])


def shaded_by_factors(encoder: Encoder, text: str, k: int, kind: str | None = None) -> Stack:
    """A text shaded by each factor of its units. Raises as `units` and `factors`."""
    read = units(encoder, text, kind=kind)
    named = [(f"factor {i} of {read.kind} units", row) for i, row in enumerate(factors(read, k).strength)]
    return Stack(text, [Shading(name, read.tokens, values) for name, values in named])


def search_units(
    encoder: Encoder,
    texts: Sequence[str],
    feature: str,
    kind: str | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[Listing, list[tuple[int, int]]]:
    """The units that follow a feature of `FEATURES`: a list, and (layer, number) of the best.

    Raises InputError if there is no such feature, or as `find_units`.
    """
    if feature not in FEATURES:
        raise InputError(f"There is no feature {feature}: there are {', '.join(FEATURES)}.")
    best = find_units(encoder, texts, FEATURES[feature], kind=kind, progress=progress)
    rows = [
        (f"{unit.layer}.{unit.number}", _with_sign(unit.correlation), _with_sign(unit.held_out))
        for unit in best
    ]
    columns = ("layer.unit", "correlation", "on texts held out")
    listing = Listing(f"{best[0].kind} units that follow the feature {feature}", columns, rows)
    return listing, [(unit.layer, unit.number) for unit in best[:UNITS_SHADED]]


def influence(encoder: Encoder, query: str, passage: str) -> Stack:
    """Both texts shaded by how much each word moves the score. Raises as `saliency`."""
    moved = saliency(encoder, query, passage)
    return Stack(query, [
        Shading("Influence of the query's words", moved.query, moved.query_words),
        Shading("Influence of the passage's words", moved.passage, moved.passage_words),
    ])  # fmt: skip


def aligned(encoder: Encoder, query: str, passage: str) -> Stack:
    """The words of two texts that say the same, as `align` pairs them, and all similarities.

    The encoder should be calibrated; it is compared at the layer that aligns best.
    """
    encoder = alignment_encoder(encoder)
    [first] = embed(encoder, [query], role="query")
    [second] = embed(encoder, [passage], role="passage")
    heat = heat_map(first, second)
    words, others, array = heat.query.word_texts, heat.passage.word_texts, heat.word_similarity
    rows = [(words[i], others[j], format_score(array[i, j]), f"{i}-{j}") for i, j in align(heat)]
    columns = ("first text", "second text", "similarity", "numbers")
    listing = Listing("Words that say the same", columns, rows)
    grid = Grid("Similarities of all words", words, others, array, similarity_scale(heat), passage)
    return Stack(query, [listing, grid])
