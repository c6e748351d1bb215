"""The command line: one function per command, and one sentence for whatever is wrong."""

import io
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version as version_of
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Argument, BadParameter, Context, Option

from minqa.app.progress import ctrl_c, note, progress
from minqa.text import InputError, well_formed

# JAX takes over a second to import, so what a command needs is imported when it runs: --help and a typing
# error answer at once.

# Modules of the extra `app`, and what needs them.
EXTRA = {name: f"The command line needs {name}" for name in ("platformdirs", "rich")}
EXTRA |= {"gradio": "The page needs Gradio"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 1 for unusable input, 2 for odd options, 130 for Ctrl-C."""
    if "_MINQA_COMPLETE" in os.environ:  # a shell asks what it could complete
        app(prog_name="minqa")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
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
    if package in EXTRA:
        return f"{EXTRA[package]}: install it with `uv sync --extra app`."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'Standard output'} cannot be read or written ({error.strerror})."
    cause = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return f"This went wrong inside minqa ({cause}); with MINQA_TRACEBACK=1 it says where."


def matching(pattern: str, convert: Callable[[Any], Any], wanted: str) -> Callable[[Any], Any]:
    """A type of options: `convert`, for texts that match a pattern."""

    def check(value: str | int) -> Any:  # a default is a number already
        if not re.fullmatch(pattern, str(value), re.ASCII | re.DOTALL):
            raise BadParameter(f"must {wanted}" + (f", not {value!r}" if str(value).strip() else ""))
        return convert(value)

    return check


text = matching(r".*\S.*", str, "not be empty")
source = matching(r"[^\0]*[^\s\0][^\0]*", lambda value: place(value), "not be empty")
path = matching(r"[^\0]*[^\s\0][^\0]*", lambda value: Path(place(value)), "not be empty")
number = matching(r"-?\d{1,9}", int, "be a whole number")
positive = matching(r"0*[1-9]\d{0,8}", int, "be a whole number above 0")
count = matching(r"\d{1,9}", int, "be a whole number, 0 or more")
unit_number = matching(
    r"\d{1,9}\.\d{1,9}", lambda value: numbers(value, "."), "be a layer and a number, as 4.1"
)
span = matching(r"\d{1,9}:\d{1,9}", lambda value: numbers(value, ":"), "be two numbers, as 0:100")


def place(value: str) -> str:
    """A name on the hub, or a file's, in which ~ is a user's folder."""
    value = os.path.expanduser(value)
    if value.startswith("~"):
        raise BadParameter(f"names a user who is not known here: {value!r}")
    if value != well_formed(value):
        raise BadParameter(f"is no Unicode: {value!r}")
    return value


def numbers(value: str, mark: str) -> tuple[int, ...]:
    return tuple(map(int, value.split(mark)))


def option(parser: Callable[[str], Any], metavar: str, help: str, *names: str) -> Any:
    return Option(*names, parser=parser, metavar=metavar, help=help)


Words = Annotated[list[str], Argument(metavar="QUERY...", help="What to look for; quotes are not needed.")]
Query = Annotated[str, Argument(metavar="QUERY", help="The text to look for.")]
PassageText = Annotated[str, Argument(metavar="PASSAGE", help="The text to find it in.")]
Text = Annotated[str, Argument(metavar="TEXT", help="What the model reads.")]
IndexFolder = Annotated[Path, Argument(metavar="DIR", parser=path, help="A folder that index made.")]
Source = Annotated[str | None, Argument(metavar="CORPUS", parser=source, help="As ask --corpus takes it.")]

MODEL = """Folder or Hugging Face hub id of a BERT or an ELMo; may be given several times, for several models.
[default: all-MiniLM-L6-v2, installed]"""
Models = Annotated[list[str] | None, option(source, "MODEL", MODEL, "--model")]
CACHE = "For vectors and compiled code. [default: the user's cache folder]"
Cache = Annotated[Path | None, option(path, "DIR", CACHE)]
CORPUS = """A MediaWiki dump (.xml, .xml.bz2), Parquet with id, title and text (a file or a folder), .jsonl
with text and title, text (an article per paragraph, or per line if no line is blank), or a data set of the
Hugging Face hub, such as wikimedia/wikipedia:20231101.en. [default: Wikipedia leads]"""
Corpus = Annotated[str | None, option(source, "CORPUS", CORPUS)]
Index = Annotated[
    Path | None, option(path, "DIR", "A folder that index made, to search in place of --corpus.")
]
K = Annotated[int, option(positive, "K", "How many passages.", "-k")]
RERANK = """How many passages, the nearest by their pooled vectors, to order word by word, at least -k; 0
leaves them in that order. [default: 100, or 50 if token vectors are not stored]"""
Rerank = Annotated[int | None, option(count, "N", RERANK)]
READER = """What finds the answers: folder or hub id of a BERT for question answering, or the file of a span
head. [default: heat marks a phrase, but ask has a head for the default model]"""
Reader = Annotated[str | None, option(source, "MODEL", READER)]
Layer = Annotated[int, option(number, "N", "The layer to compare; 0: embeddings, -1: the last.")]
WEIGHTS = "How much words of the query count: all alike, or by how rare they are."
Weights = Annotated[Literal["none", "idf"], Option(help=WEIGHTS)]

OUT = """The index's folder, for ask --index; a further corpus is added after what is there. [default: in the
cache folder, where ask --corpus finds it]"""
Out = Annotated[Path | None, option(path, "DIR", OUT)]
MAX_TOKENS = "Most tokens of a passage, in whole sentences. [default: 128]"
MaxTokens = Annotated[int | None, option(positive, "N", MAX_TOKENS)]
SHARD = "Keep what is done after every N articles. [default: 1,024]"
ArticlesPerShard = Annotated[int | None, option(positive, "N", SHARD, "--shard")]
STORE = "Keep the vectors of all tokens too, so that ask is faster; 40 MB for 1,000 Wikipedia leads."
StoreTokens = Annotated[bool, Option("--store-tokens", help=STORE)]
Shards = Annotated[
    Any, option(span, "FROM:TO", "Only the shards with these numbers, from 0; TO is not one of them.")
]
Every = Annotated[
    int | None, option(positive, "N", "Only every Nth of them, where N machines share the work.")
]
Offset = Annotated[int, option(count, "I", "Which of these machines this is, from 0.")]

Head = Annotated[Any, option(unit_number, "L.H", "One head: its layer, from 1, and number.")]
FLIP = "A text that differs in a word: which heads does --from attend to another of --to with?"
Flip = Annotated[str | None, option(text, "TEXT", FLIP)]
FromWord = Annotated[str | None, option(text, "WORD", "A word, or its number from 0.", "--from")]
ToWords = Annotated[
    tuple[str, str] | None, Option(metavar="WORD WORD", help="Two words that it may attend to.")
]
Units = Annotated[
    list[Any] | None, option(unit_number, "L.U", "A unit's layer and number, or several.", "--unit")
]
FEATURE = """Look for the units that follow position in the sentence (the default), quotes, brackets, number,
capital or name, in the first 256 passages of --corpus."""
Feature = Annotated[str | None, option(text, "NAME", FEATURE)]
Factors = Annotated[int | None, option(positive, "K", "K factors of all units instead.")]
KIND = "feed-forward or hidden of a BERT, cell or projection of an ELMo. [default: the first]"
Kind = Annotated[str | None, option(text, "KIND", KIND)]

HOST = """Where to listen; the default is this machine alone, and 0.0.0.0 lets in everyone who can reach this
machine, without a password."""
Host = Annotated[str, option(text, "ADDRESS", HOST)]
Port = Annotated[int | None, option(positive, "PORT", "[default: the first free one from 7860]")]

Json = Annotated[bool, Option("--json", help="Print JSON; minqa schema describes it.")]
Html = Annotated[Path | None, option(path, "FILE", "Write a page to look at, point and click.")]
Png = Annotated[Path | None, option(path, "FILE", "Draw it, as PNG, SVG or PDF.")]

plain: dict[str, Any] = dict(rich_markup_mode=None, pretty_exceptions_enable=False)
app = typer.Typer(help="Search with BERT and ELMo in JAX, and see which words matched.", **plain)
look = typer.Typer(help="Look inside a model: heads of attention, and units.", **plain)
app.add_typer(look, name="look")


@app.callback()
def options(
    version: Annotated[bool, Option("--version", is_eager=True, help="Show the version.")] = False,
) -> None:
    if version:
        print(f"minqa {version_of('minqa')}")
        raise typer.Exit


@app.command()
def ask(
    words: Words,
    k: K = 3,
    rerank: Rerank = None,
    corpus: Corpus = None,
    index: Index = None,
    model: Models = None,
    reader: Reader = None,
    layer: Layer = -1,
    weights: Weights = "idf",
    cache: Cache = None,
    json: Json = False,
    html: Html = None,
    png: Png = None,
) -> None:
    """Find the passages that echo a query, and show where they do."""
    from minqa.app import corpora, work
    from minqa.ask import check_question

    question, output = " ".join(words), work.Output(json, html, png)
    work.require(query=question)
    output.check()
    models, cache = corpora.models_for(index, corpus, model), work.set_up(cache)
    searches = work.load_models(models, layer=layer, weights=weights, reader=reader, shipped=True)
    for search in searches:
        check_question(search.encoder, question)  # before a corpus is embedded for it
    splitter = searches[0].encoder
    searches = [corpora.with_index(search, splitter, index, corpus, cache) for search in searches]
    output.show_answers(question, [search.ask(question, k, rerank) for search in searches], searches)
    corpora.note_what_is_left(searches, index, corpus)


@app.command()
def index(
    corpus: Source = None,
    out: Out = None,
    max_tokens: MaxTokens = None,
    articles_per_shard: ArticlesPerShard = None,
    store_tokens: StoreTokens = False,
    shards: Shards = None,
    every: Every = None,
    offset: Offset = 0,
    model: Models = None,
    cache: Cache = None,
) -> None:
    """Embed a whole corpus, for ask to search. If it is stopped, the same command continues."""
    from minqa.app import corpora, work

    if out and len(model or []) > 1:
        raise InputError("--out is one model's folder: name one --model.")
    if offset >= (every or 1):
        raise InputError("--offset should be below --every, which says how many machines share the work.")
    start, stop = shards or (0, sys.maxsize)
    chosen = range(start + offset, stop, every or 1)
    if out:
        work.check_folder(out)
    cache = work.set_up(cache)
    searches = work.load_models(model)
    how = {"max_tokens": max_tokens, "articles_per_shard": articles_per_shard, "store_tokens": store_tokens}
    corpora.index_corpus(searches, corpus, out, cache, chosen, **how)


@app.command()
def index_info(index: IndexFolder) -> None:
    """Say what an index holds, and check every byte of it."""
    from minqa.app import corpora

    corpora.describe_index(index)


@app.command("compare", help="Show where two models or more see one text echo another, side by side.")
@app.command("heat", help="Show where one text echoes another.")
def heat(
    context: Context,
    query: Query,
    passage: PassageText,
    model: Models = None,
    reader: Reader = None,
    layer: Layer = -1,
    weights: Weights = "idf",
    cache: Cache = None,
    json: Json = False,
    html: Html = None,
    png: Png = None,
) -> None:
    from minqa.app import corpora, work

    work.require(query=query, passage=passage)
    if context.info_name == "compare" and len(model or []) < 2:
        several = "name two models or more, each with --model"
        raise InputError(f"There is nothing to compare: {several}; all-MiniLM-L6-v2 is installed.")
    output, cache = work.Output(json, html, png).check(), work.set_up(cache)
    searches = work.load_models(model, layer=layer, weights=weights, reader=reader)
    searches = [corpora.with_statistics(search, cache) for search in searches]
    output.show_answers(query, [search.read(query, passage) for search in searches], searches)


@look.command()
def heads(
    text: Text,
    head: Head = None,
    flip: Flip = None,
    from_word: FromWord = None,
    to: ToWords = None,
    model: Models = None,
    cache: Cache = None,
    json: Json = False,
    html: Html = None,
    png: Png = None,
) -> None:
    """Show what heads of attention do in a text."""
    from minqa.app import work
    from minqa.views import look

    if not flip and (from_word is not None or to):
        raise InputError("--from and --to belong to --flip: name the other text with it.")
    if flip and (from_word is None or not to):
        raise InputError("--flip needs the word that attends, --from, and two that it may attend to, --to.")
    if flip and head:
        raise InputError("--head and --flip are two things to look at: name one.")
    output = work.Output(json, html, png)
    encoder = work.load_to_look(text, model, cache, output)
    if flip and from_word is not None and to:
        view = look.flipped(encoder, text, flip, from_word, to)
    else:
        view = look.heads(encoder, text, head)
    output.show(view, text, [{"model": encoder.name}])


@look.command()
def units(
    text: Text,
    unit: Units = None,
    feature: Feature = None,
    factors: Factors = None,
    kind: Kind = None,
    corpus: Corpus = None,
    model: Models = None,
    cache: Cache = None,
    json: Json = False,
    html: Html = None,
    png: Png = None,
) -> None:
    """Shade a text by units of a model."""
    from minqa.app import corpora, work
    from minqa.views import look

    chosen = [name for name, value in (("unit", unit), ("feature", feature), ("factors", factors)) if value]
    if len(chosen) > 1:
        raise InputError(f"--{chosen[0]} and --{chosen[1]} are two things to look at: name one.")
    output = work.Output(json, html, png)
    encoder = work.load_to_look(text, model, cache, output)
    if factors:
        view = look.shaded_by_factors(encoder, text, factors, kind)
    elif unit:
        view = look.shaded_by_units(encoder, text, unit, kind)
    else:
        texts = corpora.first_texts(encoder, corpus)
        with progress("Reading passages", len(texts)) as advance:
            listing, best = look.search_units(encoder, texts, feature or "position", kind, advance)
        view = look.shaded_by_units(encoder, text, best, kind)
        view = look.Stack(text, [listing, *view.views])
    output.show(view, text, [{"model": encoder.name}])


@app.command("app")
def show_app(
    model: Models = None,
    cache: Cache = None,
    corpus: Corpus = None,
    index: Index = None,
    host: Host = "127.0.0.1",
    port: Port = None,
) -> None:
    """Show a page to ask, compare and look inside with, until Ctrl-C."""
    note("Loading the models and what is searched; the page's address follows.")
    from minqa.app import corpora, work
    from minqa.app.browser import build, serve  # Gradio takes seconds to import

    models, cache = corpora.models_for(index, corpus, model), work.set_up(cache)
    searches = work.load_models(models, shipped=True)
    splitter = searches[0].encoder
    searches = [corpora.with_index(search, splitter, index, corpus, cache) for search in searches]
    address = serve(build(searches), host, port)
    print(f"The page is at {address}; Ctrl-C stops it.", flush=True)
    if host not in ("127.0.0.1", "localhost", "::1"):
        note(f"Everyone who can reach this machine at {host} can use the page: it asks no password.")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        note("minqa: stopped.")
        os._exit(130)  # without waiting for a thread that computes


@app.command()
def schema() -> None:
    """Print the JSON schema of what --json prints."""
    print(files("minqa.views").joinpath("schema.json").read_text("utf-8"))
