"""Search, token-by-token heat maps and answer spans with BERT and ELMo, in JAX.

text ─ tokens ─ vectors ─ similarity ─┬─ match      which passages
                                      ├─ heat map   which words
                                      └─ span       which answer
"""

from importlib import import_module
from typing import Any

# JAX takes over a second to import, so a module is imported when one of its names is first used.
_NAMES = {
    "text": "InputError Passage",
    "tokens": "TextTokenizer Tokens",
    "similarity": "contributions cosine dot euclidean manhattan match maxsim",
    "encoder": "Encoder Pooling Statistics",
    "embedding": "Vectors embed embed_each embed_pooled pool",
    "heatmap": "HeatMap heat_map rank",
    "spans": "Span heat_sentence heat_span",
    "ask": "Index Result Results",
    "files.compiled": "cache",
    "files.loading": "load load_elmo",
    "files.saving": "save",
    "answers.overall": "Answer Trust overall",
    "answers.reader": "Reader answer load_reader",
    "answers.spans": "best_spans span_scores",
    "answers.span_head": "SpanHead load_span_head read_answers",
    "corpus.readers": "Article Corpus demo_passages open_corpus",
    "corpus.statistics": "calibrate",
    "corpus.passages": "split",
    "corpus.vectors": "Prepared Sharded prepare quantize shard",
    "corpus.index": "DiskIndex open_index",
    "corpus.writer": "write_index write_shard",
    "inside.align": "align alignment_encoder",
    "inside.features": "FEATURES",
    "inside.heads": "TARGETS Attention Flip attention between flip head_scores",
    "inside.saliency": "Saliency saliency",
    "inside.units": "Factors FoundUnit Units factors find_units units",
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = [*_MODULES]


def __dir__() -> list[str]:
    return [*globals(), *__all__]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'minqa' has no attribute {name!r}")
    return getattr(import_module(f"minqa.{_MODULES[name]}"), name)
