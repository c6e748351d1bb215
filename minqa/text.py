"""Text of unknown origin, made fit to be encoded; and the one exception for input that cannot be used."""

import re
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

# A full stop ends no sentence after an initial, a dotted abbreviation ("U.S.") or one of these.
_ABBREVIATED = ("Dr|Mr|Ms|St|Mt|Ft|No|vs|cf|ca|Jr|Sr|Co|pp|al|Lt", "Mrs|Vol|Inc|Ltd|Gen|Col|Rev|Gov|Sen|etc")
_SENTENCE_END = re.compile(
    r"(?<!\b[A-Za-z]\.)"
    + "".join(rf"(?<!\b(?:{words})\.)" for words in _ABBREVIATED)
    + r"(?<=[.!?])[\"'”’)\]]*(?:\[\w+\])*(\s+)(?=[\"'“‘(\[]*[A-Z0-9])"
)


class InputError(ValueError):
    """Input that cannot be used; its message is one sentence: what is wrong, where, what to do."""


class Passage(NamedTuple):
    """A text that can be found: the part of an article that begins at its character `start`.

    The titles of the article and of its section may be "". `id` is the article's id, a colon and `start`.
    """

    title: str
    text: str
    section: str = ""
    id: str = ""
    start: int = 0
    extra: tuple[tuple[str, str | int | float], ...] = ()  # what else is known of the article, by name


def sentences(text: str) -> Int[np.ndarray, "sentence 2"]:
    """Start and end of each sentence, in characters; at least one, and nothing but spaces between them.

    A sentence ends at a full stop, question or exclamation mark before a capital or a digit, as in English.
    """
    breaks = [match.span(1) for match in _SENTENCE_END.finditer(text)]
    starts, ends = [0, *(end for _, end in breaks)], [*(start for start, _ in breaks), len(text)]
    return np.array([starts, ends], np.int32).T


def well_formed(text: str) -> str:
    """The text with each lone surrogate, which no encoding can carry, replaced by U+FFFD."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)
