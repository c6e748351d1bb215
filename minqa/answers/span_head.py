"""The span head: question and passage, embedded apart, and their similarity → the answer's place.

Passages are embedded without knowing the question, as by Seo et al. 2019 (arXiv:1906.05807), so a corpus is
embedded once; only this small network, after BiDAF (Seo et al. 2016, arXiv:1611.01603, section 2), sees both.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, astuple
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float
from safetensors.numpy import save

from minqa.answers.overall import SPANS_PER_PASSAGE, FindsSpans, Trust
from minqa.answers.spans import NoAnswer, Scores, as_spans, best_spans
from minqa.batches import pad_all, padded_length
from minqa.embedding import Vectors
from minqa.encoder import Encoder
from minqa.files.checkpoint import dump, load_parameters
from minqa.files.weights import read_safetensors
from minqa.heatmap import PASSAGE_WORDS
from minqa.similarity import cosine, sliding_max
from minqa.spans import MAX_SPAN_WORDS, Span
from minqa.text import InputError
from minqa.tokens import Tokens, comparable

# Within how many neighbouring words the question as a whole is looked for.
WINDOWS = (3, 8, 24)
# Signs of how a word is written: see `_spelling`.
SPELLINGS = 4
# Words of passages that are read at once: few enough for blocks to run side by side on CPU.
WORDS_AT_ONCE = 4096


class QuestionPassageBatch(NamedTuple):
    """Questions, each with a passage, as float32 vectors of their words, padded."""

    question: Float[Array | np.ndarray, "batch question_word dim"]
    question_mask: Bool[Array | np.ndarray, "batch question_word"]  # False for padding
    passage: Float[Array | np.ndarray, "batch word dim"]
    mask: Bool[Array | np.ndarray, "batch word"]  # False for padding
    spelling: Float[Array | np.ndarray, "batch word 4"]  # see `_spelling`
    echoed: Float[Array | np.ndarray, "batch word"]  # 1 if the question has the passage's word too, else 0
    comparable: Bool[Array | np.ndarray, "batch question_word word"]  # see `tokens.comparable`


def pair(questions: Sequence[Vectors], passages: Sequence[Vectors]) -> QuestionPassageBatch:
    """The n-th question with the n-th passage, padded to few lengths."""
    rows = padded_length(max(len(text.words) for text in questions), steps=1)
    words = max(PASSAGE_WORDS, padded_length(max(len(text.words) for text in passages), least=32))
    pairs = [(query.tokens, text.tokens) for query, text in zip(questions, passages, strict=True)]
    return QuestionPassageBatch(
        question=pad_all([text.words for text in questions], rows),
        question_mask=pad_all([np.ones(len(text.words), bool) for text in questions], rows),
        passage=pad_all([text.words for text in passages], words),
        mask=pad_all([np.ones(len(text.words), bool) for text in passages], words),
        spelling=pad_all([_spelling(text.tokens) for text in passages], words),
        echoed=pad_all([_echoed(*texts) for texts in pairs], words),
        comparable=pad_all([comparable(*texts) for texts in pairs], rows, words),
    )


class SpanHead(FindsSpans, nnx.Module):
    """A network of one recurrent layer that reads the words' vectors, what a heat map shows, and spelling.

    Args:
        dim: of the vectors.
        encoder: the fingerprint of the encoder that makes them.
        layer: the encoder's layer that they are of.
        hidden: the width of the network, and of either direction of the recurrent layer.
    """

    name = "the span head"

    def __init__(self, dim: int, *, encoder: str = "", layer: int = 0, hidden: int = 128, rngs: nnx.Rngs):
        self.encoder, self.layer = encoder, layer
        self.fingerprint = ""  # a hash of the file that it was read from
        linear = partial(nnx.Linear, rngs=rngs)
        self.scale = Scale(dim)
        self.project = linear(dim, hidden, use_bias=False)
        self.relate = linear(hidden, hidden, use_bias=False)
        self.sharpness = nnx.Param(jnp.full((), np.log(10), jnp.float32))
        self.sum_up = linear(hidden, 1, use_bias=False)
        self.weigh = linear(hidden, 1, use_bias=False)
        self.join = linear(4 * hidden, hidden, use_bias=False)
        self.hint = linear(2 + len(WINDOWS) + SPELLINGS, hidden)
        self.condition = linear(hidden, hidden, use_bias=False)
        self.recurrent = BidirectionalGRU(hidden, hidden, rngs=rngs)
        self.output = linear(2 * hidden, 2)
        self.no_answer = linear(2 * hidden, 1)
        # All words of a text share what is dropped.
        self.drop_input, self.drop = (nnx.Dropout(rate, broadcast_dims=(1,)) for rate in (0.2, 0.3))

    def __call__(
        self, batch: QuestionPassageBatch, key: Array | None = None
    ) -> tuple[Scores, Scores, NoAnswer]:
        """How well each word begins the answer, how well it ends it, and the score of no answer.

        A key turns dropout on, for training; None is deterministic.
        """
        keys = iter([None] * 6 if key is None else jax.random.split(key, 6))

        def drop(x, layer=self.drop):
            key = next(keys)
            return layer(x, deterministic=key is None, rngs=key)

        question, passage = self.scale(batch.question), self.scale(batch.passage)
        similarity = jnp.where(batch.comparable, jax.vmap(cosine)(question, passage), 0)  # (b, q, t)
        question, passage = (drop(self.project(drop(x, self.drop_input))) for x in (question, passage))
        # Each word of the passage sums up the question by its column of the similarity (BiDAF, 2.4).
        related = jnp.einsum("bqd,btd->btq", question, self.relate(passage)) * question.shape[-1] ** -0.5
        by_word = similarity.mT * jnp.exp(self.sharpness[...]) + related
        attended = _softmax(by_word, batch.question_mask[:, None]) @ question  # (b, t, d)
        whole = _softmax(self.sum_up(question)[..., 0], batch.question_mask)[:, None] @ question  # (b, 1, d)
        weights = _softmax(self.weigh(question)[..., 0], batch.question_mask)  # (b, q)
        best = jnp.where(batch.question_mask[..., None], similarity, -1).max(1)  # (b, t)
        around = jax.vmap(_closeness)(similarity, weights, batch.mask)  # (b, t, window)
        hints = jnp.concatenate([jnp.stack([batch.echoed, best], -1), around, batch.spelling], -1)
        joined = jnp.concatenate([passage, attended, passage * attended, passage * whole], -1)
        x = jax.nn.gelu(self.join(joined) + self.condition(whole) + self.hint(hints))  # (b, t, d)
        x = drop(self.recurrent(drop(x), batch.mask))  # (b, t, 2d)
        start, end = jnp.moveaxis(self.output(x), -1, 0)
        highest = jnp.where(batch.mask[..., None], x, -1).max(1)  # the states of a GRU lie above -1
        return start, end, self.no_answer(highest)[..., 0]

    def check_encoder(self, encoder: Encoder) -> None:
        """Raise InputError if the head was trained on vectors of another encoder."""
        if self.encoder != encoder.fingerprint:
            raise InputError(f"The span head was not trained on vectors of {encoder.name}.")

    def spans(self, question: Vectors, passages: Sequence[Vectors]) -> list[list[Span]]:
        return read_answers(self, [question] * len(passages), passages, k=SPANS_PER_PASSAGE, no_answer=False)


class BidirectionalGRU(nnx.Module):
    """Gated recurrent units without a reset gate that read a text in both directions.

    Ravanelli et al. 2018 (arXiv:1803.10225, section 3.1), with tanh: two thirds of the work of Cho et al.'s.
    """

    def __init__(self, inputs: int, hidden: int, *, rngs: nnx.Rngs):
        self.input = nnx.Linear(inputs, 4 * hidden, rngs=rngs)
        square = jax.nn.initializers.orthogonal()
        directions = [[square(rngs.params(), (hidden, hidden)) for _ in range(2)] for _ in range(2)]
        self.recurrent = nnx.Param(jnp.stack([jnp.concatenate(gates, axis=1) for gates in directions]))

    def __call__(
        self, x: Float[Array | np.ndarray, "batch word inputs"], mask: Bool[Array | np.ndarray, "batch word"]
    ) -> Float[Array, "batch word outputs"]:
        # The input's part of every step is computed for all words at once.
        inputs = jnp.split(self.input(jnp.swapaxes(jnp.asarray(x), 0, 1)), 2, axis=-1)
        read = jnp.swapaxes(jnp.asarray(mask), 0, 1)[..., None]

        def direction(inputs, recurrent, *, reverse):
            def step(state, word):
                inputs, read = word
                gate, new = jnp.split(inputs + state @ recurrent, 2, axis=-1)
                keep = jax.nn.sigmoid(gate)
                # Padding, where the backward direction begins, leaves the state alone.
                state = jnp.where(read, keep * state + (1 - keep) * jnp.tanh(new), state)
                return state, state

            initial = jnp.zeros((x.shape[0], len(recurrent)), x.dtype)
            return jax.lax.scan(step, initial, (inputs, read), reverse=reverse)[1]

        forward, backward = (direction(inputs[i], self.recurrent[i], reverse=i == 1) for i in range(2))
        return jnp.concatenate([forward, backward], -1).swapaxes(0, 1)


class Scale(nnx.Module):
    """(x - mean) / deviation, dimension by dimension; not trained."""

    def __init__(self, dim: int):
        self.mean = nnx.Param(jnp.zeros(dim))
        self.inverse_deviation = nnx.Param(jnp.ones(dim))

    def __call__(self, x):
        mean, inverse = jax.lax.stop_gradient((self.mean[...], self.inverse_deviation[...]))
        return (x - mean[None, None]) * inverse[None, None]


def read_answers(
    head: SpanHead,
    questions: Sequence[Vectors],
    passages: Sequence[Vectors],
    *,
    k: int = 1,
    max_length: int = MAX_SPAN_WORDS,
    no_answer: bool = True,
) -> list[list[Span]]:
    """The k best answers to the n-th question in the n-th passage, best first.

    Args:
        head: as `load_span_head` returns it.
        questions: as `embed` returns them for `replace(encoder, layer=head.layer, centring="none")`.
        passages: likewise.
        k: how many answers at most.
        max_length: the most words of an answer.
        no_answer: whether to leave out answers that are no better than no answer.
    """
    if not passages:
        return []
    size = max(1, WORDS_AT_ONCE // padded_length(max(len(text.words) for text in passages)))
    # All blocks are begun before one is waited for.
    blocks = [
        _read(head, pair(questions[i : i + size], passages[i : i + size]), k=k + 1, max_length=max_length)
        for i in range(0, len(passages), size)
    ]
    best, none = jax.tree.map(lambda *parts: np.concatenate(parts), *blocks)
    return as_spans(best, none, [text.tokens for text in passages], k=k, skip_worse=no_answer)


def load_span_head(path: str | Path | None = None) -> SpanHead:
    """Read a span head as `save_span_head` wrote it; by default, that of the default encoder.

    Raises:
        InputError: there is no such file, or it is broken or something else.
    """
    path = Path(path) if path else Path(__file__).with_name("span_head.safetensors")
    tensors, facts = read_safetensors(path)
    try:
        dim, hidden = tensors["project.kernel"].shape
        encoder, layer = facts["encoder"], int(facts["layer"])
        trust = Trust(**json.loads(facts["trust"]))
        if not np.isfinite(astuple(trust)).all():
            raise ValueError("a weight is not finite")
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path} holds no span head ({error}).") from error
    make = partial(SpanHead, dim, encoder=encoder, layer=layer, hidden=hidden)
    head = load_parameters(make, tensors, settings="a span head")
    head.trust = trust
    head.fingerprint = sha256(path.read_bytes()).hexdigest()
    return head


def save_span_head(head: SpanHead, **facts: str) -> bytes:
    """A head as the content of a safetensors file, in 16 bits; `facts` say how it was made."""
    tensors = {name: tensor.astype(np.float16) for name, tensor in dump(head).items()}
    known = {"encoder": head.encoder, "layer": str(head.layer), "trust": json.dumps(asdict(head.trust))}
    return save(tensors, facts | known)


@partial(jax.jit, static_argnames=("k", "max_length"))
def _read(head: SpanHead, batch: QuestionPassageBatch, *, k, max_length):
    with jax.default_matmul_precision("highest"):  # as `run_model` asks for
        start, end, none = head(batch)
    return best_spans(start, end, batch.mask, k=k, max_length=max_length, no_answer=none), none


def _spelling(passage: Tokens) -> Float[np.ndarray, "word 4"]:
    """1 for a capital first, one later, a digit, no letter or digit: uncased models do not tell."""

    def signs(word: str) -> tuple[bool, ...]:
        if word.isalpha() and word.islower():  # as most words are
            return (False,) * SPELLINGS
        later = any(map(str.isupper, word[1:]))
        return word[:1].isupper(), later, any(map(str.isdigit, word)), not any(map(str.isalnum, word))

    return np.array([*map(signs, passage.word_texts)], np.float32).reshape(-1, SPELLINGS)


def _echoed(question: Tokens, passage: Tokens) -> Float[np.ndarray, " word"]:
    keys = {question.keys[i] for i in np.flatnonzero(question.is_word)}
    return np.array([key in keys for key in passage.keys], np.float32)


def _closeness(
    similarity: Float[Array | np.ndarray, "question_word word"],
    weights: Float[Array | np.ndarray, " question_word"],
    mask: Bool[Array | np.ndarray, " word"],
) -> Float[Array, "word window"]:
    """How well the question is matched in each of the `WINDOWS` around a word, less the best of all words.

    As `contributions` looks for the place of a match.
    """
    similarity = jnp.where(mask[None], similarity, -1)
    totals = []
    for window in WINDOWS:
        centred = jnp.pad(similarity, ((0, 0), (window // 2, 0)), constant_values=-1)
        totals.append(weights @ sliding_max(centred, window)[:, : len(mask)])
    around = jnp.stack(totals, axis=-1)
    # The differences are small beside the other inputs.
    return jnp.where(mask[:, None], 5 * (around - around.max(0, keepdims=True)), 0)


def _softmax(scores, mask):
    return jax.nn.softmax(jnp.where(mask, scores, jnp.finfo(scores.dtype).min), -1)
