"""A corpus and an encoder → an index on disk, shard by shard; a run that was stopped goes on."""

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from minqa.corpus.articles import Article, Corpus, cleaned
from minqa.corpus.embedded import Progress, embed_passages, split_all, vectors_of
from minqa.corpus.index import DiskIndex, check_model, read_folder
from minqa.corpus.passages import MAX_TOKENS, split
from minqa.corpus.shards import VERSION, Shard, read_shard, write_shard_files
from minqa.corpus.storage import writing
from minqa.encoder import Encoder
from minqa.files.extras import needed
from minqa.text import InputError

Item = TypeVar("Item")
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
    workers: int = 0,
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
        workers: processes that remove mark-up, or 0. They import the main script, as `multiprocessing` does.
        cache: keeps the demo's statistics, which serve a small corpus.
        progress: called with the number of passages just embedded, and the part done so far, 0 to 1.
        note: called with a sentence on each shard that is broken, or that another process is writing.

    Raises:
        InputError: the corpus cannot be read; or the folder is no index, is of another encoder or other
            settings, or cannot be written.
    """
    folder, splitter = Path(path), splitter or encoder
    common, before = _settle(encoder, splitter, corpus, folder, max_tokens, articles_per_shard)
    write, waiting = partial(_write, encoder, splitter, store_tokens), False
    while shards:
        blocks = _blocks(corpus, folder, common, before, shards)
        with cleaned(corpus, workers) as clean:
            taken = _write_missing(blocks, clean, write, store_tokens, waiting, progress, note)
        shards, waiting = [block.record["number"] - before for block in taken], True
    if not any(shard.passages for shard in read_folder(folder)[0] if shard.record["corpus"] == corpus.name):
        raise InputError(f"{corpus.name} holds no passage.")
    disk = DiskIndex(folder)
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


def _write_missing(
    blocks: Iterable[_Block],
    clean: Callable[[Sequence[Article]], Iterable[Article]],
    write: Callable[[_Block, Iterable[Article], Progress], None],
    store_tokens: bool,
    waiting: bool,
    progress: Progress,
    note: Note,
) -> list[_Block]:
    """Write the shards of blocks that are not there; returns those that other processes are writing.

    If `waiting`, these are waited for.
    """
    taken, last_blocks = list[_Block](), list[_Block]()

    def is_missing(block: _Block) -> bool:
        if block.record["last"]:
            last_blocks.append(block)
        _, is_there = _find(block, store_tokens, note)
        if is_there:
            progress(0, block.read[1])
        return not is_there

    for block, articles in _one_ahead((block, clean(block.articles)) for block in filter(is_missing, blocks)):
        advance = partial(_advance, progress, block.read)
        with _locked(block.path, advance if waiting else None) as mine:
            if mine:
                write(block, articles, advance)
            else:
                note(f"{block.path} is being written by another process.")
                taken.append(block)
    for block in last_blocks:
        _remove_after(block)
    return taken


def _advance(progress: Progress, read: tuple[float, float], more: int, part: float) -> None:
    progress(more, read[0] + part * (read[1] - read[0]))


def _settle(
    encoder: Encoder,
    splitter: Encoder,
    corpus: Corpus,
    folder: Path,
    max_tokens: int | None,
    articles_per_shard: int | None,
) -> tuple[dict[str, Any], int]:
    """What the records of a corpus's shards have in common, and the number of the first shard."""
    for path in corpus.files:
        if path.is_dir() and folder.resolve().is_relative_to(path.resolve()):
            raise InputError(f"{folder} is inside {path}, whose files are the corpus: name another folder.")
    shards, broken = read_folder(folder)
    if shards:
        check_model(shards[0], encoder)
        made = shards[0].record
        if splitter.fingerprint != made["splitter"]:
            raise InputError(f"{folder} has the passages of another model than {splitter.name}.")
        for option, wanted, known in (
            ("--max-tokens", max_tokens, made["max_tokens"]),
            ("--shard", articles_per_shard, made["articles_per_shard"]),
        ):
            if wanted not in (None, known):
                raise InputError(
                    f"{folder} was made with {option} {known}: say the same, or name another folder."
                )
        max_tokens, articles_per_shard = made["max_tokens"], made["articles_per_shard"]
    elif not broken and folder.exists() and not all(_LEFT.fullmatch(path.name) for path in folder.iterdir()):
        raise InputError(f"{folder} is there, and is no index: name a folder that is new or empty.")
    max_tokens = max_tokens or min(MAX_TOKENS, splitter.tokenizer.max_tokens)
    split(splitter, [], max_tokens=max_tokens)  # refuses odd numbers before anything is written
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    common = {
        "version": VERSION,
        "model": encoder.name,
        "fingerprint": encoder.fingerprint,
        "splitter": splitter.fingerprint,
        "max_tokens": max_tokens,
        "articles_per_shard": articles_per_shard or ARTICLES_PER_SHARD,
        "corpus": corpus.name,
        "layer": encoder.num_layers,
    }
    return common, _first_number(corpus, shards, broken)


