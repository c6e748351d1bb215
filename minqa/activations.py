"""Activations of a model's units over a text, and units that are found by what they follow."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from minqa.embedding import encode_all, merge_words
from minqa.encoder import Encoder
from minqa.errors import InputError
from minqa.tokens import Tokens


@dataclass(frozen=True)
class Units:
    """What every unit of a kind does, word by word (Karpathy et al. 2015, arXiv:1506.02078, section 4.2).

    Attributes:
        tokens: the text as the model read it.
        kind: "feed-forward" (behind GELU) or "hidden" of a BERT; "cell" or "projection" of an ELMo, whose
            units of the forward LSTM stand before those of the backward one.
        layers: the number of each layer, as hidden states are numbered.
        array: float32 [layer, word, unit], of a word the mean of its tokens'.
    """

    tokens: Tokens
    kind: str
    layers: tuple[int, ...]
    array: Float[np.ndarray, "layer word unit"]

    def unit(self, layer: int, number: int) -> Float[np.ndarray, " word"]:
        """One unit's activation at each word. Raises InputError where there is no such unit."""
        if layer not in self.layers or not 0 <= number < self.array.shape[2]:
            raise InputError(
                f"There is no {self.kind} unit {number} in layer {layer}: layers are {self.layers[0]} to "
                f"{self.layers[-1]}, units 0 to {self.array.shape[2] - 1}."
            )
        return self.array[self.layers.index(layer), :, number]


def units(encoder: Encoder, text: str, *, kind: str | None = None) -> Units:
    """The activation of every unit of a kind at each word of a text.

    Args:
        encoder: as `load` returns it.
        text: any Unicode; a text that is longer than the model's maximum is read window by window.
        kind: see `Units`; None is "feed-forward" of a BERT and "cell" of an ELMo.

    Raises:
        InputError: the model has no units of that kind.
    """
    [(_, found)] = _read(encoder, [text], kind)
    return found


class FoundUnit(NamedTuple):
    """A unit that follows a feature.

    Attributes:
        kind: as in `Units`.
        layer: as hidden states are numbered.
        number: of the unit in its layer, from 0.
        correlation: of its activation with the feature, over the words of the texts that it was found in.
        held_out: the same over the words of other texts. The best of thousands of units correlates with
            anything by chance; here chance has no second try. Not a number where the feature does not vary.
    """

    kind: str
    layer: int
    number: int
    correlation: float
    held_out: float


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
    """Rank units by how their activation correlates with a feature of the word, for or against.

    Args:
        encoder: as `load` returns it.
        texts: where to look.
        feature: a text's words → a number for each; one that is not a number leaves the word out. Those of
            `minqa.FEATURES`, or any of yours.
        held_out: other texts, to score what was found; None keeps every second one of `texts` for that.
        kind: see `Units`.
        k: how many units to return, the strongest correlation first.
        progress: called with the number of texts just read.

    Raises:
        InputError: the model has no units of that kind, or the feature does not vary in `texts`.
    """
    if held_out is None:
        texts, held_out = texts[::2], texts[1::2]
    layers, found = _correlations(encoder, texts, feature, kind, progress)
    if found is None:
        raise InputError("The feature is the same for every word of these texts, so nothing follows it.")
    _, again = _correlations(encoder, held_out, feature, kind, progress)
    again = np.full_like(found, np.nan) if again is None else again
    order = np.argsort(-np.abs(found), axis=None, kind="stable")[:k]
    kind = kind or encoder.model.UNITS[0]  # type: ignore[attr-defined]
    return [
        FoundUnit(kind, layers[row], int(number), float(found[row, number]), float(again[row, number]))
        for row, number in zip(*np.unravel_index(order, found.shape), strict=True)
    ]


class Factors(NamedTuple):
    """Groups of units that are active together.

    Attributes:
        strength: float32 [factor, word], how strong each is at each word; the strongest factor first.
        weights: float32 [factor, layer, unit], how much each unit belongs to it.
    """

    strength: Float[np.ndarray, "factor word"]
    weights: Float[np.ndarray, "factor layer unit"]


