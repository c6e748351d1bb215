"""The page's state, as its address holds it → what each tab shows, as HTML."""

import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from html import escape
from typing import Any
from urllib.parse import urlencode

from minqa.app.work import Search
from minqa.ask import RERANK_STORED
from minqa.clock import Clock
from minqa.encoder import WEIGHTS, Encoder, Weights
from minqa.inside.compare import Reply, compare
from minqa.text import InputError, well_formed
from minqa.views import look
from minqa.views.answers import Answers, described, notes
from minqa.views.text import format_duration, printable
from minqa.views.view import Listing

TABS = ("ask", "compare", "heads", "units")
# If the token vectors of a layer are not stored, so many candidates can be embedded within a second.
MAX_PASSAGES_EMBEDDED = 30
MAX_NUMBER = 10**9 - 1
# The longest question and text that the page takes.
MAX_CHARACTERS = 2000
EMPTY = '<p class="empty">Type a question, or click one of the examples.</p>'
TIRED = "The animal didn't cross the street because it was too tired."
NUMBERS = 'In 1915 Albert Einstein (a physicist) published it; "3 others" agreed. They met in Berlin.'


@dataclass(frozen=True)
class State:
    """All that a tab shows depends on, as the page's address holds it; the address leaves defaults out."""

    tab: str = "ask"
    q: str = ""
    k: int = 3
    answers: int = 1
    layer: int = -1
    weights: Weights = "idf"
    rerank: int = RERANK_STORED
    influence: bool = False
    model: str = ""
    other: str = ""
    word: int = -1
    map: str = ""
    text: str = ""
    changed: str = ""
    source: str = "it"
    first: str = "animal"
    second: str = "street"
    head: int = 0
    kind: str = ""
    unit: int = -1
    feature: str = "number"

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> "State":
        """The state in an address, or in controls. Raises InputError if what should be a number is none."""
        values: dict[str, Any] = {}
        for field in fields(cls):
            if (value := parameters.get(field.name)) is not None:
                kind: Callable = type(field.default)
                try:
                    values[field.name] = value in (True, "1") if kind is bool else kind(value)
                except (ValueError, TypeError, OverflowError):
                    values[field.name] = None
                if values[field.name] is None or (kind is int and abs(values[field.name]) > MAX_NUMBER):
                    what = f"{field.name}={value}, but {field.name} is a whole number"
                    raise InputError(f"The address says {what} of at most nine digits.")
        return cls(**values)

    @property
    def address(self) -> str:
        """What `of` reads."""
        changed = {name: value for name, value in vars(self).items() if value != getattr(State, name)}
        texts = {name: str(int(value) if value is True else value) for name, value in changed.items()}
        return "?" + urlencode({name: well_formed(text) for name, text in texts.items()})


