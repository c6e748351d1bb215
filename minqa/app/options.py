"""What the commands take: the types of options, and each option or group of options once."""

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, BadParameter, Option

from minqa.text import InputError, well_formed


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
    r"\d{1,9}\.\d{1,9}", lambda value: tuple(map(int, value.split("."))), "be a layer and a number, as 4.1"
)
shard_numbers = matching(
    r"\d{0,9}:\d{0,9}(:0*[1-9]\d{0,8})?",
    lambda value: range(sys.maxsize)[slice(*[int(part) if part else None for part in value.split(":")])],
    "be START:STOP or START:STOP:STEP, as 0:500, or 1::4 for every fourth from 1",
)


def place(value: str) -> str:
    """A name on the hub, or a file's, in which ~ is a user's folder."""
    value = os.path.expanduser(value)
    if value.startswith("~"):
        raise BadParameter(f"names a user who is not known here: {value!r}")
    if value != well_formed(value):
        raise BadParameter(f"is no Unicode: {value!r}")
    return value


def option(parser: Callable[[str], Any], metavar: str, help: str, *names: str) -> Any:
    return Option(*names, parser=parser, metavar=metavar, help=help)


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command as Typer takes it: a parameter that is a dataclass stands for an option per field."""
    options, groups = list[Parameter](), dict[str, Any]()
    for name, parameter in signature(command).parameters.items():
        if is_dataclass(parameter.annotation):
            groups[name] = parameter.annotation
            options += signature(groups[name]).parameters.values()
        else:
            options.append(parameter)

    @wraps(command)
    def run(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field: given.pop(field) for field in signature(group).parameters})
        command(**given)

    keyword_only = [option.replace(kind=Parameter.KEYWORD_ONLY) for option in options]
    vars(run)["__signature__"] = Signature(keyword_only)
    return run


def name_one(verb: str, **options: object) -> None:
    """Raise InputError if two of these options, by their names, are given."""
    given = [name for name, value in options.items() if value]
    if len(given) > 1:
        raise InputError(f"--{given[0]} and --{given[1]} are two things to {verb}: name one.")


Words = Annotated[
    list[str] | None, Argument(metavar="QUERY...", help="What to look for; quotes are not needed.")
]
Query = Annotated[str, Argument(metavar="QUERY", help="The text to look for.")]
PassageText = Annotated[str, Argument(metavar="PASSAGE", help="The text to find it in.")]
Text = Annotated[str, Argument(metavar="TEXT", help="What the model reads.")]
IndexFolder = Annotated[Path, Argument(metavar="DIR", parser=path, help="A folder that index made.")]
Indexed = Annotated[str | None, Argument(metavar="CORPUS", parser=source, help="As ask --corpus takes it.")]

MODEL = """Folder or Hugging Face hub id of a BERT or a relative, a ColBERT or an ELMo; several are compared.
[default: all-MiniLM-L6-v2, installed]"""
Models = Annotated[list[str] | None, option(source, "MODEL", MODEL, "--model")]
CACHE = "For vectors and compiled code. [default: the user's cache folder]"
Cache = Annotated[Path | None, option(path, "DIR", CACHE)]
CORPUS = """A MediaWiki dump (.xml), Parquet with id, title and text (a file or a folder), .jsonl, .json, .csv
or .tsv with text and title, text (an article per paragraph, or per line if no line is blank), all but Parquet
also as .gz, .bz2 or .xz, or a data set of the Hugging Face hub, such as wikimedia/wikipedia:20231101.en.
[default: Wikipedia leads]"""
Corpus = Annotated[str | None, option(source, "CORPUS", CORPUS)]
INDEX = "A folder that index made, instead of --corpus."
WHERE = """Only what meets a condition on columns of the corpus, as 'year > 1990 or title == "War"'."""


@dataclass(frozen=True)
class Source:
    """What is searched."""

    corpus: Corpus = None
    index: Annotated[Path | None, option(path, "DIR", INDEX)] = None
    where: Annotated[list[str] | None, option(text, "CONDITION", WHERE)] = None


K = Annotated[int, option(positive, "K", "How many passages.", "-k")]
Answers = Annotated[int, option(positive, "N", "How many distinct answers to show.")]
RERANK = """How many passages, the nearest by their pooled vectors, to order word by word, at least -k; 0
leaves them in that order. [default: 100, or 50 if token vectors are not stored]"""
Rerank = Annotated[int | None, option(count, "N", RERANK)]
PROMPT = "What the model reads before a {}, where it was trained with one that its folder does not name."
QueryPrompt = Annotated[str | None, option(text, "TEXT", PROMPT.format("query"))]
PassagePrompt = Annotated[str | None, option(text, "TEXT", PROMPT.format("passage"))]
READER = """What finds the answers: folder or hub id of a BERT for question answering, or the file of a span
head. [default: heat marks a phrase, but ask has a head for the default model]"""
LAYER = "The layer to compare; 0: embeddings, -1: the last."
WEIGHTS = "How much words of the query count: all alike, or by how rare they are; a ColBERT sums over tokens."


@dataclass(frozen=True)
class How:
    """By which models, and how, texts are read and compared."""

    model: Models = None
    query_prompt: QueryPrompt = None
    passage_prompt: PassagePrompt = None
    reader: Annotated[str | None, option(source, "MODEL", READER)] = None
    layer: Annotated[int, option(number, "N", LAYER)] = -1
    weights: Annotated[Literal["none", "idf"], Option(help=WEIGHTS)] = "idf"
    cache: Cache = None

    @property
    def cache_folder(self) -> Path:
        """Where vectors and compiled code are kept."""
        import platformdirs

        return self.cache or platformdirs.user_cache_path("minqa")


OUT = """The index's folder, for ask --index; a further corpus is added after what is there. [default: in the
cache folder, where ask --corpus finds it]"""
Out = Annotated[Path | None, option(path, "DIR", OUT)]
MAX_TOKENS = "Most tokens of a passage, in whole sentences. [default: 128]"
SHARD = "Keep what is done after every N articles. [default: 1,024]"
STORE = "Keep the vectors of all tokens too, so that ask is faster; 40 MB for 1,000 Wikipedia leads."
STRICT = "Stop at an article that cannot be read, instead of telling it and leaving it out."
SHARDS = """Only the shards of these numbers, where several processes share the work: 0:500, or 1::4 for every
fourth from 1. [default: all]"""


@dataclass(frozen=True)
class Indexing:
    """How a corpus is embedded."""

    max_tokens: Annotated[int | None, option(positive, "N", MAX_TOKENS)] = None
    articles_per_shard: Annotated[int | None, option(positive, "N", SHARD, "--shard")] = None
    store_tokens: Annotated[bool, Option("--store-tokens", help=STORE)] = False
    strict: Annotated[bool, Option("--strict", help=STRICT)] = False
    shards: Annotated[Any, option(shard_numbers, "START:STOP", SHARDS)] = None


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

ROOT = "Where a reverse proxy shows the page, such as https://example.org/minqa."
RootPath = Annotated[str | None, option(text, "ADDRESS", ROOT)]


@dataclass(frozen=True)
class Output:
    """In which forms a result is shown, other than the terminal's."""

    json: Annotated[bool, Option("--json", help="Print JSON; minqa schema describes it.")] = False
    html: Annotated[Path | None, option(path, "FILE", "Write a page to look at, point and click.")] = None
    png: Annotated[Path | None, option(path, "FILE", "Draw it, as PNG, SVG or PDF.")] = None
