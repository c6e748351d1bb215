"""What each command does, from its options to what it prints."""

import hashlib
import os
import threading
import warnings
from argparse import Namespace
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import platformdirs

from minqa.answers.reader import load_reader
from minqa.answers.span_head import load_span_head
from minqa.app.output import describe, show_answers, show_views
from minqa.app.progress import note, progress
from minqa.ask import Answerer, Index, ask, check_question, read
from minqa.clock import Clock, step
from minqa.corpus.articles import Corpus
from minqa.corpus.index import DiskIndex, open_index
from minqa.corpus.passages import first_passages
from minqa.corpus.readers import open_corpus
from minqa.corpus.statistics import demo_statistics
from minqa.corpus.storage import check_writable
from minqa.corpus.writer import write_index
from minqa.encoder import Encoder
from minqa.files.loading import DEMO_MODEL, load
from minqa.inside.compare import Answer
from minqa.text import InputError, Passage
from minqa.views.figure import check_format
from minqa.views.look import View, look_at_factors, look_at_flip, look_at_heads, look_at_units, search_units
from minqa.views.text import printable

# On CPU each device holds a copy of the model.
MAX_DEVICES = 8


def run_ask(options: Namespace) -> None:
    question = " ".join(options.words)
    if not question.strip():
        raise InputError("The query is empty.")
    _check_searched(options)
    cache = _set_up(options.cache)
    loaded = _load(options, shipped=True)
    splitter = loaded[0][0]  # all models search the passages of the first
    for encoder, _, _ in loaded:
        check_question(encoder, question)  # before a corpus is embedded for it
    answers, descriptions = [], []
    for encoder, answerer, clock in loaded:
        with clock:
            index = _open_or_make_index(options, encoder, splitter, cache)
            encoder = replace(encoder, statistics=index.statistics)
            results = ask(encoder, question, index, k=options.k, rerank=options.rerank, answerer=answerer)
        answers.append(Answer(encoder, results, answerer))
        facts = {"searched": len(index.passages), "complete": index.complete}
        descriptions.append(describe(answers[-1], clock, **facts))
        if not index.complete:
            where = f" CORPUS --out {options.index}" if options.index else f" {options.corpus or ''}".rstrip()
            searched = f"{encoder.name} searched {len(index.passages):,} passages, and these are not all"
            note(f"{searched}: `uv run minqa index{where}`, with the same --model, embeds the rest.")
    show_answers(options, answers, descriptions)


def run_index(options: Namespace) -> None:
    cache = _set_up(options.cache)
    corpus = open_corpus(options.corpus, note=None if options.strict else note)
    loaded = _load(options)
    if options.out and len(loaded) > 1:
        raise InputError("--out is one model's folder: name one --model.")
    how: Any = {"max_tokens": options.max_tokens, "articles_per_shard": options.shard}
    how |= {"splitter": loaded[0][0], "store_tokens": options.store_tokens, "shards": options.shards}
    for encoder, _, _ in loaded:
        path = options.out or _cached(cache, corpus, encoder, loaded[0][0])
        disk = _write_index(encoder, corpus, path, cache, **how)
        articles = sum(shard.articles for shard in disk.shards)
        print(f"{len(disk.passages):,} passages of {articles:,} articles are embedded, in {disk.path}.")


def run_index_info(options: Namespace) -> None:
    disk = DiskIndex(options.index)
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


def run_heat(options: Namespace) -> None:
    for name in ("query", "passage"):
        if not getattr(options, name).strip():
            raise InputError(f"The {name} is empty.")
    if picture := getattr(options, "png", None):
        if len(options.model or []) > 1:
            raise InputError("--png draws the matrix of one model: name one --model.")
        check_format(picture)
    cache = _set_up(options.cache)
    answers, descriptions = [], []
    for encoder, answerer, clock in _load(options):
        with clock:
            with step("statistics"):
                encoder = replace(encoder, statistics=demo_statistics(encoder, cache))
            results = read(encoder, options.query, [Passage("", options.passage)], answerer=answerer)
        answers.append(Answer(encoder, results, answerer))
        descriptions.append(describe(answers[-1], clock))
    show_answers(options, answers, descriptions)


def run_compare(options: Namespace) -> None:
    if len(options.model or []) < 2:
        several = "name two models or more, each with --model"
        raise InputError(f"There is nothing to compare: {several}; {DEMO_MODEL} is installed.")
    run_heat(options)


def run_heads(options: Namespace) -> None:
    from_word, to_words = options.from_word, options.to
    if not options.flip and (from_word is not None or to_words):
        raise InputError("--from and --to belong to --flip: name the other text with it.")
    if options.flip and (from_word is None or not to_words):
        raise InputError("--flip needs the word that attends, --from, and two that it may attend to, --to.")
    if options.flip and options.head:
        raise InputError("--head and --flip are two things to look at: name one.")
    encoder = _load_to_look(options)
    if options.flip:
        views = look_at_flip(encoder, options.text, options.flip, from_word, tuple(to_words))
    else:
        views = look_at_heads(encoder, options.text, options.head)
    show_views(options, encoder, views)


