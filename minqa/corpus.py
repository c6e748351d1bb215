"""Files → passages."""

import json
import re
from pathlib import Path
from typing import NamedTuple

from minqa import demo
from minqa.errors import InputError
from minqa.text import well_formed


class Passage(NamedTuple):
    """A text to be found, and its title, "" where it has none."""

    title: str
    text: str


def demo_passages() -> list[Passage]:
    """The 10,033 Wikipedia leads of the demo group, the 1,000 most vital articles first.

    The file keeps those 1,000 at its end, under no topic, where the others are sorted into topics. A search
    that has embedded only the beginning should know Albert Einstein before Arachnida.

    Raises:
        InputError: they are not installed.
    """
    leads = json.loads(demo.passages_file().read_text("utf-8")).values()
    ordered = sorted(leads, key=lambda lead: lead["topic"] != "Uncategorized")
    return [Passage(lead["title"], lead["extract"]) for lead in ordered]


def read_passages(path: Path) -> list[Passage]:
    """Read the passages of a UTF-8 file.

    A `.jsonl` file holds one JSON object a line, with "text" and, where there is one, "title". Any other
    file is plain text: a passage is a paragraph between blank lines or, in a file without any, a line.

    Raises:
        InputError: the file is missing, unreadable, no UTF-8 or without a passage, or a line is no object
            with a text.
    """
    try:
        content = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: byte {error.start} cannot be read.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    if path.suffix == ".jsonl":
        lines = enumerate(content.split("\n"), 1)
        passages = [_parse(line, f"{path}, line {number}") for number, line in lines if line.strip()]
    else:
        paragraphs = re.split(r"\n\s*\n", content.strip())
        pieces = paragraphs if len(paragraphs) > 1 else content.splitlines()
        passages = [Passage("", piece.strip()) for piece in pieces if piece.strip()]
    if not passages:
        raise InputError(f"{path} holds no passage.")
    return passages


def _parse(line: str, place: str) -> Passage:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: this is no JSON ({error}).") from None
    if not isinstance(record, dict):
        raise InputError(f'{place}: an object with a "text" is needed.')
    text, title = record.get("text"), record.get("title") or ""
    if not isinstance(text, str) or not text.strip():
        raise InputError(f'{place}: "text" is missing, empty or no string.')
    if not isinstance(title, str):
        raise InputError(f'{place}: "title" is no string.')
    return Passage(well_formed(title), well_formed(text))
