"""Attention maps of a text, and heads that are found by what they do."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from minqa.embedding import as_batch, bucket
from minqa.encoder import Encoder
from minqa.errors import InputError
from minqa.tokens import Tokens


@dataclass(frozen=True)
class Attention:
    """How each head of a BERT spreads its attention over a text (Vaswani et al. 2017, section 3.2).

    The layer at place i of an array is the model's layer i + 1, as hidden states are numbered; heads are
    numbered from 0.

    Attributes:
        tokens: the text as the model read it.
        array: float32 [layer, head, token, token], from the first token axis to the second; rows add up to 1.
        parts: what the text is made of, in order: its words as they were written, and special tokens.
        part: int32 [token], the number of the part that each token belongs to.
        word: int32 [part], the number of the word that a part is, -1 for a special token.
    """

    tokens: Tokens
    array: Float[np.ndarray, "layer head token token"]
    parts: tuple[str, ...]
    part: Int[np.ndarray, " token"]
    word: Int[np.ndarray, " part"]

    @cached_property
    def words(self) -> Float[np.ndarray, "layer head part part"]:
        """From part to part; rows add up to 1.

        A word of several tokens attends as they do on average, and is attended to as much as they are
        together (Clark et al. 2019, arXiv:1906.04341, section 4.1).
        """
        member = (np.arange(len(self.parts))[:, None] == self.part[None, :]).astype(np.float32)
        return (member / member.sum(1, keepdims=True)) @ self.array @ member.T

    def place(self, layer: int, head: int) -> tuple[int, int]:
        """Where a head's map stands in an array. Raises InputError where there is no such head."""
        layers, heads = self.array.shape[:2]
        if not (1 <= layer <= layers and 0 <= head < heads):
            raise InputError(
                f"There is no head {head} in layer {layer}: layers are 1 to {layers}, heads 0 to {heads - 1}."
            )
        return layer - 1, head


def attention(encoder: Encoder, text: str) -> Attention:
    """The attention maps of every layer and head.

    Raises:
        InputError: the model has no heads, or the text is longer than it reads at once.
    """
    heads = getattr(encoder.model, "num_heads", 0)
    if not heads:
        raise InputError(f"{encoder.name} has no attention heads: name a BERT.")
    [tokens] = encoder.tokenize([text])
    check_length(encoder, tokens, "Attention")
    ids, mask, _ = as_batch(encoder, [tokens], [(0, 0)], bucket(len(tokens)))
    with jax.default_matmul_precision("highest"):
        maps = encoder.model(ids, mask, attention=True).attention  # type: ignore[call-arg]
    # A word's first token begins a part, and so does each special token.
    starts = (tokens.word < 0) | (np.diff(tokens.word, prepend=-1) != 0)
    names = {token: encoder.tokenizer.backend.id_to_token(token) or "" for token in set(tokens.ids.tolist())}
    word = tokens.word[starts]
    return Attention(
        tokens=tokens,
        array=np.asarray(maps.astype(jnp.float32))[:, 0, :, : len(tokens), : len(tokens)],
        parts=tuple(
            tokens.word_texts[number] if number >= 0 else names[token]
            for number, token in zip(word.tolist(), tokens.ids[starts].tolist(), strict=True)
        ),
        part=np.cumsum(starts, dtype=np.int32) - 1,
        word=word,
    )


def check_length(encoder: Encoder, tokens: Tokens, what: str) -> None:
    """Raise InputError where a text has more than one window."""
    if len(tokens.windows) > 1:
        raise InputError(
            f"{what} is looked at in one go, but the text is longer than the {encoder.tokenizer.max_tokens} "
            f"tokens that {encoder.name} reads at once: take a part of it."
        )


# Which parts each part of a text would attend to, if a head did just one thing: [part, part], a row each.
Targets: TypeAlias = Callable[[Attention], Bool[np.ndarray, "part part"]]


def _beside(offset: int) -> Targets:
    def targets(one: Attention) -> Bool[np.ndarray, "part part"]:
        order = np.arange(len(one.parts))
        return (order[None, :] == order[:, None] + offset) & (one.word >= 0)[None, :]

    return targets


def _same(one: Attention) -> Bool[np.ndarray, "part part"]:
    words = np.array([part.lower() for part in one.parts])
    return (words[:, None] == words[None, :]) & ~np.eye(len(words), dtype=bool) & (one.word >= 0)[None, :]


