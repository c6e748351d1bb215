"""The command line: a thin door to `ask`, `heat_map` and the index."""

import argparse
import io
import json
import os
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from minqa.demo import MODEL
from minqa.errors import InputError
from minqa.text import printable

# The commands import what they need when they run, so that --help and a typing error answer at once.

# On CPU each device holds a copy of the model.
MOST_DEVICES = 8
JSON_HELP = """\
--json prints one object: query; results, each with rank, title, score, cosine, contributions (of each query
word: text, start, end, weight, contribution; they add up to the score), text, truncated, words (text, start,
end, heat), answered (whether an answer was looked for), span (text, start, end, score and, of an answer,
probability and margin, its score above that of none) and sentence (the same) or null; model; settings; with
ask, searched, the number of passages searched, and complete, whether they are all of the corpus; seconds by
step. A result of ask also has id, section and start, its place in its article. Offsets count
characters of the text; score and heat are null where there is nothing to compare, as for punctuation. With
more than one --model, models lists what is said of each (model, settings, searched, complete, seconds); a
result holds title, text, by_model (rank or null, score, cosine, contributions, truncated, answered, span,
sentence), agreement (the correlation of the models' heats) and words (text, start, end, heat and hot of each
model), in their order."""


LOOK_JSON_HELP = """\
--json prints one object: model, text, and views, each of which is a table (heading, rows), a shaded text
(title, text, words, values), all heads (parts, attention [layer, head, part, part]) or one (layer, head,
parts, attention [part, part]). Layers are numbered as hidden states are, the first behind the embeddings
is 1; heads and units from 0."""


