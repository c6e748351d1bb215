"""Search, token-by-token heat maps and answer spans with BERT and ELMo, in JAX.

text ─ tokens ─ vectors ─ similarity ─┬─ match      which passages
                                      ├─ heat map   which words
                                      └─ span       which phrase
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minqa.activations import Factors, FoundUnit, Units, factors, find_units, units
    from minqa.alignment import align, alignment_measure
    from minqa.corpus import Corpus, demo_passages, open_corpus
    from minqa.embedding import Vectors, embed, embed_pooled, pool
    from minqa.encoder import Encoder, load, load_elmo
    from minqa.engines import export
    from minqa.errors import InputError
    from minqa.features import FEATURES
    from minqa.heads import TARGETS, Attention, Flip, attention, between, flip, head_scores
    from minqa.heatmap import HeatMap, heat_map
    from minqa.index import Index, open_index
    from minqa.indexing import write_index
    from minqa.influence import Saliency, saliency
    from minqa.passages import split
    from minqa.reader import Reader, answer, load_reader
    from minqa.records import Article, Passage
    from minqa.similarity import Sharded, cosine, match, maxsim, quantize, shard
    from minqa.span_head import SpanHead, load_span_head, read_answers
    from minqa.spans import Span, best_spans, heat_sentence, heat_span, span_scores
    from minqa.statistics import RANKING, Measure, Statistics
    from minqa.survey import gather

_MODULES = {
    "activations": ("Factors", "FoundUnit", "Units", "factors", "find_units", "units"),
    "alignment": ("align", "alignment_measure"),
    "corpus": ("Corpus", "demo_passages", "open_corpus"),
    "embedding": ("Vectors", "embed", "embed_pooled", "pool"),
    "encoder": ("Encoder", "load", "load_elmo"),
    "errors": ("InputError",),
    "engines": ("export",),
    "features": ("FEATURES",),
    "heads": ("TARGETS", "Attention", "Flip", "attention", "between", "flip", "head_scores"),
    "heatmap": ("HeatMap", "heat_map"),
    "index": ("Index", "open_index"),
    "indexing": ("write_index",),
    "influence": ("Saliency", "saliency"),
    "passages": ("split",),
    "records": ("Article", "Passage"),
    "reader": ("Reader", "answer", "load_reader"),
    "similarity": ("Sharded", "cosine", "match", "maxsim", "quantize", "shard"),
    "span_head": ("SpanHead", "load_span_head", "read_answers"),
    "spans": ("Span", "best_spans", "heat_sentence", "heat_span", "span_scores"),
    "statistics": ("RANKING", "Measure", "Statistics"),
    "survey": ("gather",),
}
__all__ = [name for names in _MODULES.values() for name in names]


def __dir__() -> list[str]:
    return [*globals(), *__all__]


def __getattr__(name: str) -> Any:
    # JAX takes over a second to import, which `minqa --help` need not wait for.
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"minqa.{module}"), name)
    raise AttributeError(f"module 'minqa' has no attribute {name!r}")
