"""An index on disk → passages, vectors and statistics, read where they lie.

    DIR/manifest.json                       the model, and what a passage is
    DIR/statistics.safetensors              what is usual in the corpus
    DIR/0000-0000000000/shard.json          which articles, how many passages, checksums
                        passages.parquet    their texts
                        vectors.safetensors pooled vectors
                        words.safetensors   in how many passages each word occurs
                        tokens.safetensors  token vectors in 8 bits, if they are stored
    DIR/0000-0000001024/...

A shard holds the passages of so many consecutive articles, and its name says of which corpus, in the order in
which they were added, and from which article on; that is also the order of the passages.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np
from jaxtyping import Float

from minqa.encoder import Encoder
from minqa.errors import InputError, first_line
from minqa.records import Passage
from minqa.similarity import Searchable
from minqa.statistics import Statistics
from minqa.storage import RECORD, check_files, map_array, open_arrays, read_json
from minqa.survey import FIRST, demo_statistics, gather, read_statistics, words_of_arrays

FORMAT = "minqa index"
VERSION = 3
# What a shard records: what it shares with the manifest, and what is its own.
MADE_WITH = ("fingerprint", "splitter", "max_tokens")
RECORDED = (*MADE_WITH, "corpus", "articles", "source", "last", "passages", "files")
# Passages of a Parquet file that are read at once, and how many such groups are kept.
GROUP = 64
GROUPS_KEPT = 128
# A corpus of fewer passages does not tell what is usual, so the demo's statistics serve in its place.
FEW = 128
# So many words are counted over all shards, those of the most passages; an unknown word is as rare as can be.
WORDS = 2**20
# An index of so many bytes is checked whenever it is opened; a larger one by `check` alone.
CHECKED = 2**30


@dataclass(frozen=True)
class Manifest:
    """What all shards of an index have in common.

    Attributes:
        model: what its encoder was called.
        fingerprint: of that encoder.
        splitter: fingerprint of the encoder whose tokens were counted to split articles.
        max_tokens: the most tokens of a passage.
        articles: how many articles' passages a shard holds.
    """

    model: str
    fingerprint: str
    splitter: str
    max_tokens: int
    articles: int


@dataclass(frozen=True)
class Shard:
    """A shard, as its record describes it.

    Attributes:
        folder: where it lies.
        record: what `storage.publish` recorded: "corpus", the name of one; "articles", the first and the one
            behind the last; "source", a hash of them; "last", whether the corpus ended there; "passages", how
            many; "files".
    """

    folder: Path
    record: dict[str, Any]

    @property
    def start(self) -> int:
        """The number of its first article in the corpus."""
        return self.record["articles"][0]

    @property
    def stop(self) -> int:
        """The number of the article behind its last."""
        return self.record["articles"][1]

    @property
    def passages(self) -> int:
        return self.record["passages"]

    @property
    def has_tokens(self) -> bool:
        return "tokens.safetensors" in self.record["files"]

    @property
    def vectors(self) -> Float[np.ndarray, "passage dim"]:
        """The pooled vectors, memory-mapped."""
        return map_array(self.folder / "vectors.safetensors", "vectors")


@dataclass(frozen=True)
class Index:
    """What is searched.

    Attributes:
        passages: the texts; read from disk where they are asked for.
        vectors: float32 [passage, dim], pooled, as `match` takes them: an array, memory-mapped shards, or
            spread over devices by `shard`.
        statistics: what is usual in the corpus.
        tokens: the token vectors of each passage, special tokens included, where they are stored.
        complete: whether that is all of the corpus.
    """

    passages: Sequence[Passage]
    vectors: Searchable
    statistics: Statistics
    tokens: "TokenStore | None" = None
    complete: bool = True


class _Rows:
    """Where each passage lies: row by row, shard after shard."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = shards
        self.ends = np.cumsum([shard.passages for shard in shards])

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def place(self, row: int) -> tuple[int, int]:
        """The number of the shard, and the row there."""
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        row %= len(self)
        shard = int(np.searchsorted(self.ends, row, side="right"))
        return shard, row - int(self.ends[shard]) + self.shards[shard].passages


