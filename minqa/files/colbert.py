"""How a ColBERT reads texts, and the files that say so.

To be read beside Khattab and Zaharia 2020 (arXiv:2004.12832), section 3.2.
"""

import string
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer

from minqa.files.checkpoint import Settings, checked, one_of, only, read_settings, typed, whole
from minqa.files.tokenizer import content, truncated
from minqa.text import InputError
from minqa.tokens import TextTokenizer, Tokens

QUERY_TOKENS = 32  # if a folder does not say how many


class InputWarning(UserWarning):
    """Something about a folder that its owner should know; its message is one sentence."""


@dataclass(frozen=True)
class Reading:
    """How a query or a passage is read: query augmentation, and filtering."""

    marker: str  # stands before the prompt and the text
    max_tokens: int  # what truncation would take from a longer text is not compared
    skipped: tuple[int, ...] = ()  # ids of tokens that are not compared, such as punctuation
    filled: int = 0  # up to so many tokens, with the token `filler`
    filler: int = 0
    attended: bool = False  # whether other tokens attend to these
    mean: bool = False  # whether a query's score is divided by the number of its tokens


@dataclass(frozen=True)
class LateTokenizer(TextTokenizer):
    """A ColBERT's; a text of no role is read as a passage."""

    readings: tuple[Reading, ...]  # of queries, and of passages
    plain: TextTokenizer  # what finds tokens and words

    def __call__(self, texts, prompt="", role=None) -> list[Tokens]:
        reading = self.readings[0 if role == "query" else 1]
        tokenizer = truncated(self.plain, reading.max_tokens)
        return [self._read_as(reading, tokens) for tokens in tokenizer(texts, reading.marker + prompt)]

    def _read_as(self, reading: Reading, tokens: Tokens) -> Tokens:
        fill = max(0, reading.filled - len(tokens))
        *windows, last = tokens.windows
        ids = np.pad(tokens.ids, (0, fill), constant_values=reading.filler)
        word = np.pad(tokens.word, (0, fill), constant_values=-1)
        is_read = np.repeat(np.arange(len(tokens.windows)) == tokens.pooled_window, (*windows, last + fill))
        scored = (is_read & ~np.isin(ids, reading.skipped)).astype(np.float32)
        special = np.where((word < 0) & (scored > 0), ids, -1).tolist()
        return replace(
            tokens,
            ids=ids,
            word=word,
            windows=(*windows, last + fill),
            types=np.pad(tokens.types, (0, fill)),
            unknown=np.zeros_like(tokens.unknown),  # [UNK] is a token like others
            scored=scored / max(scored.sum(), np.float32(1)) if reading.mean else scored,
            attended=(np.arange(len(ids)) < len(tokens)) | reading.attended,
            specials=tuple((self.backend.id_to_token(i) or "") if i >= 0 else "" for i in special),
        )


# Settings as PyLate or sentence-transformers name them. A text takes [CLS], a marker, a token and [SEP].
_LENGTHS = ("query_length", "document_length", "query_expansion.length")
_TYPED = {
    "do_query_expansion": bool, "attend_to_expansion_tokens": bool, "mask_punctuation": bool,
    "query_prefix": str, "document_prefix": str, "skiplist_words": list, "skiplist_tasks": list,
    "query_expansion": dict, "query_expansion.attend": bool, "query_expansion.token": str,
}  # fmt: skip
CHECKS = {
    **{key: whole(key, low=4, default=None) for key in _LENGTHS},
    **{key: typed(key, kind, default=None) for key, kind in _TYPED.items()},
    "query_expansion.strategy": one_of("query_expansion.strategy", ("fixed", "min"), "fixed"),
    "keep_only_token_ids": only("keep_only_token_ids", None, []),
}
# As ColBERT's authors name them.
_STANFORD = {
    "query_length": "query_maxlen", "query_prefix": "query_token_id",
    "document_length": "doc_maxlen", "document_prefix": "doc_token_id",
    "attend_to_expansion_tokens": "attend_to_mask_tokens",
}  # fmt: skip
STANFORD_CHECKS = {name: check._replace(key=_STANFORD.get(name, name)) for name, check in CHECKS.items()}
STANFORD_CHECKS["similarity"] = only("similarity", "cosine", None)