def factors(units: Units, k: int = 6) -> Factors:
    """Non-negative factors of units over a text: strength × weights is near what is above zero in them.

    This is what Ecco (Alammar 2021, ACL demos 30) does with the feed-forward units of all layers; the
    factoring itself is scikit-learn's (Lee and Seung 1999).

    Raises:
        InputError: scikit-learn is not installed, or the text has fewer than k words.
    """
    if find_spec("sklearn") is None:
        raise InputError("Factors need scikit-learn: install it with `uv sync --extra factors`.")
    from sklearn.decomposition import NMF

    layers, words, number = units.array.shape
    if not 0 < k <= words:
        raise InputError(f"{k} factors were asked for, but the text has {words} words.")
    active = np.maximum(np.moveaxis(units.array, 1, 0).reshape(words, -1), 0)
    model = NMF(k, init="nndsvda", random_state=0, max_iter=500)
    strength = model.fit_transform(active)
    # A factor may be doubled if its weights are halved: weights of length 1 settle that.
    lengths = np.linalg.norm(model.components_, axis=1)
    strength = strength.T * lengths[:, None]
    order = np.argsort(-strength.sum(1), kind="stable")
    weights = model.components_ / np.maximum(lengths, 1e-9)[:, None]
    return Factors(strength[order], weights[order].reshape(k, layers, number))


def _read(encoder: Encoder, texts: Sequence[str], kind: str | None) -> Iterator[tuple[int, Units]]:
    """(number of a text, its units), longest first."""
    kinds = getattr(encoder.model, "UNITS", ())
    if not kinds or kind not in (None, *kinds):
        offered = " and ".join(kinds) or "none"
        raise InputError(f"{encoder.name} has no units of the kind {kind}: it has {offered}.")
    kind = kind or kinds[0]

    def run(model: Any, ids, mask, _):
        with jax.default_matmul_precision("highest"):
            return model(ids, mask, units=True).units[kind].astype(jnp.float32)

    tokens = encoder.tokenize(texts)
    last = encoder.model.num_layers
    windows: dict[int, dict[int, np.ndarray]] = {}
    for places, output in encode_all(encoder, tokens, run):
        array = np.asarray(output)
        for i, (row, window) in enumerate(places):
            one = tokens[row]
            some = windows.setdefault(row, {})
            some[window] = np.moveaxis(array[:, i, : one.windows[window]], 1, 0)
            if len(some) == len(one.windows):
                shape = len(array), array.shape[-1]
                joined = np.concatenate([some[place] for place in range(len(some))])
                flat = joined.reshape(len(one), shape[0] * shape[1])
                words = merge_words(flat, one).reshape(len(one.words), *shape)
                del windows[row]
                layers = tuple(range(last + 1 - len(array), last + 1))
                yield row, Units(one, kind, layers, np.moveaxis(words, 1, 0))


def _correlations(encoder, texts, feature, kind, progress) -> tuple[tuple[int, ...], np.ndarray | None]:
    """The layers' numbers, and each unit's correlation (Pearson's) with the feature; 0 where it is idle.

    None where the feature does not vary, so that nothing can follow it.
    """
    layers: tuple[int, ...] = ()
    totals: Any = 0.0
    count, y_total, y_square = 0, 0.0, 0.0
    for _, one in _read(encoder, texts, kind):
        y = np.asarray(feature(one.tokens), np.float64)
        if y.shape != one.array.shape[1:2]:
            raise ValueError(f"The feature gave {y.shape} numbers for {one.array.shape[1]} words.")
        known = np.isfinite(y)
        y, x = y[known], one.array[:, known].astype(np.float64)
        totals = totals + np.stack([x.sum(1), (x * x).sum(1), np.einsum("w,lwu->lu", y, x)])
        count, layers = count + len(y), one.layers
        y_total, y_square = y_total + float(y.sum()), y_square + float(y @ y)
        progress(1)
    y_spread = count * y_square - y_total**2
    if count < 2 or y_spread <= 1e-12 * max(count * y_square, 1e-9):
        return layers, None
    x_total, x_square, product = totals
    x_spread = count * x_square - x_total**2
    idle = x_spread <= 1e-9 * np.maximum(count * x_square, 1e-9)
    spread = np.sqrt(np.where(idle, 1, x_spread) * y_spread)
    return layers, np.where(idle, 0, (count * product - x_total * y_total) / spread)