class PassageStore(_Rows, Sequence[Passage]):
    """The passages of an index, a sequence."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        super().__init__(shards)
        self._group = lru_cache(GROUPS_KEPT)(self._read)

    @overload
    def __getitem__(self, row: int) -> Passage: ...
    @overload
    def __getitem__(self, row: slice) -> list[Passage]: ...
    def __getitem__(self, row):
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        shard, row = self.place(int(row))
        return self._group(shard, row // GROUP)[row % GROUP]

    def _read(self, shard: int, group: int) -> list[Passage]:
        import pyarrow
        import pyarrow.parquet as parquet

        path = self.shards[shard].folder / "passages.parquet"
        try:
            with parquet.ParquetFile(path, memory_map=True, page_checksum_verification=True) as file:
                columns = file.read_row_group(group, columns=list(Passage._fields)).to_pydict()
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"{path} cannot be read: {first_line(error)}.") from None
        return [Passage(*row) for row in zip(*(columns[name] for name in Passage._fields), strict=True)]


class TokenStore(_Rows):
    """The token vectors of the last layer, of each passage, on disk in 8 bits with a scale for each."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        super().__init__(shards)
        self._file = lru_cache(GROUPS_KEPT)(lambda i: open_arrays(shards[i].folder / "tokens.safetensors"))

    def __getitem__(self, row: int) -> Float[np.ndarray, "token dim"]:
        """The vectors of all tokens of a passage, special tokens included."""
        shard, row = self.place(int(row))
        vectors, scales, ends = map(self._file(shard).get_slice, ("vectors", "scales", "ends"))
        start, end = (int(ends[i]) if i >= 0 else 0 for i in (row - 1, row))
        return vectors[start:end] * scales[start:end][:, None]


class VectorStore(Sequence[np.ndarray]):
    """The pooled vectors of each shard, memory-mapped when it is their turn."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = shards

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, shard):
        return self.shards[shard].vectors


class Folder:
    """An index as it lies on disk, of whatever model.

    Raises InputError where the folder is no index, its manifest or a shard's record is broken or of a later
    version, or a shard is of another model.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = read_manifest(path)
        self.shards = read_shards(path, self.manifest)

    @property
    def filled(self) -> list[Shard]:
        """The shards that hold a passage: articles may have no text."""
        return [shard for shard in self.shards if shard.passages]

    @cached_property
    def passages(self) -> PassageStore:
        return PassageStore(self.shards)

    @property
    def statistics_path(self) -> Path:
        return self.path / "statistics.safetensors"

    @property
    def summary(self) -> str:
        """A hash of what the shards hold."""
        digest = hashlib.sha256(self.manifest.fingerprint.encode())
        for shard in self.shards:
            digest.update(repr((shard.folder.name, shard.record["files"])).encode())
        return digest.hexdigest()

    @property
    def bytes(self) -> int:
        return sum(file["bytes"] for shard in self.shards for file in shard.record["files"].values())

    def of(self, corpus: str) -> list[Shard]:
        """The shards of one corpus."""
        return [shard for shard in self.shards if shard.record["corpus"] == corpus]

    @property
    def corpora(self) -> list[str]:
        """The corpora's names, in order."""
        return list(dict.fromkeys(shard.record["corpus"] for shard in self.shards))

    def has_all(self, corpus: str) -> bool:
        """Whether all articles of a corpus are there."""
        shards = self.of(corpus)
        joined = all(one.stop == behind.start for one, behind in pairwise(shards))
        return joined and shards[0].start == 0 and shards[-1].record["last"]

    @property
    def complete(self) -> bool:
        """Whether all articles of all its corpora are there."""
        return bool(self.shards) and all(map(self.has_all, self.corpora))

    def check(self, *, every_byte: bool, progress: Callable[[int], None] = lambda done: None) -> None:
        """Raise InputError, which names the file, where a shard is not as it was written.

        Args:
            every_byte: whether to read the files, and not only to look at their sizes.
            progress: called with the number of bytes just checked.
        """
        for shard in self.shards:
            check_files(shard.folder, shard.record, every_byte=every_byte)
            progress(sum(file["bytes"] for file in shard.record["files"].values()))


