"""Answers that people marked → the loss of a model that finds them, and a step of training."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from minqa.bert import BertForQuestionAnswering
from minqa.span_head import Pairs, SpanHead
from minqa.spans import MAX_LENGTH, span_scores

Model = TypeVar("Model")


class Marked(NamedTuple):
    """Where people found the answers to a batch of questions.

    Attributes:
        first: the first word, or token, of each answer.
        last: its last one.
        weight: the part of the annotators that chose it; what is left of 1 found no answer. 0 is padding.
    """

    first: Int[Array | np.ndarray, "batch answer"]
    last: Int[Array | np.ndarray, "batch answer"]
    weight: Float[Array | np.ndarray, "batch answer"]


class TokenPairs(NamedTuple):
    """Questions, each with a passage, as BERT reads them together.

    Attributes:
        ids: of tokens, padded.
        mask: False for padding.
        token_types: 0 for the question, 1 for the passage.
        in_passage: True for the passage's words.
    """

    ids: Int[Array | np.ndarray, "batch token"]
    mask: Bool[Array | np.ndarray, "batch token"]
    token_types: Int[Array | np.ndarray, "batch token"]
    in_passage: Bool[Array | np.ndarray, "batch token"]


def span_loss(
    start: Float[Array, "batch token"],
    end: Float[Array, "batch token"],
    no_answer: Float[Array, " batch"],
    mask: Bool[Array | np.ndarray, "batch token"],
    marked: Marked,
    *,
    max_length: int = MAX_LENGTH,
) -> Float[Array, ""]:
    """Cross-entropy of the answers under one softmax over all spans and no answer; the mean of the batch.

    Devlin et al. 2018 (arXiv:1810.04805, section 4.2) normalize starts and ends apart; here, after Lee et al.
    2016 (arXiv:1611.01436), spans compete as they do in decoding.

    Args:
        start: see `span_scores`.
        end: likewise.
        no_answer: the score of there being none.
        mask: see `span_scores`.
        marked: answers of at most `max_length` tokens, none of them masked.
        max_length: the most tokens of an answer.
    """
    scores = span_scores(start, end, mask, max_length=max_length)
    log_total = jnp.logaddexp(jax.nn.logsumexp(scores, axis=(1, 2)), no_answer)
    rows = jnp.arange(len(scores))[:, None]
    found = jnp.where(marked.weight > 0, scores[rows, marked.first, marked.last - marked.first], 0)
    none = 1 - marked.weight.sum(1)
    return (log_total - (marked.weight * found).sum(1) - none * no_answer).mean()


def head_loss(head: SpanHead, pairs: Pairs, marked: Marked, key: Array | None = None) -> Float[Array, ""]:
    """The loss of a span head; a key turns dropout on."""
    return span_loss(*head(pairs, key), pairs.mask, marked)


def reader_loss(
    model: BertForQuestionAnswering, pairs: TokenPairs, marked: Marked, key: Array | None = None
) -> Float[Array, ""]:
    """The loss of a model that reads question and passage together; [CLS] stands for no answer."""
    start, end = model(pairs.ids, pairs.mask, pairs.token_types, key=key)
    return span_loss(start, end, start[:, 0] + end[:, 0], pairs.in_passage, marked)


@partial(jax.jit, static_argnames=("loss", "optimizer"))
def train_step(
    model: Model,
    state: optax.OptState,
    batch: tuple[Any, Marked],
    key: Array,
    *,
    loss: Callable[..., Float[Array, ""]],
    optimizer: optax.GradientTransformation,
) -> tuple[Model, optax.OptState, Float[Array, ""]]:
    """One step down the gradient: the model, the optimizer's state and the loss before the step.

    Args:
        model: a `SpanHead` or a `BertForQuestionAnswering`.
        state: `optimizer.init(model)`, or that of the step before.
        batch: what `loss` takes behind the model.
        key: for dropout.
        loss: `head_loss` or `reader_loss`.
        optimizer: of optax; pass the same object at every step, or each compiles anew.
    """
    value, gradients = jax.value_and_grad(loss)(model, *batch, key)
    updates, state = optimizer.update(gradients, state, model)
    return optax.apply_updates(model, updates), state, value
