"""SQuAD: questions with the paragraphs that answer them, and the two numbers that answers are scored by."""

import re
import string
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minqa.errors import InputError
from minqa.settings import read_json

_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Question:
    """A question about a paragraph of an article.

    Attributes:
        article: the title.
        passage: the paragraph.
        text: the question.
        answers: the text of each accepted answer, and the character of the passage that it starts at; none
            where the passage does not hold one.
    """

    article: str
    passage: str
    text: str
    answers: tuple[tuple[str, int], ...]

    @property
    def accepted(self) -> list[str]:
        """The texts of the answers; of a question without one, the empty text."""
        return [text for text, _ in self.answers] or [""]


def read_squad(path: Path) -> list[Question]:
    """The questions of a file in the layout of SQuAD 1.1 (arXiv:1606.05250) or 2.0 (arXiv:1806.03822).

    Raises:
        InputError: the file cannot be read or holds no question, something in it is missing or of another
            type, or an answer does not stand where it says; the message names the place.
    """
    questions = []
    for article, at_article in _items(read_json(path, dict), "data", f"{path}: "):
        title = _get(article, "title", str, at_article)
        for paragraph, at_paragraph in _items(article, "paragraphs", f"{at_article}."):
            passage = _get(paragraph, "context", str, at_paragraph)
            for asked, at in _items(paragraph, "qas", f"{at_paragraph}."):
                text = _get(asked, "question", str, at)
                answers = tuple(
                    _answer(one, passage, place) for one, place in _items(asked, "answers", f"{at}.")
                )
                if not answers and asked.get("is_impossible") is not True:
                    raise InputError(f"{at} has no answers and is not marked is_impossible.")
                questions.append(Question(title, passage, text, answers))
    if not questions:
        raise InputError(f"{path} holds no questions.")
    return questions


def exact_match(answer: str, accepted: Sequence[str]) -> bool:
    """Whether the answer is one of the accepted, but for case, punctuation and articles (SQuAD 1.1, 6.1)."""
    return any(_normalized(answer) == _normalized(one) for one in accepted)


def f1(answer: str, accepted: Sequence[str]) -> float:
    """The harmonic mean of the precision and recall of the answer's words; the highest over the accepted.

    Case, punctuation and articles do not count (SQuAD 1.1, 6.1). Where one of the two is empty, as for a
    question without an answer, 1 if both are.
    """

    def overlap(found: list[str], wanted: list[str]) -> float:
        if not found or not wanted:
            return float(found == wanted)
        shared = sum((Counter(found) & Counter(wanted)).values())
        return 2 * shared / (len(found) + len(wanted))

    return max(overlap(_normalized(answer), _normalized(one)) for one in accepted)


def _normalized(text: str) -> list[str]:
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION)).split()


def _answer(answer: dict[str, Any], passage: str, at: str) -> tuple[str, int]:
    text, start = _get(answer, "text", str, at), _get(answer, "answer_start", int, at)
    if not text or start < 0 or passage[start : start + len(text)] != text:
        raise InputError(f"{at}: {text!r} does not stand at character {start} of its context.")
    return text, start


def _items(parent: dict[str, Any], key: str, prefix: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The objects of a list, and the place of each."""
    for i, item in enumerate(_get(parent, key, list, prefix.rstrip(": ."))):
        if not isinstance(item, dict):
            raise InputError(f"{prefix}{key}[{i}] is no object.")
        yield item, f"{prefix}{key}[{i}]"


def _get(parent: dict[str, Any], key: str, kind: type, at: str) -> Any:
    if type(parent.get(key)) is not kind:
        kinds = {str: "a string", int: "a whole number", list: "an array"}
        raise InputError(f"{at} has no {key} that is {kinds[kind]}.")
    return parent[key]
