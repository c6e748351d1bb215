"""An index on disk → passages, vectors and statistics, read where they lie.

    DIR/000000.npy, 000000.parquet, …   shards, see `minqa.corpus.shards`
    DIR/statistics.safetensors          what is usual in the corpus

A shard holds the passages of consecutive articles. Shards of a second corpus have the numbers after those of
the first. Passages are in the order of the shards' numbers.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np

from minqa.ask import Index
from minqa.corpus.shards import MADE_WITH, Shard, read_shard
from minqa.corpus.statistics import (
    PASSAGES_SAMPLED,
    calibrate,
    demo_statistics,
    read_statistics,
    write_statistics,
)
from minqa.corpus.storage import writing
from minqa.corpus.where import rows_where
from minqa.encoder import Encoder, Statistics
from minqa.files.extras import needed
from minqa.text import InputError

# A smaller corpus does not tell what is usual, so the demo's statistics serve in its place.
MIN_PASSAGES_FOR_STATISTICS = 128
# The words of the most passages, over all shards; an uncounted word is as rare as can be.
MAX_WORDS_COUNTED = 2**20


Item = TypeVar("Item", covariant=True)
Selection: TypeAlias = Sequence[tuple[Shard, Any]]  # the rows of each shard that are searched, as numbers


class Lazy(Sequence[Item]):
    """Items by their numbers, each of which is read when it is asked for."""

    def __init__(self, size: int, read: Callable[[int], Item]) -> None:
        self.size, self.read = size, read

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, number):
        chosen = range(self.size)[number]
        return [*map(self.read, chosen)] if isinstance(number, slice) else self.read(chosen)


def by_row(selected: Selection, read: Callable[[Shard, int], Item]) -> Lazy:
    """What `read` reads of each of some rows of shards."""
    ends = np.cumsum([len(rows) for _, rows in selected])

    def read_row(number: int) -> Item:
        place = int(np.searchsorted(ends, number, side="right"))
        shard, rows = selected[place]
        return read(shard, int(rows[number - int(ends[place])]))  # counted from the end

    return Lazy(int(ends[-1]), read_row)


def by_shard(selected: Selection) -> Lazy:
    """The pooled vectors of some rows of each shard, memory-mapped when it is their turn."""

    @cache
    def read(number: int) -> np.ndarray:
        shard, rows = selected[number]
        return shard.vectors if len(rows) == shard.passages else shard.vectors[rows]

    return Lazy(len(selected), read)


class DiskIndex:
    """An index as it lies on disk, of whatever model. Only records and sizes of files are read at first.

    Attributes:
        path: its folder.
        shards: by their numbers.
        passages: of all shards.
        model, fingerprint: of the encoder that it was made with.
        max_tokens: the most tokens of a passage.
        complete: whether all articles of all its corpora are in it.

    Raises:
        InputError: it is no index, or something in it is broken.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path = Path(path)
        self.shards, broken = read_folder(path)
        for error in broken:
            raise error
        if not self.shards:
            raise InputError(
                f"{path} is no index: it holds no 000000.parquet; `minqa index --out` makes one."
            )
        self.passages = by_row([(shard, range(shard.passages)) for shard in self.shards], Shard.passage)
        record = self.shards[0].record
        self.model, self.fingerprint = record["model"], record["fingerprint"]
        self.max_tokens: int = record["max_tokens"]
        self.complete = all(map(is_whole, self.corpora.values()))

    @property
    def corpora(self) -> dict[str, list[Shard]]:
        """The shards of each corpus, by its name."""
        corpora: dict[str, list[Shard]] = {}
        for shard in self.shards:
            corpora.setdefault(shard.record["corpus"], []).append(shard)
        return corpora

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)

    def check(self, progress: Callable[[int], None] = lambda done: None) -> None:
        """Read every byte; `progress` is called with the number of bytes just read.

        Raises:
            InputError: some byte is not what was written. It names the file.
        """
        for shard in self.shards:
            shard.check()
            progress(shard.bytes)

    def statistics(self, encoder: Encoder, cache: Path | None = None, *, keep: bool = False) -> Statistics:
        """What is usual in the passages, read from the folder or gathered now.

        Args:
            encoder: of the index.
            cache: keeps the demo's statistics, which serve a small corpus.
            keep: whether to write to the folder what is gathered.
        """
        path = self.path / "statistics.safetensors"
        hashes = " ".join(shard.record["sha256"] for shard in self.shards)
        source = hashlib.sha256(hashes.encode()).hexdigest()
        statistics = read_statistics(path, source)
        if statistics is None:
            statistics = self._gather(encoder, cache)
            if keep:
                with writing(self.path):
                    write_statistics(path, statistics, source)
        return statistics

    def _gather(self, encoder: Encoder, cache: Path | None) -> Statistics:
        """Words are counted in all passages; the rest comes from the first."""
        documents = len(self.passages)
        if documents < MIN_PASSAGES_FOR_STATISTICS:
            try:
                return demo_statistics(encoder, cache)
            except InputError:  # without the demo a small corpus has to do
                pass
        compute = needed("pyarrow.compute", "Reading an index", "corpus")
        frequency: Counter[str] = Counter()
        for shard in self.shards:
            counted = compute.value_counts(shard.column("words").flatten())
            words, counts = (counted.field(i).to_pylist() for i in range(2))
            frequency.update(dict(zip(words, counts, strict=True)))
            if len(frequency) > 2 * MAX_WORDS_COUNTED:
                frequency = Counter(dict(frequency.most_common(MAX_WORDS_COUNTED)))
        most = sorted(frequency.items(), key=lambda item: (-item[1], item[0]))[:MAX_WORDS_COUNTED]
        texts = [passage.text for passage in self.passages[:PASSAGES_SAMPLED]]
        statistics = calibrate(encoder, texts).statistics
        assert statistics is not None
        return replace(statistics, documents=documents, frequency=dict(most))


