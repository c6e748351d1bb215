"""What commands do with a corpus: index it, describe an index, search either, and know what is usual."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from minqa.app.options import How, Indexing, Source, name_one
from minqa.app.progress import note, progress
from minqa.app.work import Search, check_folder, load_models
from minqa.clock import step
from minqa.corpus.articles import Corpus
from minqa.corpus.index import DiskIndex, open_index
from minqa.corpus.passages import first_passages
from minqa.corpus.readers import open_corpus
from minqa.corpus.shards import VERSION
from minqa.corpus.statistics import demo_statistics
from minqa.corpus.writer import write_index
from minqa.encoder import Encoder
from minqa.files.loading import DEMO_MODEL
from minqa.text import InputError
from minqa.views import look
from minqa.views.look import PASSAGES_READ_FOR_UNITS
from minqa.views.text import counted, printable
from minqa.views.view import Listing


def load_to_search(source: Source, how: How) -> list[Search]:
    """The models to search with; an index brings its own, if that is here: nothing is fetched for it."""
    name_one("search", index=source.index, corpus=source.corpus)
    if source.index and not how.model:
        name = DiskIndex(source.index).model
        if name != DEMO_MODEL and not Path(name).is_dir():
            made = f"{source.index} was made with the model {name}"
            raise InputError(f"{made}, which is not here: name it with --model.")
        how = replace(how, model=[name])
    return load_models(how, shipped=True)


def with_indexes(searches: Sequence[Search], source: Source, cache: Path) -> list[Search]:
    """Searches of an index or, without one, of a corpus: its first shard is embedded if it is not there yet.

    All models search the same passages, which the tokens of the first make; those that meet all conditions.
    """
    where, indexed = " and ".join(f"({condition})" for condition in source.where or ()), []
    for search in searches:
        path = source.index or _embedded(search, searches[0].encoder, source.corpus, cache)
        with search.clock, step("load"):
            index = open_index(path, search.encoder, where=where, cache=cache)
        indexed.append(replace(search, index=index, where=where))
    return indexed


def _embedded(search: Search, splitter: Encoder, name: str | None, cache: Path) -> Path:
    """The cache's index of a corpus, of its first shard at least."""
    corpus = open_corpus(name, note=note)
    path = _cached(cache, corpus, search.encoder, splitter)
    with suppress(InputError):  # not yet, or it is broken
        if DiskIndex(path).passages:
            return path
    with search.clock, step("embed corpus"):
        _write(search.encoder, corpus, path, cache, splitter=splitter, store_tokens=True, shards=[0])
    return path


def note_what_is_left(searches: Sequence[Search], source: Source) -> None:
    """Say how a corpus is searched whole, where it is not."""
    for search in searches:
        if not search.index.complete:
            where = f" CORPUS --out {source.index}" if source.index else f" {source.corpus or ''}".rstrip()
            searched = f"{search.encoder.name} searched {counted(len(search.index.passages), 'passage')}"
            rest = f"`uv run minqa index{where}`, with the same --model, embeds the rest"
            note(f"{searched}, and these are not all: {rest}.")


def index_corpus(name: str | None, folder: Path | None, how: How, indexing: Indexing) -> None:
    """Embed a whole corpus, or some of its shards, for each model."""
    if folder and len(how.model or []) > 1:
        raise InputError("--out is one model's folder: name one --model.")
    if folder:
        check_folder(folder)
    searches = load_models(how)
    options = {name: value for name, value in vars(indexing).items() if value is not None}
    corpus = open_corpus(name, note=None if options.pop("strict") else note)
    for search in searches:
        splitter = searches[0].encoder
        path = folder or _cached(how.cache_folder, corpus, search.encoder, splitter)
        disk = _write(search.encoder, corpus, path, how.cache_folder, splitter=splitter, **options)
        articles = sum(shard.articles for shard in disk.shards)
        done = f"{counted(len(disk.passages), 'passage')} of {counted(articles, 'article')}"
        print(f"Embedded {done}, in {disk.path}.")


def describe_index(path: Path) -> None:
    """Print what an index holds, and check every byte of it."""
    disk = DiskIndex(path)
    print(printable(f"model       {disk.model}, fingerprint {disk.fingerprint[:16]}"))
    print(f"passages    {len(disk.passages):,} of at most {disk.max_tokens} tokens")
    for name, shards in disk.corpora.items():
        articles = sum(shard.articles for shard in shards)
        held = f"{counted(articles, 'article')} in {counted(len(shards), 'shard')}"
        print(printable(f"corpus      {name}: {held}"))
    stored = sum(shard.has_tokens for shard in disk.shards)
    print(f"tokens      stored in {stored:,} of {counted(len(disk.shards), 'shard')}")
    print(f"size        {disk.bytes / 1e6:,.1f} MB")
    print("complete    " + ("yes" if disk.complete else "no: the same `minqa index` continues"))
    with progress("Checking every byte", disk.bytes, unit="") as advance:
        disk.check(advance)
    print("checksums   all agree")


def with_statistics(search: Search, cache: Path) -> Search:
    """A search that knows what is usual in the demo's corpus, to read single texts."""
    with search.clock, step("statistics"):
        statistics = demo_statistics(search.encoder, cache)
    return replace(search, encoder=replace(search.encoder, statistics=statistics))


def search_units(
    encoder: Encoder, corpus: str | None, feature: str, kind: str | None
) -> tuple[Listing, list[tuple[int, int]]]:
    """The units that follow a feature in the first passages of a corpus: a list, and the best."""
    passages = first_passages(encoder, open_corpus(corpus, note=note), PASSAGES_READ_FOR_UNITS)
    with progress("Reading passages", len(passages)) as advance:
        return look.search_units(encoder, [passage.text for passage in passages], feature, kind, advance)


def _write(encoder: Encoder, corpus: Corpus, path: Path, cache: Path, **how: Any) -> DiskIndex:
    with progress("Embedding the corpus") as advance:
        return write_index(encoder, corpus, path, cache=cache, progress=advance, note=note, **how)


def _cached(cache: Path, corpus: Corpus, encoder: Encoder, splitter: Encoder) -> Path:
    """Where the cache keeps the index of a corpus: another place if its files or our format changed."""
    made_of = f"{VERSION} {corpus.state} {encoder.fingerprint} {splitter.fingerprint}"
    return cache / "index" / hashlib.sha256(made_of.encode()).hexdigest()[:32]
