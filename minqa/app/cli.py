"""The command line: one function per command, and one sentence for whatever is wrong."""

import io
import os
import sys
import threading
import traceback
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version as version_of
from importlib.resources import files
from typing import Annotated, Any

import typer
from typer import Context, Option

from minqa.app import options as opt
from minqa.app.progress import ctrl_c, note
from minqa.text import InputError

# JAX takes over a second to import, so what a command needs is imported when it runs: --help and a typing
# error answer at once.

# Modules of the extra `app`, and what needs them.
NEEDED_BY = dict.fromkeys(("platformdirs", "rich"), "The command line")
NEEDED_BY |= dict.fromkeys(("starlette", "uvicorn"), "The page")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit status is 1 for unusable input, 2 for odd options, 130 for Ctrl-C."""
    if "_MINQA_COMPLETE" in os.environ:  # a shell asks what it could complete
        app(prog_name="minqa")
    arguments = sys.argv[1:] if arguments is None else arguments
    sys.stderr = sys.stderr or io.StringIO()  # it is closed
    try:
        if sys.stdout is None:
            raise InputError("Standard output is closed, so nothing can be shown.")
        if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may know fewer characters than a passage
            sys.stdout.reconfigure(errors="replace")
        with ctrl_c(), typer.main.get_command(app).make_context("minqa", arguments) as context:
            context.command.invoke(context)
            sys.stdout.flush()
    except typer.Exit as done:
        return done.exit_code
    except KeyboardInterrupt:
        note("minqa: stopped.")
        return 130
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        close_output()
    except Exception as error:
        if os.environ.get("MINQA_TRACEBACK"):
            traceback.print_exc()
        note(f"minqa: {sentence_of(error)}")
        if isinstance(error, OSError) and error.filename is None:
            close_output()
        return 2 if isinstance(error, typer.TyperException) else 1
    return 0


def close_output() -> None:
    """Drop what is still to be printed: Python would try again, and complain."""
    with suppress(OSError, ValueError):  # it is no file, as in a test
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def sentence_of(error: Exception) -> str:
    """What is wrong, in one sentence."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "minqa"
        return f"{error.format_message().rstrip('.?')}: `{command} --help` says more."
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if package in NEEDED_BY:
        return f"{NEEDED_BY[package]} needs {package}: install it with `uv sync --extra app`."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'Standard output'} cannot be read or written ({error.strerror})."
    cause = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return f"This went wrong inside minqa ({cause}); with MINQA_TRACEBACK=1 it says where."


plain: dict[str, Any] = dict(rich_markup_mode=None, pretty_exceptions_enable=False)
app = typer.Typer(help="Search with BERT and ELMo in JAX, and see which words matched.", **plain)
look = typer.Typer(help="Look inside a model: heads of attention, units, influence.", **plain)
app.add_typer(look, name="look")


@app.callback()
def show_version(
    version: Annotated[bool, Option("--version", is_eager=True, help="Show the version.")] = False,
) -> None:
    if version:
        print(f"minqa {version_of('minqa')}")
        raise typer.Exit


@app.command()
@opt.grouped
def ask(
    words: opt.Words = None,
    k: opt.K = 3,
    answers: opt.Answers = 1,
    rerank: opt.Rerank = None,
    *,
    source: opt.Source,
    how: opt.How,
    output: opt.Output,
) -> None:
    """Answer a question from the passages that echo it, and show where they do.

    Without a query one question after another is read from the terminal, until Ctrl-D.
    """
    from minqa.app import corpora, work
    from minqa.ask import check_question
    from minqa.clock import Clock

    question, asks_once = " ".join(words or ()), bool(words) or not sys.stdin.isatty()
    if asks_once:
        work.require(query=question)
    work.check_output(output)
    searches = corpora.load_to_search(source, how)
    if answers > 1 and not all(search.answerer for search in searches):
        note("Not every model here has something that looks for answers: name it with --reader.")
    for search in searches if asks_once else ():
        check_question(search.encoder, question)  # before a corpus is embedded for it
    searches = corpora.with_indexes(searches, source, how.cache_folder)
    for typed in [question] if asks_once else work.typed("Question: "):
        try:
            replies = [search.ask(typed, k, rerank) for search in searches]
            work.show_answers(typed, replies, searches, output, answers)
        except InputError as error:
            if asks_once:
                raise
            note(str(error))
        searches = [replace(search, clock=Clock()) for search in searches]
    corpora.note_what_is_left(searches, source)


@app.command()
@opt.grouped
def index(
    corpus: opt.Indexed = None,
    out: opt.Out = None,
    *,
    indexing: opt.Indexing,
    query_prompt: opt.QueryPrompt = None,
    passage_prompt: opt.PassagePrompt = None,
    model: opt.Models = None,
    cache: opt.Cache = None,
) -> None:
    """Embed a whole corpus, for ask to search. If it is stopped, the same command continues."""
    from minqa.app import corpora

    how = opt.How(model, query_prompt, passage_prompt, cache=cache)
    corpora.index_corpus(corpus, out, how, indexing)