def read_folder(folder: Path) -> tuple[list[Shard], list[InputError]]:
    """The shards of an index by number, and what is wrong with those that are broken.

    Raises:
        InputError: the folder holds something else, or shards that were not made alike.
    """
    if (folder / "manifest.json").exists():
        raise InputError(
            f"{folder} is an index of an earlier version, which is not read: make it again, by `minqa index` "
            "with another folder."
        )
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is no index, but a file: name a folder.")
    paths = [path for path in folder.glob("*.parquet") if re.fullmatch(r"\d{6,}", path.stem)]

    def read(path: Path) -> Shard | InputError:
        try:
            return read_shard(path)
        except InputError as error:
            return error

    with ThreadPoolExecutor() as pool:
        found = [*pool.map(read, sorted(paths, key=lambda path: int(path.stem)))]
    shards = [shard for shard in found if isinstance(shard, Shard)]
    for shard in shards:
        if any(shard.record[name] != shards[0].record[name] for name in MADE_WITH):
            raise InputError(
                f"{shard.path} was made with another model, or with other settings, than {shards[0].path}: "
                "remove one of the two, with the .npy files of that name."
            )
    return shards, [error for error in found if isinstance(error, InputError)]


def check_model(shard: Shard, encoder: Encoder) -> None:
    """Raise InputError where a shard is of another encoder."""
    if shard.record["fingerprint"] != encoder.fingerprint:
        raise InputError(
            f"{shard.path.parent} was made with another model than {encoder.name}: name it with --model; it "
            f"was called {shard.record['model']} then."
        )


def is_whole(shards: Sequence[Shard]) -> bool:
    """Whether a corpus's shards, in order, hold all of its articles."""
    records = [shard.record for shard in shards]
    joined = all(before["stop"] == after["first"] for before, after in pairwise(records))
    return joined and records[0]["first"] == 0 and records[-1]["last"]


def open_index(path: str | Path, encoder: Encoder, *, where: str = "", cache: Path | None = None) -> Index:
    """An index on disk, to be searched: memory-mapped, so it may be larger than memory.

    Only the records and the sizes of its files are checked; `DiskIndex.check` reads every byte.

    Args:
        path: its folder.
        encoder: that it was made with.
        where: a condition on the columns of the corpus that a passage must meet; see `rows_where`.
        cache: keeps the demo's statistics, which serve a small corpus.

    Raises:
        InputError: there is no index, or it is of another encoder, or something in it is broken; or the
            condition cannot be read, or no passage meets it.
    """
    disk = DiskIndex(path)
    check_model(disk.shards[0], encoder)
    shards = [shard for shard in disk.shards if shard.passages]
    if not shards:
        raise InputError(f"{path} holds no passage yet: run the same `minqa index` again.")
    rows: Any = rows_where(where, shards) if where else [range(shard.passages) for shard in shards]
    selected = [(shard, kept) for shard, kept in zip(shards, rows, strict=True) if len(kept)]
    if not selected:
        far = "" if disk.complete else " so far"
        raise InputError(f"No passage that is indexed{far} meets the condition {where}.")
    has_tokens = all(shard.has_tokens for shard, _ in selected)
    tokens = by_row(selected, Shard.token_vectors) if has_tokens else None
    statistics = disk.statistics(encoder, cache)
    return Index(by_row(selected, Shard.passage), by_shard(selected), statistics, tokens, disk.complete)
