"""Text of unknown origin, made fit to be encoded and to be shown."""

import re
import unicodedata

import numpy as np
from jaxtyping import Int

# Embeddings, overrides and isolates of writing direction.
_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

# A full stop ends no sentence after an initial, a dotted abbreviation ("U.S.") or one of these.
_ABBREVIATIONS = (
    "Dr|Mr|Ms|St|Mt|Ft|No|vs|cf|ca|Jr|Sr|Co|pp|al|Lt",
    "Mrs|Vol|Inc|Ltd|Gen|Col|Rev|Gov|Sen|etc",
)
_SENTENCE_END = re.compile(
    r"(?<!\b[A-Za-z]\.)"
    + "".join(rf"(?<!\b(?:{words})\.)" for words in _ABBREVIATIONS)
    + r"(?<=[.!?])[\"'”’)\]]*(?:\[\w+\])*(\s+)(?=[\"'“‘(\[]*[A-Z0-9])"
)


def sentences(text: str) -> Int[np.ndarray, "sentence 2"]:
    """Start and end of each sentence, in characters: one at least, and all of the text but spaces between.

    Sentences end at a full stop, question or exclamation mark before a capital or a digit, as in English.
    """
    breaks = [match.span(1) for match in _SENTENCE_END.finditer(text)]
    starts, ends = [0, *(end for _, end in breaks)], [*(start for start, _ in breaks), len(text)]
    return np.array([starts, ends], np.int32).T


def well_formed(text: str) -> str:
    """The text with each lone surrogate, which no encoding can carry, replaced by U+FFFD."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def printable(text: str) -> str:
    """The text without a character that could steer a terminal, at the same length.

    Control characters, but for the line feed, and the controls of writing direction become U+FFFD, or a
    space where they are one.
    """

    def replace(char: str) -> str:
        if char == "\n" or (unicodedata.category(char) not in ("Cc", "Cs") and char not in _DIRECTIONS):
            return char
        return " " if char.isspace() else "\ufffd"

    return "".join(map(replace, text))
