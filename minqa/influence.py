"""Which words of two texts move their score: gradients, beside similarities."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from minqa.embedding import as_batch, bucket
from minqa.encoder import Encoder, Role
from minqa.errors import InputError
from minqa.heads import check_length
from minqa.similarity import contributions, cosine
from minqa.statistics import Measure, Statistics, centred, word_weights
from minqa.tokens import Tokens


@dataclass(frozen=True)
class Saliency:
    """How much each word of a query and a passage moves their score.

    Attributes:
        query: the query's tokens and words.
        passage: the passage's.
        query_words: float32 [query word], gradient × input of each word, the sum of its tokens': how fast the
            score would grow if the word's vector did.
        passage_words: float32 [passage word], likewise.
        score: as the heat map of the two has it.
    """

    query: Tokens
    passage: Tokens
    query_words: Float[np.ndarray, " query_word"]
    passage_words: Float[np.ndarray, " passage_word"]
    score: float


def saliency(
    encoder: Encoder,
    query: str,
    passage: str,
    *,
    measure: Measure = Measure(),  # noqa: B008, it is frozen
    statistics: Statistics | None = None,
) -> Saliency:
    """Gradient × input of the score that a heat map has, on each word of both texts.

    The input is what the model looks up for a word before it reads the text: BERT's word embedding, or what
    ELMo makes of a word's characters. Similarity is where a query is echoed; influence is what the echo
    depends on, which may lie elsewhere in either text, and may be negative. The method is that of Denil et
    al. 2014 (arXiv:1412.6815), as Ecco shows it.

    Args:
        encoder: a BERT or an ELMo, as `load` returns it.
        query: read with the prompt for one.
        passage: likewise.
        measure: how words are compared.
        statistics: of the corpus, for centring and weights.

    Raises:
        InputError: a text has no word or is longer than the model reads at once, or the measure needs
            statistics and there are none.
    """
    roles: tuple[Role, Role] = ("query", "passage")
    tokens = [encoder.tokenize([text], role)[0] for text, role in zip((query, passage), roles, strict=True)]
    for one, role in zip(tokens, roles, strict=True):
        check_length(encoder, one, "Influence")
        if not one.spelled.any():
            raise InputError(f"The {role} holds no word.")
    lengths = [bucket(len(one)) for one in tokens]
    weights = np.zeros(lengths[0], np.float32)
    weights[: len(tokens[0].words)] = word_weights(tokens[0], measure, statistics)
    spelled = np.zeros(lengths[1], bool)
    spelled[: len(tokens[1].words)] = tokens[1].spelled
    layers = jnp.array(measure.layers_of(encoder.model.num_layers))

    def words(one: Tokens, length: int, scale: Float[Array, " token"]) -> Float[Array, "word dim"]:
        ids, mask, _ = as_batch(encoder, [one], [(0, 0)], length)
        hidden = encoder.model(ids, mask, scale=scale[None, : ids.shape[1]]).hidden[layers, 0]  # type: ignore
        array = centred(hidden.astype(jnp.float32), measure, statistics)
        return jnp.asarray(_word_means(one, length, len(array))) @ array

    def score(scales: list[Float[Array, " _"]]) -> Float[Array, ""]:
        asked, given = map(words, tokens, lengths, scales)
        added = contributions(
            cosine(asked, given), weights, spelled, window=measure.window, neighbours=measure.neighbours
        )
        return added.sum()

    with jax.default_matmul_precision("highest"):
        value, gradients = jax.value_and_grad(score)([jnp.ones(length) for length in lengths])
    asked, given = map(_by_word, tokens, map(np.asarray, gradients))
    return Saliency(tokens[0], tokens[1], asked, given, float(value))


def _by_word(tokens: Tokens, gradient: Float[np.ndarray, " token"]) -> Float[np.ndarray, " word"]:
    real = tokens.word >= 0
    sums = np.bincount(tokens.word[real], gradient[: len(tokens)][real], len(tokens.words))
    return sums.astype(np.float32)


def _word_means(tokens: Tokens, words: int, length: int) -> Float[np.ndarray, "word token"]:
    """A matrix that makes words' vectors of tokens', padded to so many words and tokens."""
    matrix = np.zeros((words, length), np.float32)
    real = np.flatnonzero(tokens.word >= 0)
    matrix[tokens.word[real], real] = 1
    return matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
