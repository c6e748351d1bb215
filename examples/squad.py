"""SQuAD: questions with the paragraphs that answer them, and the numbers that answers are scored by."""

import re
import string
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minqa.files.checkpoint import read_json
from minqa.text import InputError

RIGHT_F1 = 0.5
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Question(NamedTuple):
    """A question about a paragraph of an article."""

    article: str  # its title
    passage: str
    text: str
    answers: tuple[tuple[str, int], ...]  # each accepted one, and the character that it starts at

    @property
    def accepted(self) -> list[str]:
        """The texts of the answers; the empty text, if there are none."""
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
            for entry, place in _items(paragraph, "qas", f"{at_paragraph}."):
                text = _get(entry, "question", str, place)
                answers = tuple(_answer(*item, passage) for item in _items(entry, "answers", f"{place}."))
                if not answers and entry.get("is_impossible") is not True:
                    raise InputError(f"{place} has no answers and is not marked is_impossible.")
                questions.append(Question(title, passage, text, answers))
    if not questions:
        raise InputError(f"{path} holds no questions.")
    return questions


def exact_match(answer: str, accepted: Sequence[str]) -> bool:
    """Whether the answer is one of the accepted, but for case, punctuation and articles (SQuAD 1.1, 6.1)."""
    return _normalized(answer) in map(_normalized, accepted)


def f1(answer: str, accepted: Sequence[str]) -> float:
    """The harmonic mean of the precision and recall of the answer's words; the highest over the accepted.

    Case, punctuation and articles do not count (SQuAD 1.1, 6.1). If one of the two is empty, as for a
    question without an answer, 1 if both are.
    """

    def overlap(words: list[str], wanted: list[str]) -> float:
        shared = sum((Counter(words) & Counter(wanted)).values())
        return 2 * shared / (len(words) + len(wanted)) if words and wanted else float(words == wanted)

    return max(overlap(_normalized(answer), _normalized(text)) for text in accepted)


def is_right(answer: str, accepted: Sequence[str]) -> bool:
    """Whether an answer has an F1 of at least `RIGHT_F1`; if none is accepted, every answer is wrong."""
    return bool(accepted) and f1(answer, accepted) >= RIGHT_F1


def reliability(
    probabilities: Sequence[float], right: Sequence[bool], bins: int = 10
) -> list[tuple[float, float, int]]:
    """How often answers of like probability are right: mean probability, share of right ones, and number.

    Bins of one width; those that hold nothing are left out (Guo et al. 2017, arXiv:1706.04599, equation 1).
    """
    sure, hits = np.array(probabilities, float), np.array(right, float)
    place = np.minimum(sure * bins, bins - 1).astype(int)
    return [
        (float(sure[place == i].mean()), float(hits[place == i].mean()), int((place == i).sum()))
        for i in np.unique(place)
    ]


def calibration_error(probabilities: Sequence[float], right: Sequence[bool]) -> float:
    """The expected calibration error, 0 to 1 (Guo et al. 2017, equation 3), of `reliability`'s bins."""
    table = reliability(probabilities, right)
    return sum(abs(sure - share) * number for sure, share, number in table) / max(len(probabilities), 1)


def _normalized(text: str) -> list[str]:
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION)).split()


def _answer(answer: dict[str, Any], place: str, passage: str) -> tuple[str, int]:
    text, start = _get(answer, "text", str, place), _get(answer, "answer_start", int, place)
    if not text or start < 0 or not passage.startswith(text, start):
        raise InputError(f"{place}: {text!r} does not stand at character {start} of its context.")
    return text, start


def _items(parent: dict[str, Any], key: str, prefix: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The objects of a list, and the place of each."""
    for i, item in enumerate(_get(parent, key, list, prefix.rstrip(": ."))):
        if not isinstance(item, dict):
            raise InputError(f"{prefix}{key}[{i}] is no object.")
        yield item, f"{prefix}{key}[{i}]"


def _get(parent: dict[str, Any], key: str, kind: type, place: str) -> Any:
    if type(parent.get(key)) is not kind:
        kinds = {str: "a string", int: "a whole number", list: "an array"}
        raise InputError(f"{place} has no {key} that is {kinds[kind]}.")
    return parent[key]
