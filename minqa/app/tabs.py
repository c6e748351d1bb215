"""The page's state, as its address holds it → what each tab shows, as HTML."""

import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeAlias
from urllib.parse import urlencode

from minqa.app.work import Search
from minqa.ask import RERANK_STORED
from minqa.clock import Clock
from minqa.encoder import WEIGHTS, Encoder, Weights
from minqa.inside.compare import Reply, compare
from minqa.text import InputError, well_formed
from minqa.views import look
from minqa.views.answers import Answers, described, notes
from minqa.views.html import ENVIRONMENT
from minqa.views.text import counted, format_duration
from minqa.views.view import Listing, View

TABS = ("ask", "compare", "heads", "units")
# If the token vectors of a layer are not stored, so many candidates can be embedded within a second.
MAX_PASSAGES_EMBEDDED = 30
MAX_NUMBER = 10**9 - 1
# The longest question and text that the page takes.
MAX_CHARACTERS = 2000
TIRED = "The animal didn't cross the street because it was too tired."
NUMBERS = 'In 1915 Albert Einstein (a physicist) published it; "3 others" agreed. They met in Berlin.'
Shown: TypeAlias = dict[str, Any]  # what tab.html shows

_template = ENVIRONMENT.get_template("app/tab.html")


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
        for name, default in vars(cls()).items():
            value = parameters.get(name, default)
            try:
                values[name] = value in (True, "1") if default is False else type(default)(value)
                if default is not False and isinstance(default, int) and abs(values[name]) > MAX_NUMBER:
                    raise OverflowError
            except (ValueError, TypeError, OverflowError):
                what = f"{name}={value}, but {name} is a whole number"
                raise InputError(f"The address says {what} of at most nine digits.") from None
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
        tab, kinds = parameters.get("tab", State.tab), getattr(encoder.model, "UNITS", ("",))
        layer, text = encoder.num_layers if tab == "ask" else 1, NUMBERS if tab == "units" else TIRED
        return {"model": self.names[0], "other": other, "layer": layer, "text": text, "kind": kinds[0]}

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

    def show(self, parameters: Mapping[str, Any]) -> tuple[int, str]:
        """HTTP's status, and the tab that is asked for; with 400, or 500 if the fault is ours, a sentence."""
        given, shown, status = self.moved(parameters), Shown(), 200
        try:
            state = State.of(self.initial(parameters) | given)
            shown["address"] = State.of(given).address
            if state.tab not in TABS:
                raise InputError(f"There is no tab {state.tab}: there are {', '.join(TABS)}.")
            shown |= getattr(self, state.tab)(state)
        except InputError as error:
            status, shown["error"] = 400, str(error)
        except Exception as error:  # a fault of ours: the terminal has the details
            traceback.print_exc(file=sys.stderr)
            kind = type(error).__name__
            status, shown["error"] = 500, f"This went wrong inside minqa ({kind}); the terminal says more."
        return status, _template.render(shown)

    def ask(self, state: State) -> Shown:
        return self._answers(state, [state.model])

    def compare(self, state: State) -> Shown:
        if len(self.names) < 2:
            more = f"--model {self.names[0]} --model path/or/hub-id"
            raise InputError(f"One model is loaded: to compare, start the page with `minqa app {more}`.")
        return self._answers(replace(state, layer=-1), [state.model, state.other])

    def _answers(self, state: State, names: Sequence[str]) -> Shown:
        """What the models of these names find, and below it how."""
        if not state.q.strip():
            return {}
        searches, clock = [self.search(name) for name in names], Clock()
        replies = [_ask(search, state, clock) for search in searches]
        with clock:
            results = [reply.results for reply in replies]
            view = Answers(names, compare(state.q, replies), results, state.answers)
        texts = [one.passage.text for one in view.comparisons if state.influence]
        more = [_influence(replies[0].encoder, state.q, text) for text in texts]
        number, rerank = len(searches[0].index.passages), _rerank(searches[0], state)
        passages = " where ".join(filter(None, [counted(number, "passage"), searches[0].where]))
        passages += f", {min(number, max(state.k, rerank)) if rerank else 0} read closely"
        seconds = format_duration(sum(clock.seconds.values()))
        settings = [described(reply.encoder, reply.answerer) for reply in replies]
        return {
            "views": [view.html(word=state.word, opened=state.map.split("."), more=more)],
            "notes": [sentence for reply in replies for sentence in notes(reply)],
            "foot": [f"{passages}, {seconds}", *settings],
        }

    def heads(self, state: State) -> Shown:
        encoder, text = self.search(state.model).encoder, _checked(state.text)
        if state.changed.strip():
            words = (state.first, state.second)
            view = look.flipped(encoder, text, _checked(state.changed), state.source, words)
        else:
            view = look.heads(encoder, text, (state.layer, state.head), grid=True)
        return {"views": [view.html()], "foot": [encoder.name]}

    def units(self, state: State) -> Shown:
        search, text, kind = self.search(state.model), _checked(state.text), state.kind or None
        views, chosen = list[View](), [(state.layer, state.unit)]
        if state.unit < 0:
            with self._units_lock:
                listing, chosen = _search_units(search, state.feature, kind)
            views.append(listing)
        views.append(look.shaded_by_units(search.encoder, text, chosen, kind))
        return {"views": [view.html() for view in views], "foot": [search.encoder.name]}

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


def error_html(sentence: str) -> str:
    """An error as the page shows it."""
    return _template.render(error=sentence)


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
