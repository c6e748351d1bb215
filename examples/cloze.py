"""Passages of an encyclopedia → questions that the titles of their articles answer.

What Lewis et al. 2019 (arXiv:1906.04980) make of any sentence, in its simplest form: of "He shared the 1945
Nobel Prize" in the article of Alexander Fleming becomes "Who shared the 1945 Nobel Prize?".
"""

import re
from typing import NamedTuple

from minqa.text import sentences

MIN_WORDS, MAX_WORDS = 4, 14  # of a question after its first: fewer ask for too much, more are seldom typed
_TITLE_END = re.compile(r" \(.*\)$")
_VERBS = r"(?:was|is|were|are|had|has|\w+ed|wrote|won|became|made|led|took|built|held|began)\b"
_SENTENCE = re.compile(
    rf"(He|She|It|They) (?:also |later |then |first )?({_VERBS}(?:[^,;:(\[]|(?<=\d),(?=\d))*)"
)


class Cloze(NamedTuple):
    """A question, and the characters of a passage that answer it."""

    text: str
    start: int
    end: int


def cloze_questions(title: str, passage: str) -> list[Cloze]:
    """The questions of a passage; none, unless its first sentence holds the title or its last word."""
    (_, first), *places = sentences(passage).tolist()
    name = _TITLE_END.sub("", title)
    last = re.escape(name.rpartition(" ")[2])
    mention = re.search(rf"\b({re.escape(name)})(?!\w)", passage[:first]) or re.match(
        rf"(?:The |An? )?((?:[\w.'’-]+ ){{0,4}}{last})(?!\w)", passage[:first]
    )
    if not mention:
        return []
    questions = []
    for place in places:
        if echo := _SENTENCE.match(passage[slice(*place)]):
            pronoun, rest = echo.groups()
            rest = rest.rstrip(" .")
            is_whole = "both" not in rest and rest.count('"') % 2 == 0
            if is_whole and MIN_WORDS <= len(rest.split()) <= MAX_WORDS:
                who = "Who" if pronoun in ("He", "She") else "What"
                questions.append(Cloze(f"{who} {rest}?", *mention.span(1)))
    return questions
