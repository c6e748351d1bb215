"""What can be said of a word without a model: where it stands, what encloses it, how it is written."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from minqa.heatmap import FUNCTION_WORDS
from minqa.text import sentences
from minqa.tokens import Tokens

Feature: TypeAlias = Callable[[Tokens], Float[np.ndarray, " word"]]


def position(tokens: Tokens) -> Float[np.ndarray, " word"]:
    """How many words and punctuation marks precede each word in its sentence."""
    sentence = np.searchsorted(sentences(tokens.text)[:, 1], tokens.words[:, 0], side="right")
    return (np.arange(len(sentence)) - np.searchsorted(sentence, sentence)).astype(np.float32)


def per_word(holds: Callable[[str], bool]) -> Feature:
    """1 for each word that something holds for, else 0."""
    return lambda tokens: np.array([holds(word) for word in tokens.word_texts], np.float32)


def in_name(tokens: Tokens) -> Float[np.ndarray, " word"]:
    """1 for a word that is capitalized somewhere within a sentence and is no function word, else 0."""
    places = zip(tokens.word_texts, position(tokens), strict=True)
    names = {word for word, place in places if place > 0 and word[:1].isupper()}
    return per_word(lambda word: word in names and word.lower() not in FUNCTION_WORDS)(tokens)


def enclosed(closing: Mapping[str, str], tokens: Tokens) -> Float[np.ndarray, " word"]:
    """1 between an opening mark and its closing one, else 0."""
    inside = np.zeros(len(tokens.text) + 1, bool)
    opened: list[int] = []
    for place, char in enumerate(tokens.text):
        matching = [i for i, start in enumerate(opened) if closing[tokens.text[start]] == char]
        if matching:  # what was opened in between is never closed
            inside[opened[matching[-1]] + 1 : place] = True
            del opened[matching[-1] :]
        elif char in closing:
            opened.append(place)
    return inside[tokens.words[:, 0]].astype(np.float32)


FEATURES: Mapping[str, Feature] = {
    "position": position,
    "quotes": partial(enclosed, {'"': '"', "“": "”", "«": "»"}),
    "brackets": partial(enclosed, {"(": ")", "[": "]", "{": "}"}),
    "number": per_word(lambda word: word[:1].isdigit()),
    "capital": per_word(lambda word: word[:1].isupper()),
    "name": in_name,
}
