"""Attention maps of a text, and heads found by what they do."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from minqa.batches import Batch, as_batch, run_model
from minqa.encoder import Encoder
from minqa.text import InputError
from minqa.tokens import Tokens


@dataclass(frozen=True)
class Attention:
    """How each head of a BERT spreads its attention over a text (Vaswani et al. 2017, section 3.2).

    Layers are numbered from 1, as hidden states are, and heads from 0. A part is a word or a special token.
    """

    tokens: Tokens
    array: Float[np.ndarray, "layer head token token"]  # from the first token to the second; rows add up to 1
    parts: tuple[str, ...]  # as written
    part: Int[np.ndarray, " token"]  # the number of the part that each token belongs to
    word: Int[np.ndarray, " part"]  # the number of the word that each part is, -1 for a special token

    @cached_property
    def words(self) -> Float[np.ndarray, "layer head part part"]:
        """The mean from a part's tokens, the sum to them (Clark et al. 2019, arXiv:1906.04341, 4.1)."""
        member = (np.arange(len(self.parts))[:, None] == self.part[None, :]).astype(np.float32)
        return (member / member.sum(1, keepdims=True)) @ self.array @ member.T

    def place(self, layer: int, head: int) -> tuple[int, int]:
        """Where a head's map stands in an array. Raises InputError if there is no such head."""
        layers, heads = self.array.shape[:2]
        if not (1 <= layer <= layers and 0 <= head < heads):
            sizes = f"layers are 1 to {layers}, heads 0 to {heads - 1}"
            raise InputError(f"There is no head {head} in layer {layer}: {sizes}.")
        return layer - 1, head


def attention(encoder: Encoder, text: str) -> Attention:
    """The attention maps of every layer and head.

    Raises InputError if the model has no heads, or the text is longer than it reads at once.
    """
    if not hasattr(encoder.model, "num_heads"):
        raise InputError(f"{encoder.name} has no attention heads: name a BERT.")
    [tokens] = encoder.tokenize([text])
    batch = single_batch(encoder, tokens, "Attention")
    maps = run_model(encoder.model, batch, attention=True).attention
    # A word's first token begins a part, and so does each special token.
    starts = (tokens.word < 0) | (np.diff(tokens.word, prepend=-1) != 0)
    special = [encoder.tokenizer.backend.id_to_token(token) or "" for token in tokens.ids[starts].tolist()]
    names = [*tokens.word_texts, ""]  # -1 is last
    return Attention(
        tokens=tokens,
        array=np.asarray(maps.astype(jnp.float32))[:, 0, :, : len(tokens), : len(tokens)],
        parts=tuple(names[word] or name for word, name in zip(tokens.word[starts], special, strict=True)),
        part=np.cumsum(starts, dtype=np.int32) - 1,
        word=tokens.word[starts],
    )


def single_batch(encoder: Encoder, tokens: Tokens, what: str) -> Batch:
    """One text as a batch. Raises InputError about `what` if the text has more than one window."""
    most = encoder.tokenizer.max_tokens
    if len(tokens.windows) > 1:
        limit = f"the {most} tokens that {encoder.name} reads at once: take a part of it."
        raise InputError(f"{what} is looked at in one go, but the text is longer than {limit}")
    return as_batch([tokens])


# Which parts each part of a text, or every part, would attend to if a head did just one thing.
Targets: TypeAlias = Callable[[Attention], Bool[np.ndarray, "#part part"]]


def between(source: int, target: int) -> Targets:
    """From one word of a text to another, by their numbers."""
    return lambda text: (text.word == source)[:, None] & (text.word == target)[None, :]


def _same(text: Attention) -> Bool[np.ndarray, "part part"]:
    keys = np.array([*text.tokens.keys, ""])[text.word]  # -1 is last
    return (keys[:, None] == keys[None, :]) & ~np.eye(len(keys), dtype=bool) & (text.word >= 0)[None, :]


TARGETS: Mapping[str, Targets] = {
    "previous word": lambda text: np.eye(len(text.word), k=-1, dtype=bool) & (text.word >= 0)[None, :],
    "next word": lambda text: np.eye(len(text.word), k=1, dtype=bool) & (text.word >= 0)[None, :],
    "same word elsewhere": _same,
    "[SEP]": lambda text: (np.isin(text.parts, ["[SEP]", "</s>"]) & (text.word < 0))[None, :],
    "[CLS]": lambda text: (np.isin(text.parts, ["[CLS]", "<s>"]) & (text.word < 0))[None, :],
    "punctuation": lambda text: ~np.append(text.tokens.is_word, True)[None, text.word],  # -1 is last
}


def head_scores(
    maps: Sequence[Attention], targets: Mapping[str, Targets] = TARGETS
) -> dict[str, Float[np.ndarray, "layer head"]]:
    """How much of its attention each head of one model gives to each kind of target, 0 to 1.

    It is the mean over the words of all texts that have such a target; NaN if none has.
    """
    if not maps:
        raise ValueError("There is no attention map to score heads by.")
    scores = {}
    for name, function in targets.items():
        shares = []
        for text in maps:
            wanted = np.broadcast_to(function(text), text.words.shape[2:])
            counted = wanted.any(1) & (text.word >= 0)
            shares.append((text.words * wanted).sum(3)[:, :, counted])
        joined = np.concatenate(shares, axis=2)
        scores[name] = joined.mean(2) if joined.shape[2] else np.full(joined.shape[:2], np.nan, np.float32)
    return scores


class Flip(NamedTuple):
    """How far one head's attention from a word moves between two others, from one text to another."""

    layer: int
    head: int
    moved: float  # (first[0] - first[1]) - (second[0] - second[1]), -2 to 2
    first: tuple[float, float]  # the first text's attention to the two words
    second: tuple[float, float]


def flip(
    encoder: Encoder, text_a: str, text_b: str, from_word: str | int, to_words: tuple[str | int, str | int]
) -> list[Flip]:
    """All heads, ranked by how far attention moves between two words when the text changes.

    "The animal didn't cross the street because it was too tired", or "too wide": where does "it" look?
    Words are given as `find_word` takes them. Raises InputError as it does, and `attention`.
    """
    attended = []
    for text in (text_a, text_b):
        maps = attention(encoder, text)
        place = maps.word.tolist().index
        source, *targets = (place(find_word(maps.tokens, word)) for word in (from_word, *to_words))
        attended.append(maps.words[:, :, source, targets])  # (layer, head, 2)
    moved = np.diff(attended[1] - attended[0])[..., 0]
    flips = [
        Flip(layer + 1, head, float(value), *(tuple(pairs[layer, head].tolist()) for pairs in attended))
        for (layer, head), value in np.ndenumerate(moved)
    ]
    return sorted(flips, key=lambda flip: -abs(flip.moved))


def find_word(tokens: Tokens, word: str | int) -> int:
    """The number, from 0, of a word given as it is written or, if no word is written so, by its number.

    Raises InputError if it is missing, or occurs more than once.
    """
    wanted = str(word).lower().strip()
    places = [number for number, text in enumerate(tokens.word_texts) if text.lower() == wanted]
    if len(places) > 1:
        numbers = f"name it by its number, one of {', '.join(map(str, places))}"
        raise InputError(f'"{word}" stands {len(places)} times in "{tokens.text}": {numbers}.')
    if not places and not (wanted.isdecimal() and int(wanted) < len(tokens.words)):
        raise InputError(f'There is no word "{word}" in "{tokens.text}".')
    return places[0] if places else int(wanted)
