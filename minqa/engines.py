"""An index → other engines' formats, for those who outgrow a search of everything."""

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from minqa.errors import InputError, first_line
from minqa.index import Folder
from minqa.similarity import inverse_length
from minqa.storage import aside, writing

TABLE = "passages"


def export(
    folder: Folder, to: str, out: Path, *, progress: Callable[[int], None] = lambda done: None
) -> None:
    """Write an index in another format, whole or not at all; the order of the passages is that of `match`.

    Args:
        folder: the index.
        to: "parquet", one file of passages with their vectors; "faiss", an `IndexFlatIP` of vectors of length
            1, so that its inner products are cosines and its ids the rows of the index, all in memory;
            "lance", a LanceDB database with the table "passages".
        out: a file, or for "lance" a folder, that is not there yet.
        progress: called with the number of passages just done.

    Raises:
        InputError: `out` is there already or cannot be written, a package is missing, or the index is not as
            it was written.
    """
    folder.check(every_byte=True)
    if out.exists():
        raise InputError(f"{out} is there already: remove it, or name another with --out.")
    if not folder.filled:
        raise InputError(f"{folder.path} holds no passage.")
    write = {"parquet": _write_parquet, "faiss": _write_faiss, "lance": _write_lance}[to]
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with aside(out) as path:
            write(folder, path, progress)


def _tables(folder: Folder, progress: Callable[[int], None]) -> Iterator[Any]:
    """Passages and vectors of each shard, as a table of Arrow."""
    import pyarrow
    import pyarrow.parquet as parquet

    for shard in folder.filled:
        table = parquet.read_table(shard.folder / "passages.parquet")
        numbers = pyarrow.array(np.asarray(shard.vectors).reshape(-1))
        vectors = pyarrow.FixedSizeListArray.from_arrays(numbers, shard.vectors.shape[1])
        yield table.append_column("vector", vectors)
        progress(shard.passages)


def _write_parquet(folder: Folder, path: Path, progress: Callable[[int], None]) -> None:
    import pyarrow.parquet as parquet

    tables = _tables(folder, progress)
    first = next(tables)
    with parquet.ParquetWriter(path, first.schema, compression="zstd") as writer:
        for table in chain([first], tables):
            writer.write_table(table)


def _write_faiss(folder: Folder, path: Path, progress: Callable[[int], None]) -> None:
    try:
        import faiss
    except ImportError:
        raise InputError("FAISS is not installed: `uv run --extra faiss minqa export …`.") from None
    index = faiss.IndexFlatIP(folder.filled[0].vectors.shape[1])
    for shard in folder.filled:
        index.add(np.asarray(shard.vectors * inverse_length(shard.vectors)[:, None]))
        progress(shard.passages)
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        raise InputError(f"FAISS cannot write {path} ({first_line(error)}).") from None


def _write_lance(folder: Folder, path: Path, progress: Callable[[int], None]) -> None:
    try:
        import lancedb
    except ImportError:
        raise InputError("LanceDB is not installed: `uv run --extra lance minqa export …`.") from None
    tables = _tables(folder, progress)
    first = next(tables)
    table = lancedb.connect(path).create_table(TABLE, first)
    for more in tables:
        table.add(more)
