"""An index, handed over to engines that search millions in a moment: do they find what `match` finds?

    uv run --with faiss-cpu --with lancedb python examples/engines.py DIR "Who developed relativity?"

`match` compares a question with every passage. That is exact, and the time it takes grows with the corpus.
Beyond what you are ready to wait for, hand the vectors to an engine that knows where not to look. Here both
are asked for an exact search, so that the answers can be compared; an index of theirs, IVF or HNSW, is then
one line more. The Parquet file is for everything else: pandas, polars, DuckDB.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import faiss
import lancedb
import numpy as np
import pyarrow
import pyarrow.parquet as parquet

import minqa

K = 10


def tables(index: minqa.DiskIndex) -> Iterator[pyarrow.Table]:
    """The passages of each shard, with their vectors, in the order of `match`."""
    for shard in index.filled:
        numbers = pyarrow.array(np.asarray(shard.vectors).reshape(-1))
        vectors = pyarrow.FixedSizeListArray.from_arrays(numbers, shard.vectors.shape[1])
        yield parquet.read_table(shard.folder / "passages.parquet").append_column("vector", vectors)


def write_parquet(index: minqa.DiskIndex, path: Path) -> None:
    """One file of passages with their vectors."""
    shards = tables(index)
    first = next(shards)
    with parquet.ParquetWriter(path, first.schema, compression="zstd") as writer:
        for table in chain([first], shards):
            writer.write_table(table)


def write_faiss(index: minqa.DiskIndex, path: Path) -> None:
    """Vectors of length 1, so that their inner products are cosines, under the numbers that the index has."""
    flat = faiss.IndexFlatIP(index.filled[0].vectors.shape[1])
    for shard in index.filled:
        lengths = np.linalg.norm(shard.vectors, axis=1, keepdims=True)
        flat.add(np.asarray(shard.vectors / np.maximum(lengths, 1e-19)))
    faiss.write_index(flat, str(path))


def write_lance(index: minqa.DiskIndex, path: Path) -> None:
    """A database with the table "passages"."""
    shards = tables(index)
    table = lancedb.connect(path).create_table("passages", next(shards))
    for more in shards:
        table.add(more)


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare engines on an index.")
    parser.add_argument("index", type=Path, help="a folder that `minqa index --out` made")
    parser.add_argument("question")
    parser.add_argument("--model", help="folder or hub id (default: what the index was made with)")
    parser.add_argument("--out", type=Path, help="a new folder for the three files (default: not kept)")
    options = parser.parse_args()
    disk = minqa.DiskIndex(options.index)
    disk.check(every_byte=True)
    encoder = minqa.load(options.model or disk.manifest.model)
    index = minqa.open_index(options.index, encoder)

    [question] = minqa.embed(encoder, [options.question], role="query")
    cosines, rows = map(np.asarray, minqa.match(question.pooled, index.vectors, k=K))
    for row, cosine in zip(rows, cosines, strict=True):
        print(f"{cosine:.3f}  {index.passages[row].title}: {index.passages[row].text[:60]!r}")
    expected = [index.passages[row].id for row in rows]

    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary) / "engines"
        out.mkdir(parents=True)

        write_faiss(disk, out / "index.faiss")
        _, [nearest] = faiss.read_index(str(out / "index.faiss")).search(question.pooled[None], len(rows))
        same = compare("FAISS", [index.passages[row].id for row in nearest], expected)

        write_lance(disk, out / "index.lance")
        table = lancedb.connect(out / "index.lance").open_table("passages")
        nearest = table.search(question.pooled).distance_type("cosine").limit(len(rows)).to_list()
        same &= compare("LanceDB", [passage["id"] for passage in nearest], expected)

        write_parquet(disk, out / "index.parquet")
        table = parquet.read_table(out / "index.parquet")
        vectors = np.stack(table["vector"].to_numpy())
        nearest = np.asarray(minqa.match(question.pooled, vectors, k=K)[1])
        same &= compare("Parquet", [table["id"][int(row)].as_py() for row in nearest], expected)
    return 0 if same else 1


def compare(engine: str, ids: list[str], expected: list[str]) -> bool:
    same = ids == expected
    print(f"{engine}: {'the same' if same else 'not the same'} {len(expected)} passages, in order")
    return same


if __name__ == "__main__":
    sys.exit(main())
