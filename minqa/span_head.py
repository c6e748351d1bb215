"""The span head: question and passage, embedded apart, and their similarity → where the answer lies.

Passages are embedded without the question being known, as by Seo et al. 2019 (arXiv:1906.05807), so a corpus
is embedded once; what question and passage have to do with each other is left to this small network, after
BiDAF (Seo et al. 2016, arXiv:1611.01603, section 2).
"""

from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from minqa.checkpoint import dump, fill, own_names
from minqa.embedding import Vectors, bucket
from minqa.errors import InputError
from minqa.similarity import cosine, sliding_max
from minqa.spans import MAX_LENGTH, Span, as_spans, best_spans

# Within how many neighbouring words the question is looked for as a whole.
WINDOWS = (3, 8, 24)
# How many words of passages are read at once: few enough for blocks to run side by side on CPU.
READ_WORDS = 4096


class Pairs(NamedTuple):
    """Questions, each with a passage, as vectors of their words.

    Attributes:
        question: float32, a row for each word.
        question_mask: False for padding.
        passage: as question.
        mask: False for padding.
        echoed: 1 where the word of the passage stands in the question too, in whatever case; 0 elsewhere.
    """

    question: Float[Array | np.ndarray, "batch question_word dim"]
    question_mask: Bool[Array | np.ndarray, "batch question_word"]
    passage: Float[Array | np.ndarray, "batch word dim"]
    mask: Bool[Array | np.ndarray, "batch word"]
    echoed: Float[Array | np.ndarray, "batch word"]


def pair(
    questions: Sequence[Vectors], passages: Sequence[Vectors], *, padded: Callable[[int], int] = bucket
) -> Pairs:
    """The n-th question with the n-th passage; `padded` gives the length that they are padded to."""
    rows, words = (padded(max(len(one.tokens.words) for one in some)) for some in (questions, passages))
    dim = questions[0].array.shape[1]
    pairs = Pairs(
        np.zeros((len(questions), rows, dim), np.float32),
        np.zeros((len(questions), rows), bool),
        np.zeros((len(questions), words, dim), np.float32),
        np.zeros((len(questions), words), bool),
        np.zeros((len(questions), words), np.float32),
    )
    for i, (question, passage) in enumerate(zip(questions, passages, strict=True)):
        asked = {
            word.lower()
            for word, spelled in zip(question.tokens.word_texts, question.tokens.spelled, strict=True)
            if spelled
        }
        for vectors, mask, one in ((*pairs[:2], question), (*pairs[2:4], passage)):
            vectors[i, : len(one.words)] = one.words
            mask[i, : len(one.words)] = True
        echoed = [word.lower() in asked for word in passage.tokens.word_texts]
        pairs.echoed[i, : len(echoed)] = echoed
    return pairs


