"""A shard of an index: standard files, which NumPy, pyarrow, pandas, polars and DuckDB read as they lie.

    000000.npy          pooled vectors, float32 [passage, dim]
    000000.tokens.npy   if stored, the last layer's token vectors: of each, "vector" int8 [dim] and "scale"
    000000.parquet      a row per passage: id, title, section, start, text; the words that occur in it, by
                        their keys; the rows of its tokens, from token_start to before token_end; and what
                        else the corpus says of its article, a column each

The Parquet file is written last. The metadata of its schema is the record of what the shard holds.
"""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from minqa.corpus.storage import write_file, writing
from minqa.files.checkpoint import first_line
from minqa.files.extras import needed
from minqa.text import InputError, Passage

VERSION = 5
# What a record says, each as JSON under the key "minqa." and its name.
RECORD = {
    "version": int,
    "model": str,  # the encoder's name
    "fingerprint": str,  # of the encoder
    "splitter": str,  # fingerprint of the encoder whose tokens were counted to split articles
    "max_tokens": int,  # the most tokens of a passage
    "articles_per_shard": int,
    "corpus": str,  # its name
    "number": int,  # of the shard, as in the names of its files
    "first": int,  # the number of its first article in the corpus
    "stop": int,  # the number of the article after its last
    "source": str,  # a hash of its articles
    "last": bool,  # whether the corpus ends here
    "layer": int,  # whose token vectors are stored
    "files": dict,  # size in bytes and SHA-256 of the other files, by what follows the number in their names
    "sha256": str,  # of this file, with zeros in place of this hash
}
# All shards of an index have these in common.
MADE_WITH = ("fingerprint", "splitter", "max_tokens", "articles_per_shard")
# Passages of a Parquet file that are read at once, and how many such groups are kept.
PASSAGES_PER_GROUP = 256
GROUPS_KEPT = 128
# NumPy's header of an array is shorter.
MAX_HEADER_BYTES = 4096
PASSAGE_COLUMNS = ("id", "title", "section", "start", "text")
OWN_COLUMNS = (*PASSAGE_COLUMNS, "token_start", "token_end", "words")
_ZEROS = "0" * 64
_AGAIN = "the same `minqa index` makes it again"


@dataclass(frozen=True, eq=False)
class Shard:
    """A shard on disk, as its record describes it."""

    path: Path  # of the Parquet file
    passages: int  # how many
    record: Mapping[str, Any]

    @property
    def articles(self) -> int:
        """How many."""
        return self.record["stop"] - self.record["first"]

    @property
    def has_tokens(self) -> bool:
        return ".tokens.npy" in self.record["files"]

    @property
    def bytes(self) -> int:
        """The size of all its files."""
        return self.path.stat().st_size + sum(file["bytes"] for file in self.record["files"].values())

    @cached_property
    def vectors(self) -> Float[np.ndarray, "passage dim"]:
        """The pooled vectors, memory-mapped."""
        return self._map(".npy")

    @cached_property
    def tokens(self) -> np.ndarray:
        """The token vectors of all passages, memory-mapped: of each token "vector" and "scale"."""
        return self._map(".tokens.npy")

    def _map(self, suffix: str) -> np.ndarray:
        pyarrow, path = needed("pyarrow", "Reading an index", "corpus"), self.path.with_suffix(suffix)
        try:
            with pyarrow.memory_map(str(path)) as file:
                content = file.read_buffer()  # unlike NumPy's, this map keeps no file open
            header = io.BytesIO(memoryview(content)[:MAX_HEADER_BYTES])
            np.lib.format.read_magic(header)
            shape, _, dtype = np.lib.format.read_array_header_1_0(header)
            array = np.frombuffer(content, dtype, offset=header.tell()).reshape(shape)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read: {first_line(error)}.") from None
        if len(content) != self.record["files"][suffix]["bytes"]:
            raise InputError(f"{path} was written again since it was opened: open the index again.")
        return array

    @cached_property
    def columns(self) -> list[str]:
        """The names of what the corpus says of its articles, besides id, title and text."""
        return [name for name in self.read(lambda file: file.schema_arrow.names) if name not in OWN_COLUMNS]

    def row(self, number: int) -> dict[str, Any]:
        """What a row of the Parquet file holds, but for its words. Raises InputError as `read` does."""
        group, place = divmod(number, PASSAGES_PER_GROUP)
        return _read_group(self, group).slice(place, 1).to_pylist()[0]

    def passage(self, number: int) -> Passage:
        """The passage of a row. Raises InputError as `read` does."""
        row = self.row(number)
        extra = tuple((name, row[name]) for name in self.columns if row[name] is not None)
        return Passage(**{name: row[name] for name in PASSAGE_COLUMNS}, extra=extra)

    def token_vectors(self, number: int) -> Float[np.ndarray, "token dim"]:
        """The vectors of all tokens of a row, special tokens included, as 8 bits have kept them."""
        row = self.row(number)
        tokens = self.tokens[row["token_start"] : row["token_end"]]
        return tokens["vector"] * tokens["scale"][:, None]

    def column(self, name: str) -> Any:
        """A column, as a pyarrow array."""
        return self.read(lambda file: file.read(columns=[name]))[name].combine_chunks()

    def read(self, read: Callable[[Any], Any]) -> Any:
        """What a function reads from the Parquet file; raises InputError if that has changed or is broken."""
        parquet = needed("pyarrow.parquet", "Reading an index", "corpus")
        from pyarrow import ArrowException

        try:
            with parquet.ParquetFile(self.path, memory_map=True, page_checksum_verification=True) as file:
                seal, table = file.metadata.metadata[b"minqa.sha256"], read(file)
        except (ArrowException, OSError, TypeError, KeyError) as error:
            raise InputError(f"{self.path} cannot be read: {first_line(error)}.") from None
        if seal.decode() != json.dumps(self.record["sha256"]):
            raise InputError(f"{self.path} was written again since it was opened: open the index again.")
        return table

    def check(self) -> None:
        """Read every byte; raises InputError, which names the file, where one is not what was written."""
        _check(self.path, _seal(self.path.read_bytes())[1] == self.record["sha256"])
        for suffix, known in self.record["files"].items():
            path = self.path.with_suffix(suffix)
            _check(path, path.is_file() and _describe(path) == known)


