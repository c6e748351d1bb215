"""Files → articles, one after the other, however many there are."""

import codecs
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from minqa import demo
from minqa.errors import InputError, first_line
from minqa.records import Article, Passage, Record
from minqa.text import well_formed

COLUMNS = ("id", "title", "text")
# Rows of Parquet that are held at once.
ROWS = 256


@dataclass(frozen=True)
class Corpus:
    """Articles to be read, from the beginning each time.

    Attributes:
        name: what an index knows it by: the file's name without its folder.
        read: yields each article as the file has it, and how much of the file is read by then, 0 to 1.
        article: what the mark-up of the file is taken off by. A function of its argument alone that can be
            pickled, so that several processes can share the work.
        marked_up: whether that is work worth sharing.
        files: that it is read from.
    """

    name: str
    read: Callable[[], Iterator[tuple[Record, float]]]
    article: Callable[[Record], Article]
    marked_up: bool = False
    files: Sequence[Path] = ()

    @property
    def state(self) -> str:
        """Which files these are, and when they were last changed."""
        stats = [(path.resolve(), path.stat()) for path in self.files]
        return repr([self.name, *((str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats)])

    def articles(self) -> Iterator[Article]:
        """Raises InputError when what cannot be read is reached."""
        return (self.article(record) for record, _ in self.read())


def open_corpus(source: str | Path | None = None) -> Corpus:
    """The articles of a corpus; none of them is read yet.

    Args:
        source: one of
            a MediaWiki dump, `.xml` or `.xml.bz2`;
            Parquet with the columns id, title and text, a file or a folder of them;
            JSON Lines, `.jsonl`, objects with text and, where there are, title and id;
            any other file as UTF-8 text: an article is a paragraph between blank lines or, in a file without
            any, a line;
            the name of a data set of the Hugging Face hub with such columns, as `wikimedia/wikipedia`, with a
            configuration as `wikimedia/wikipedia:20231101.en`, where the package datasets is installed;
            None for the 10,033 Wikipedia leads of the demo group.

    Raises:
        InputError: there is no such thing. What cannot be read is told when it is reached.
    """
    if source is None:
        return Corpus("Wikipedia leads", _read_leads, as_it_is, files=[demo.passages_file()])
    path = Path(source).expanduser()
    try:
        exists = path.exists()
    except OSError:  # a name too long
        exists = False
    if not exists:
        return _hub_corpus(str(source))
    if path.is_dir():
        files = sorted(path.rglob("*.parquet"))
        if not files:
            raise InputError(f"{path} is a folder without a Parquet file: name a file.")
        return Corpus(well_formed(path.resolve().name), partial(_read_parquet, *files), as_it_is, files=files)
    read: Callable[..., Iterator[tuple[Record, float]]]
    article: Callable[[Record], Article]
    article, marked_up = as_it_is, False
    match path.suffix:
        case ".xml" | ".bz2":
            from minqa.wikipedia import file_namespaces, plain, read_dump

            read, article, marked_up = read_dump, partial(plain, files=file_namespaces(path)), True
        case ".parquet":
            read = _read_parquet
        case ".jsonl":
            read = _read_json_lines
        case ".gz" | ".zip" | ".7z" | ".zst" | ".xz":
            raise InputError(
                f"{path} is compressed in a way that is not read: unpack it, or name a .bz2 dump."
            )
        case _:
            read = _read_text
    return Corpus(well_formed(path.name), partial(read, path), article, marked_up, [path])


def as_it_is(record: Record) -> Article:
    """The article of a file without mark-up."""
    return Article(*record)


@contextmanager
def cleaned(corpus: Corpus, workers: int) -> Iterator[Callable[[Sequence[Record]], Iterable[Article]]]:
    """A function from records to articles, which workers begin with when it is called."""
    if not workers or not corpus.marked_up:
        yield lambda records: map(corpus.article, records)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_obey_parent)
    try:
        yield lambda records: pool.map(corpus.article, records, chunksize=8)
    except BrokenProcessPool:
        raise InputError("A worker was ended, as where memory is short: run the same again.") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _obey_parent() -> None:
    """A worker leaves Ctrl-C to its parent, and ends when that does, even by force."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def demo_passages() -> list[Passage]:
    """The 10,033 Wikipedia leads of the demo group, uncut, the 1,000 most vital articles first.

    Raises:
        InputError: they are not installed.
    """
    return [Passage(record.title, record.text) for record, _ in _read_leads()]


def _read_leads() -> Iterator[tuple[Record, float]]:
    # The file keeps the most vital at its end, under no topic, where the others are sorted into topics. A
    # search that has embedded only the beginning should know Albert Einstein before Arachnida.
    leads = json.loads(demo.passages_file().read_text("utf-8")).values()
    ordered = sorted(leads, key=lambda lead: lead["topic"] != "Uncategorized")
    for number, lead in enumerate(ordered, 1):
        yield Record(str(number), lead["title"], lead["extract"]), number / len(ordered)


def _read_text(path: Path) -> Iterator[tuple[Record, float]]:
    paragraphs = _has_paragraphs(path)
    lines: list[str] = []
    number, read = 0, 0.0
    for line, _, read in _lines(path):
        if line.strip():
            lines.append(line.rstrip())
        if lines and not (paragraphs and line.strip()):
            number += 1
            yield Record(str(number), "", "\n".join(lines).strip()), read
            lines = []
    if lines:
        yield Record(str(number + 1), "", "\n".join(lines).strip()), read


def _has_paragraphs(path: Path) -> bool:
    """Whether there is a blank line between others."""
    text = blank = False
    for line, _, _ in _lines(path):
        if line.strip() and blank:
            return True
        text = text or bool(line.strip())
        blank = text and not line.strip()
    return False


def _read_json_lines(path: Path) -> Iterator[tuple[Record, float]]:
    for line, number, read in _lines(path):
        if line.strip():
            yield _parse(line, number, f"{path}, line {number}"), read


def _parse(line: str, number: int, place: str) -> Record:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: this is no JSON ({error}).") from None
    if not isinstance(record, dict):
        raise InputError(f'{place}: an object with a "text" is needed.')
    text, title, name = record.get("text"), record.get("title") or "", record.get("id", number)
    if not isinstance(text, str) or not text.strip():
        raise InputError(f'{place}: "text" is missing, empty or no string.')
    if not isinstance(title, str):
        raise InputError(f'{place}: "title" is no string.')
    if type(name) not in (str, int):
        raise InputError(f'{place}: "id" is no string and no whole number.')
    return Record(well_formed(str(name)), well_formed(title), well_formed(text))


def _lines(path: Path) -> Iterator[tuple[str, int, float]]:
    """Each line of a UTF-8 file, its number, and how much of the file is read."""
    done = 0
    try:
        size = max(path.stat().st_size, 1)
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                start = len(codecs.BOM_UTF8) if number == 1 and line.startswith(codecs.BOM_UTF8) else 0
                yield line[start:].decode("utf-8"), number, min((done + len(line)) / size, 1)
                done += len(line)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: byte {done + error.start} cannot be read.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None


def _read_parquet(*paths: Path) -> Iterator[tuple[Record, float]]:
    import pyarrow
    import pyarrow.parquet as parquet

    for place, path in enumerate(paths):
        try:
            with parquet.ParquetFile(path) as file:
                missing = [name for name in COLUMNS if name not in file.schema_arrow.names]
                if missing:
                    raise InputError(
                        f"{path} has no column {' and no '.join(missing)}; it has "
                        f"{', '.join(file.schema_arrow.names)}."
                    )
                done, rows = 0, file.metadata.num_rows
                for batch in file.iter_batches(ROWS, columns=list(COLUMNS)):
                    for row in batch.to_pylist():
                        done += 1
                        read = (place + done / rows) / len(paths)
                        yield _record(row, f"{path}, row {done}"), read
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"{path} cannot be read as Parquet: {first_line(error)}.") from None


def _record(row: dict[str, Any], place: str) -> Record:
    title, text = row["title"] or "", row["text"] or ""
    if not isinstance(title, str) or not isinstance(text, str):
        raise InputError(f"{place}: title and text should be strings.")
    return Record(str(row["id"]), well_formed(title), well_formed(text))


def _hub_corpus(source: str) -> Corpus:
    name, _, configuration = source.partition(":")
    if source.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).suffix:
        raise InputError(f"{source} cannot be read: there is no such file.")
    try:
        import datasets
    except ImportError:
        raise InputError(
            f"There is no file {source}; if it is a data set of the Hugging Face hub, install the package "
            "datasets: `uv run --extra hub minqa …`."
        ) from None

    def read() -> Iterator[tuple[Record, float]]:
        try:
            data = datasets.load_dataset(name, configuration or None, split="train", streaming=True)
            for number, row in enumerate(data, 1):
                if missing := [column for column in COLUMNS if column not in row]:
                    raise InputError(f"{source} has no column {' and no '.join(missing)}.")
                yield _record(row, f"{source}, row {number}"), 0.0
        except InputError:
            raise
        except Exception as error:  # the package raises many kinds, with advice of several lines
            raise InputError(
                f"The data set {source} cannot be read from the hub ({first_line(error)})."
            ) from error

    return Corpus(source, read, as_it_is)
