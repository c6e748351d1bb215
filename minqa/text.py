"""Text of unknown origin, made fit to be encoded and to be shown."""

import re
import unicodedata

# Embeddings, overrides and isolates of writing direction.
_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


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
