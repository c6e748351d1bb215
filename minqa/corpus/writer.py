"""A corpus and an encoder → an index on disk, shard by shard; a run that was stopped goes on."""

import hashlib
import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from minqa.batches import pad, padded_length
from minqa.corpus.articles import Article, Corpus, cleaned
from minqa.corpus.calibration import frequencies
from minqa.corpus.extra import needed
from minqa.corpus.index import FORMAT, MADE_WITH, PASSAGES_PER_GROUP, VERSION, DiskIndex, Manifest
from minqa.corpus.passages import MAX_TOKENS, split
from minqa.corpus.statistics import read_statistics, words_as_arrays, write_statistics
from minqa.corpus.storage import check_files, clear, publish, write_arrays, write_json, writing
from minqa.embedding import embed_pooled, hidden_states
from minqa.encoder import Encoder
from minqa.similarity import quantize
from minqa.text import InputError, Passage

Item = TypeVar("Item")
# How many articles' passages a shard holds: what is lost if a run is stopped.
ARTICLES_PER_SHARD = 1024
# Articles that are split at once, which bounds the tokens in memory.
ARTICLES_SPLIT_AT_ONCE = 64
# Passages that are embedded at once, whose token vectors are in memory in 32 bits.
PASSAGES_EMBEDDED_AT_ONCE = 1024


@dataclass(frozen=True)
class Process:
    """One of several processes that write an index at the same time, each its own shards.

    Attributes:
        number: from 0.
        of: how many there are.
        ready: returns once all of them have called it.
    """

    number: int = 0
    of: int = 1
    ready: Callable[[], None] = lambda: None


def write_index(
    encoder: Encoder,
    corpus: Corpus,
    path: str | Path,
    *,
    max_tokens: int | None = None,
    articles_per_shard: int | None = None,
    store_tokens: bool = False,
    splitter: Encoder | None = None,
    max_shards: int | None = None,
    workers: int = 0,
    process: Process = Process(),
    cache: Path | None = None,
    progress: Callable[[int, float], None] = lambda done, read: None,
    note: Callable[[str], None] = lambda sentence: None,
) -> DiskIndex:
    """Embed a corpus into a folder. Shards that are already there are checked and kept.

    A shard is a function of its articles and the encoder alone, and is whole or absent. So the bytes depend
    neither on when a run was stopped, nor on how many processes share it. A second corpus is added after the
    first, and articles that were added at the end of a corpus become further shards.

    Args:
        encoder: as `load` returns it.
        corpus: as `open_corpus` returns it.
        path: the index's folder, new or written by this function before.
        max_tokens: see `split`. None is what the index has, or 128, or what the model reads at once if less.
        articles_per_shard: None is what the index has, or 1,024.
        store_tokens: whether to keep the vectors of all tokens too, at a byte per dimension.
        splitter: encoder whose tokens are counted, if several encoders are to have the same passages.
        max_shards: stop after so many shards of this corpus.
        workers: processes that remove mark-up, or 0. They import the main script, as `multiprocessing` does.
        process: which of several writers this is.
        cache: keeps the demo's statistics, which serve a small corpus.
        progress: called with the number of passages just embedded, and the part done so far, 0 to 1.
        note: called with a sentence on each shard that is made again because it was broken.

    Raises:
        InputError: the corpus cannot be read or is not what it was; or the folder is no index, is of another
            encoder or other settings, cannot be written, or is being written by another process.
    """
    with ExitStack() as held:
        writer = _Writer(
            *(Path(path), encoder, splitter or encoder, corpus, store_tokens, process, progress, note)
        )
        writer.open(max_tokens, articles_per_shard, held)
        clean = held.enter_context(cleaned(corpus, workers))
        missing = filter(writer.is_missing, writer.blocks(max_shards))
        for block, articles in _one_ahead((block, clean(block.articles)) for block in missing):
            writer.write(block, articles)
        if process.number == 0:
            writer.finish(max_shards, cache, held)
    return DiskIndex(writer.path)


class _Block(NamedTuple):
    """The articles of a shard; `read` is how much of the corpus is read before and after them."""

    start: int
    articles: Sequence[Article]
    read: tuple[float, float]
    last: bool

    @property
    def source(self) -> str:
        """A hash of the articles, as their file has them."""
        digest = hashlib.sha256()
        for text in chain.from_iterable(article[:3] for article in self.articles):
            content = text.encode("utf-8")
            digest.update(len(content).to_bytes(8, "little") + content)
        return digest.hexdigest()