def read_manifest(folder: Path) -> Manifest:
    """What an index was made with. Raises InputError where there is no index, or its manifest is broken."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise InputError(f"{folder} is no index: it holds no manifest.json; `minqa index --out` makes one.")
    content = read_json(path, version=VERSION)
    if content.pop("format", None) != FORMAT or content.pop("version") != VERSION:
        raise InputError(
            f"{path} is not that of an index of version {VERSION}: make it anew with `minqa index`."
        )
    try:
        return Manifest(**content)
    except TypeError:
        raise InputError(
            f"{path} does not say what an index needs: make it anew with `minqa index`."
        ) from None


def check_model(path: Path, manifest: Manifest, encoder: Encoder) -> None:
    """Raise InputError where an index is of another encoder."""
    if manifest.fingerprint != encoder.fingerprint:
        raise InputError(
            f"{path} was made with another model than {encoder.name}: name it with --model; it was called "
            f"{manifest.model} then."
        )


def read_shards(folder: Path, manifest: Manifest) -> list[Shard]:
    """The shards in order. Raises InputError where a record is broken, or of another model."""
    shards = []
    for path in sorted(path for path in folder.iterdir() if re.fullmatch(r"\d{4}-\d{10}", path.name)):
        try:
            record = read_json(path / RECORD, version=VERSION)
        except InputError as error:
            raise InputError(
                f"{error} Without the folder {path} the same `minqa index` makes it anew."
            ) from None
        if not record.keys() >= set(RECORDED):
            raise InputError(f"{path / RECORD} does not say what a shard needs: take {path} out.")
        if any(record[name] != getattr(manifest, name) for name in MADE_WITH):
            raise InputError(
                f"{path} is a shard of another model, or of other passages, than {folder}: take it out."
            )
        shards.append(Shard(path, record))
    return shards


def open_index(path: str | Path, encoder: Encoder, *, cache: Path | None = None) -> Index:
    """An index on disk, to be searched: memory-mapped, so it may be larger than memory.

    Args:
        path: its folder.
        encoder: that it was made with.
        cache: keeps the demo's statistics, which a small corpus takes.

    Raises:
        InputError: there is no index, or it is of another encoder, or something in it is broken: of one of up
            to 1 GiB every byte is checked, of a larger one the sizes of files.
    """
    folder = Folder(Path(path))
    check_model(folder.path, folder.manifest, encoder)
    if not folder.filled:
        raise InputError(f"{path} holds no passage yet: run the same `minqa index` again.")
    folder.check(every_byte=folder.bytes <= CHECKED)
    statistics = read_statistics(folder.statistics_path, folder.summary)
    return Index(
        passages=folder.passages,
        vectors=VectorStore(folder.filled),
        statistics=statistics or summarize(folder, encoder, cache),
        tokens=TokenStore(folder.shards) if all(shard.has_tokens for shard in folder.shards) else None,
        complete=folder.complete,
    )


def summarize(folder: Folder, encoder: Encoder, cache: Path | None) -> Statistics:
    """What is usual in the passages: words are counted in all of them, the rest is looked at in the first."""
    documents = len(folder.passages)
    if documents < FEW:
        try:
            return demo_statistics(encoder, cache)
        except InputError:  # without the demo a small corpus has to do
            pass
    frequency: Counter[str] = Counter()
    for shard in folder.shards:
        file = open_arrays(shard.folder / "words.safetensors")
        frequency.update(words_of_arrays({name: file.get_tensor(name) for name in ("words", "counts")}))
        if len(frequency) > 2 * WORDS:
            frequency = Counter(dict(frequency.most_common(WORDS)))
    common = dict(sorted(frequency.items(), key=lambda item: (-item[1], item[0]))[:WORDS])
    statistics = gather(encoder, [passage.text for passage in folder.passages[:FIRST]])
    return replace(statistics, documents=documents, frequency=common)