@app.command()
def index_info(index: opt.IndexFolder) -> None:
    """Say what an index holds, and check every byte of it."""
    from minqa.app import corpora

    corpora.describe_index(index)


@app.command("compare", help="Show where two models or more see one text echo another, side by side.")
@app.command("heat", help="Show where one text echoes another.")
@opt.grouped
def heat(
    context: Context, query: opt.Query, passage: opt.PassageText, *, how: opt.How, output: opt.Output
) -> None:
    from minqa.app import corpora, work

    work.require(query=query, passage=passage)
    if context.info_name == "compare" and len(how.model or []) < 2:
        several = "name two models or more, each with --model"
        raise InputError(f"There is nothing to compare: {several}; all-MiniLM-L6-v2 is installed.")
    work.check_output(output)
    searches = [corpora.with_statistics(search, how.cache_folder) for search in work.load_models(how)]
    work.show_answers(query, [search.read(query, passage) for search in searches], searches, output)


@app.command("align", help="Pair the words of two texts that say the same.")
@look.command("influence", help="Shade two texts by how much each word moves their score.")
@opt.grouped
def look_at_two(
    context: Context,
    query: opt.Query,
    passage: opt.PassageText,
    *,
    model: opt.Models = None,
    cache: opt.Cache = None,
    output: opt.Output,
) -> None:
    from minqa.app import corpora, work
    from minqa.views import look

    work.require(query=query, passage=passage)
    how = opt.How(model, cache=cache)
    search = corpora.with_statistics(work.load_to_look(query, how, output), how.cache_folder)
    view = look.aligned if context.info_name == "align" else look.influence
    work.show(view(search.encoder, query, passage), query, [{"model": search.encoder.name}], output)


@look.command()
@opt.grouped
def heads(
    text: opt.Text,
    head: opt.Head = None,
    flip: opt.Flip = None,
    from_word: opt.FromWord = None,
    to: opt.ToWords = None,
    *,
    model: opt.Models = None,
    cache: opt.Cache = None,
    output: opt.Output,
) -> None:
    """Show what heads of attention do in a text."""
    from minqa.app import work
    from minqa.views import look

    if not flip and (from_word or to):
        raise InputError("--from and --to belong to --flip: name the other text with it.")
    if flip and not (from_word and to):
        raise InputError("--flip needs the word that attends, --from, and two that it may attend to, --to.")
    opt.name_one("look at", head=head, flip=flip)
    encoder = work.load_to_look(text, opt.How(model, cache=cache), output).encoder
    if flip and from_word and to:
        view = look.flipped(encoder, text, flip, from_word, to)
    else:
        view = look.heads(encoder, text, head)
    work.show(view, text, [{"model": encoder.name}], output)


@look.command()
@opt.grouped
def units(
    text: opt.Text,
    unit: opt.Units = None,
    feature: opt.Feature = None,
    factors: opt.Factors = None,
    kind: opt.Kind = None,
    corpus: opt.Corpus = None,
    *,
    model: opt.Models = None,
    cache: opt.Cache = None,
    output: opt.Output,
) -> None:
    """Shade a text by units of a model."""
    from minqa.app import corpora, work
    from minqa.views import look

    opt.name_one("look at", unit=unit, feature=feature, factors=factors)
    encoder = work.load_to_look(text, opt.How(model, cache=cache), output).encoder
    if factors:
        view = look.shaded_by_factors(encoder, text, factors, kind)
    elif unit:
        view = look.shaded_by_units(encoder, text, unit, kind)
    else:
        listing, best = corpora.search_units(encoder, corpus, feature or "position", kind)
        view = look.Stack(text, [listing, *look.shaded_by_units(encoder, text, best, kind).views])
    work.show(view, text, [{"model": encoder.name}], output)


@app.command("app")
@opt.grouped
def show_app(
    model: opt.Models = None,
    cache: opt.Cache = None,
    *,
    source: opt.Source,
    host: opt.Host = "127.0.0.1",
    port: opt.Port = None,
    root_path: opt.RootPath = None,
) -> None:
    """Show a page to ask, compare and look inside with, until Ctrl-C."""
    note("Loading the models and what is searched; the page's address follows.")
    from minqa.app import corpora
    from minqa.app.browser import LOOPBACK, Page, serve, warm_up

    how = opt.How(model, cache=cache)
    searches = corpora.with_indexes(corpora.load_to_search(source, how), source, how.cache_folder)
    address = serve(Page(searches, host, root_path or ""), port)
    try:
        print(f"The page is at {address}; Ctrl-C stops it.", flush=True)
        threading.Thread(target=warm_up, args=[searches], daemon=True).start()
        if host not in LOOPBACK:
            note(f"Everyone who can reach this machine at {host} can use the page: it asks no password.")
        threading.Event().wait()
    except KeyboardInterrupt:
        note("minqa: stopped.")
        os._exit(130)  # without waiting for a thread that computes


@app.command()
def schema() -> None:
    """Print the JSON schema of what --json prints."""
    print(files("minqa.views").joinpath("schema.json").read_text("utf-8"))
