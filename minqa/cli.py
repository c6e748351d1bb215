"""The command line: a thin door to `ask`, `heat_map` and the index."""

import argparse
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from minqa.errors import InputError

# The commands import what they need when they run, so that --help and a typing error answer at once.

JSON_HELP = """\
--json prints one object: query; results, each with rank, title, score, cosine, text, truncated, words (text,
start, end, heat) and span (text, start, end, score) or null; model; searched and passages, the number of
passages searched and in the corpus; seconds by step. Offsets count characters of the result's text; score is
the mean over the query's content words of their best match in the passage, heat and span score are cosines;
heat is null for punctuation."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 1 for unusable input, 130 when interrupted."""
    try:
        options = _parser().parse_args(arguments)
        options.run(options)
        sys.stdout.flush()
    except InputError as error:
        print(f"minqa: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("minqa: stopped; the finished part of the index is kept.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="minqa", description="Search with BERT in JAX, and see which words matched."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Callable, about: str, epilog: str | None = None):
        sub = commands.add_parser(name, help=about, description=about, epilog=epilog)
        sub.set_defaults(run=run)
        sub.add_argument(
            "--model", help="folder or Hugging Face hub id of a BERT (default: all-MiniLM-L6-v2, installed)"
        )
        sub.add_argument(
            "--cache",
            type=Path,
            help="folder for vectors and compiled code (default: the user's cache folder)",
        )
        return sub

    ask = command("ask", _ask, "Find the passages that echo a question, and show where they do.", JSON_HELP)
    ask.add_argument("question")
    ask.add_argument("-k", type=_positive, default=3, help="how many passages (default: 3)")
    index = command("index", _index, "Embed a whole corpus, so that ask searches all of it.")
    for sub in (ask, index):
        sub.add_argument(
            "--corpus",
            type=Path,
            help="text, a passage a paragraph, or .jsonl with text and title (default: Wikipedia leads)",
        )
    heat = command("heat", _heat, "Show where one text echoes another.", JSON_HELP)
    heat.add_argument("query")
    heat.add_argument("passage")
    for sub in (ask, heat):
        sub.add_argument("--json", action="store_true", help="print JSON, described below")
    return parser


def _ask(options: argparse.Namespace) -> None:
    if not options.question.strip():
        raise InputError("The question is empty.")
    cache = _use_cache(options.cache)
    from minqa.ask import ask, embed_query
    from minqa.clock import Clock
    from minqa.encoder import load
    from minqa.index import SHARD, read_index, write_index

    clock = Clock()
    with clock.step("load"):
        encoder = load(options.model)
        passages = _passages(options.corpus)
        index = read_index(encoder, passages, cache)
    query = embed_query(encoder, options.question, clock=clock)
    if index is None:
        with _progress("Embedding, this once", min(SHARD, len(passages))) as advance:
            index = write_index(encoder, passages[:SHARD], cache, progress=advance)
    results = ask(encoder, query, passages, index.vectors, k=options.k, clock=clock)
    searched = len(index.vectors)
    _print(options.json, results, encoder, clock, searched=searched, passages=len(passages))
    if searched < len(passages):
        _note(
            f"Searched the first {searched:,} of {len(passages):,} passages; `minqa index` embeds the rest."
        )
    if index.truncated.any():
        _note(
            f"{index.truncated.sum():,} of them are longer than the {encoder.tokenizer.max_tokens} tokens "
            "that the model reads, and are found by their beginning alone."
        )


def _index(options: argparse.Namespace) -> None:
    cache = _use_cache(options.cache)
    from minqa.encoder import load
    from minqa.index import write_index

    encoder = load(options.model)
    passages = _passages(options.corpus)
    with _progress("Embedding", len(passages)) as advance:
        write_index(encoder, passages, cache, progress=advance)
    print(f"{len(passages):,} passages are embedded; their vectors lie in {cache}.")


def _heat(options: argparse.Namespace) -> None:
    for name in ("query", "passage"):
        if not getattr(options, name).strip():
            raise InputError(f"The {name} is empty.")
    _use_cache(options.cache)
    from minqa.ask import embed_query, read_closely
    from minqa.clock import Clock
    from minqa.corpus import Passage
    from minqa.encoder import load

    clock = Clock()
    with clock.step("load"):
        encoder = load(options.model)
    query = embed_query(encoder, options.query, clock=clock)
    results = read_closely(encoder, query, [Passage("", options.passage)], clock=clock)
    _print(options.json, results, encoder, clock)


def _passages(corpus: Path | None) -> list:
    from minqa.corpus import demo_passages, read_passages

    return demo_passages() if corpus is None else read_passages(corpus)


def _use_cache(folder: Path | None) -> Path:
    """Prepare the cache folder, and let JAX keep compiled code there."""
    import jax
    import platformdirs

    from minqa.index import check_writable

    folder = folder or platformdirs.user_cache_path("minqa")
    check_writable(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    # Compiled code that cannot be kept costs time at the next start, but nothing else.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    return folder


def _print(as_json: bool, results, encoder, clock, **facts) -> None:
    from rich.console import Console

    from minqa import show

    if as_json:
        answer = show.as_json(results, model=encoder.name, **facts, seconds=clock.seconds)
        print(json.dumps(answer, indent=2, ensure_ascii=False))
    else:
        show.print_answer(Console(), results, clock.seconds)
    if results[0].heat_map.query.truncated:
        _note(
            f"The question is longer than the {encoder.tokenizer.max_tokens} tokens that the model "
            "reads; its end is left out."
        )


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, and the function that moves it on and stops where Ctrl-C was pressed."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
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
    finally:
        signal.signal(signal.SIGINT, default)


def _note(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)