@dataclass
class _Writer:
    """One process's part of `write_index`, step by step."""

    path: Path
    encoder: Encoder
    splitter: Encoder
    corpus: Corpus
    store_tokens: bool
    process: Process
    progress: Callable[[int, float], None]
    note: Callable[[str], None]

    def open(self, max_tokens: int | None, articles: int | None, held: ExitStack) -> None:
        """Make the folder an index if it is none, lock it, and check that it has the same settings."""
        if self.process.number == 0:
            self._create(max_tokens, articles, held)
        self.process.ready()
        if self.process.number > 0:
            held.callback(_lock(self.path, self.process.number).release)
        self.process.ready()  # or the first could be done, and find others' locks free, before they hold them
        first_free = self.process.of if self.process.number == 0 else sys.maxsize
        clear(self.path, lambda writer: writer == self.process.number or writer >= first_free)
        self.disk = DiskIndex(self.path)
        self.disk.check_model(self.encoder)
        self.manifest = self.disk.manifest
        if self.splitter.fingerprint != self.manifest.splitter:
            raise InputError(f"{self.path} has the passages of another model than {self.splitter.name}.")
        for option, wanted, made in (
            ("--max-tokens", max_tokens, self.manifest.max_tokens),
            ("--shard", articles, self.manifest.articles),
        ):
            if wanted not in (None, made):
                raise InputError(
                    f"{self.path} was made with {option} {made}: say the same, or name another folder."
                )
        self.known = {shard.start: shard for shard in self.disk.of(self.corpus.name)}

    def _create(self, max_tokens: int | None, articles: int | None, held: ExitStack) -> None:
        path, manifest = self.path, self.path / "manifest.json"
        empty = not path.exists() or (path.is_dir() and all(file.name[0] == "." for file in path.iterdir()))
        if not manifest.is_file() and not empty:
            raise InputError(f"{path} is there, and is no index: name a folder that is new or empty.")
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
        held.callback(_lock(path, 0).release)
        for left in path.glob(".*.tmp"):
            left.unlink(missing_ok=True)
        for lock in path.glob(".writer-[1-9]*.lock"):  # one of several processes may have outlived the first
            _lock(path, int(lock.name[8:-5])).release()
        if not manifest.is_file():
            max_tokens = max_tokens or min(MAX_TOKENS, self.splitter.tokenizer.max_tokens)
            split(self.splitter, [], max_tokens=max_tokens)  # refuses odd numbers before anything is written
            fingerprints = self.encoder.fingerprint, self.splitter.fingerprint
            made = Manifest(self.encoder.name, *fingerprints, max_tokens, articles or ARTICLES_PER_SHARD)
            with writing(path):
                write_json(manifest, {"format": FORMAT, "version": VERSION, **asdict(made)})
        if self.process.of == 1:
            held.callback(_forget_if_empty, path)

    def blocks(self, max_shards: int | None) -> Iterator[_Block]:
        """The articles of shard after shard; those of shards on disk must be what they were."""
        articles, starts = self.corpus.read(), sorted(self.known)
        ahead, start, before, number = next(articles, None), 0, 0.0, 0
        while ahead is not None and number != max_shards:
            shard = self.known.get(start)
            # A shard that is lost ends where the next one begins.
            stop = min([start + self.manifest.articles, *starts[bisect_right(starts, start) :][:1]])
            read = [ahead, *islice(articles, (shard.stop if shard else stop) - start - 1)]
            ahead = next(articles, None)
            number += 1
            after = 1.0 if number == max_shards else read[-1][1]
            block = _Block(start, [article for article, _ in read], (before, after), ahead is None)
            start, before = start + len(read), after
            same = shard is None or (shard.record["source"], shard.stop) == (block.source, start)
            went_on = max(starts, default=0) >= start or (shard and not shard.record["last"])
            if not same or (block.last and went_on):
                raise InputError(
                    f"{self.corpus.name} is not what it was when it was indexed: index it into another "
                    "folder or, if it is another corpus of that name, rename it."
                )
            yield block

    def is_missing(self, block: _Block) -> bool:
        """Whether this process is to write a block's shard: it is not on disk, or not whole."""
        if (block.start // self.manifest.articles) % self.process.of != self.process.number:
            return False
        shard = self.known.get(block.start)
        if shard is None or (self.store_tokens and not shard.has_tokens):
            return True
        try:
            check_files(shard.folder, shard.record, every_byte=True)
        except InputError as error:
            self.note(f"{error} That is being done.")
            return True
        self.progress(0, block.read[1])
        return False

    def write(self, block: _Block, articles: Iterable[Article]) -> None:
        """Write a block's shard from its articles without mark-up."""
        before, after = block.read
        self.progress(0, before)
        remaining, passages, done = iter(articles), list[Passage](), 0
        while together := list(islice(remaining, ARTICLES_SPLIT_AT_ONCE)):
            parts = split(self.splitter, together, max_tokens=self.manifest.max_tokens)
            passages += chain.from_iterable(parts)

        def advance(more: int) -> None:
            nonlocal done
            done += more
            self.progress(more, before + (after - before) * done / len(passages))

        record = {
            "version": VERSION,
            **{name: getattr(self.manifest, name) for name in MADE_WITH},
            "corpus": self.corpus.name,
            "articles": [block.start, block.start + len(block.articles)],
            "source": block.source,
            "last": block.last,
            "passages": len(passages),
        }
        numbers = {shard.record["corpus"]: int(shard.folder.name[:4]) for shard in self.disk.shards}
        number = numbers.get(self.corpus.name, max(numbers.values(), default=-1) + 1)
        write = partial(self._write_files, passages, advance)
        folder = self.path / f"{number:04d}-{block.start:010d}"
        publish(folder, record, write, writer=self.process.number)

    def _write_files(
        self, passages: Sequence[Passage], progress: Callable[[int], None], folder: Path
    ) -> None:
        """Write what a shard's folder holds, but for its record."""
        _write_passages(folder / "passages.parquet", passages)
        frequency, lengths = Counter[str](), list[int]()
        pooled = [] if passages else [np.zeros((0, 1), np.float32)]
        packed = [] if passages else [_pack(pooled[0])]
        for start in range(0, len(passages), PASSAGES_EMBEDDED_AT_ONCE):
            texts = [passage.text for passage in passages[start : start + PASSAGES_EMBEDDED_AT_ONCE]]
            tokens = self.encoder.tokenize(texts, "passage")
            frequency.update(frequencies(tokens))
            if self.store_tokens:
                layers = (self.encoder.num_layers,)
                hidden, vectors = hidden_states(self.encoder, tokens, layers, progress=progress)
                pooled.append(np.stack(vectors))
                packed.append(_pack(np.concatenate([states[0] for states in hidden])))
                lengths += map(len, tokens)
            else:
                pooled.append(embed_pooled(self.encoder, tokens, progress=progress))
        write_arrays(folder / "vectors.safetensors", {"vectors": np.concatenate(pooled)})
        write_arrays(folder / "words.safetensors", words_as_arrays(dict(sorted(frequency.items()))))
        if self.store_tokens:
            arrays = dict(
                zip(("vectors", "scales"), map(np.concatenate, zip(*packed, strict=True)), strict=True)
            )
            arrays["ends"] = np.cumsum(lengths, dtype=np.int64)
            write_arrays(folder / "tokens.safetensors", arrays)

    def finish(self, max_shards: int | None, cache: Path | None, held: ExitStack) -> None:
        """Wait until the other processes have done their part, and write the statistics."""
        for other in range(1, self.process.of):
            held.callback(_lock(self.path, other, waiting=lambda: self.progress(0, 1.0)).release)
        disk = DiskIndex(self.path)
        if not any(shard.passages for shard in disk.of(self.corpus.name)):
            raise InputError(f"{self.corpus.name} holds no passage.")
        if max_shards is None and not disk.has_all(self.corpus.name):
            raise InputError("Another process has stopped early: run the same again.")
        if read_statistics(disk.statistics_path, disk.summary) is None:
            statistics = disk.statistics(self.encoder, cache)
            with writing(self.path):
                write_statistics(disk.statistics_path, statistics, disk.summary)


def _forget_if_empty(path: Path) -> None:
    """Leave nothing of a corpus that could not be read."""
    if not any(path.glob("[0-9]*-*/")):
        (path / "manifest.json").unlink(missing_ok=True)


def _lock(path: Path, process: int, *, waiting: Callable[[], None] | None = None) -> Any:
    """Held while a process writes; the system releases it when the process ends, however it does.

    With `waiting`, which is called each second, another holder is waited for; without it that is refused.
    """
    filelock = needed("filelock", "Writing an index")
    lock = filelock.FileLock(path / f".writer-{process}.lock")
    with writing(path):
        while True:
            try:
                return lock.acquire(timeout=1 if waiting else 0).lock
            except filelock.Timeout:
                if waiting is None:
                    raise InputError(
                        f"{path} is being written by another process: wait for it, or stop it."
                    ) from None
                waiting()


def _one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, each yielded when the next has been started on; an error waits for its turn."""

    def with_error() -> Iterator[tuple[Any, InputError | None]]:
        try:
            yield from ((item, None) for item in items)
        except InputError as error:
            yield None, error
        yield None, None

    for (item, error), _ in pairwise(with_error()):
        if error:
            raise error
        yield item


def _pack(vectors: np.ndarray) -> tuple[np.ndarray, ...]:
    """What `quantize` returns, as NumPy arrays; it is compiled for few lengths."""
    arrays = quantize(pad(vectors, padded_length(len(vectors))))
    return tuple(np.asarray(array)[: len(vectors)] for array in arrays)


def _write_passages(path: Path, passages: Sequence[Passage]) -> None:
    parquet = needed("pyarrow.parquet", "Writing an index")
    import pyarrow

    kinds = {int: pyarrow.int64(), str: pyarrow.string()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in Passage.__annotations__.items()])
    table = pyarrow.Table.from_pylist([passage._asdict() for passage in passages], schema)
    how = {"row_group_size": PASSAGES_PER_GROUP, "compression": "zstd", "write_page_checksum": True}
    parquet.write_table(table, path, **how)
