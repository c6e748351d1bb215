"""What commands share: the models, their answers, and the form in which these are shown."""

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
from rich.console import Group

from minqa.answers.reader import load_reader
from minqa.answers.span_head import load_span_head
from minqa.answers.spans import Answerer
from minqa.app.options import How, Output
from minqa.app.progress import note
from minqa.ask import Index, ask
from minqa.clock import Clock, step
from minqa.corpus.storage import write_file
from minqa.encoder import Encoder
from minqa.files.colbert import InputWarning
from minqa.files.compiled import cache as keep_compiled
from minqa.files.extras import check_accelerator
from minqa.files.loading import DEMO_MODEL, load
from minqa.inside.compare import Reply, compare, read
from minqa.text import InputError, Passage
from minqa.views.answers import Answers, described, notes
from minqa.views.figure import check_format, picture
from minqa.views.terminal import faint, print_view
from minqa.views.text import format_duration
from minqa.views.view import View

NOTHING = Index((), ())
# On CPU each device holds a copy of the model.
MAX_DEVICES = 8


def set_up(folder: Path) -> None:
    """Make every core a device, so that batches run side by side, and keep compiled code in the folder."""
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        with suppress(RuntimeError):  # JAX runs already, as in a notebook
            jax.config.update("jax_num_cpu_devices", min(os.cpu_count() or 1, MAX_DEVICES))
    check_accelerator()
    with suppress(OSError):  # whoever needs to write will say so
        keep_compiled(folder / "compiled")


@dataclass(frozen=True, eq=False)
class Search:
    """An encoder, what finds answers, and what is searched with them; the clock has what each step took."""

    encoder: Encoder
    answerer: Answerer | None = None
    index: Index = NOTHING  # nothing, where single texts are read
    where: str = ""  # the condition that all passages of the index meet
    clock: Clock = field(default_factory=Clock)

    def ask(self, question: str, k: int, rerank: int | None) -> Reply:
        """Search the index."""
        encoder = replace(self.encoder, statistics=self.index.statistics)
        with self.clock:
            results = ask(encoder, question, self.index, k=k, rerank=rerank, answerer=self.answerer)
        return Reply(encoder, results, self.answerer)

    def read(self, question: str, passage: str) -> Reply:
        """Read one text instead."""
        with self.clock:
            results = read(self.encoder, question, [Passage("", passage)], answerer=self.answerer)
        return Reply(self.encoder, results, self.answerer)


def load_models(how: How, *, shipped: bool = False) -> list[Search]:
    """Each model, before any work begins, with its reader or, if `shipped`, the head for it.

    A prompt takes the place of the model's own.
    """
    set_up(how.cache_folder)
    searches, given = [], {"query": how.query_prompt, "document": how.passage_prompt}
    for name in how.model or [DEMO_MODEL]:
        with Clock() as clock, step("load"), warnings.catch_warnings(record=True) as warned:
            encoder = load(name)
            prompts = {**encoder.prompts, **{role: prompt for role, prompt in given.items() if prompt}}
            encoder = replace(encoder, layer=how.layer, weights=how.weights, prompts=prompts)
        for warning in warned:
            if issubclass(warning.category, InputWarning):
                note(str(warning.message))
        encoder.layer_number  # noqa: B018, it raises InputError if there is no such layer
        searches.append(Search(encoder, clock=clock))
    if how.reader:
        load_answerer = load_span_head if Path(how.reader).is_file() else load_reader
        answerer: Answerer = load_answerer(how.reader)
        for search in searches:
            answerer.check_encoder(search.encoder)
        return [replace(search, answerer=answerer) for search in searches]
    head = load_span_head() if shipped else None
    fits = [head if head and head.encoder == search.encoder.fingerprint else None for search in searches]
    return [replace(search, answerer=fit) for search, fit in zip(searches, fits, strict=True)]


def load_to_look(text: str, how: How, output: Output) -> Search:
    """The one model that is looked into."""
    require(text=text)
    if len(how.model or []) > 1:
        raise InputError("One model is looked into at a time: name one --model.")
    check_output(output)
    return load_models(how)[0]


def require(**texts: str) -> None:
    """Raise InputError if one of these texts, by its name, is empty."""
    for name, text in texts.items():
        if not text.strip():
            raise InputError(f"The {name} is empty.")


def typed(prompt: str) -> Iterator[str]:
    """What is typed, line by line, until Ctrl-D."""
    with suppress(EOFError):
        while True:
            if (line := input(prompt)).strip():
                yield line
    print()


def check_output(output: Output) -> None:
    """Raise InputError if a file cannot be written: before the work, not after it."""
    if output.html:
        import minqa.views.html  # noqa: F401, it says what it needs
    if output.png:
        check_format(output.png)
    for path in filter(None, (output.html, output.png)):
        write_output(path, None)


def show(
    view: View, heading: str, models: Sequence[dict[str, Any]], output: Output, sentences: Sequence[str] = ()
) -> None:
    """Show a view in each form; `models` says of each how it was asked, and what that took."""
    settings = [model.get("settings", model["model"]) for model in models]
    if output.html:
        from minqa.views.html import document  # which needs Jinja2, as nothing else does

        write_output(output.html, document(heading, view.html(), [*settings, *sentences]).encode("utf-8"))
    if output.png:
        write_output(output.png, picture(view.figure(settings[0]), output.png))
    if output.json:
        print(json.dumps({**view.data(), "models": models}))
    else:
        steps = models[0].get("seconds", {}).items()
        if len(models) > 1:
            steps = [(model["model"], sum(model["seconds"].values())) for model in models]
        times = " · ".join(f"{name} {format_duration(seconds)}" for name, seconds in steps)
        print_view(Group(view, *map(faint, filter(None, [*settings, times]))))
    for sentence in sentences:
        note(sentence)


def show_answers(
    question: str, replies: Sequence[Reply], searches: Sequence[Search], output: Output, max_answers: int = 1
) -> None:
    """Show what each search has found, and at most so many answers of all passages."""
    models, sentences = list[dict[str, Any]](), list[str]()
    for reply, search in zip(replies, searches, strict=True):
        settings = described(reply.encoder, reply.answerer)
        seconds = {name: round(spent, 6) for name, spent in search.clock.seconds.items()}
        models.append({"model": reply.encoder.name, "settings": settings, "seconds": seconds})
        if searched := len(search.index.passages):
            models[-1] |= {"searched": searched, "complete": search.index.complete}
        sentences += notes(reply, passages_too=not searched)
    names, results = [model["model"] for model in models], [reply.results for reply in replies]
    view = Answers(names, compare(question, replies), results, max_answers)
    show(view, question, models, output, sentences)


def write_output(path: Path, content: bytes | None) -> None:
    """Write what was asked for, or only try; see `write_file`. Raises InputError."""
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path} cannot be written: it is there, and is no file.")
        write_file(path.resolve(), content)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be written ({getattr(error, 'strerror', error)}).") from error


def check_folder(path: Path) -> None:
    """Raise InputError if a folder is not there and cannot be made, or cannot be written."""
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        why = "may not be written" if there.is_dir() else "is a file"
        raise InputError(f"{path} cannot be written: {there} {why}.")