def read_late(
    folder: Path,
    transformer: Path,
    modules: Mapping[str, Sequence[Path]],
    prompts: Mapping[str, str],
    tokenizer: TextTokenizer,
    max_positions: int,
) -> tuple[LateTokenizer, dict[str, str]]:
    """How a ColBERT reads texts, and its prompts, without its markers.

    Args:
        modules: the places of sentence-transformers' modules, by kind; a folder without a MultiVectorMask is
            PyLate's, and one without any is of ColBERT's authors.
        prompts: those that the folder has, which may begin with the markers.
        tokenizer: what splits texts into tokens; it learns the markers.
        max_positions: the most tokens that the model can number.

    Raises:
        InputError: a marker is not in the vocabulary, or a setting will not do.
    """
    backend, masks, values = tokenizer.backend, modules.get("MultiVectorMask", ()), dict[str, Any]()
    files = [folder / "config_sentence_transformers.json", transformer / "sentence_bert_config.json"]
    usual = {"query": "", "document": ""}
    if not modules:
        files, usual = [folder / "artifact.metadata"], {"query": "[unused0]", "document": "[unused1]"}
        if not files[0].is_file():
            taken = f"the markers are {' and '.join(usual.values())}, queries have {QUERY_TOKENS} tokens"
            told = f"{folder} holds no artifact.metadata, so {taken}, and passages at most"
            warnings.warn(f"{told} {tokenizer.max_tokens}.", InputWarning, stacklevel=4)
    for file in [*files, *(mask / "config.json" for mask in masks)]:
        values |= read_settings(file, optional=True).values
    said = checked(Settings(files[0], values), CHECKS if modules else STANFORD_CHECKS, "ColBERT")

    markers, prompts = dict.fromkeys(usual, ""), {**prompts}
    for role, marker in usual.items():
        if prefix := said[f"{role}_prefix"] or marker:
            prefix = prefix if modules else f"{prefix} "
            marker = prefix if backend.token_to_id(prefix) is not None else prefix.strip()
            _number(marker, backend, files[0])
            backend.add_special_tokens([AddedToken(marker, normalized=False)])  # which is split no more
            markers[role] = prefix
            prompts[role] = prompts.get(role, "").removeprefix(prefix)

    longest, limit = (said[f"{role}_length"] or tokenizer.max_tokens for role in usual)
    filled, attended = said["query_expansion.length"] or 0, said["query_expansion.attend"]
    if not masks and "query_expansion" not in values and said["do_query_expansion"] is not False:
        filled, attended = said["query_length"] or QUERY_TOKENS, said["attend_to_expansion_tokens"]
    if filled:
        longest = filled if said["query_expansion.strategy"] == "fixed" else max(longest, filled)
    known = read_settings(transformer / "tokenizer_config.json", optional=True).values.get("mask_token")
    mask = said["query_expansion.token"] or content(known) or "[MASK]"
    filler = _number(mask, backend, files[0]) if filled else 0

    words = said["skiplist_words"]
    if words is None and not masks and said["mask_punctuation"] is not False:
        words = [*string.punctuation]
    skipped = tuple(i for word in words or () if (i := backend.token_to_id(str(word))) is not None)
    tasks = said["skiplist_tasks"] or ["document"]

    longest, filled, limit = (min(length, max_positions) for length in (longest, filled, limit))
    plain = truncated(tokenizer, limit)
    mean = values.get("similarity_fn_name") == "meanmaxsim"
    in_query, in_passage = (skipped * (role in tasks) for role in usual)
    query = Reading(markers["query"], longest, in_query, filled, filler, bool(attended), mean)
    passage = Reading(markers["document"], limit, in_passage)
    return LateTokenizer(plain.backend, limit, (query, passage), plain), prompts


def _number(token: str, backend: Tokenizer, place: Path) -> int:
    if (number := backend.token_to_id(token)) is None:
        what = f"lacks the token {token!r}, which marks or fills up a text"
        raise InputError(f"{place}: the vocabulary of the tokenizer {what}.")
    return number
