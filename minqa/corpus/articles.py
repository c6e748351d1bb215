"""A corpus: articles, one after the other, however many there are."""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from minqa.text import InputError

COMPRESSIONS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
# A longer text would take minutes and gigabytes.
MAX_CHARACTERS = 2**20


class Article(NamedTuple):
    """An article, with its mark-up as it is read from a file, or without.

    Attributes:
        id: its name in the corpus.
        title: may be "".
        text: may be "".
        sections: start of each section, in characters of `text`, and its title; in order, none empty.
        extra: what else the corpus says of it, a number or a text by name, such as a year or an address.
    """

    id: str
    title: str
    text: str
    sections: tuple[tuple[int, str], ...] = ()
    extra: tuple[tuple[str, str | int | float], ...] = ()


@dataclass(frozen=True)
class Corpus:
    """Articles that are read from the beginning each time.

    Attributes:
        name: of the file without its folder; an index knows the corpus by it.
        read: yields each article as the file has it, and how much of the file has been read, 0 to 1.
        clean: removes the mark-up of an article; None where there is none.
        files: the files that are read.
    """

    name: str
    read: Callable[[], Iterator[tuple[Article, float]]]
    clean: Callable[[Article], Article] | None = None
    files: Sequence[Path] = ()

    @property
    def state(self) -> str:
        """Which files these are, how large, and when they were last changed; contents are not compared."""
        stats = [(path.resolve(), path.stat()) for path in self.files]
        return repr([self.name, *((str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats)])

    def articles(self) -> Iterator[Article]:
        """Every article without mark-up. Raises InputError where one cannot be read."""
        return self.cleaned(article for article, _ in self.read())

    def cleaned(self, articles: Iterable[Article]) -> Iterator[Article]:
        """Articles as `read` yields them, without their mark-up."""
        return map(self.clean or (lambda article: article), articles)


class Row(NamedTuple):
    """What a file says of an article: its fields by name, or a ValueError that says what is wrong with it."""

    fields: Any
    place: str  # in the file, as "line 3"
    read: float  # how much of the file has been read, 0 to 1


@contextmanager
def opened(path: Path) -> Iterator[tuple[IO[bytes], Callable[[], float]]]:
    """The content of a file, unpacked, and a function that says how much of the file has been read.

    Raises:
        InputError: it cannot be read.
    """
    try:
        size = max(path.stat().st_size, 1)
        with open(path, "rb") as file:
            unpack = COMPRESSIONS.get(path.suffix.lower())
            yield unpack(file) if unpack else file, lambda: min(file.tell() / size, 1.0)
    except EOFError:
        raise InputError(f"{path} is cut short: fetch it again; what came before is whole.") from None
    except (OSError, lzma.LZMAError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or f"it is no {path.suffix} file, or is broken"
        raise InputError(f"{path} cannot be read: {reason}.") from None
