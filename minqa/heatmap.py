"""Two texts' vectors → the similarity of their words: where a query is echoed in a passage."""

import unicodedata
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from minqa.embedding import Vectors
from minqa.similarity import cosine
from minqa.tokens import Tokens

# English words that carry no content of their own, with what BERT's tokenizer leaves of contractions.
FUNCTION_WORDS = frozenset(
    "a about after against all am an and any are as at be because been before being between both but by "
    "can could did do does doing done during each for from had has have having he her hers him his how i "
    "if in into is it its just me might more most must my no nor not of off on once only or other our "
    "ours out over own s same shall she should so some such t than that the their theirs them then there "
    "these they this those through to too under until up upon us very was we were what when where which "
    "while who whom whose why will with would you your yours "
    "aren couldn d didn doesn don hadn hasn haven isn ll m re shouldn ve wasn weren won wouldn".split()
)


@dataclass(frozen=True)
class HeatMap:
    """How similar every part of a query is to every part of a passage.

    Attributes:
        query: the query's tokens and words.
        passage: the passage's.
        token_similarity: float32 [query token, passage token], cosines; -inf where either is no word's
            token ([CLS], [SEP], a prompt).
        word_similarity: float32 [query word, passage word], cosines of the words' vectors, a word's vector
            being the mean of its tokens'.
        heat: float32 [passage word], the highest similarity to any content word of the query; -inf for
            punctuation.
        score: how well the passage echoes the query: each content word's highest similarity to any word of
            the passage, averaged. This is MaxSim (Khattab and Zaharia 2020, arXiv:2004.12832, equation 3)
            over words, as a mean; -inf where there is nothing to compare.
    """

    query: Tokens
    passage: Tokens
    token_similarity: Float[np.ndarray, "query_token passage_token"]
    word_similarity: Float[np.ndarray, "query_word passage_word"]
    heat: Float[np.ndarray, " passage_word"]
    score: float


def heat_map(query: Vectors, passage: Vectors) -> HeatMap:
    """Compare two texts token by token and word by word.

    A content word of the query is one that is neither punctuation nor an English function word; a query of
    function words alone counts whole.

    Args:
        query: vectors of any layer.
        passage: vectors of the same layer.
    """
    tokens, words = similarities(*_padded(query), *_padded(passage))
    tokens = np.asarray(tokens)[: len(query.tokens), : len(passage.tokens)]
    words = np.asarray(words)[: len(query.tokens.words), : len(passage.tokens.words)]
    echoes = np.where(_spelled(passage.tokens), words, -np.inf)[content_words(query.tokens)]
    return HeatMap(
        query=query.tokens,
        passage=passage.tokens,
        token_similarity=tokens,
        word_similarity=words,
        heat=echoes.max(0, initial=-np.inf),
        score=float(echoes.max(1, initial=-np.inf).mean()) if len(echoes) else -np.inf,
    )


def content_words(tokens: Tokens) -> Bool[np.ndarray, " word"]:
    """Which words carry content: no punctuation, and no function word unless there is nothing else."""
    spelled = _spelled(tokens)
    # "US", "IT" and "WHO" in capitals are names.
    function = [
        word.lower() in FUNCTION_WORDS and not (word.isupper() and len(word) > 1)
        for word in tokens.word_texts
    ]
    content = spelled & ~np.array(function, bool)
    return content if content.any() else spelled


@jax.jit
def similarities(
    query: Float[Array, "query_row dim"],
    query_word: Int[Array, " query_row"],
    passage: Float[Array, "passage_row dim"],
    passage_word: Int[Array, " passage_row"],
) -> tuple[Float[Array, "query_row passage_row"], Float[Array, "query_row passage_row"]]:
    """Cosines of tokens, and of words; may be mapped over by `vmap`.

    Args:
        query: the vectors of the query's tokens.
        query_word: the number of each token's word, from 0, or -1 for what belongs to no word.
        passage: likewise.
        passage_word: likewise.

    Returns:
        The cosines of tokens, -inf where a token belongs to no word; and the cosines of words, as many rows
        and columns as there are tokens, 0 in those that no word fills.
    """
    in_word = (query_word >= 0)[:, None] & (passage_word >= 0)[None, :]
    tokens = jnp.where(in_word, cosine(query, passage), -jnp.inf)
    words = cosine(_merge_words(query, query_word), _merge_words(passage, passage_word))
    return tokens, words


def _merge_words(vectors, word):
    # The sum of a word's token vectors points where their mean does. Tokens of no word go to a row behind
    # the last, which is cut off.
    tokens = len(word)
    rows = jnp.where(word >= 0, word, tokens)
    return jax.ops.segment_sum(vectors, rows, num_segments=tokens + 1)[:-1]


def _padded(vectors: Vectors) -> tuple[np.ndarray, np.ndarray]:
    """The arrays that `similarities` takes, padded to a power of two, so that few shapes are compiled."""
    padding = max(16, 2 ** (len(vectors.tokens) - 1).bit_length()) - len(vectors.tokens)
    array = np.pad(vectors.array, ((0, padding), (0, 0)))
    return array, np.pad(vectors.tokens.word, (0, padding), constant_values=-1)


def _spelled(tokens: Tokens) -> Bool[np.ndarray, " word"]:
    """Which words are more than punctuation and signs like $ or +; an emoji is."""
    marks = {"P", "Z", "C", "Sm", "Sc", "Sk"}
    kinds = [{unicodedata.category(char) for char in word} for word in tokens.word_texts]
    return np.array([any(not {kind, kind[0]} & marks for kind in word) for word in kinds], bool)
