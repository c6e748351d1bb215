"""The command line: a parser of what commands.toml describes, and one sentence for whatever is wrong."""

import argparse
import io
import os
import re
import sys
import tomllib
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from minqa.app.progress import note
from minqa.text import InputError

# Modules of the extra `app`, and what needs them.
EXTRA = {name: f"The command line needs {name}" for name in ("platformdirs", "rich")}
EXTRA |= {"gradio": "The page needs Gradio"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 1 for unusable input, 130 when interrupted."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may know fewer characters than a passage
        sys.stdout.reconfigure(errors="replace")
    try:
        options = _parser().parse_args(arguments)
        from minqa.app import commands  # only now, so that --help and a typing error answer at once

        getattr(commands, options.run)(options)
        sys.stdout.flush()
    except InputError as error:
        note(f"minqa: {error}")
        return 1
    except ModuleNotFoundError as error:
        if (package := (error.name or "").partition(".")[0]) not in EXTRA:
            raise
        note(f"minqa: {EXTRA[package]}: install it with `uv sync --extra app`.")
        return 1
    except KeyboardInterrupt:
        note("minqa: stopped.")
        return 130
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _type(pattern: str, convert: Callable[[str], Any], wanted: str) -> Callable[[str], Any]:
    """A type for argparse: `convert`, for texts that match a pattern."""

    def check(text: str) -> Any:
        if re.fullmatch(pattern, text, re.DOTALL) is None:
            raise argparse.ArgumentTypeError(f"must {wanted}" + (f", not {text!r}" if text.strip() else ""))
        return convert(text)

    return check


TYPES = {
    "any": str,
    "text": _type(r".*\S.*", str, "not be empty"),
    "path": _type(r".*\S.*", Path, "not be empty"),
    "number": _type(r"-?\d+", int, "be a whole number"),
    "positive": _type(r"0*[1-9]\d*", int, "be a whole number above 0"),
    "count": _type(r"\d+", int, "be a whole number, 0 or more"),
    "shards": _type(
        r"\d*:\d*(:0*[1-9]\d*)?",
        lambda text: range(sys.maxsize)[
            slice(*[int(number) if number else None for number in text.split(":")])
        ],
        "be START:STOP or START:STOP:STEP, as 0:500, or 1::4 for every fourth from 1",
    ),
    "pair": _type(
        r"\d+\.\d+", lambda text: tuple(map(int, text.split("."))), "be a layer and a number, as 4.1"
    ),
}


def _parser() -> argparse.ArgumentParser:
    described = tomllib.loads(files("minqa.app").joinpath("commands.toml").read_text("utf-8"))
    options = described["options"]
    for option in options.values():
        if option.get("action") != "store_true":
            option["type"] = TYPES[option.get("type", "text")]
    options["corpus"] = options["--corpus"] | {"nargs": "?"}
    parser = argparse.ArgumentParser(prog="minqa", description=described["about"])
    parser.add_argument("--version", action="version", version=f"minqa {version('minqa')}")
    groups = {"": parser.add_subparsers(metavar="COMMAND", required=True)}
    for path, command in described["commands"].items():
        group, _, name = path.rpartition(" ")
        added = groups[group].add_parser(name, help=command["help"], description=command["help"])
        if "options" not in command:
            groups[name] = added.add_subparsers(metavar="WHAT", required=True)
            continue
        added.set_defaults(run=f"run_{name.replace('-', '_')}")
        if "--json" in command["options"]:
            added.epilog = described[f"json_help_{group}" if group else "json_help"]
        for option in command["options"].split():
            added.add_argument(option, **options[option])
    return parser