class SpanHead(nnx.Module):
    """A network of one recurrent layer that reads the words' vectors and what a heat map shows.

    Args:
        dim: of the vectors.
        encoder: the fingerprint of the encoder that makes them.
        fingerprint: a hash of the file that the head was read from.
        layer: the encoder's layer that they are of.
        hidden: the width of the network, and of either direction of the recurrent layer.
        dropout: of what is read, and of what is computed.
    """

    def __init__(
        self,
        dim: int,
        *,
        encoder: str = "",
        fingerprint: str = "",
        layer: int = 0,
        hidden: int = 128,
        dropout: tuple[float, float] = (0.2, 0.3),
        rngs: nnx.Rngs,
    ):
        self.name = "the span head"
        self.encoder, self.fingerprint, self.layer = encoder, fingerprint, layer
        linear = partial(nnx.Linear, rngs=rngs)
        self.scale = Scale(dim)
        self.project = linear(dim, hidden, use_bias=False)
        self.relate = linear(hidden, hidden, use_bias=False)
        self.sharpness = nnx.Param(jnp.full((), np.log(10), jnp.float32))
        self.sum_up = linear(hidden, 1, use_bias=False)
        self.weigh = linear(hidden, 1, use_bias=False)
        self.join = linear(4 * hidden, hidden, use_bias=False)
        self.hint = linear(2 + len(WINDOWS), hidden)
        self.condition = linear(hidden, hidden, use_bias=False)
        self.recurrent = BidirectionalGRU(hidden, hidden, rngs=rngs)
        self.output = linear(2 * hidden, 2)
        self.no_answer = linear(2 * hidden, 1)
        # A whole row of words shares what is dropped.
        self.drop_input, self.drop = (nnx.Dropout(rate, broadcast_dims=(1,)) for rate in dropout)

    def __call__(
        self, pairs: Pairs, key: Array | None = None
    ) -> tuple[Float[Array, "batch word"], Float[Array, "batch word"], Float[Array, " batch"]]:
        """How well each word begins the answer, how well it ends it, and the score of there being none.

        Args:
            pairs: of questions and passages.
            key: a key turns dropout on, for training; None is deterministic.
        """
        keys = iter([None] * 6 if key is None else jax.random.split(key, 6))

        def drop(x, layer=self.drop):
            key = next(keys)
            return layer(x, deterministic=key is None, rngs=key)

        question, passage = self.scale(pairs.question), self.scale(pairs.passage)
        similarity = jax.vmap(cosine)(question, passage)
        question, passage = (drop(self.project(drop(x, self.drop_input))) for x in (question, passage))
        # Each word of the passage sums up the question by its column of the similarity (BiDAF, 2.4).
        related = jnp.einsum("bqd,btd->btq", question, self.relate(passage)) * question.shape[-1] ** -0.5
        asked = pairs.question_mask
        by_word = similarity.swapaxes(1, 2) * jnp.exp(self.sharpness[...]) + related
        attended = _softmax(by_word, asked[:, None]) @ question
        whole = _softmax(self.sum_up(question)[..., 0], asked)[:, None] @ question
        weights = _softmax(self.weigh(question)[..., 0], asked)
        best = jnp.where(asked[..., None], similarity, -1).max(1)
        around = jax.vmap(_closeness)(similarity, weights, pairs.mask)
        hints = jnp.concatenate([jnp.stack([pairs.echoed, best], -1), around], -1)
        joined = jnp.concatenate([passage, attended, passage * attended, passage * whole], -1)
        x = jax.nn.gelu(self.join(joined) + self.condition(whole) + self.hint(hints))
        x = drop(self.recurrent(drop(x), pairs.mask))
        start, end = jnp.moveaxis(self.output(x), -1, 0)
        highest = jnp.where(pairs.mask[..., None], x, -1).max(1)  # the states of a GRU lie above -1
        return start, end, self.no_answer(highest)[..., 0]


class BidirectionalGRU(nnx.Module):
    """Gated recurrent units without a reset gate that read a text in both directions.

    Ravanelli et al. 2018 (arXiv:1803.10225, section 3.1), with tanh: two thirds of the work of Cho et al.'s.
    """

    def __init__(self, inputs: int, hidden: int, *, rngs: nnx.Rngs):
        self.input = nnx.Linear(inputs, 4 * hidden, rngs=rngs)
        square = jax.nn.initializers.orthogonal()
        both = [[square(rngs.params(), (hidden, hidden)) for _ in range(2)] for _ in range(2)]
        self.recurrent = nnx.Param(jnp.stack([jnp.concatenate(one, axis=1) for one in both]))

    def __call__(
        self, x: Float[Array | np.ndarray, "batch word inputs"], mask: Bool[Array | np.ndarray, "batch word"]
    ) -> Float[Array, "batch word outputs"]:
        # What a step reads of its word is computed for all words at once.
        inputs = jnp.split(self.input(jnp.swapaxes(jnp.asarray(x), 0, 1)), 2, axis=-1)
        read = jnp.swapaxes(jnp.asarray(mask), 0, 1)[..., None]

        def direction(inputs, recurrent, *, reverse):
            def step(state, word):
                inputs, read = word
                gate, new = jnp.split(inputs + state @ recurrent, 2, axis=-1)
                keep = jax.nn.sigmoid(gate)
                # Behind its end, where the backward direction begins, a text leaves the state alone.
                state = jnp.where(read, keep * state + (1 - keep) * jnp.tanh(new), state)
                return state, state

            nothing = jnp.zeros((x.shape[0], len(recurrent)), x.dtype)
            return jax.lax.scan(step, nothing, (inputs, read), reverse=reverse)[1]

        forward, backward = (direction(inputs[i], self.recurrent[i], reverse=i == 1) for i in range(2))
        return jnp.concatenate([forward, backward], -1).swapaxes(0, 1)