class Tabs:
    """Each tab as HTML, from the state alone; one search per model."""

    def __init__(self, searches: Sequence[Search]):
        self.searches = searches
        self.names: list[str] = []  # of the models, each different
        for search in searches:
            name = search.encoder.name
            self.names.append(name if name not in self.names else f"{name} ({len(self.names) + 1})")
        self._units_lock = threading.Lock()  # two visitors do not search for the same units

    def encoder(self, parameters: Mapping[str, Any]) -> Encoder:
        """The model that an address names; the first, if it names none that is loaded."""
        name = parameters.get("model", "")
        return self.search(name if name in self.names else self.names[0]).encoder

    def initial(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """What the fields begin with where that is not the state's default, given the tab and the model."""
        encoder, first = self.encoder(parameters), parameters.get("model") or self.names[0]
        other = next((name for name in self.names if name != first), "")
        values = {"model": self.names[0], "other": other, "layer": 1}
        if (tab := parameters.get("tab", State.tab)) == "ask":
            values["layer"] = encoder.num_layers
        kind = getattr(encoder.model, "UNITS", ("",))[0]
        return values | {"text": NUMBERS if tab == "units" else TIRED, "kind": kind}

    def moved(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """What an address says, and what a form says that its fields did not begin with.

        A form says for which model it was `drawn`: what another model has in place of its fields' values, as
        its last layer, is not known to it.
        """
        drawn = {**parameters, "model": parameters.get("drawn") or parameters.get("model", "")}
        initial = {name: str(value) for name, value in (vars(State()) | self.initial(drawn)).items()}
        given = {name: value for name, value in parameters.items() if name in initial}
        return {name: value for name, value in given.items() if str(value) not in ("", initial[name])}

    def is_empty(self, parameters: Mapping[str, Any]) -> bool:
        """Whether nothing is asked yet, so that nothing is computed."""
        is_question = parameters.get("tab", State.tab) in ("ask", "compare")
        return is_question and not parameters.get("q", "").strip()

    def show(self, parameters: Mapping[str, Any]) -> str:
        """The tab that an address, or its controls, ask for; an error is a sentence on the page."""
        given = self.moved(parameters)
        try:
            state, address = State.of(self.initial(parameters) | given), State.of(given).address
        except InputError as error:
            return error_html(str(error))
        try:
            if state.tab not in TABS:
                raise InputError(f"There is no tab {state.tab}: there are {', '.join(TABS)}.")
            shown = getattr(self, state.tab)(state)
        except InputError as error:
            shown = error_html(str(error))
        except Exception as error:  # a fault of ours: the terminal has the details
            traceback.print_exc(file=sys.stderr)
            kind = type(error).__name__
            shown = error_html(f"This went wrong inside minqa ({kind}); the terminal says more.")
        return f'<div class="tab" data-address="{safe(address)}">{shown}</div>'

    def ask(self, state: State) -> str:
        return self._answers(state, [state.model])

    def compare(self, state: State) -> str:
        if len(self.names) < 2:
            more = f"--model {self.names[0]} --model path/or/hub-id"
            raise InputError(f"One model is loaded: to compare, start the page with `minqa app {more}`.")
        return self._answers(replace(state, layer=-1), [state.model, state.other])

    def _answers(self, state: State, names: Sequence[str]) -> str:
        """What the models of these names find, and below it how."""
        if not state.q.strip():
            return EMPTY
        searches = [self.search(name) for name in names]
        clock = Clock()
        replies = [_ask(search, state, clock) for search in searches]
        with clock:
            results = [reply.results for reply in replies]
            view = Answers(names, compare(state.q, replies), results, state.answers)
        texts = [one.passage.text for one in view.comparisons if state.influence]
        more = [_influence(replies[0].encoder, state.q, text) for text in texts]
        shown = view.html(word=state.word, opened=state.map.split("."), more=more)
        passages = f"{len(searches[0].index.passages):,} passages, {_rerank(searches[0], state)} read closely"
        lines = [f"{passages}, {format_duration(sum(clock.seconds.values()))}"]
        for reply in replies:
            shown += "".join(f'<p class="note">{safe(sentence)}</p>' for sentence in notes(reply))
            lines.append(described(reply.encoder, reply.answerer))
        return shown + _foot(lines)

    def heads(self, state: State) -> str:
        encoder, text = self.search(state.model).encoder, _checked(state.text)
        if state.changed.strip():
            words = (state.first, state.second)
            view = look.flipped(encoder, text, _checked(state.changed), state.source, words)
        else:
            view = look.heads(encoder, text, (state.layer, state.head), grid=True)
        return view.html() + _foot([encoder.name])

    def units(self, state: State) -> str:
        search, text, kind = self.search(state.model), _checked(state.text), state.kind or None
        found, chosen = "", [(state.layer, state.unit)]
        if state.unit < 0:
            with self._units_lock:
                listing, chosen = _search_units(search, state.feature, kind)
            found = listing.html()
        view = look.shaded_by_units(search.encoder, text, chosen, kind)
        return found + view.html() + _foot([search.encoder.name])

    def search(self, name: str) -> Search:
        """The search with the model of this name."""
        if name not in self.names:
            raise InputError(f"The model {name} is not loaded here: there is {', '.join(self.names)}.")
        return self.searches[self.names.index(name)]


@cache
def _search_units(search: Search, feature: str, kind: str | None) -> tuple[Listing, list[tuple[int, int]]]:
    """The units that follow a feature, searched once: it takes seconds and depends on no text."""
    passages = search.index.passages
    rows = range(min(look.PASSAGES_READ_FOR_UNITS, len(passages)))
    return look.search_units(search.encoder, [passages[row].text for row in rows], feature, kind)


def safe(text: str) -> str:
    """Text of any origin as HTML that shows it."""
    return escape(printable(text))


def error_html(sentence: str) -> str:
    """An error as the page shows it."""
    return f'<p class="error" role="alert">{safe(sentence)}</p>'


def _checked(text: str, what: str = "text") -> str:
    if not text.strip():
        raise InputError(f"The {what} is empty: type one.")
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"The {what} is longer than {MAX_CHARACTERS:,} characters.")
    return text


def _rerank(search: Search, state: State) -> int:
    """How many candidates are read closely, at most as many as takes a second."""
    layer = replace(search.encoder, layer=state.layer).layer_number
    stored = search.index.token_vectors is not None and layer == search.encoder.num_layers
    return state.rerank if stored else min(state.rerank, MAX_PASSAGES_EMBEDDED)


def _ask(search: Search, state: State, clock: Clock) -> Reply:
    _checked(state.q, "question")
    if state.weights not in WEIGHTS:
        raise InputError(f"There are no weights {state.weights}: there are {', '.join(WEIGHTS)}.")
    if not 1 <= state.answers <= 20:
        raise InputError("The page shows 1 to 20 answers.")
    if not 1 <= state.k <= 20 or not 0 <= state.rerank <= 200:
        raise InputError("The page shows 1 to 20 passages, out of at most 200 that are read closely.")
    encoder = replace(search.encoder, layer=state.layer, weights=state.weights)
    return replace(search, encoder=encoder, clock=clock).ask(state.q, state.k, _rerank(search, state))


def _influence(encoder: Encoder, query: str, passage: str) -> str:
    try:
        return look.influence(encoder, query, passage).html()
    except InputError as error:  # about this passage alone
        return error_html(str(error))


def _foot(lines: Sequence[str]) -> str:
    return f'<p class="foot">{"<br>".join(map(safe, lines))}</p>'
