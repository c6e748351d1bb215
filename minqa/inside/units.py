"""Activations of a model's units over a text, and units found by what they follow."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from minqa.batches import by_text, run_model
from minqa.embedding import word_means
from minqa.encoder import Encoder
from minqa.files.extras import needed
from minqa.text import InputError
from minqa.tokens import Tokens


@dataclass(frozen=True)
class Units:
    """What every unit of a kind does at each word (Karpathy et al. 2015, arXiv:1506.02078, section 4.2).

    A BERT has "feed-forward" units (after GELU) and "hidden" ones, an ELMo "cell" and "projection", those of
    the forward LSTM before those of the backward one.
    """

    tokens: Tokens
    kind: str
    layers: tuple[int, ...]  # their numbers, as hidden states are numbered
    array: Float[np.ndarray, "layer word unit"]  # the mean over a word's tokens

    def unit(self, layer: int, number: int) -> Float[np.ndarray, " word"]:
        """One unit's activation at each word. Raises InputError if there is no such unit."""
        if layer not in self.layers or not 0 <= number < self.array.shape[2]:
            sizes = f"layers are {self.layers[0]} to {self.layers[-1]}, units 0 to {self.array.shape[2] - 1}"
            raise InputError(f"There is no {self.kind} unit {number} in layer {layer}: {sizes}.")
        return self.array[self.layers.index(layer), :, number]


def units(encoder: Encoder, text: str, *, kind: str | None = None) -> Units:
    """The activation of every unit of a kind at each word of a text, however long.

    None is the first kind that the model has. Raises InputError if it has no units of that kind.
    """
    return next(_read(encoder, [text], kind))


class FoundUnit(NamedTuple):
    """A unit that follows a feature: the best of thousands does by chance, but not again on other texts."""

    kind: str
    layer: int
    number: int
    correlation: float  # of activation and feature, over the words of the texts that the unit was chosen on
    held_out: float  # the same over the words of other texts; NaN if the feature does not vary there


def find_units(
    encoder: Encoder,
    texts: Sequence[str],
    feature: Callable[[Tokens], Float[np.ndarray, " word"]],
    *,
    held_out: Sequence[str] | None = None,
    kind: str | None = None,
    k: int = 10,
    progress: Callable[[int], None] = lambda done: None,
) -> list[FoundUnit]:
    """The k units whose activation correlates most with a feature of the word, positively or negatively.

    Args:
        feature: a number for each word of a text, NaN to leave a word out; see `minqa.FEATURES`.
        held_out: other texts, to test the units; None keeps every second one of `texts` for that.
        progress: called with the number of texts just read.

    Raises InputError if the model has no units of that kind, or the feature does not vary in `texts`.
    """
    if held_out is None:
        texts, held_out = texts[::2], texts[1::2]
    read, chosen = _correlations(encoder, texts, feature, kind, progress)
    if np.isnan(chosen).all():
        raise InputError("The feature is the same for every word of these texts, so nothing follows it.")
    tested = np.broadcast_to(_correlations(encoder, held_out, feature, kind, progress)[1], chosen.shape)
    order = np.argsort(-np.abs(chosen), axis=None, kind="stable")[:k]
    return [
        FoundUnit(read.kind, read.layers[i], int(j), float(chosen[i, j]), float(tested[i, j]))
        for i, j in zip(*np.unravel_index(order, chosen.shape), strict=True)
    ]


class Factors(NamedTuple):
    """Groups of units that are active together, the strongest group first; weights have length 1."""

    strength: Float[np.ndarray, "factor word"]
    weights: Float[np.ndarray, "factor layer unit"]


def factors(units: Units, k: int = 6) -> Factors:
    """Non-negative factors of units over a text: strengthᵀ weights ≈ max(units, 0).

    As Ecco (Alammar 2021, ACL demos 30) does with the feed-forward units of all layers; the factorization is
    scikit-learn's (Lee and Seung 1999). Raises InputError without it, or if the text has fewer than k words.
    """
    decomposition = needed("sklearn.decomposition", "A factorization", "factors")
    layers, words, number = units.array.shape
    if not 0 < k <= words:
        raise InputError(f"{k} factors were asked for, but the text has {words} words.")
    active = np.maximum(np.moveaxis(units.array, 1, 0).reshape(words, -1), 0)
    model = decomposition.NMF(k, init="nndsvda", random_state=0, max_iter=500)
    strength = model.fit_transform(active).T  # (factor, word)
    # Doubling a factor and halving its weights changes nothing, so the weights are scaled to length 1.
    lengths = np.maximum(np.linalg.norm(model.components_, axis=1, keepdims=True), 1e-9)
    order = np.argsort(-(strength * lengths).sum(1), kind="stable")
    weights = (model.components_ / lengths)[order].reshape(k, layers, number)
    return Factors((strength * lengths)[order], weights)


def _read(encoder: Encoder, texts: Sequence[str], kind: str | None) -> Iterator[Units]:
    """The units of each text, the longest text first."""
    kinds = getattr(encoder.model, "UNITS", ())
    if not kinds or kind not in (None, *kinds):
        offered = f"of the kind {kind}: it has {' and '.join(kinds)}" if kinds else "to look at"
        raise InputError(f"{encoder.name} has no units {offered}.")
    kind = kind or kinds[0]
    tokens = encoder.tokenize(texts)

    def run(model, batch):
        return run_model(model, batch, units=True).units[kind].astype(jnp.float32), None

    for row, (array, _) in by_text(encoder.model, encoder.tokenizer, tokens, run):
        last = getattr(encoder.model, "depth", encoder.num_layers)
        layers = tuple(range(last + 1 - len(array), last + 1))
        words = word_means(np.moveaxis(array, 1, 0), tokens[row])  # (word, layer, unit)
        yield Units(tokens[row], kind, layers, np.moveaxis(words, 1, 0))


def _correlations(encoder, texts, feature, kind, progress) -> tuple[Any, Float[np.ndarray, "..."]]:
    """The last text, and Pearson's correlation of each unit with the feature, NaN if that is constant."""
    n, sums, text = 0, np.zeros((3, 1)), None
    for text in _read(encoder, texts, kind):
        numbers = np.asarray(feature(text.tokens), np.float64)
        layers, words, width = text.array.shape
        if numbers.shape != (words,):
            raise ValueError(f"The feature gave {numbers.shape} numbers for {words} words.")
        array = np.moveaxis(text.array, 1, 2).reshape(layers * width, words)
        x = np.concatenate([array, numbers[None]])[:, np.isfinite(numbers)]  # (unit, word), the feature last
        n, sums = n + x.shape[1], sums + np.stack([x.sum(1), (x * x).sum(1), x @ x[-1]])
        progress(1)
    total, square, product = sums
    spread = n * square - total**2
    idle = spread <= 1e-10 * np.maximum(n * square, 1e-9)
    if idle[-1]:
        return text, np.array(np.nan)
    correlation = (n * product - total * total[-1]) / np.sqrt(np.where(idle, 1, spread) * spread[-1])
    return text, np.where(idle, 0, correlation)[:-1].reshape(layers, width)
