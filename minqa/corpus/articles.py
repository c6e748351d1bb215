"""A corpus: articles, one after the other, however many there are."""

import bz2
import gzip
import lzma
import multiprocessing
import os
import signal
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
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
    """

    id: str
    title: str
    text: str
    sections: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Corpus:
    """Articles that are read from the beginning each time.

    Attributes:
        name: of the file without its folder; an index knows the corpus by it.
        read: yields each article as the file has it, and how much of the file has been read, 0 to 1.
        clean: removes the mark-up of an article; None where there is none. It can be pickled and depends on
            the article alone, so that several processes can share the work.
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
        articles = (article for article, _ in self.read())
        return map(self.clean, articles) if self.clean else articles


class Row(NamedTuple):
    """What a file says of an article: its fields by name, or a clause that says what is wrong with it."""

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


@contextmanager
def cleaned(corpus: Corpus, workers: int) -> Iterator[Callable[[Sequence[Article]], Iterable[Article]]]:
    """A function that removes the mark-up of articles, which `workers` start on when it is called."""
    clean = corpus.clean
    if clean is None or not workers:
        yield partial(map, clean) if clean else lambda articles: articles
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_obey_parent)
    try:
        yield lambda articles: pool.map(clean, articles, chunksize=8)
    except BrokenProcessPool:
        raise InputError("A worker was ended, as where memory is short: run the same again.") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _obey_parent() -> None:
    """Leave Ctrl-C to the parent process, and end when that ends, even by force."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
