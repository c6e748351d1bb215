"""An index on disk → passages, vectors and statistics, read where they lie.

    DIR/manifest.json                       the model, and how articles were split
    DIR/statistics.safetensors              what is usual in the corpus
    DIR/0000-0000000000/shard.json          which articles, how many passages, checksums
                        passages.parquet    their texts
                        vectors.safetensors pooled vectors
                        words.safetensors   in how many passages each word occurs
                        tokens.safetensors  token vectors in 8 bits, if they are stored
    DIR/0000-0000001024/...

A shard holds the passages of consecutive articles. Its name gives the number of the corpus, in the order in
which corpora were added, and the number of its first article; this is also the order of the passages.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from minqa.ask import Index
from minqa.corpus.calibration import calibrate
from minqa.corpus.extra import needed
from minqa.corpus.statistics import PASSAGES_SAMPLED, demo_statistics, read_statistics, words_of_arrays
from minqa.corpus.storage import RECORD, check_files, map_arrays, read_json
from minqa.encoder import Encoder, Statistics
from minqa.files.checkpoint import first_line
from minqa.text import InputError, Passage

FORMAT = "minqa index"
VERSION = 4
# The keys of a shard's record: those that it shares with the manifest, and all.
MADE_WITH = ("fingerprint", "splitter", "max_tokens")
RECORD_KEYS = frozenset([*MADE_WITH, "corpus", "articles", "source", "last", "passages", "files"])
# Passages of a Parquet file that are read at once, and how many such groups are kept.
PASSAGES_PER_GROUP = 64
GROUPS_KEPT = 128
# A smaller corpus does not tell what is usual, so the demo's statistics serve in its place.
MIN_PASSAGES_FOR_STATISTICS = 128
# The words of the most passages, over all shards; an uncounted word is as rare as can be.
MAX_WORDS_COUNTED = 2**20
# A larger index is checked byte by byte only when that is asked for.
MAX_BYTES_CHECKED_ON_OPENING = 2**30


@dataclass(frozen=True)
class Manifest:
    """What all shards of an index have in common."""

    model: str  # the name of its encoder
    fingerprint: str  # of that encoder
    splitter: str  # fingerprint of the encoder whose tokens were counted to split articles
    max_tokens: int  # the most tokens of a passage
    articles: int  # how many articles' passages a shard holds


@dataclass(frozen=True, eq=False)
class Shard:
    """A shard and its record.

    In this "corpus" is the name of one; "articles" are the numbers of the first and of the one after the
    last; "source" is a hash of them; "last" is whether the corpus ended there; "passages" is how many.
    """

    folder: Path
    record: dict[str, Any]

    @property
    def start(self) -> int:
        """The number of its first article."""
        return self.record["articles"][0]

    @property
    def stop(self) -> int:
        """The number of the article after its last."""
        return self.record["articles"][1]

    @property
    def passages(self) -> int:
        return self.record["passages"]

    @property
    def has_tokens(self) -> bool:
        return "tokens.safetensors" in self.record["files"]

    @property
    def bytes(self) -> int:
        return sum(file["bytes"] for file in self.record["files"].values())

    @property
    def vectors(self) -> Float[np.ndarray, "passage dim"]:
        """The pooled vectors, memory-mapped."""
        return map_arrays(self.folder / "vectors.safetensors")["vectors"]


class _Rows:
    """Where each passage lies: row by row, shard after shard."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = shards
        self.ends = np.cumsum([shard.passages for shard in shards])

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def place(self, row: int) -> tuple[Shard, int]:
        """The shard, and the row in it."""
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        row %= len(self)
        number = int(np.searchsorted(self.ends, row, side="right"))
        shard = self.shards[number]
        return shard, row - int(self.ends[number]) + shard.passages


