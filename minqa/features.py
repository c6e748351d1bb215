"""What can be said of a word without a model: where it stands, what encloses it, how it is written."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

from minqa.heatmap import FUNCTION_WORDS
from minqa.text import sentences
from minqa.tokens import Tokens

QUOTES = {'"': '"', "“": "”", "«": "»"}
BRACKETS = {"(": ")", "[": "]", "{": "}"}


def position(tokens: Tokens) -> Float[np.ndarray, " word"]:
    """How many words of its sentence stand before each word, marks included."""
    sentence = _sentence(tokens)
    return (np.arange(len(sentence)) - np.searchsorted(sentence, sentence)).astype(np.float32)


def in_quotes(tokens: Tokens) -> Float[np.ndarray, " word"]:
    """1 between quotation marks that are closed, 0 elsewhere."""
    return _enclosed(tokens, QUOTES)


def in_brackets(tokens: Tokens) -> Float[np.ndarray, " word"]:
    """1 between brackets that are closed, 0 elsewhere."""
    return _enclosed(tokens, BRACKETS)


def is_number(tokens: Tokens) -> Float[np.ndarray, " word"]:
    """1 for a word that begins with a digit."""
    return _each(tokens, lambda word: word[:1].isdigit())


def is_capital(tokens: Tokens) -> Float[np.ndarray, " word"]:
    """1 for a word that begins with a capital."""
    return _each(tokens, lambda word: word[:1].isupper())


def in_name(tokens: Tokens) -> Float[np.ndarray, " word"]:
    """1 for part of a name, as writing tells it: a capital that the text has inside a sentence too.

    Function words are no names, nor is a word that has a capital only where a sentence begins.
    """
    words, inside = tokens.word_texts, position(tokens) > 0
    names = {word for word, within in zip(words, inside, strict=True) if within and word[:1].isupper()}
    return _each(tokens, lambda word: word in names and word.lower() not in FUNCTION_WORDS)


FEATURES: Mapping[str, Callable[[Tokens], Float[np.ndarray, " word"]]] = {
    "position": position,
    "quotes": in_quotes,
    "brackets": in_brackets,
    "number": is_number,
    "capital": is_capital,
    "name": in_name,
}


def _sentence(tokens: Tokens) -> np.ndarray:
    """The number of the sentence that each word is in."""
    return np.searchsorted(sentences(tokens.text)[:, 1], tokens.words[:, 0], side="right")


def _each(tokens: Tokens, holds: Callable[[str], bool]) -> Float[np.ndarray, " word"]:
    return np.array([holds(word) for word in tokens.word_texts], np.float32)


def _enclosed(tokens: Tokens, closing: Mapping[str, str]) -> Float[np.ndarray, " word"]:
    inside = np.zeros(len(tokens.text) + 1, bool)
    opened: list[tuple[str, int]] = []
    for place, char in enumerate(tokens.text):
        begun = [number for number, (opening, _) in enumerate(opened) if closing[opening] == char]
        if begun:  # what was opened since is never closed
            inside[opened[begun[-1]][1] + 1 : place] = True
            del opened[begun[-1] :]
        elif char in closing:
            opened.append((char, place))
    return inside[tokens.words[:, 0]].astype(np.float32)