def run_units(options: Namespace) -> None:
    chosen = [name for name in ("unit", "feature", "factors") if getattr(options, name)]
    if len(chosen) > 1:
        raise InputError(f"--{chosen[0]} and --{chosen[1]} are two things to look at: name one.")
    encoder, text, kind = _load_to_look(options), options.text, options.kind
    views: list[View] = []
    if options.factors:
        views = look_at_factors(encoder, text, options.factors, kind=kind)
    elif options.unit:
        views = look_at_units(encoder, text, options.unit, kind=kind)
    else:
        texts = [passage.text for passage in first_passages(encoder, open_corpus(options.corpus, note=note))]
        with progress("Reading passages", len(texts)) as advance:
            feature = options.feature or "position"
            listing, best = search_units(encoder, texts, feature, kind=kind, progress=advance)
        views = [listing, *look_at_units(encoder, text, best, kind=kind)]
    show_views(options, encoder, views)


def run_app(options: Namespace) -> None:
    from minqa.app.browser import build, serve  # Gradio takes seconds to import
    from minqa.app.tabs import Search

    _check_searched(options)
    cache = _set_up(options.cache)
    loaded = _load(options, shipped=True)
    splitter = loaded[0][0]
    searches = [
        Search(encoder, _open_or_make_index(options, encoder, splitter, cache), answerer)
        for encoder, answerer, _ in loaded
    ]
    address = serve(build(searches), options.host, options.port)
    print(f"The page is at {address}; Ctrl-C stops it.", flush=True)
    if options.host not in ("127.0.0.1", "localhost", "::1"):
        note(f"Everyone who can reach this machine at {options.host} can use the page: it asks no password.")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        note("minqa: stopped.")
        os._exit(130)  # without waiting for a thread that computes


def _check_searched(options: Namespace) -> None:
    """Check what is to be searched; an index brings its model, if that is here: nothing is fetched for it."""
    if options.index and options.corpus:
        raise InputError("--index and --corpus are two things to search: name one.")
    if options.index and not options.model:
        name = DiskIndex(options.index).model
        if name != DEMO_MODEL and not Path(name).is_dir():
            made = f"{options.index} was made with the model {name}"
            raise InputError(f"{made}, which is not here: name it with --model.")
        options.model = [name]


def _load(options: Namespace, *, shipped: bool = False) -> list[tuple[Encoder, Answerer | None, Clock]]:
    """Each model, before any work begins, with --reader or, if `shipped`, the head for it, and a clock."""
    encoders, clocks = [], []
    for model in options.model or [DEMO_MODEL]:
        with Clock() as clock, step("load"):
            encoder = load(model)
        if "layer" in options:
            encoder = replace(encoder, layer=options.layer, weights=options.weights)
        encoder.layer_number  # noqa: B018, it raises InputError if there is no such layer
        encoders.append(encoder)
        clocks.append(clock)
    if reader := getattr(options, "reader", None):
        answerer: Answerer = load_span_head(reader) if Path(reader).is_file() else load_reader(reader)
        for encoder in encoders:
            answerer.check_encoder(encoder)
        return [(encoder, answerer, clock) for encoder, clock in zip(encoders, clocks, strict=True)]
    head = load_span_head() if shipped else None
    fits = [head if head and head.encoder == encoder.fingerprint else None for encoder in encoders]
    return [*zip(encoders, fits, clocks, strict=True)]


def _load_to_look(options: Namespace) -> Encoder:
    if not options.text.strip():
        raise InputError("The text is empty.")
    if len(options.model or []) > 1:
        raise InputError("One model is looked into at a time: name one --model.")
    if options.png:
        check_format(options.png)
    _set_up(options.cache)
    return _load(options)[0][0]


def _open_or_make_index(options: Namespace, encoder: Encoder, splitter: Encoder, cache: Path) -> Index:
    """The index that was named, or the cache's of the corpus; its first shard is made if it is not there."""
    path = options.index
    if not path:
        corpus = open_corpus(options.corpus, note=note)
        path = _cached(cache, corpus, encoder, splitter)
        if (path / "000000.parquet").is_file():
            with step("load"), suppress(InputError):  # what is broken is made again
                return open_index(path, encoder, cache=cache)
        with step("embed corpus"):
            _write_index(encoder, corpus, path, cache, splitter=splitter, store_tokens=True, shards=[0])
    with step("load"):
        return open_index(path, encoder, cache=cache)


def _write_index(encoder: Encoder, corpus: Corpus, path: Path, cache: Path, **how: Any) -> DiskIndex:
    with progress("Embedding the corpus") as advance:
        how |= {"workers": os.cpu_count() or 1, "progress": advance, "note": note}
        return write_index(encoder, corpus, path, cache=cache, **how)


def _cached(cache: Path, corpus: Corpus, encoder: Encoder, splitter: Encoder) -> Path:
    """Where the cache keeps the index of a corpus: another place if its files have changed."""
    described = f"{corpus.state} {encoder.fingerprint} {splitter.fingerprint}"
    return cache / "index" / hashlib.sha256(described.encode()).hexdigest()[:32]


def _set_up(folder: Path | None) -> Path:
    """Make every core a device, so that batches run side by side; return the cache folder.

    JAX keeps compiled code there, if it can be written.
    """
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        with suppress(RuntimeError):  # JAX runs already, as in a notebook
            jax.config.update("jax_num_cpu_devices", min(os.cpu_count() or 1, MAX_DEVICES))
    folder = folder or platformdirs.user_cache_path("minqa")
    with suppress(InputError):  # whoever needs to write will say so
        check_writable(folder / "compiled")
        jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    return folder