def _label(label: str) -> Targets:
    return lambda one: np.tile((np.array(one.parts) == label) & (one.word < 0), (len(one.parts), 1))


def _punctuation(one: Attention) -> Bool[np.ndarray, "part part"]:
    marks = np.array([word >= 0 and not one.tokens.spelled[word] for word in one.word], bool)
    return np.tile(marks, (len(one.parts), 1))


def between(source: int, target: int) -> Targets:
    """From one word of a text to another, by their numbers."""
    return lambda one: (one.word == source)[:, None] & (one.word == target)[None, :]


TARGETS: Mapping[str, Targets] = {
    "previous word": _beside(-1),
    "next word": _beside(1),
    "same word elsewhere": _same,
    "[SEP]": _label("[SEP]"),
    "[CLS]": _label("[CLS]"),
    "punctuation": _punctuation,
}


def head_scores(
    maps: Sequence[Attention], targets: Mapping[str, Targets] = TARGETS
) -> dict[str, Float[np.ndarray, "layer head"]]:
    """How much of its attention each head gives to what would be looked for.

    Args:
        maps: of one model, as `attention` returns them.
        targets: what to look for, by name: functions of an `Attention`.

    Returns:
        By name, the mean over the words of all texts that have such a target, 0 to 1; not a number where
        none has.
    """
    scores = {}
    for name, function in targets.items():
        shares = []
        for one in maps:
            wanted = function(one)
            asking = wanted.any(1) & (one.word >= 0)
            shares.append((one.words * wanted).sum(3)[:, :, asking])
        joined = np.concatenate(shares, axis=2)
        scores[name] = joined.mean(2) if joined.shape[2] else np.full(joined.shape[:2], np.nan, np.float32)
    return scores


class Flip(NamedTuple):
    """How one head's attention from a word moves between two others, from one text to another.

    Attributes:
        layer: from 1.
        head: from 0.
        moved: how much further the first text's attention lies at the first word than the second's, -2 to 2.
        first: the first text's attention to either word.
        second: the second text's.
    """

    layer: int
    head: int
    moved: float
    first: tuple[float, float]
    second: tuple[float, float]


def flip(
    encoder: Encoder, text_a: str, text_b: str, from_word: str | int, to_words: tuple[str | int, str | int]
) -> list[Flip]:
    """Rank all heads by how far attention moves between two words when the text changes.

    "The animal didn't cross the street because it was too tired", or "too wide": where does "it" look?

    Args:
        encoder: a BERT, as `load` returns it.
        text_a: say, one in which "it" means the animal.
        text_b: one in which it means the street, and which differs in as little as possible.
        from_word: the word that looks, or its number in both texts, from 0.
        to_words: the two that it may look at, likewise.

    Returns:
        All heads, those that move furthest first, whatever the direction.

    Raises:
        InputError: a word is missing from a text, or is there more than once; or as `attention` does.
    """
    rows = []
    for text in (text_a, text_b):
        one = attention(encoder, text)
        source, *targets = (find_word(one.tokens, word) for word in (from_word, *to_words))
        part = {word: place for place, word in enumerate(one.word.tolist())}
        rows.append(np.stack([one.words[:, :, part[source], part[target]] for target in targets], -1))
    a, b = rows
    moved = (a[..., 0] - a[..., 1]) - (b[..., 0] - b[..., 1])
    found = [
        Flip(layer + 1, head, float(value), tuple(a[layer, head].tolist()), tuple(b[layer, head].tolist()))
        for (layer, head), value in np.ndenumerate(moved)
    ]
    return sorted(found, key=lambda one: -abs(one.moved))


def find_word(tokens: Tokens, word: str | int) -> int:
    """The number of a word, given as it is written or, where no word is written so, by its number.

    Raises:
        InputError: it is missing, or there more than once.
    """
    words, wanted = [text.lower() for text in tokens.word_texts], str(word).lower().strip()
    places = [i for i, one in enumerate(words) if one == wanted]
    if not places and wanted.isdecimal():
        places = [int(wanted)]
    if len(places) == 1 and 0 <= places[0] < len(words):
        return places[0]
    if len(places) > 1:
        raise InputError(
            f'"{word}" stands {len(places)} times in "{tokens.text}": name it by its number, one of '
            f"{', '.join(map(str, places))}."
        )
    raise InputError(f'There is no word "{word}" in "{tokens.text}".')
