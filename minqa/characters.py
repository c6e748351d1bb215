"""Words → the character ids that ELMo spells them with."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

# Behind the 256 bytes. All ids are one higher in what this module returns: 0 stands where no word is.
SENTENCE_START, SENTENCE_END, WORD_START, WORD_END, PADDING = range(256, 261)
# How many ids there are, 0 included.
VOCABULARY = 262


def spell(words: Sequence[str], width: int = 50) -> Int[np.ndarray, "word character"]:
    """The UTF-8 bytes of each word between a mark of its start and one of its end, padded to `width`.

    Bytes that do not fit are left out; with the usual width those behind the 48th.
    """
    ids = np.full((len(words), width), PADDING, np.int32)
    for row, word in zip(ids, words, strict=True):
        code = word.encode()[: width - 2]
        row[: len(code) + 2] = [WORD_START, *code, WORD_END]
    return ids + 1


def boundaries(width: int = 50) -> Int[np.ndarray, "2 character"]:
    """The ids of the two words that stand for a sentence's start and its end."""
    ids = np.full((2, width), PADDING, np.int32)
    ids[:, :3] = [[WORD_START, mark, WORD_END] for mark in (SENTENCE_START, SENTENCE_END)]
    return ids + 1