def read_shard(path: Path) -> Shard:
    """A shard, by its record and the sizes of its files alone. Raises InputError where these do not fit."""
    parquet = needed("pyarrow.parquet", "Reading an index", "corpus")
    from pyarrow import ArrowException

    try:
        metadata = parquet.read_metadata(path)
        stored = {key.decode("utf-8"): value for key, value in (metadata.metadata or {}).items()}
        record = {name: json.loads(stored[f"minqa.{name}"]) for name in RECORD}
        if any(type(record[name]) is not kind for name, kind in RECORD.items()):
            raise TypeError("something in its record is of another type")
        sizes = {suffix: int(file["bytes"]) for suffix, file in record["files"].items()}
        if not {".npy"} <= sizes.keys() <= {".npy", ".tokens.npy"}:
            raise ValueError(f"its files are {', '.join(sizes)}")
    except (ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else first_line(error)
        raise InputError(f"{path} is no shard of an index, or is broken ({reason}); {_AGAIN}.") from None
    if record["version"] != VERSION:
        made = f"{path} is of version {record['version']}, and this minqa reads version {VERSION}"
        raise InputError(f"{made}: make the index again, in another folder.")
    if (name := f"{record['number']:06d}") != path.stem:
        raise InputError(f"{path} is a copy of shard {name}: remove it, with the .npy files of that name.")
    for suffix, size in sizes.items():
        file = path.with_suffix(suffix)
        _check(file, file.is_file() and file.stat().st_size == size)
    return Shard(path, metadata.num_rows, record)


def write_shard_files(
    path: Path, record: dict[str, Any], columns: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Write a shard, the Parquet file last: it is whole or absent, whenever the process is stopped.

    Args:
        path: of the Parquet file. What killed processes left of it is removed.
        record: see `RECORD`; "files" and "sha256" are added.
        columns: of the Parquet file, by name; each is a list or an array.
        arrays: by what follows the number in the names of their files.

    Raises:
        InputError: the folder cannot be written.
    """
    parquet = needed("pyarrow.parquet", "Writing an index", "corpus")
    import pyarrow

    kinds = {int: pyarrow.int64(), str: pyarrow.string()}
    fields = [(name, kinds[Passage.__annotations__.get(name, int)]) for name in OWN_COLUMNS[:-1]]
    fields.append(("words", pyarrow.list_(pyarrow.string())))
    table = pyarrow.table({name: columns[name] for name in OWN_COLUMNS}, pyarrow.schema(fields))
    for name in [name for name in columns if name not in OWN_COLUMNS]:
        table = table.append_column(name, _one_type(columns[name]))
    with writing(path.parent):
        for left in path.parent.glob(f".{path.stem}.*.tmp"):
            left.unlink()
        for suffix in {".npy", ".tokens.npy"} - {*arrays}:
            path.with_suffix(suffix).unlink(missing_ok=True)
        for suffix, array in arrays.items():
            write_file(path.with_suffix(suffix), partial(np.save, arr=array, allow_pickle=False))
        files = {suffix: _describe(path.with_suffix(suffix)) for suffix in arrays}
        record = {**record, "files": files, "sha256": _ZEROS}
        described = {f"minqa.{name}": json.dumps(record[name]) for name in RECORD}
        sink = pyarrow.BufferOutputStream()
        how: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}
        how |= {"write_statistics": False, "store_schema": False}
        with parquet.ParquetWriter(sink, table.schema, **how) as writer:
            writer.write_table(table, PASSAGES_PER_GROUP)
            writer.add_key_value_metadata(described)
        content = sink.getvalue().to_pybytes()
        place, seal = _seal(content)
        write_file(path, content[:place] + seal.encode() + content[place + len(seal) :])


def _seal(content: bytes) -> tuple[int, str]:
    """Where a Parquet file holds its own SHA-256, and what that is, with zeros in its place."""
    place = content.index(b'"', content.rindex(b"minqa.sha256")) + 1
    unsealed = content[:place] + _ZEROS.encode() + content[place + len(_ZEROS) :]
    return place, hashlib.sha256(unsealed).hexdigest()


def _describe(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _check(path: Path, same: bool) -> None:
    if not same:
        raise InputError(f"{path} is missing, or is not what was written, by its checksum or size; {_AGAIN}.")


@lru_cache(GROUPS_KEPT)
def _read_group(shard: Shard, group: int) -> Any:
    return shard.read(lambda file: file.read_row_group(group, columns=[*OWN_COLUMNS[:-1], *shard.columns]))


def _one_type(values: Sequence[Any]) -> Any:
    """A column of numbers, of truth values or, if they are of several kinds, of text."""
    pyarrow = needed("pyarrow", "Writing an index", "corpus")
    try:
        return pyarrow.array(values)
    except (pyarrow.ArrowException, OverflowError):
        return pyarrow.array([value if value is None else str(value) for value in values])
