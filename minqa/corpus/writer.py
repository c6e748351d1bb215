"""A corpus and an encoder → an index on disk, shard by shard; a run that was stopped goes on."""

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from minqa.corpus.articles import Article, Corpus
from minqa.corpus.embedded import Progress, embed_passages, vectors_of
from minqa.corpus.index import DiskIndex, check_model, read_folder
from minqa.corpus.passages import MAX_TOKENS, passages_of, split
from minqa.corpus.shards import VERSION, Shard, read_shard, write_shard_files
from minqa.corpus.storage import writing
from minqa.encoder import Encoder
from minqa.files.extras import needed
from minqa.text import InputError

Note = Callable[[str], None]
# How many articles' passages a shard holds: what is lost if a run is stopped.
ARTICLES_PER_SHARD = 1024
ALL_SHARDS = range(sys.maxsize)
# Names of what is left if the first shard was never finished.
_LEFT = re.compile(r"\..*|\d{6,}(\.tokens)?\.npy")


def write_index(
    encoder: Encoder,
    corpus: Corpus,
    path: str | Path,
    *,
    max_tokens: int | None = None,
    articles_per_shard: int | None = None,
    store_tokens: bool = False,
    splitter: Encoder | None = None,
    shards: Sequence[int] = ALL_SHARDS,
    statistics: bool = True,
    cache: Path | None = None,
    progress: Progress = lambda done, read: None,
    note: Note = lambda sentence: None,
) -> DiskIndex:
    """Embed a corpus into a folder: the shards that are missing, broken, or of articles that have changed.

    A shard is a function of its number, its articles and the encoder alone, and is whole or absent. So a run
    that was stopped goes on to the same bytes, and processes that know nothing of each other can share the
    work; one that meets another's shard turns to the next. A second corpus is added after the first; its
    passages have its name in their ids. A text whose vectors are in the shard that is replaced is not
    embedded again.

    Args:
        corpus: as `open_corpus` returns it. The index knows it by its name.
        path: the index's folder, new or written by this function before.
        max_tokens: see `split`. None is what the index has, or 128, or what the model reads at once if less.
        articles_per_shard: None is what the index has, or 1,024.
        store_tokens: whether to keep the vectors of all tokens too, at a byte per dimension.
        splitter: encoder whose tokens are counted, if several encoders are to have the same passages.
        shards: the numbers of those to write, in order, counted from 0 in this corpus.
        statistics: whether to gather and keep what is usual in the passages, which `open_index` does else.
        cache: keeps the demo's statistics, which serve a small corpus.
        progress: called with the number of passages just embedded, and the part done so far, 0 to 1.
        note: called with a sentence on each shard that is broken, or that another process is writing.

    Raises:
        InputError: the corpus cannot be read; or the folder is no index, is of another encoder or other
            settings, or cannot be written.
    """
    settings = max_tokens, articles_per_shard
    run = _Run(encoder, splitter or encoder, corpus, Path(path), settings, store_tokens, progress, note)
    waiting = False
    while shards:
        shards, waiting = run.write_missing(shards, waiting), True
    if not any(shard.passages for shard in run.shards()):
        raise InputError(f"{corpus.name} holds no passage.")
    disk = DiskIndex(path)
    if statistics:
        disk.statistics(encoder, cache, keep=True)
    return disk


def write_shard(encoder: Encoder, corpus: Corpus, folder: str | Path, number: int, **settings: Any) -> None:
    """Write one shard of a corpus, if it is not there; `settings` are those of `write_index`.

    Machines that share the work call this. When all is done, `write_index` checks what they have made, and
    gathers the statistics.
    """
    write_index(encoder, corpus, folder, shards=[number], statistics=False, **settings)


class _Block(NamedTuple):
    """The articles of a shard."""

    path: Path  # of the shard's Parquet file
    articles: Sequence[Article]
    record: dict[str, Any]  # what the shard's record will say, but for its files
    read: tuple[float, float]  # how much of the corpus is read before and after them


