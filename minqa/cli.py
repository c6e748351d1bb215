"""The command line: a thin door to `ask`, `heat_map` and the index."""

import argparse
import io
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

from minqa.errors import InputError
from minqa.text import printable

# The commands import what they need when they run, so that --help and a typing error answer at once.

JSON_HELP = """\
--json prints one object: query; results, each with rank, title, score, cosine, text, truncated, words (text,
start, end, heat) and span (text, start, end, score) or null; model; with ask, searched and passages, the
number of passages searched and in the corpus; seconds by step. Offsets count characters of the result's text;
score is the mean over the query's content words of their best match in the passage, heat and span score are
cosines; score and heat are null where there is nothing to compare, as for punctuation."""


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
        prog="minqa", description="Search with BERT in JAX, and see which words matched."
    )
    parser.add_argument("--version", action="version", version=f"minqa {version('minqa')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Callable, about: str, epilog: str | None = None):
        sub = commands.add_parser(name, help=about, description=about, epilog=epilog)
        sub.set_defaults(run=run)
        sub.add_argument(
            "--model",
            type=_named,
            help="folder or Hugging Face hub id of a BERT (default: all-MiniLM-L6-v2, installed)",
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
    about = "Embed a whole corpus, for ask to search. Every 1,024 passages are kept, should it be stopped."
    index = command("index", _index, about)
    for sub in (ask, index):
        sub.add_argument(
            "--corpus",
            metavar="FILE",
            type=_path,
            help="text, a passage a paragraph (or a line, where no line is blank), or .jsonl with text and "
            "title (default: Wikipedia leads)",
        )
    heat = command("heat", _heat, "Show where one text echoes another.", JSON_HELP)
    heat.add_argument("query", help="the text to look for")
    heat.add_argument("passage", help="the text to find it in")
    for sub in (ask, heat):
        sub.add_argument("--json", action="store_true", help="print JSON, described below")
    return parser


def _ask(options: argparse.Namespace) -> None:
    text = " ".join(options.query)
    if not text.strip():
        raise InputError("The query is empty.")
    cache = _use_cache(options.cache)
    from minqa.ask import ask, embed_query
    from minqa.clock import Clock
    from minqa.encoder import load
    from minqa.index import SHARD, read_index

    clock = Clock()
    with clock.step("load"):
        encoder = load(options.model)
        passages = _passages(options.corpus)
        index = read_index(encoder, passages, cache)
    query = embed_query(encoder, text, clock=clock)
    if index is None:
        with clock.step("embed corpus"):
            index = _embed_corpus(encoder, passages[:SHARD], cache)
    results = ask(encoder, query, passages, index.vectors, k=options.k, clock=clock)
    searched = len(index.vectors)
    _print(options.json, results, encoder, clock, searched=searched, passages=len(passages))
    if searched < len(passages):
        _note(
            f"Searched the first {searched:,} of {len(passages):,} passages; `uv run minqa index` embeds "
            "the rest, with the same --model and --corpus."
        )
    _note_truncated(index, encoder)


def _index(options: argparse.Namespace) -> None:
    cache = _use_cache(options.cache)
    from minqa.encoder import load

    encoder = load(options.model)
    passages = _passages(options.corpus)
    index = _embed_corpus(encoder, passages, cache)
    print(f"{len(passages):,} passages are embedded; their vectors lie in {cache}.")
    _note_truncated(index, encoder)


def _heat(options: argparse.Namespace) -> None:
    for name in ("query", "passage"):
        if not getattr(options, name).strip():
            raise InputError(f"The {name} is empty.")
    _use_cache(options.cache)
    from minqa.ask import ask, embed_query
    from minqa.clock import Clock
    from minqa.corpus import Passage
    from minqa.embedding import embed_pooled
    from minqa.encoder import load

    clock = Clock()
    with clock.step("load"):
        encoder = load(options.model)
    query = embed_query(encoder, options.query, clock=clock)
    with clock.step("embed corpus"):  # of one passage
        vectors = embed_pooled(encoder, encoder.tokenize([options.passage], "passage"))
    results = ask(encoder, query, [Passage("", options.passage)], vectors, k=1, clock=clock)
    _print(options.json, results, encoder, clock)


def _passages(corpus: Path | None) -> list:
    from minqa.corpus import demo_passages, read_passages

    return demo_passages() if corpus is None else read_passages(corpus)


def _embed_corpus(encoder, passages, cache):
    from minqa.index import check_writable, write_index

    check_writable(cache)
    with _progress("Embedding the corpus, once", len(passages)) as advance:
        return write_index(encoder, passages, cache, progress=advance)


def _use_cache(folder: Path | None) -> Path:
    """The cache folder; JAX keeps compiled code there, if it can be written."""
    import jax
    import platformdirs

    from minqa.index import check_writable

    folder = folder or platformdirs.user_cache_path("minqa")
    with suppress(InputError):  # whoever needs to write will say so
        check_writable(folder / "compiled")
        jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    return folder


def _print(as_json: bool, results, encoder, clock, **facts) -> None:
    from rich.console import Console

    from minqa import show

    if as_json:
        answer = show.as_json(
            results,
            model=encoder.name,
            **facts,
            seconds={step: round(spent, 6) for step, spent in clock.seconds.items()},
        )
        print(json.dumps(answer, indent=2))
    else:
        show.print_answer(Console(), results, clock.seconds)
    if results[0].heat_map.query.truncated:
        _note(
            f"The query is longer than the {encoder.tokenizer.max_tokens} tokens that the model "
            "reads; its end is left out."
        )


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, and the function that moves it on and stops where Ctrl-C was pressed."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # A KeyboardInterrupt that strikes while JAX collects garbage is lost, so Ctrl-C only leaves word here.
    pressed = False

    def interrupt(*_: object) -> None:
        nonlocal pressed
        pressed = True

    def advance(done: int) -> None:
        progress.advance(task, done)
        if pressed:
            raise KeyboardInterrupt

    default = signal.signal(signal.SIGINT, interrupt)
    try:
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task(what, total=total)
            yield advance
        if pressed:
            raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGINT, default)


def _note_truncated(index, encoder) -> None:
    if index.truncated.any():
        _note(
            f"{index.truncated.sum():,} of these passages are longer than the {encoder.tokenizer.max_tokens} "
            "tokens that the model reads; their ends are left out."
        )


def _note(sentence: str) -> None:
    print(printable(sentence).replace("\n", " "), file=sys.stderr)


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, not {text!r}")
    return int(text)


def _named(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def _path(text: str) -> Path:
    return Path(_named(text))
