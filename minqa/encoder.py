"""An encoder: everything that turns a text into vectors."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import jax
import numpy as np
from jaxtyping import Float

from minqa.similarity import SIMILARITIES, Similarity, dot
from minqa.text import InputError
from minqa.tokens import Text, TextTokenizer, Tokens

Role = Literal["query", "passage"]
Centring = Literal["none", "mean", "z-score"]
Weights = Literal["none", "idf"]
CENTRINGS: tuple[Centring, ...] = get_args(Centring)
WEIGHTS: tuple[Weights, ...] = get_args(Weights)


@dataclass(frozen=True)
class Pooling:
    """How token vectors become one vector, and how two of these are compared (sentence-transformers)."""

    modes: tuple[str, ...] = ("mean",)  # see `pool_tokens`; several are concatenated
    normalize: bool = False  # whether the pooled vector is scaled to length 1
    include_prompt: bool = True  # whether the prompt's tokens are pooled too
    truncate_dim: int | None = None  # how many leading dimensions are kept, after scaling; None for all
    similarity: str = "cosine"  # one of `SIMILARITIES`

    @property
    def compare(self) -> Similarity:
        """The similarity as a function; the cosine of vectors of length 1 is their dot product."""
        is_dot = self.normalize and self.truncate_dim is None and self.similarity == "cosine"
        return dot if is_dot else SIMILARITIES[self.similarity]


@dataclass(frozen=True)
class Statistics:
    """What is usual in a corpus, to one encoder. The rows of baseline and identical are `CENTRINGS`."""

    documents: int  # how many passages were counted
    frequency: Mapping[str, int]  # in how many of them each word occurs, by its key (see `Tokens`)
    mean: Float[np.ndarray, "layer dim"]  # of the vectors of tokens that belong to words, in a sample
    deviation: Float[np.ndarray, "layer dim"]  # their standard deviation
    baseline: Float[np.ndarray, "centring layer"]  # the score of unrelated texts: MaxSim weighted by idf
    identical: Float[np.ndarray, "centring layer"]  # the score of a text with itself; 1 for cosine

    def idf(self, keys: Iterable[str]) -> Float[np.ndarray, " word"]:
        """How rare each word is: ln(1 + documents / (documents with the word + 1/2))."""
        counts = np.array([self.frequency.get(key, 0) for key in keys], np.float32)
        return np.log1p(np.float32(self.documents) / (counts + np.float32(0.5)))


@dataclass(frozen=True)
class Encoder:
    """Everything that turns a text into vectors; `dataclasses.replace` gives another layer or centring.

    Centring removes from a token vector what the whole corpus shares: nothing, the mean, or the mean and, by
    division, the standard deviation ("z-score"), dimension by dimension. A query's words count by how rare
    they are ("idf"), if `statistics` are known, or all alike ("none"). A prompt that leaves no room for a
    text raises InputError.
    """

    # A pytree; model(ids, mask) returns hidden states [layer+1, batch, token, dim], or has them as `.hidden`.
    model: Callable
    tokenizer: TextTokenizer
    pooling: Pooling = Pooling()  # how token vectors become one vector
    prompts: Mapping[str, str] = field(default_factory=dict)  # texts read before a text, by name
    default_prompt: str = ""  # the name of the prompt for a text of no particular role
    name: str = "encoder"  # to be shown
    layer: int = -1  # whose token vectors are compared: 0 is the embeddings, -1 the last layer
    centring: Centring = "none"
    weights: Weights = "idf"
    statistics: Statistics | None = None  # of a corpus, as `calibrate` makes them

    def __post_init__(self) -> None:
        for name, prompt in self.prompts.items():
            [tokens] = self.tokenizer([f"{prompt} a"], role="query" if name == "query" else "passage")
            if len(tokens.windows) > 1:
                most = f"at most {self.tokenizer.max_tokens} tokens are read at once"
                raise InputError(f"The prompt {name} of {self.name} leaves no room for a text: {most}.")

    @cached_property
    def num_layers(self) -> int:
        """The number of layers after the embeddings."""
        if (known := getattr(self.model, "num_layers", None)) is not None:
            return known
        ids = self.tokenizer(["a"])[0].ids[None]
        output = jax.eval_shape(self.model, ids, np.ones(ids.shape[:2], bool))
        return len(getattr(output, "hidden", output)) - 1

    @property
    def layer_number(self) -> int:
        """`layer`, counted from 0. Raises InputError if the model does not have it."""
        last = self.num_layers
        if not -last - 1 <= self.layer <= last:
            raise InputError(f"The model has layers 0 to {last}, but layer {self.layer} was asked for.")
        return self.layer % (last + 1)

    @property
    def is_late(self) -> bool:
        """Whether tokens are compared, as by a ColBERT, instead of words."""
        return hasattr(self.tokenizer, "readings")

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that hidden states and pooled vectors depend on."""
        described = (self.pooling, dict(self.prompts), self.default_prompt)
        return fingerprint(self.model, self.tokenizer, described)

    def tokenize(self, texts: Sequence[Text], role: Role | None = None) -> list[Tokens]:
        """Tokens of each text, with the prompt for its role. Raises InputError if something is no text."""
        if isinstance(texts, str):
            raise InputError("texts is one string; put it into a list.")
        for number, text in enumerate(texts):
            words = [text] if isinstance(text, str) else text
            if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
                raise InputError(f"Text {number} is {text!r}, but a text is a string or a list of words.")
        return self.tokenizer(texts, self.prompt(role), role)

    def prompt(self, role: Role | None) -> str:
        """What is read before a text in this role, as sentence-transformers chooses it."""
        passage = ["document", "passage", "corpus"]
        names = {"query": ["query"], "passage": passage, None: [self.default_prompt]}[role]
        return next((self.prompts[name] for name in names if self.prompts.get(name)), "")

    def word_weights(self, tokens: Tokens) -> Float[np.ndarray, " word"]:
        """How much each word counts: 0 for punctuation; 1 in sum, or 0 if there is no word.

        In late interaction, as much as its tokens do.
        """
        if tokens.scored is not None:
            weights = np.zeros(len(tokens.words) + 1, np.float32)
            np.add.at(weights, tokens.word, tokens.scored)  # -1, no word, is last
            return weights[:-1]
        weights = tokens.is_word.astype(np.float32)
        if self.weights == "idf" and self.statistics:
            weights *= self.statistics.idf(tokens.keys)
        return weights / max(weights.sum(), np.float32(1e-9))

    def centred(self, hidden: Float[Any, "token dim"]) -> Float[Any, "token dim"]:
        """Hidden states of the encoder's layer, centred; raises InputError if it knows no corpus.

        A dimension that does not vary in the corpus says nothing, and is 0 as a z-score.
        """
        if self.centring == "none":
            return hidden
        if self.statistics is None or self.centring not in CENTRINGS:
            how = "encoder = minqa.calibrate(encoder, texts)"
            raise InputError(f"Centring by {self.centring} needs the statistics of a corpus: {how}.")
        hidden = hidden - self.statistics.mean[self.layer_number][None]
        if self.centring == "mean":
            return hidden
        deviation = self.statistics.deviation[self.layer_number]
        constant = deviation <= 1e-3 * np.median(deviation)
        return hidden * np.where(constant, 0, 1 / np.where(constant, 1, deviation)).astype(np.float32)[None]

    @property
    def scale(self) -> tuple[float, float]:
        """The scores of unrelated and of identical texts; 0 and 1 if no corpus is known."""
        if self.statistics is None:
            return 0.0, 1.0
        place = CENTRINGS.index(self.centring), self.layer_number
        return float(self.statistics.baseline[place]), float(self.statistics.identical[place])


def fingerprint(model: Any, tokenizer: TextTokenizer, described: Any) -> str:
    """A hash of a model's parameters and configuration, its tokenizer, and whatever else is described."""
    config, late = getattr(model, "config", None), getattr(tokenizer, "readings", ()) or ""
    facts = f"{type(model).__name__} {config} {described} {tokenizer.max_tokens}{late}\n"
    digest = hashlib.sha256((facts + tokenizer.backend.to_str()).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(model):
        array = np.ascontiguousarray(leaf)
        name = jax.tree_util.keystr(path).removesuffix(".value")
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