@dataclass
class _Run:
    """One call of `write_index`."""

    encoder: Encoder
    splitter: Encoder
    corpus: Corpus
    folder: Path
    settings: tuple[int | None, int | None]  # `max_tokens` and `articles_per_shard`, as they were asked for
    store_tokens: bool
    progress: Progress
    note: Note
    common: dict[str, Any] = field(init=False)  # what the records of the corpus's shards have in common
    before: int = field(init=False)  # how many shards stand before the corpus's first

    def __post_init__(self) -> None:
        """Settle on what was asked for and what is in the folder. Raises as `write_index` does."""
        folder, corpus, (max_tokens, articles_per_shard) = self.folder, self.corpus, self.settings
        for path in corpus.files:
            if path.is_dir() and folder.resolve().is_relative_to(path.resolve()):
                raise InputError(
                    f"{folder} is inside {path}, whose files are the corpus: name another folder."
                )
        shards, broken = read_folder(folder)
        if shards:
            check_model(shards[0], self.encoder)
            made = shards[0].record
            if self.splitter.fingerprint != made["splitter"]:
                raise InputError(f"{folder} has the passages of another model than {self.splitter.name}.")
            known = made["max_tokens"], made["articles_per_shard"]
            for option, wanted, had in zip(("--max-tokens", "--shard"), self.settings, known, strict=True):
                if wanted not in (None, had):
                    made_with = f"{folder} was made with {option} {had}"
                    raise InputError(f"{made_with}: say the same, or name another folder.")
            max_tokens, articles_per_shard = known
        elif (
            not broken
            and folder.exists()
            and not all(_LEFT.fullmatch(path.name) for path in folder.iterdir())
        ):
            raise InputError(f"{folder} is there, and is no index: name a folder that is new or empty.")
        max_tokens = max_tokens or min(MAX_TOKENS, self.splitter.tokenizer.max_tokens)
        split(self.splitter, [], max_tokens=max_tokens)  # refuses odd numbers before anything is written
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self.common = {
            "version": VERSION,
            "model": self.encoder.name,
            "fingerprint": self.encoder.fingerprint,
            "splitter": self.splitter.fingerprint,
            "max_tokens": max_tokens,
            "articles_per_shard": articles_per_shard or ARTICLES_PER_SHARD,
            "corpus": corpus.name,
            "layer": self.encoder.num_layers,
        }
        self.before = self._first_number(shards, broken)

    def _first_number(self, shards: Sequence[Shard], broken: Sequence[InputError]) -> int:
        for shard in shards:
            if shard.record["corpus"] == self.corpus.name:
                return shard.record["number"] - shard.record["first"] // shard.record["articles_per_shard"]
        if not shards:
            return 0
        if broken:  # it may be this corpus's, or another's
            raise InputError(f"{broken[0]} Do that first, or remove the file.")
        record = shards[-1].record
        if not record["last"]:
            raise InputError(
                f"{record['corpus']} is not whole in {self.folder}: `minqa index` it to its end before you "
                "add another corpus, or name another folder."
            )
        return record["number"] + 1

    def shards(self) -> list[Shard]:
        """Those of the corpus that are whole."""
        return [shard for shard in read_folder(self.folder)[0] if shard.record["corpus"] == self.corpus.name]

    def write_missing(self, numbers: Sequence[int], waiting: bool) -> list[int]:
        """Write the shards of these numbers that are not there; returns those that others are writing.

        If `waiting`, these are waited for.
        """
        taken = []
        for block in self._blocks(numbers):
            if self._find(block, self.note)[1]:
                self.progress(0, block.read[1])
            else:
                with self._locked(block, waiting) as mine:
                    if mine:
                        self._write(block)
                    else:
                        self.note(f"{block.path} is being written by another process.")
                        taken.append(block.record["number"] - self.before)
            if block.record["last"]:
                self._remove_after(block)
        return taken

    def _blocks(self, numbers: Sequence[int]) -> Iterator[_Block]:
        """The articles of the shards of some numbers, from one reading of the corpus."""
        articles, size = self.corpus.read(), self.common["articles_per_shard"]
        ahead, number, part = next(articles, None), 0, 0.0
        while ahead is not None and number <= numbers[-1]:
            together = [ahead, *islice(articles, size - 1)]
            ahead = next(articles, None)
            if number in numbers:
                block = [article for article, _ in together]
                hashed = [article[:3] + (article.extra,) * bool(article.extra) for article in block]
                source = hashlib.sha256(json.dumps(hashed).encode()).hexdigest()
                record = {"number": self.before + number, "source": source, "last": ahead is None}
                record |= {"first": number * size, "stop": number * size + len(block), **self.common}
                path, end = self.folder / f"{record['number']:06d}.parquet", together[-1][1]
                yield _Block(path, block, record, (part, 1.0 if number == numbers[-1] else end))
            number, part = number + 1, together[-1][1]

    def _find(self, block: _Block, note: Note = lambda sentence: None) -> tuple[Shard | None, bool]:
        """The shard that has a block's number, if there is one that is whole, and whether it is the block's.

        Raises:
            InputError: it is another corpus's.
        """
        try:
            if not block.path.exists():
                return None, False
            shard = read_shard(block.path)
            shard.check()
        except InputError as error:
            note(f"{error} That is being done.")
            return None, False
        if (other := shard.record["corpus"]) != self.corpus.name:
            grown = f"{self.corpus.name} has grown, and {other} stands after it in {self.folder}"
            raise InputError(f"{grown}: index it into another folder.")
        same = all(shard.record[name] == block.record[name] for name in ("source", "last"))
        return shard, same and (shard.has_tokens or not self.store_tokens)

    def _write(self, block: _Block) -> None:
        """Write a block's shard, if nobody has meanwhile."""
        replaced, is_there = self._find(block)
        if is_there:
            return
        self._advance(block, 0, 0.0)
        articles = self.corpus.cleaned(block.articles)
        passages = [*passages_of(self.splitter, articles, block.record["max_tokens"])]
        if self.before:  # another corpus stands before this one, and may have the same ids
            passages = [passage._replace(id=f"{self.corpus.name}/{passage.id}") for passage in passages]
        known = vectors_of(replaced, self.store_tokens) if replaced else {}
        texts = {passage.text for passage in passages}
        if known and not block.record["first"] and known.keys().isdisjoint(texts):
            raise InputError(
                f"{self.corpus.name} has nothing in common with what was indexed under that name: rename it, "
                "or index it into another folder."
            )
        progress = partial(self._advance, block)
        columns, arrays = embed_passages(self.encoder, passages, known, self.store_tokens, progress)
        if replaced and replaced.record["source"] != block.record["source"]:
            with writing(self.folder):  # rather no shard for a moment than one of two halves
                block.path.unlink()
        write_shard_files(block.path, block.record, columns, arrays)

    def _advance(self, block: _Block, more: int, part: float) -> None:
        before, after = block.read
        self.progress(more, before + part * (after - before))

    def _remove_after(self, block: _Block) -> None:
        """Remove the shards of the corpus after its last: it was longer once."""
        for shard in self.shards():
            if shard.record["number"] > block.record["number"]:
                with writing(self.folder):
                    for path in (shard.path, *map(shard.path.with_suffix, shard.record["files"])):
                        path.unlink(missing_ok=True)

    @contextmanager
    def _locked(self, block: _Block, waiting: bool) -> Iterator[bool]:
        """Whether this process alone may write a shard; if `waiting`, once it may.

        The system releases the lock when the process ends, however it does. Who gets it looks whether the
        shard is there: another may have written it meanwhile.
        """
        filelock = needed("filelock", "Writing an index", "corpus")
        lock, mine = filelock.FileLock(block.path.with_name(f".{block.path.stem}.lock")), False
        with writing(self.folder):
            while not mine:
                try:
                    mine = bool(lock.acquire(timeout=1 if waiting else 0))
                except filelock.Timeout:
                    if not waiting:
                        break
                    self._advance(block, 0, 0.0)
        try:
            yield mine
            if mine:
                with suppress(OSError):
                    Path(lock.lock_file).unlink()
        finally:
            lock.release()