class Scale(nnx.Module):
    """Vectors less their mean, over their deviation, dimension by dimension; not trained."""

    def __init__(self, dim: int):
        self.mean = nnx.Param(jnp.zeros(dim))
        self.inverse_deviation = nnx.Param(jnp.ones(dim))

    def __call__(self, x):
        fixed = jax.lax.stop_gradient((self.mean[...], self.inverse_deviation[...]))
        mean, inverse = (one[None, None] for one in fixed)
        return (x - mean) * inverse


def read_answers(
    head: SpanHead,
    questions: Sequence[Vectors],
    passages: Sequence[Vectors],
    *,
    k: int = 1,
    max_length: int = MAX_LENGTH,
    apart: bool = False,
    no_answer: bool = True,
) -> list[list[Span]]:
    """The k best answers to the n-th question that the n-th passage holds, best first.

    Args:
        head: as `load_span_head` returns it.
        questions: as `embed` returns them for the head's layer alone.
        passages: likewise.
        k: how many answers at most.
        max_length: the most words of an answer.
        apart: whether no two answers may overlap.
        no_answer: whether to leave out answers that are no better than there being none.
    """
    longest = bucket(max((len(one.tokens.words) for one in passages), default=1))
    block = max(1, READ_WORDS // longest)
    blocks = [
        # No answer may take a place.
        _read(
            head,
            pair(questions[i : i + block], passages[i : i + block]),
            k=k + 1,
            max_length=max_length,
            apart=apart,
        )
        for i in range(0, len(passages), block)
    ]
    texts = [one.tokens for one in passages]
    return [
        spans[:k]
        for i, (best, none) in enumerate(blocks)
        for spans in as_spans(best, none, texts[i * block : (i + 1) * block], no_answer=no_answer)
    ]


def load_span_head(path: str | Path | None = None) -> SpanHead:
    """Read a span head as `save_span_head` wrote it; without a path the one for the embedded default model.

    Raises:
        InputError: there is no such file, or it is broken or something else.
    """
    path = Path(path) if path else Path(__file__).with_name("span_head.safetensors")
    try:
        with safe_open(path, "numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
            written = file.metadata() or {}
        dim, hidden = tensors["project.kernel"].shape
        encoder, layer = written["encoder"], int(written["layer"])
    except FileNotFoundError:
        raise InputError(f"There is no file {path}.") from None
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a span head, is it cut short? ({error})") from error
    template = jax.eval_shape(
        lambda: SpanHead(
            dim,
            encoder=encoder,
            fingerprint=sha256(path.read_bytes()).hexdigest(),
            layer=layer,
            hidden=hidden,
            rngs=nnx.Rngs(0),
        )
    )
    return fill(template, tensors, own_names(template), settings="a span head")


def save_span_head(head: SpanHead, **facts: str) -> bytes:
    """A head as the content of a safetensors file, in 16 bits; `facts` say how it was made."""
    tensors = {name: tensor.astype(np.float16) for name, tensor in dump(head, own_names(head)).items()}
    return save(tensors, facts | {"encoder": head.encoder, "layer": str(head.layer)})


@partial(jax.jit, static_argnames=("k", "max_length", "apart"))
def _read(head: SpanHead, pairs: Pairs, *, k, max_length, apart):
    start, end, none = head(pairs)
    found = best_spans(start, end, pairs.mask, k=k, max_length=max_length, apart=apart, no_answer=none)
    return found, none


def _closeness(
    similarity: Float[Array | np.ndarray, "question_word word"],
    weights: Float[Array | np.ndarray, " question_word"],
    mask: Bool[Array | np.ndarray, " word"],
) -> Float[Array, "word window"]:
    """How well the question as a whole is matched around each word, against where it is matched best.

    Within each of the `WINDOWS`, as `contributions` looks for the place of a match.
    """
    similarity = jnp.where(mask[None], similarity, -1)
    found = []
    for window in WINDOWS:
        centred = jnp.pad(similarity, ((0, 0), (window // 2, 0)), constant_values=-1)
        found.append(weights @ sliding_max(centred, window)[:, : len(mask)])
    around = jnp.stack(found, axis=-1)
    # The differences are small beside the other things read.
    return jnp.where(mask[:, None], 5 * (around - around.max(0, keepdims=True)), 0)


def _softmax(scores, mask):
    return jax.nn.softmax(jnp.where(mask, scores, jnp.finfo(scores.dtype).min), -1)
