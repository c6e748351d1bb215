"""Which words of two texts a score depends on: gradients, beside similarities."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from minqa.batches import Batch, pad, padded_length, run_model
from minqa.embedding import word_means
from minqa.encoder import Encoder
from minqa.heatmap import NEIGHBOURS, WINDOW, window_for
from minqa.inside.heads import single_batch
from minqa.similarity import Similarity, cosine, maxsim
from minqa.text import InputError
from minqa.tokens import Tokens, comparable


@dataclass(frozen=True)
class Saliency:
    """How fast a heat map's score grows with each word of both texts: its tokens' gradient × input."""

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
    similarity: Similarity = cosine,
    window: int = WINDOW,
    neighbours: float = NEIGHBOURS,
) -> Saliency:
    """Gradient × input of a heat map's score, per word of both texts (Denil et al. 2014, arXiv:1412.6815).

    The input is what the model looks up for a word before it reads the text: BERT's word embedding, or what
    ELMo makes of a word's characters. Similarity shows where a query is echoed; saliency shows what the echo
    depends on, which may lie elsewhere in either text, and may be negative. See `heat_map` for the options.

    Raises InputError if a text has no word or is longer than the model reads at once.
    """
    tokens = [*encoder.tokenize([query], "query"), *encoder.tokenize([passage], "passage")]
    batches = [single_batch(encoder, text, "Influence") for text in tokens]
    for text, role in zip(tokens, ("query", "passage"), strict=True):
        if not text.is_word.any():
            raise InputError(f"The {role} holds no word.")
    # Everything is padded to few shapes, as each is compiled.
    lengths = [padded_length(max(len(text.words), len(text.may_match)), steps=1) for text in tokens]
    scored, pairs = tokens[0].scored, comparable(*tokens)
    weights = pad(encoder.word_weights(tokens[0]) if scored is None else scored, lengths[0])
    may_match = pad(tokens[1].may_match, lengths[1])
    window, neighbours = (window_for(window, tokens[0]), neighbours) if scored is None else (0, 0.0)
    compare = partial(maxsim, similarity=similarity, window=window, neighbours=neighbours)

    def rows(scale: Float[Array, " row"], text: Tokens, batch: Batch) -> Float[Array, "row dim"]:
        length, width = len(scale), batch.ids.shape[1]
        scale = jnp.pad(scale, (1, 0), constant_values=1)[pad(text.word + 1, width)]  # 0 is no word
        hidden = run_model(encoder.model, batch, scale=scale[None]).hidden
        means = np.eye(len(text), width, dtype=np.float32)
        means = pad(word_means(means, text) if scored is None else means, length)  # (row, token)
        return jnp.asarray(means) @ encoder.centred(hidden[encoder.layer_number, 0].astype(jnp.float32))

    def score(scales: list[Float[Array, " _"]]) -> Float[Array, ""]:
        query, passage = map(rows, scales, tokens, batches)
        unknown = None if pairs.all() else pad(pairs, *lengths)[None]
        return compare(query, weights, passage[None], may_match[None], comparable=unknown).sum()

    with jax.default_matmul_precision("highest"):
        value, gradients = jax.value_and_grad(score)([jnp.ones(length) for length in lengths])
    shares = [np.asarray(slope)[: len(text.words)] for slope, text in zip(gradients, tokens, strict=True)]
    return Saliency(tokens[0], tokens[1], shares[0], shares[1], float(value))
