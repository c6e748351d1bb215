"""Search, token-by-token heat maps and answer spans with BERT and ELMo, in JAX.

text ─ tokens ─ vectors ─ similarity ─┬─ match      which passages
                                      ├─ heat map   which words
                                      └─ span       which phrase
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minqa.alignment import align, alignment_measure
    from minqa.corpus import Passage, demo_passages, read_passages
    from minqa.embedding import Vectors, embed, embed_pooled, pool
    from minqa.encoder import Encoder, load, load_elmo
    from minqa.errors import InputError
    from minqa.heatmap import HeatMap, heat_map
    from minqa.reader import Reader, answer, load_reader
    from minqa.similarity import cosine, match, maxsim, quantize
    from minqa.span_head import SpanHead, load_span_head, read_answers
    from minqa.spans import Span, best_spans, heat_sentence, heat_span, span_scores
    from minqa.statistics import RANKING, Measure, Statistics
    from minqa.survey import gather

_MODULES = {
    "alignment": ("align", "alignment_measure"),
    "corpus": ("Passage", "demo_passages", "read_passages"),
    "embedding": ("Vectors", "embed", "embed_pooled", "pool"),
    "encoder": ("Encoder", "load", "load_elmo"),
    "errors": ("InputError",),
    "heatmap": ("HeatMap", "heat_map"),
    "reader": ("Reader", "answer", "load_reader"),
    "similarity": ("cosine", "match", "maxsim", "quantize"),
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
