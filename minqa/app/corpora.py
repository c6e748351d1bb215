"""What commands do with a corpus: index it, describe an index, search either, and know what is usual."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from minqa.app.progress import note, progress
from minqa.app.work import Search
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
from minqa.views.look import PASSAGES_READ_FOR_UNITS
from minqa.views.text import printable


def models_for(index: Path | None, corpus: str | None, models: list[str] | None) -> list[str] | None:
    """The models to search with; an index brings its own, if that is here: nothing is fetched for it."""
    if index and corpus:
        raise InputError("--index and --corpus are two things to search: name one.")
    if index and not models:
        name = DiskIndex(index).model
        if name != DEMO_MODEL and not Path(name).is_dir():
            made = f"{index} was made with the model {name}"
            raise InputError(f"{made}, which is not here: name it with --model.")
        return [name]
    return models


def with_index(
    search: Search,
    splitter: Encoder,
    path: Path | None,
    corpus: str | None,
    where: Sequence[str] | None,
    cache: Path,
) -> Search:
    """A search of an index or, without one, of a corpus: its first shard is embedded if it is not there yet.

    All models search the same passages, which the tokens of one of them, the splitter, make; those that meet
    all conditions of `where`.
    """
    encoder = search.encoder
    if not path:
        opened = open_corpus(corpus, note=note)
        path = _cached(cache, opened, encoder, splitter)
        try:
            is_indexed = bool(DiskIndex(path).passages)
        except InputError:  # not yet, or it is broken
            is_indexed = False
        if not is_indexed:
            with search.clock, step("embed corpus"):
                _write(encoder, opened, path, cache, splitter=splitter, store_tokens=True, shards=[0])
    condition = " and ".join(f"({condition})" for condition in where or ())
    with search.clock, step("load"):
        return replace(search, index=open_index(path, encoder, where=condition, cache=cache))


def note_what_is_left(searches: Sequence[Search], path: Path | None, corpus: str | None) -> None:
    """Say how a corpus is searched whole, where it is not."""
    for search in searches:
        if not search.index.complete:
            where = f" CORPUS --out {path}" if path else f" {corpus or ''}".rstrip()
            searched = f"{search.encoder.name} searched {len(search.index.passages):,} passages"
            rest = f"`uv run minqa index{where}`, with the same --model, embeds the rest"
            note(f"{searched}, and these are not all: {rest}.")


def index_corpus(
    searches: Sequence[Search],
    source: str | None,
    folder: Path | None,
    cache: Path,
    *,
    strict: bool,
    **how: Any,
) -> None:
    """Embed a whole corpus, or some of its shards, for each model."""
    corpus, splitter = open_corpus(source, note=None if strict else note), searches[0].encoder
    for search in searches:
        path = folder or _cached(cache, corpus, search.encoder, splitter)
        disk = _write(search.encoder, corpus, path, cache, splitter=splitter, **how)
        articles = sum(shard.articles for shard in disk.shards)
        print(f"{len(disk.passages):,} passages of {articles:,} articles are embedded, in {disk.path}.")


def describe_index(path: Path) -> None:
    """Print what an index holds, and check every byte of it."""
    disk = DiskIndex(path)
    print(printable(f"model       {disk.model}, fingerprint {disk.fingerprint[:16]}"))
    print(f"passages    {len(disk.passages):,} of at most {disk.max_tokens} tokens")
    for name, shards in disk.corpora.items():
        articles = sum(shard.articles for shard in shards)
        print(printable(f"corpus      {name}: {articles:,} articles in {len(shards):,} shards"))
    stored = sum(shard.has_tokens for shard in disk.shards)
    print(f"tokens      stored in {stored:,} of {len(disk.shards):,} shards")
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


def first_texts(encoder: Encoder, corpus: str | None) -> list[str]:
    """The passages in which units are looked for."""
    return [
        passage.text
        for passage in first_passages(encoder, open_corpus(corpus, note=note), PASSAGES_READ_FOR_UNITS)
    ]


def _write(encoder: Encoder, corpus: Corpus, path: Path, cache: Path, **how: Any) -> DiskIndex:
    with progress("Embedding the corpus") as advance:
        return write_index(encoder, corpus, path, cache=cache, progress=advance, note=note, **how)


def _cached(cache: Path, corpus: Corpus, encoder: Encoder, splitter: Encoder) -> Path:
    """Where the cache keeps the index of a corpus: another place if its files or our format changed."""
    made_of = f"{VERSION} {corpus.state} {encoder.fingerprint} {splitter.fingerprint}"
    return cache / "index" / hashlib.sha256(made_of.encode()).hexdigest()[:32]
