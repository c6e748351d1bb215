"""What a corpus is made of: an article as its file has it, as it is read, and in pieces."""

from typing import NamedTuple


class Record(NamedTuple):
    """An article as its file has it.

    Attributes:
        id: what the corpus knows it by.
        title: "" where it has none.
        text: with mark-up, if the file has any.
    """

    id: str
    title: str
    text: str


class Article(NamedTuple):
    """An article as it is read.

    Attributes:
        id: what the corpus knows it by.
        title: "" where it has none.
        text: without mark-up.
        sections: where each begins in the text, in characters, and its title; in order, none empty.
    """

    id: str
    title: str
    text: str
    sections: tuple[tuple[int, str], ...] = ()


class Passage(NamedTuple):
    """A text to be found.

    Attributes:
        title: of its article, "" where it has none.
        text: the piece of the article that begins at `start`.
        section: the title of its section, "" where it has none.
        id: its article's id, a colon and `start`, so that it is the same from run to run.
        start: in characters of the article's text.
    """

    title: str
    text: str
    section: str = ""
    id: str = ""
    start: int = 0