CORPUS_HELP = """\
a MediaWiki dump (.xml, .xml.bz2), Parquet with id, title and text (a file or a folder), .jsonl with text and
title, text (an article a paragraph, or a line, where no line is blank), or a data set of the Hugging Face
hub, as wikimedia/wikipedia:20231101.en (default: Wikipedia leads)"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 1 for unusable input, 130 when interrupted."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may know fewer characters than a passage
        sys.stdout.reconfigure(errors="replace")
    try:
        options = _parser().parse_args(arguments)
        options.run(options)
        sys.stdout.flush()
    except InputError as error:
        _note(f"minqa: {error}")
        return 1
    except KeyboardInterrupt:
        _note("minqa: stopped.")
        return 130
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="minqa", description="Search with BERT and ELMo in JAX, and see which words matched."
    )
    parser.add_argument("--version", action="version", version=f"minqa {version('minqa')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Callable, about: str, epilog: str | None = None, among=commands):
        sub = among.add_parser(name, help=about, description=about, epilog=epilog)
        sub.set_defaults(run=run)
        sub.add_argument(
            "--model",
            action="append",
            type=_named,
            help=f"folder or Hugging Face hub id of a BERT or an ELMo (default: {MODEL}, installed); "
            "may be said several times, for several models",
        )
        sub.add_argument(
            "--cache",
            metavar="DIR",
            type=_path,
            help="folder for vectors and compiled code (default: the user's cache folder)",
        )
        return sub

    ask = command("ask", _ask, "Find the passages that echo a query, and show where they do.", JSON_HELP)
    ask.add_argument("query", nargs="+", help="what to look for; quotes are not needed")
    ask.add_argument("-k", type=_positive, default=3, help="how many passages (default: 3)")
    ask.add_argument(
        "--rerank",
        metavar="N",
        type=_count,
        help="how many passages, the nearest by their pooled vectors, to order word by word, at least "
        "-k (default: 100, or 50 where token vectors are not stored; 0 leaves them in that order)",
    )
    ask.add_argument("--corpus", metavar="CORPUS", type=_named, help=f"what to search: {CORPUS_HELP}")
    ask.add_argument(
        "--index",
        metavar="DIR",
        type=_path,
        help="what to search, in place of --corpus: a folder that index made",
    )
    about = "Embed a whole corpus, for ask to search. Stopped, the same command goes on where it was."
    index = command("index", _index, about)
    index.add_argument("corpus", metavar="CORPUS", nargs="?", type=_named, help=CORPUS_HELP)
    index.add_argument(
        "--out",
        metavar="DIR",
        type=_path,
        help="the index's folder, for ask --index; a further corpus is added behind what is there (default: "
        "in the cache folder, where ask --corpus finds it)",
    )
    index.add_argument(
        "--max-tokens",
        metavar="N",
        type=_positive,
        help="the most tokens of a passage, which is made of whole sentences (default: 128)",
    )
    index.add_argument(
        "--shard",
        metavar="N",
        type=_positive,
        help="keep what is done after every N articles (default: 1,024)",
    )
    index.add_argument(
        "--store-tokens",
        action="store_true",
        help="keep the vectors of all tokens too, so that ask is faster; 40 MB for 1,000 Wikipedia leads",
    )
    for sub in (ask, index):
        sub.add_argument(
            "--coordinator",
            metavar="HOST:PORT",
            type=_named,
            help="of several processes that share the work: where the first of them listens; 'auto' on "
            "Slurm, Open MPI, Kubernetes or Cloud TPU, which know the other two as well",
        )
        sub.add_argument("--processes", metavar="N", type=_positive, help="how many processes there are")
        sub.add_argument("--process", metavar="I", type=_count, help="which of them this is, from 0")
    info = commands.add_parser(
        "index-info",
        help="Say what an index holds.",
        description="Say what an index holds, and check every byte of it.",
    )
    info.set_defaults(run=_info)
    export = commands.add_parser(
        "export", help="Write an index for another engine.", description="Write an index for another engine."
    )
    export.set_defaults(run=_export)
    for sub in (info, export):
        sub.add_argument("index", metavar="DIR", type=_path, help="a folder that index made")
    export.add_argument("--to", required=True, choices=["parquet", "faiss", "lance"], help="the format")
    export.add_argument(
        "--out", metavar="PATH", type=_path, help="where to (default: DIR.parquet, for example)"
    )
    heat = command("heat", _heat, "Show where one text echoes another.", JSON_HELP)
    compare = command(
        "compare",
        _compare,
        "Show where two models or more see one text echo another, side by side.",
        JSON_HELP,
    )
    for sub in (heat, compare):
        sub.add_argument("query", help="the text to look for")
        sub.add_argument("passage", help="the text to find it in")
    heat.add_argument(
        "--png", metavar="FILE", type=_path, help="draw every word against every word, as PNG, SVG or PDF"
    )
    about = "Look inside a model: heads of attention, and units."
    inside = commands.add_parser("look", help=about, description=about)
    kinds = inside.add_subparsers(metavar="WHAT", required=True)
    heads = command("heads", _look, "Show what heads of attention do in a text.", LOOK_JSON_HELP, kinds)
    heads.set_defaults(look=_heads)
    heads.add_argument("text", help="what the model reads")
    heads.add_argument("--head", metavar="L.H", type=_pair, help="one head: its layer, from 1, and number")
    heads.add_argument(
        "--flip",
        metavar="TEXT",
        type=_named,
        help="a text that differs in a word: which heads does --from attend to another of --to with?",
    )
    heads.add_argument(
        "--from", dest="source", metavar="WORD", type=_named, help="a word, or its number from 0"
    )
    heads.add_argument("--to", metavar="WORD", type=_named, nargs=2, help="two words that it may attend to")
    units = command("units", _look, "Shade a text by units of a model.", LOOK_JSON_HELP, kinds)
    units.set_defaults(look=_units)
    units.add_argument("text", help="what the model reads")
    units.add_argument(
        "--unit", metavar="L.U", type=_pair, action="append", help="layer and number of a unit, or of several"
    )
    units.add_argument(
        "--feature",
        metavar="NAME",
        type=_named,
        help="look for the units that follow position in the sentence (the default), quotes, brackets, "
        "number, capital or name, in the first 256 passages of --corpus",
    )
    units.add_argument("--factors", metavar="K", type=_positive, help="K factors of all units instead")
    units.add_argument(
        "--kind",
        type=_named,
        help="feed-forward or hidden of a BERT, cell or projection of an ELMo (default: the first)",
    )
    units.add_argument("--corpus", metavar="CORPUS", type=_named, help=CORPUS_HELP)
    app = command("app", _app, "Show a page to ask, compare and look inside with, until Ctrl-C.")
    app.add_argument("--corpus", metavar="CORPUS", type=_named, help=f"what to search: {CORPUS_HELP}")
    app.add_argument("--index", metavar="DIR", type=_path, help="a folder that index made, in place of it")
    app.add_argument(
        "--host",
        metavar="ADDRESS",
        type=_named,
        default="127.0.0.1",
        help="where to listen (default: 127.0.0.1, this machine alone; 0.0.0.0 lets in everyone who can "
        "reach this machine, without a password)",
    )
    app.add_argument("--port", type=_positive, help="(default: the first free one from 7860)")
    for sub in (heads, units):
        sub.add_argument("--png", metavar="FILE", type=_path, help="draw it, as PNG, SVG or PDF")
    for sub in (ask, heat, compare, heads, units):
        sub.add_argument("--json", action="store_true", help="print JSON, described below")
        sub.add_argument(
            "--html", metavar="FILE", type=_path, help="write a page to look at, point and click"
        )
    for sub in (ask, heat, compare):
        sub.add_argument(
            "--reader",
            metavar="MODEL",
            type=_named,
            help="what finds the answers: folder or hub id of a BERT for question answering, or the file of "
            "a span head (default: heat marks a phrase, but ask has a head for the default model)",
        )
        sub.add_argument(
            "--layer",
            dest="layers",
            metavar="LAYERS",
            type=_layers,
            help="the layer to compare, 0 for the embeddings, or the mean of several, as 4,6 (default: last)",
        )
        sub.add_argument(
            "--centring",
            choices=["none", "mean", "z-score"],
            help="what the corpus has in common is taken off vectors (default: none)",
        )
        sub.add_argument(
            "--weights",
            choices=["none", "idf"],
            help="how much words of the query count: all alike, or by how rare they are (default: idf)",
        )
    return parser


def _ask(options: argparse.Namespace) -> None:
    text = " ".join(options.query)
    if not text.strip():
        raise InputError("The query is empty.")
    if options.index and options.corpus:
        raise InputError("--index and --corpus are two things to search: name one.")
    if options.coordinator and not options.index:
        raise InputError("Several processes search what one `minqa index` has made: name it with --index.")
    if options.index and not options.model:
        options.model = [_model_of(options.index)]
    cache = _set_up(options.cache)
    process = _process(options)
    from minqa.ask import ask, check_query, embed_query
    from minqa.comparison import Answer

    measure = _measure(options)
    encoders, clocks = _load(options.model, measure)
    finder = _finder(options.reader, shipped=True)
    for encoder in encoders:
        check_query(encoder, text)  # before a corpus is embedded for it
    answers, facts = [], []
    for encoder, clock in zip(encoders, clocks, strict=True):
        index = _index_to_ask(options, encoder, encoders[0], cache, clock)
        if process.of > 1:
            index = _spread(index)
        query = embed_query(encoder, text, index.statistics, measure=measure, clock=clock)
        how = {"measure": measure, "finder": finder(encoder), "clock": clock}
        results = ask(encoder, query, index, k=options.k, rerank=options.rerank, **how)
        answers.append(Answer(encoder, index.statistics, query, results, **how))
        facts.append({"searched": len(index.passages), "complete": index.complete})
        if not index.complete:
            corpus = f" {options.corpus}" if options.corpus else ""
            where = f" CORPUS --out {options.index}" if options.index else corpus
            _note(
                f"{encoder.name} searched {len(index.passages):,} passages, and these are not all: `uv run "
                f"minqa index{where}`, with the same --model, embeds the rest."
            )
    if process.number == 0:
        _print(options, answers, facts)


def _model_of(index: Path) -> str:
    """What an index was made with, if it is at hand: nothing is fetched because a folder says so."""
    from minqa.index import read_manifest

    name = read_manifest(index).model
    if name != MODEL and not Path(name).is_dir():
        raise InputError(f"{index} was made with the model {name}, which is not here: name it with --model.")
    return name


def _index_to_ask(options: argparse.Namespace, encoder, splitter, cache: Path, clock):
    """The index that was named, or what the cache has of the corpus; its first shard is made if need be."""
    from minqa.corpus import open_corpus
    from minqa.index import open_index

    if options.index:
        with clock.step("load"):
            return open_index(options.index, encoder, cache=cache)
    corpus = open_corpus(options.corpus)
    folder = _cached(cache, corpus, encoder, splitter)
    if (folder / "manifest.json").is_file():
        with clock.step("load"), suppress(InputError):  # what is broken is made anew
            return open_index(folder, encoder, cache=cache)
    with clock.step("embed corpus"):
        _write_index(encoder, corpus, folder, cache, splitter=splitter, store_tokens=True, most=1)
    with clock.step("load"):
        return open_index(folder, encoder, cache=cache)


def _spread(index):
    """The same index, its vectors spread over the devices of all processes."""
    import jax

    from minqa.similarity import shard

    return replace(index, vectors=shard(index.vectors, jax.make_mesh((jax.device_count(),), ("passage",))))


def _index(options: argparse.Namespace) -> None:
    cache = _set_up(options.cache)
    process = _process(options)
    from minqa.corpus import open_corpus

    corpus = open_corpus(options.corpus)
    encoders, _ = _load(options.model)
    if options.out and len(encoders) > 1:
        raise InputError("--out is one model's folder: name one --model.")
    for encoder in encoders:
        folder = _write_index(
            *(encoder, corpus, options.out or _cached(cache, corpus, encoder, encoders[0]), cache),
            max_tokens=options.max_tokens,
            shard=options.shard,
            store_tokens=options.store_tokens,
            splitter=encoders[0],
            process=process,
        )
        if process.number == 0:
            count = sum(shard.stop - shard.start for shard in folder.shards)
            print(f"{len(folder.passages):,} passages of {count:,} articles are embedded, in {folder.path}.")


def _write_index(encoder, corpus, folder: Path, cache: Path, **how):
    from minqa.indexing import write_index

    with _progress("Embedding the corpus") as advance:
        workers = os.cpu_count() or 1
        return write_index(
            encoder, corpus, folder, cache=cache, workers=workers, progress=advance, note=_note, **how
        )


def _cached(cache: Path, corpus, encoder, splitter) -> Path:
    """Where the cache keeps the index of a corpus: another place for another state of its files."""
    import hashlib

    described = f"{corpus.state} {encoder.fingerprint} {splitter.fingerprint}"
    return cache / "index" / hashlib.sha256(described.encode()).hexdigest()[:32]


def _process(options: argparse.Namespace):
    """Which of several processes this is, if it is one; they find each other here."""
    from minqa.indexing import Process

    if options.coordinator is None:
        if options.processes is not None or options.process is not None:
            raise InputError("--processes and --process need a --coordinator.")
        return Process()
    import jax
    from jax.experimental.multihost_utils import sync_global_devices

    where = {}
    if options.coordinator != "auto":
        if options.processes is None or options.process is None:
            raise InputError("--coordinator needs --processes and --process.")
        if options.process >= options.processes:
            raise InputError(f"--process {options.process} is none of {options.processes}, counted from 0.")
        where = {
            "coordinator_address": options.coordinator,
            "num_processes": options.processes,
            "process_id": options.process,
        }
    # Gloo, which carries what CPUs say to each other, greets on standard output, where only results belong.
    sys.stdout.flush()
    sys.stdout = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors="replace")
    os.dup2(2, 1)
    try:
        jax.distributed.initialize(**where)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"The processes did not find each other ({str(error).splitlines()[0]}).") from None
    return Process(jax.process_index(), jax.process_count(), lambda: sync_global_devices("index"))


def _info(options: argparse.Namespace) -> None:
    from minqa.index import Folder

    folder = Folder(options.index)
    manifest, shards = folder.manifest, folder.shards
    print(printable(f"model       {manifest.model}, fingerprint {manifest.fingerprint[:16]}"))
    print(f"passages    {len(folder.passages):,} of at most {manifest.max_tokens} tokens")
    for name in folder.corpora:
        of = folder.of(name)
        articles = sum(shard.stop - shard.start for shard in of)
        print(printable(f"corpus      {name}: {articles:,} articles in {len(of):,} shards"))
    stored = sum(shard.has_tokens for shard in shards)
    print(f"tokens      stored in {stored:,} of {len(shards):,} shards")
    print(f"size        {folder.bytes / 1e6:,.1f} MB")
    print("complete    " + ("yes" if folder.complete else "no: the same `minqa index` goes on"))
    with _progress("Checking every byte") as advance:
        folder.check(every_byte=True, progress=_part_of(folder.bytes, lambda _, read: advance(0, read)))
    print("checksums   all agree")


def _export(options: argparse.Namespace) -> None:
    from minqa.engines import export
    from minqa.index import Folder

    folder = Folder(options.index)
    if not folder.complete:
        _note(f"{options.index} is not complete: the same `minqa index` goes on.")
    out = options.out or folder.path.resolve().with_name(f"{folder.path.resolve().name}.{options.to}")
    with _progress("Writing") as advance:
        export(folder, options.to, out, progress=_part_of(len(folder.passages), advance))
    print(f"{len(folder.passages):,} passages are in {out}.")


def _heat(options: argparse.Namespace) -> None:
    for name in ("query", "passage"):
        if not getattr(options, name).strip():
            raise InputError(f"The {name} is empty.")
    if getattr(options, "png", None):
        from minqa.figure import check_format

        if len(options.model or []) > 1:
            raise InputError("--png draws the matrix of one model: name one --model.")
        check_format(options.png)
    cache = _set_up(options.cache)
    from minqa.ask import embed_query, read
    from minqa.comparison import Answer
    from minqa.records import Passage
    from minqa.survey import demo_statistics

    measure, finder = _measure(options), _finder(options.reader, shipped=False)
    answers = []
    for encoder, clock in zip(*_load(options.model, measure), strict=True):
        with clock.step("statistics"):
            statistics = demo_statistics(encoder, cache)
        query = embed_query(encoder, options.query, statistics, measure=measure, clock=clock)
        passages = [Passage("", options.passage)]
        how = {"measure": measure, "finder": finder(encoder), "clock": clock}
        results = read(encoder, query, passages, statistics, **how)
        answers.append(Answer(encoder, statistics, query, results, **how))
    _print(options, answers, [{} for _ in answers])


def _compare(options: argparse.Namespace) -> None:
    if len(options.model or []) < 2:
        raise InputError(
            f"There is nothing to compare: name two models or more, each with --model; {MODEL} is installed."
        )
    _heat(options)


def _look(options: argparse.Namespace) -> None:
    if not options.text.strip():
        raise InputError("The text is empty.")
    if len(options.model or []) > 1:
        raise InputError("One model is looked into at a time: name one --model.")
    if options.png:
        from minqa.figure import check_format

        check_format(options.png)
    _set_up(options.cache)
    [encoder], _ = _load(options.model)
    views = options.look(options, encoder)
    if options.html:
        from minqa.look import STYLE
        from minqa.page import document

        page = document(options.text, [view.html() for view in views], [encoder.name], style=STYLE)
        _write(options.html, page.encode("utf-8"))
    if options.png:
        from minqa.figure import picture, views_figure

        _write(options.png, picture(views_figure(views, settings=encoder.name), options.png))
    if options.json:
        shown = {"model": encoder.name, "text": options.text, "views": [view.data() for view in views]}
        print(json.dumps(shown, indent=2))
        return
    from rich.console import Console

    from minqa.show import print_group

    print_group(Console(), [view.terminal() for view in views])


def _app(options: argparse.Namespace) -> None:
    from importlib.util import find_spec

    if find_spec("gradio") is None:
        raise InputError("The page needs Gradio: install it with `uv sync --extra app`.")
    if options.index and options.corpus:
        raise InputError("--index and --corpus are two things to search: name one.")
    if options.index and not options.model:
        options.model = [_model_of(options.index)]
    cache = _set_up(options.cache)
    from minqa.app import build, serve
    from minqa.tabs import Search

    encoders, clocks = _load(options.model)
    finder = _finder(None, shipped=True)
    searches = [
        Search(encoder, _index_to_ask(options, encoder, encoders[0], cache, clock), finder(encoder))
        for encoder, clock in zip(encoders, clocks, strict=True)
    ]
    address = serve(build(searches), options.host, options.port)
    print(f"The page is at {address}; Ctrl-C stops it.", flush=True)
    if options.host not in ("127.0.0.1", "localhost", "::1"):
        _note(f"Everyone who can reach this machine at {options.host} can use the page: it asks no password.")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        _note("minqa: stopped.")
        # At once: a thread that computes would be waited for.
        os._exit(130)


def _heads(options: argparse.Namespace, encoder) -> list:
    from minqa.look import look_at_flip, look_at_heads

    if not options.flip:
        if options.source is not None or options.to:
            raise InputError("--from and --to belong to --flip: name the other text with it.")
        return look_at_heads(encoder, options.text, options.head)
    if options.source is None or not options.to:
        raise InputError("--flip needs the word that attends, --from, and two that it may attend to, --to.")
    if options.head:
        raise InputError("--head and --flip are two things to look at: name one.")
    return look_at_flip(encoder, options.text, options.flip, options.source, tuple(options.to))


def _units(options: argparse.Namespace, encoder) -> list:
    from minqa.look import look_at_factors, look_at_units, search_units

    asked = [name for name in ("unit", "feature", "factors") if getattr(options, name)]
    if len(asked) > 1:
        raise InputError(f"--{asked[0]} and --{asked[1]} are two things to look at: name one.")
    if options.unit:
        return look_at_units(encoder, options.text, options.unit, kind=options.kind)
    if options.factors:
        return look_at_factors(encoder, options.text, options.factors, kind=options.kind)
    from minqa.corpus import open_corpus
    from minqa.passages import first_passages

    texts = [passage.text for passage in first_passages(encoder, open_corpus(options.corpus))]
    feature = options.feature or "position"
    with _progress("Reading passages") as advance:
        step = _part_of(len(texts), advance)
        listing, chosen = search_units(encoder, texts, feature, kind=options.kind, progress=step)
    return [listing, *look_at_units(encoder, options.text, chosen, kind=options.kind)]


def _measure(options: argparse.Namespace):
    """The measure that ranks best, with what was asked for in its place."""
    from minqa.statistics import RANKING

    asked = {name: getattr(options, name) for name in ("layers", "centring", "weights")}
    return replace(RANKING, **{name: value for name, value in asked.items() if value is not None})


def _load(models: Sequence[str] | None, measure=None) -> tuple[list, list]:
    """The encoders, all of them before any work begins, and a clock for each."""
    from minqa.clock import Clock
    from minqa.encoder import load

    encoders, clocks = [], []
    for model in models or [MODEL]:
        clocks.append(Clock())
        with clocks[-1].step("load"):
            encoders.append(load(model))
        if measure:
            measure.layers_of(encoders[-1].model.num_layers)
    return encoders, clocks


def _finder(reader: str | None, *, shipped: bool) -> Callable:
    """What finds answers for an encoder: the reader that was named, or else the shipped head, if it fits."""
    from minqa.reader import load_reader
    from minqa.span_head import load_span_head

    if reader:
        loaded = load_span_head(reader) if Path(reader).is_file() else load_reader(reader)
        return lambda encoder: loaded
    head = load_span_head() if shipped else None
    return lambda encoder: head if head and head.encoder == encoder.fingerprint else None


def _set_up(folder: Path | None) -> Path:
    """Make every core a device, so that batches run side by side; return the cache folder.

    JAX keeps compiled code there, if it can be written.
    """
    import jax
    import platformdirs

    from minqa.storage import check_writable

    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        with suppress(RuntimeError):  # JAX runs already, as in a notebook
            jax.config.update("jax_num_cpu_devices", min(os.cpu_count() or 1, MOST_DEVICES))
    folder = folder or platformdirs.user_cache_path("minqa")
    with suppress(InputError):  # whoever needs to write will say so
        check_writable(folder / "compiled")
        jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    return folder


def _print(options: argparse.Namespace, answers: Sequence, facts: Sequence[dict]) -> None:
    """Show one encoder's answer, or several side by side, in each way that was asked for.

    `facts` are added to the JSON of each.
    """
    from rich.console import Console

    from minqa import show
    from minqa.ask import settings
    from minqa.comparison import compare

    comparisons = compare(answers) if len(answers) > 1 else []
    names = [answer.encoder.name for answer in answers]
    seconds = [answer.clock.seconds for answer in answers]
    lines = [settings(one.encoder, one.statistics, one.measure, one.finder) for one in answers]
    query = answers[0].query.tokens.text
    if options.html:
        several = show.page_comparison(query, names, comparisons, lines) if comparisons else None
        _write(options.html, (several or show.page(query, answers[0].results, lines[0])).encode("utf-8"))
    if getattr(options, "png", None):
        from minqa.figure import figure, picture

        drawn = figure(answers[0].results[0].heat_map, settings=lines[0])
        _write(options.png, picture(drawn, options.png))
    console = Console()
    marks = not console.color_system
    if options.json:
        described = [
            {
                "model": name,
                "settings": line,
                **fact,
                "seconds": {step: round(spent, 6) for step, spent in steps.items()},
            }
            for name, line, fact, steps in zip(names, lines, facts, seconds, strict=True)
        ]
        if comparisons:
            data = show.comparison_as_json(comparisons, models=described)
        else:
            data = show.as_json(answers[0].results, **described[0])
        print(json.dumps(data, indent=2))
    elif comparisons:
        results = [answer.results for answer in answers]
        shown = show.terminal_comparison(names, results, comparisons, marks=marks)
        totals = [sum(steps.values()) for steps in seconds]
        show.print_answer(console, shown, lines, zip(names, totals, strict=True))
    else:
        shown = show.terminal(answers[0].results, marks=marks)
        show.print_answer(console, shown, lines, seconds[0].items())
    for answer in answers:
        if len(answer.query.tokens.windows) > 1:
            _note(
                f"The query is longer than the {answer.encoder.tokenizer.max_tokens} tokens that "
                f"{answer.encoder.name} reads at once; its beginning alone picks the candidates."
            )


def _write(path: Path, content: bytes) -> None:
    """Write a file whole, or leave what was there."""
    from minqa.storage import write_file

    path = path.resolve()
    if path.exists() and not path.is_file():
        raise InputError(f"{path} cannot be written: it is there, and is no file.")
    try:
        write_file(path, content)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}).") from error


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, float], None]]:
    """A progress bar on stderr, and the function that moves it on and stops where Ctrl-C was pressed.

    The function takes how many passages were just done, and how much of everything is, 0 to 1.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    told = TextColumn("{task.fields[told]}")
    columns = (TextColumn(what), BarColumn(), TaskProgressColumn(), told, TimeRemainingColumn())
    # A KeyboardInterrupt that strikes while JAX collects garbage is lost, so Ctrl-C only leaves word here.
    pressed, total = False, 0
    recent = deque([(time.monotonic(), 0)], maxlen=64)

    def interrupt(*_: object) -> None:
        nonlocal pressed
        pressed = True

    def advance(done: int, read: float) -> None:
        nonlocal total
        total += done
        recent.append((time.monotonic(), total))
        (since, before), (now, _) = recent[0], recent[-1]
        rate = (total - before) / max(now - since, 1e-3)
        told = f"{total:,} passages, {rate:,.0f}/s" if total else ""
        progress.start()  # before there is work to show, an error stands alone
        if not done and read > progress.tasks[task].completed:
            progress.reset(task)  # what was there already says nothing of the time left
        progress.update(task, completed=read, total=1 if read else None, told=told)
        if pressed:
            raise KeyboardInterrupt

    progress = Progress(*columns, console=Console(stderr=True))
    task = progress.add_task(what, total=None, told="")
    default = signal.signal(signal.SIGINT, interrupt)
    try:
        yield advance
        if pressed:
            raise KeyboardInterrupt
    finally:
        if progress.live.is_started:
            progress.stop()
        signal.signal(signal.SIGINT, default)


def _part_of(total: int, advance: Callable[[int, float], None]) -> Callable[[int], None]:
    """A function that takes how much was just done of a total, for the one that `_progress` yields."""
    done = 0

    def step(more: int) -> None:
        nonlocal done
        done += more
        advance(more, done / max(total, 1))

    return step


def _note(sentence: str) -> None:
    print(printable(sentence).replace("\n", " "), file=sys.stderr)


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, not {text!r}")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, 0 or more, not {text!r}")
    return int(text)


def _layers(text: str) -> tuple[int, ...]:
    try:
        return tuple(map(int, text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be whole numbers with commas between, not {text!r}") from None


def _pair(text: str) -> tuple[int, int]:
    layer, _, number = text.partition(".")
    if not (layer.isdecimal() and number.isdecimal()):
        raise argparse.ArgumentTypeError(f"must be a layer and a number, as 4.1, not {text!r}")
    return int(layer), int(number)


def _named(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def _path(text: str) -> Path:
    return Path(_named(text))