class PassageStore(_Rows, Sequence[Passage]):
    """The passages of an index, read when they are asked for."""

    def __getitem__(self, row):
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        shard, row = self.place(int(row))
        return _read_group(shard, row // PASSAGES_PER_GROUP)[row % PASSAGES_PER_GROUP]


class TokenStore(_Rows):
    """The token vectors of the last layer, on disk in 8 bits with a scale each."""

    def __getitem__(self, row: int) -> Float[np.ndarray, "token dim"]:
        """The vectors of all tokens of a passage, special tokens included."""
        shard, row = self.place(int(row))
        arrays = _map_tokens(shard)
        start, end = arrays["ends"][row - 1] if row else 0, arrays["ends"][row]
        return arrays["vectors"][start:end] * arrays["scales"][start:end, None]


@lru_cache(GROUPS_KEPT)
def _read_group(shard: Shard, group: int) -> list[Passage]:
    parquet = needed("pyarrow.parquet", "Reading an index")
    from pyarrow import ArrowException

    path = shard.folder / "passages.parquet"
    try:
        with parquet.ParquetFile(path, memory_map=True, page_checksum_verification=True) as file:
            rows = file.read_row_group(group, columns=list(Passage._fields)).to_pylist()
    except (ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read: {first_line(error)}.") from None
    return [Passage(**row) for row in rows]


@lru_cache(GROUPS_KEPT)
def _map_tokens(shard: Shard) -> dict[str, np.ndarray]:
    return map_arrays(shard.folder / "tokens.safetensors")


class VectorStore(Sequence[np.ndarray]):
    """The pooled vectors of each shard, memory-mapped when it is their turn."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = shards

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, shard):
        return self.shards[shard].vectors


class DiskIndex:
    """An index as it lies on disk, of whatever model. Raises InputError where it is none, or is broken."""

    def __init__(self, path: str | Path) -> None:
        self.path = path = Path(path)
        self.manifest = read_manifest(path)
        self.shards = read_shards(path, self.manifest)
        self.passages = PassageStore(self.shards)
        self.statistics_path = path / "statistics.safetensors"

    @property
    def filled(self) -> list[Shard]:
        """The shards that hold a passage: articles may have no text."""
        return [shard for shard in self.shards if shard.passages]

    @property
    def summary(self) -> str:
        """A hash of what the shards hold."""
        digest = hashlib.sha256(self.manifest.fingerprint.encode())
        for shard in self.shards:
            digest.update(repr((shard.folder.name, shard.record["files"])).encode())
        return digest.hexdigest()

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)

    @property
    def corpora(self) -> list[str]:
        """The corpora's names, in order."""
        return list(dict.fromkeys(shard.record["corpus"] for shard in self.shards))

    def of(self, corpus: str) -> list[Shard]:
        """The shards of one corpus."""
        return [shard for shard in self.shards if shard.record["corpus"] == corpus]

    def has_all(self, corpus: str) -> bool:
        """Whether all articles of a corpus are in the index."""
        shards = self.of(corpus)
        joined = all(shard.stop == following.start for shard, following in pairwise(shards))
        return joined and shards[0].start == 0 and shards[-1].record["last"]

    @property
    def complete(self) -> bool:
        """Whether all articles of all its corpora are in the index."""
        return bool(self.shards) and all(map(self.has_all, self.corpora))

    def check(self, *, every_byte: bool, progress: Callable[[int], None] = lambda done: None) -> None:
        """Check all files, see `check_files`; `progress` is called with the number of bytes just checked."""
        for shard in self.shards:
            check_files(shard.folder, shard.record, every_byte=every_byte)
            progress(shard.bytes)

    def check_model(self, encoder: Encoder) -> None:
        """Raise InputError where the index is of another encoder."""
        if self.manifest.fingerprint != encoder.fingerprint:
            raise InputError(
                f"{self.path} was made with another model than {encoder.name}: name it with --model; it was "
                f"called {self.manifest.model} then."
            )

    def statistics(self, encoder: Encoder, cache: Path | None = None) -> Statistics:
        """What is usual in the passages: words are counted in all of them, the rest comes from the first."""
        documents = len(self.passages)
        if documents < MIN_PASSAGES_FOR_STATISTICS:
            try:
                return demo_statistics(encoder, cache)
            except InputError:  # without the demo a small corpus has to do
                pass
        frequency: Counter[str] = Counter()
        for shard in self.shards:
            frequency.update(words_of_arrays(map_arrays(shard.folder / "words.safetensors")))
            if len(frequency) > 2 * MAX_WORDS_COUNTED:
                frequency = Counter(dict(frequency.most_common(MAX_WORDS_COUNTED)))
        most = sorted(frequency.items(), key=lambda item: (-item[1], item[0]))[:MAX_WORDS_COUNTED]
        texts = [passage.text for passage in self.passages[:PASSAGES_SAMPLED]]
        statistics = calibrate(encoder, texts).statistics
        assert statistics is not None
        return replace(statistics, documents=documents, frequency=dict(most))


def read_manifest(folder: Path) -> Manifest:
    """What an index was made with. Raises InputError where there is no index, or its manifest is broken."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise InputError(f"{folder} is no index: it holds no manifest.json; `minqa index --out` makes one.")
    content = read_json(path, version=VERSION)
    if content.pop("format", None) != FORMAT or content.pop("version") != VERSION:
        raise InputError(
            f"{path} is not that of an index of version {VERSION}: make it again with `minqa index`."
        )
    try:
        return Manifest(**content)
    except TypeError:
        raise InputError(
            f"{path} does not say what an index needs: make it again with `minqa index`."
        ) from None


def read_shards(folder: Path, manifest: Manifest) -> list[Shard]:
    """The shards in order. Raises InputError where a record is broken, or of another model."""
    shards = []
    for path in sorted(path for path in folder.iterdir() if re.fullmatch(r"\d{4}-\d{10}", path.name)):
        try:
            record = read_json(path / RECORD, version=VERSION)
        except InputError as error:
            raise InputError(
                f"{error} Without the folder {path} the same `minqa index` makes it again."
            ) from None
        if not record.keys() >= RECORD_KEYS:
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
        cache: keeps the demo's statistics, which serve a small corpus.

    Raises:
        InputError: there is no index, or it is of another encoder, or something in it is broken. Up to 1 GiB
            every byte is checked, beyond that the sizes of the files.
    """
    disk = DiskIndex(Path(path))
    disk.check_model(encoder)
    if not disk.filled:
        raise InputError(f"{path} holds no passage yet: run the same `minqa index` again.")
    disk.check(every_byte=disk.bytes <= MAX_BYTES_CHECKED_ON_OPENING)
    statistics = read_statistics(disk.statistics_path, disk.summary)
    return Index(
        passages=disk.passages,
        vectors=VectorStore(disk.filled),
        statistics=statistics or disk.statistics(encoder, cache),
        token_vectors=TokenStore(disk.shards) if all(shard.has_tokens for shard in disk.shards) else None,
        complete=disk.complete,
    )
