"""A question-answering checkpoint: question and passage, read together → answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from minqa import bert
from minqa.checkpoint import fill
from minqa.embedding import batches, bucket
from minqa.encoder import fingerprint_of, model_folder, read_bert
from minqa.spans import MAX_LENGTH, Span, as_spans, best_spans
from minqa.tokens import WordPiece

# How much a window holds, and how much of it the next one holds too, as the original has them (Devlin et al.
# 2018): 384 tokens in all, and 128 of the passage.
WINDOW = 384
OVERLAP = 128


@dataclass(frozen=True)
class Reader:
    """A model that finds answers, and its tokenizer.

    Attributes:
        name: as it was asked for, to be shown.
        model: a pytree, called as `model(ids, mask, token_types)`.
        tokenizer: joins question and passage.
        fingerprint: a hash of all of the above but the name.
    """

    name: str
    model: bert.BertForQuestionAnswering
    tokenizer: WordPiece
    fingerprint: str


def load_reader(
    source: str | Path, *, window: int = WINDOW, dtype: jax.typing.DTypeLike = jnp.float32
) -> Reader:
    """Load what transformers calls a `BertForQuestionAnswering`.

    Args:
        source: a folder or a Hugging Face hub id.
        window: how many tokens are read at once, question and special tokens included; fewer where the model
            cannot number so many.
        dtype: of parameters and computation, float32 or bfloat16.

    Raises:
        InputError: there is no such model, or it is broken, or is another kind of model.
    """
    config, tokenizer, tensors = read_bert(model_folder(source), max_tokens=window)
    model = fill(
        jax.eval_shape(lambda: bert.BertForQuestionAnswering(config, rngs=nnx.Rngs(0))),
        tensors,
        bert.QA_TENSORS,
        settings=f"a BERT for question answering, as {source} should be",
        older_names=bert.OLDER_NAMES,
        unused=bert.QA_UNUSED_TENSORS,
        dtype=dtype,
    )
    described = (config, tokenizer.max_tokens, jnp.dtype(dtype).name)
    return Reader(str(source), model, tokenizer, fingerprint_of(described, tokenizer, tensors))


def answer(
    reader: Reader,
    question: str,
    passages: Sequence[str],
    *,
    k: int = 1,
    max_length: int = MAX_LENGTH,
    overlap: int = OVERLAP,
    apart: bool = False,
    no_answer: bool = True,
) -> list[list[Span]]:
    """The k best answers to a question that each passage holds, best first.

    Devlin et al. 2018 (arXiv:1810.04805), sections 4.2 and 4.3: an answer's score is the sum of its start's
    and its end's, and that of no answer the sum of [CLS]'s two, the lowest of all windows.

    Args:
        reader: as `load_reader` returns it.
        question: any Unicode.
        passages: likewise; one that is too long to be read at once is read window by window.
        k: how many at most.
        max_length: the most tokens of an answer; it is widened to whole words then.
        overlap: how many tokens of a passage neighbouring windows share, half of their room at most.
        apart: whether no two answers may overlap.
        no_answer: whether to leave out answers that are no better than there being none.

    Raises:
        InputError: the question leaves no room for a passage.
    """
    pairs = reader.tokenizer.pairs(question, passages, overlap=overlap)
    if not pairs:
        return []
    texts = [tokens for tokens, _ in pairs]
    windows = [
        (row, stop - count, count)
        for row, tokens in enumerate(texts)
        for stop, count in zip(np.cumsum(tokens.windows).tolist(), tokens.windows, strict=True)
    ]
    length = bucket(max(map(len, texts)))
    start, end = np.zeros((2, len(texts), length), np.float32)
    none = np.full(len(texts), np.inf, np.float32)
    for batch, padded in batches([count for *_, count in windows], bert.BATCH_TOKENS):
        padded = min(padded, reader.tokenizer.max_tokens)
        ids, types, mask = np.zeros((3, len(batch), padded), np.int32)
        for i, (row, at, count) in enumerate(windows[j] for j in batch):
            tokens, token_types = pairs[row]
            ids[i, :count], types[i, :count] = tokens.ids[at : at + count], token_types[at : at + count]
            mask[i, :count] = 1
        logits = np.asarray(jnp.stack(reader.model(ids, mask > 0, types)), np.float32)
        for i, (row, at, count) in enumerate(windows[j] for j in batch):
            start[row, at : at + count], end[row, at : at + count] = logits[:, i, :count]
            none[row] = min(none[row], logits[:, i, 0].sum())
    word = np.full((len(texts), length), -1, np.int32)
    for row, tokens in enumerate(texts):
        word[row, : len(tokens)] = tokens.word
    best = best_spans(
        start,
        end,
        word >= 0,
        k=k + 1,  # no answer may take a place
        max_length=max_length,
        word=word,
        apart=apart,
        no_answer=none,
    )
    return [spans[:k] for spans in as_spans(best, none, texts, no_answer=no_answer)]