def _first_number(corpus: Corpus, shards: Sequence[Shard], broken: Sequence[InputError]) -> int:
    for shard in shards:
        if shard.record["corpus"] == corpus.name:
            return shard.record["number"] - shard.record["first"] // shard.record["articles_per_shard"]
    if not shards:
        return 0
    if broken:  # it may be this corpus's, or another's
        raise InputError(f"{broken[0]} Do that first, or remove the file.")
    record = shards[-1].record
    if not record["last"]:
        raise InputError(
            f"{record['corpus']} is not whole in {shards[-1].path.parent}: `minqa index` it to its end "
            "before you add another corpus, or name another folder."
        )
    return record["number"] + 1


def _blocks(
    corpus: Corpus, folder: Path, common: dict[str, Any], before: int, numbers: Sequence[int]
) -> Iterator[_Block]:
    """The articles of the shards of some numbers, from one reading of the corpus."""
    articles, size = corpus.read(), common["articles_per_shard"]
    ahead, number, part = next(articles, None), 0, 0.0
    while ahead is not None and number <= numbers[-1]:
        together = [ahead, *islice(articles, size - 1)]
        ahead = next(articles, None)
        if number in numbers:
            block = [article for article, _ in together]
            source = hashlib.sha256(json.dumps([article[:3] for article in block]).encode()).hexdigest()
            record = {**common, "number": before + number, "source": source, "last": ahead is None}
            record |= {"first": number * size, "stop": number * size + len(block)}
            path, end = folder / f"{before + number:06d}.parquet", together[-1][1]
            yield _Block(path, block, record, (part, 1.0 if number == numbers[-1] else end))
        number, part = number + 1, together[-1][1]


def _find(block: _Block, store_tokens: bool, note: Note = lambda sentence: None) -> tuple[Shard | None, bool]:
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
    corpus, other = block.record["corpus"], shard.record["corpus"]
    if corpus != other:
        where = f"{other} stands after it in {block.path.parent}"
        raise InputError(f"{corpus} has grown, and {where}: index it into another folder.")
    same = all(shard.record[name] == block.record[name] for name in ("source", "last"))
    return shard, same and (shard.has_tokens or not store_tokens)


def _remove_after(block: _Block) -> None:
    """Remove the shards of a corpus after its last: it was longer once."""
    corpus, last = block.record["corpus"], block.record["number"]
    for shard in read_folder(block.path.parent)[0]:
        if shard.record["corpus"] == corpus and shard.record["number"] > last:
            with writing(shard.path.parent):
                for path in (shard.path, *map(shard.path.with_suffix, shard.record["files"])):
                    path.unlink(missing_ok=True)


def _write(
    encoder: Encoder,
    splitter: Encoder,
    store_tokens: bool,
    block: _Block,
    articles: Iterable[Article],
    advance: Progress,
) -> None:
    """Write a block's shard, from its articles without mark-up, if it is not there."""
    replaced, is_there = _find(block, store_tokens)
    if is_there:
        return
    advance(0, 0.0)
    passages = split_all(splitter, articles, max_tokens=block.record["max_tokens"])
    if block.record["number"] > block.record["first"] // block.record["articles_per_shard"]:
        # Another corpus stands before this one, and may have the same ids.
        name = block.record["corpus"]
        passages = [passage._replace(id=f"{name}/{passage.id}") for passage in passages]
    known = vectors_of(replaced, store_tokens) if replaced else {}
    if known and not block.record["first"] and known.keys().isdisjoint(passage.text for passage in passages):
        raise InputError(
            f"{block.record['corpus']} has nothing in common with what was indexed under that name: rename "
            "it, or index it into another folder."
        )
    columns, arrays = embed_passages(encoder, passages, known, store_tokens, advance)
    if replaced and replaced.record["source"] != block.record["source"]:
        with writing(block.path.parent):  # rather no shard for a moment than one of two halves
            block.path.unlink()
    write_shard_files(block.path, block.record, columns, arrays)


@contextmanager
def _locked(path: Path, waiting: Progress | None) -> Iterator[bool]:
    """Whether this process alone may write a shard; with `waiting`, called each second, once it may.

    The system releases the lock when the process ends, however it does. Who gets it looks whether the shard
    is there: another may have written it meanwhile.
    """
    filelock = needed("filelock", "Writing an index", "corpus")
    lock, mine = filelock.FileLock(path.with_name(f".{path.stem}.lock")), False
    with writing(path.parent):
        while not mine:
            try:
                mine = bool(lock.acquire(timeout=1 if waiting else 0))
            except filelock.Timeout:
                if not waiting:
                    break
                waiting(0, 0.0)
    try:
        yield mine
        if mine:
            with suppress(OSError):
                Path(lock.lock_file).unlink()
    finally:
        lock.release()


def _one_ahead(items: Iterable[Item]) -> Iterator[Item]:
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
