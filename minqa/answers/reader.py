"""A question-answering checkpoint: question and passage, read together → answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from minqa.answers.overall import SPANS_PER_PASSAGE, FindsSpans
from minqa.answers.spans import Scores, as_spans, best_spans
from minqa.batches import Batch, by_text, pad_all, padded_length, run_model
from minqa.bert import Bert, BertConfig, Linear
from minqa.embedding import Vectors
from minqa.encoder import Encoder, fingerprint
from minqa.files import bert
from minqa.files.checkpoint import AS_IS, Names
from minqa.files.loading import load_bert_parameters, model_folder, read_bert
from minqa.files.tokenizer import truncated
from minqa.files.weights import read_tensors
from minqa.spans import MAX_SPAN_WORDS, Span
from minqa.text import InputError, well_formed
from minqa.tokens import TextTokenizer, Tokens

# Tokens in a window, and tokens of the passage that two windows share, as in Devlin et al.'s code.
WINDOW_TOKENS = 384
OVERLAP_TOKENS = 128


def tensors(config: BertConfig) -> Names:
    """How checkpoints name the parameters of `BertForQuestionAnswering`."""
    return {f"encoder.{path}": tensor for path, tensor in bert.TENSORS[config.model_type].items()} | {
        "output.kernel": ("qa_outputs.weight", AS_IS),
        "output.bias": ("qa_outputs.bias", AS_IS),
    }


class BertForQuestionAnswering(nnx.Module):
    """A BERT that reads question and passage together and marks the answer (Devlin et al. 2018, 4.2)."""

    BATCH_TOKENS = Bert.BATCH_TOKENS
    packs = compiles_itself = True

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
        self.encoder = Bert(config, rngs=rngs)
        self.output = Linear(config.hidden_size, 2, rngs=rngs)

    def __call__(
        self, ids, segments, types, positions=None, *, key: Array | None = None
    ) -> tuple[Scores, Scores]:
        """How well each token begins the answer, and how well it ends it; see `Bert`."""
        logits = self.output(self.encoder(ids, segments, types, positions, key=key).hidden[-1])
        return logits[..., 0], logits[..., 1]


@dataclass(frozen=True)
class Reader(FindsSpans):
    """A model that finds answers in text; an `Answerer`."""

    name: str  # to be shown
    model: BertForQuestionAnswering
    tokenizer: TextTokenizer  # its `max_tokens` is the length of a window
    layer: ClassVar[int | None] = None  # it reads text

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.model, self.tokenizer, self.model.encoder.config)

    def check_encoder(self, encoder: Encoder) -> None:
        """A reader goes with every encoder."""

    def spans(self, question: Vectors, passages: Sequence[Vectors]) -> list[list[Span]]:
        texts = [passage.tokens.text for passage in passages]
        return answer(self, question.tokens.text, texts, k=SPANS_PER_PASSAGE, no_answer=False)


def load_reader(
    source: str | Path, *, window: int = WINDOW_TOKENS, dtype: jax.typing.DTypeLike = jnp.float32
) -> Reader:
    """Load what transformers calls a `BertForQuestionAnswering`, or that of DistilBERT, RoBERTa or XLM-R.

    Args:
        source: a folder or a Hugging Face hub id.
        window: how many tokens are read at once, the question's and special ones included.
        dtype: of parameters and computation, float32 or bfloat16.

    Raises:
        InputError: there is no such model, or it is broken, or is another kind of model.
    """
    folder = model_folder(source)
    config, tokenizer = read_bert(folder, max_tokens=window)
    if config.type_vocab_size == 1 and any(tokenizer.backend.encode("", "a").type_ids):
        raise InputError("This BERT cannot tell a question from a passage: its type_vocab_size is 1, not 2.")
    model = load_bert_parameters(
        partial(BertForQuestionAnswering, config),
        read_tensors(folder),
        tensors(config),
        settings=f"a BERT for question answering, as {source} should be",
        unused=bert.UNUSED_TENSORS.replace("qa_outputs|", ""),
        dtype=dtype,
    )
    return Reader(str(source), model, tokenizer)


def answer(
    reader: Reader,
    question: str,
    passages: Sequence[str],
    *,
    k: int = 1,
    max_length: int = MAX_SPAN_WORDS,
    overlap: int = OVERLAP_TOKENS,
    no_answer: bool = True,
) -> list[list[Span]]:
    """The k best answers to a question in each passage, best first.

    Devlin et al. 2018 (arXiv:1810.04805), sections 4.2 and 4.3: an answer's score is the sum of its start's
    and its end's, and that of no answer the sum of [CLS]'s two, the lowest of all windows.

    Args:
        reader: as `load_reader` returns it.
        question: any Unicode.
        passages: likewise; one that is too long to be read at once is read window by window.
        k: how many at most.
        max_length: the most tokens of an answer, before it is widened to whole words.
        overlap: see `read_pairs`.
        no_answer: whether to leave out answers that are no better than no answer.

    Raises:
        InputError: the question leaves no room for a passage.
    """
    texts = read_pairs(reader.tokenizer, question, passages, overlap=overlap)
    if not texts:
        return []
    length = padded_length(max(map(len, texts)), steps=1)
    logits, none = [np.zeros(0)] * len(texts), np.zeros(len(texts), np.float32)

    def run(model: BertForQuestionAnswering, batch: Batch) -> tuple[Float[Array, "2 batch token"], None]:
        return jnp.stack(run_model(model, batch)).astype(jnp.float32), None

    for row, (scores, _) in by_text(reader.model, reader.tokenizer, texts, run):
        logits[row] = scores  # (2, token)
        cls = np.cumsum([0, *texts[row].windows[:-1]])  # where each window begins
        none[row] = scores[:, cls].sum(0).min()
    start, end = np.moveaxis(pad_all(logits, 2, length), 1, 0)
    word = pad_all([text.word for text in texts], length, value=-1.0)
    # k + 1, as no answer may take a place.
    best = best_spans(start, end, word >= 0, k=k + 1, max_length=max_length, word=word, no_answer=none)
    return as_spans(best, none, texts, k=k, skip_worse=no_answer)


def read_pairs(
    tokenizer: TextTokenizer, question: str, passages: Sequence[str], *, overlap: int = OVERLAP_TOKENS
) -> list[Tokens]:
    """Tokens of each passage, in windows that begin with the question, whose tokens belong to no word.

    Windows share `overlap` tokens of the passage, or half of their room if that is less.

    Raises:
        InputError: the question leaves no room for a passage.
    """
    question, passages = well_formed(question), [well_formed(passage) for passage in passages]
    backend, most = tokenizer.backend, tokenizer.max_tokens
    encoding = backend.encode(question, add_special_tokens=False)
    taken = sum(map(len, [encoding, *encoding.overflowing])) + backend.num_special_tokens_to_add(True)
    if taken >= most:
        limit = f"at most {most} tokens are read at once, and it leaves none for the passage"
        raise InputError(f"The question is too long: {limit}.")
    stride = min(overlap, (most - taken) // 2)
    reads = truncated(tokenizer, most, direction="right", stride=stride, strategy="only_second")
    pairs = reads.backend.encode_batch([(question, passage) for passage in passages])
    return [reads.read(*text, sequence=1) for text in zip(passages, pairs, strict=True)]
