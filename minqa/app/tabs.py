"""The page's state, as its address holds it → what each tab shows, as HTML."""

import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any
from urllib.parse import urlencode

from minqa.answers.spans import Answerer
from minqa.ask import RERANK_STORED, Index, ask
from minqa.clock import Clock
from minqa.encoder import WEIGHTS, Encoder, Weights
from minqa.inside.compare import Answer, compare
from minqa.inside.saliency import saliency
from minqa.text import InputError, well_formed
from minqa.views import look
from minqa.views.html import html, html_comparison, safe, title_of, word_matrix
from minqa.views.terminal import described, unknown_note

# If the token vectors of a layer are not stored, so many candidates can be embedded within a second.
MAX_PASSAGES_EMBEDDED = 30
PASSAGES_SEARCHED_FOR_UNITS = 128
# The longest question and text that the page takes.
MAX_CHARACTERS = 2000
EMPTY = '<p class="empty">Type a question, or click one of the examples.</p>'


@dataclass(frozen=True, eq=False)
class Search:
    """An encoder, what is searched with it, and what finds answers."""

    encoder: Encoder
    index: Index
    answerer: Answerer | None

    def rerank(self, state: "State") -> int:
        """How many candidates are read closely, at most as many as takes a second."""
        layer = replace(self.encoder, layer=state.layer).layer_number
        stored = self.index.token_vectors is not None and layer == self.encoder.num_layers
        most = RERANK_STORED if stored else MAX_PASSAGES_EMBEDDED
        return most if state.rerank < 0 else state.rerank if stored else min(state.rerank, most)


@dataclass(frozen=True)
class State:
    """All that a tab shows depends on, as the page's address holds it; the address leaves defaults out."""

    tab: str = "ask"
    q: str = ""
    k: int = 3
    layer: int = -1
    weights: Weights = "idf"
    rerank: int = -1
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
                except ValueError:
                    what = f"{field.name}={value}, but {field.name} is a whole number"
                    raise InputError(f"The address says {what}.") from None
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
        models = [search.encoder.model for search in searches]
        kinds = [kind for model in models for kind in getattr(model, "UNITS", ())]
        self.searches = searches
        self.names: list[str] = []  # of the models, each different
        for search in searches:
            name = search.encoder.name
            self.names.append(name if name not in self.names else f"{name} ({len(self.names) + 1})")
        self.rerank = searches[0].rerank(State())
        self.layers = max(search.encoder.num_layers for search in searches)
        self.heads_per_layer = max(getattr(model, "num_heads", 1) for model in models)
        self.kinds = list(dict.fromkeys(kinds))  # of units
        self._units_lock = threading.Lock()  # two visitors do not search for the same units

    def show(self, parameters: Mapping[str, Any]) -> str:
        """The tab that an address, or its controls, ask for; an error is a sentence on the page."""
        tabs = {tab.__name__: tab for tab in (self.ask, self.compare, self.heads, self.units)}
        try:
            state = State.of(parameters)
        except InputError as error:
            return error_html(str(error))
        try:
            if state.tab not in tabs:
                raise InputError(f"There is no tab {state.tab}: there are {', '.join(tabs)}.")
            shown = tabs[state.tab](state)
        except InputError as error:
            shown = error_html(str(error))
        except Exception as error:  # a fault of ours: the terminal has the details
            traceback.print_exc(file=sys.stderr)
            kind = type(error).__name__
            shown = error_html(f"This went wrong inside minqa ({kind}); the terminal says more.")
        return f'<div class="tab" data-address="{safe(state.address)}">{shown}</div>'

    def ask(self, state: State) -> str:
        if not state.q.strip():
            return EMPTY
        search, blocks = self._search(state.model), []
        with Clock() as clock:
            answer = _answer(search, state)
            for rank, result in enumerate(answer.results, 1):
                shown = " open" if str(rank) in state.map.split(".") else ""
                summary = "<summary>Every word with every word</summary>"
                more = f"<details data-rank={rank}{shown}>{summary}{word_matrix(result.heat_map)}</details>"
                if state.influence:
                    more += _influence(answer.encoder, state.q, result.heat_map.passage.text)
                title = f"{rank}  {title_of(result.passage)}"
                blocks.append(html(result, title, word=state.word, more=more))
        return "".join(blocks) + _made(state, [answer], search, clock)

    def compare(self, state: State) -> str:
        if len(self.searches) < 2:
            return (
                '<p class="empty">One model is loaded, and there is none to compare it with. Start the page '
                f"with another: <code>uv run minqa app --model {safe(self.names[0])} --model "
                "path/or/hub-id</code>. The README says where to get an ELMo, or how to train one.</p>"
            )
        if not state.q.strip():
            return EMPTY
        state = replace(state, layer=-1)
        name = state.model or self.names[0]
        names = [name, state.other or next(other for other in self.names if other != name)]
        searches = [self._search(name) for name in names]
        with Clock() as clock:
            answers = [_answer(search, state) for search in searches]
            blocks = [html_comparison(names, comparison) for comparison in compare(state.q, answers)]
        return "".join(blocks) + _made(state, answers, searches[0], clock)

    def heads(self, state: State) -> str:
        encoder, text = self._search(state.model).encoder, _checked(state.text)
        if state.changed.strip():
            words = (state.first, state.second)
            views = look.look_at_flip(encoder, text, _checked(state.changed), state.source, words)
        else:
            views = look.look_at_heads(encoder, text, (max(state.layer, 1), state.head), grid=True)
        return "".join(view.html() for view in views) + _foot(state, [encoder.name])

    def units(self, state: State) -> str:
        search, text, kind = self._search(state.model), _checked(state.text), state.kind or None
        listing, chosen = None, [(state.layer if state.layer >= 0 else 1, state.unit)]
        if state.unit < 0:
            with self._units_lock:
                listing, chosen = _search_units(search, state.feature, kind)
        views = [listing, *look.look_at_units(search.encoder, text, chosen, kind=kind)]
        return "".join(view.html() for view in views if view) + _foot(state, [search.encoder.name])

    def _search(self, name: str) -> Search:
        """The search with the model of this name; the first if there is no name."""
        if name and name not in self.names:
            raise InputError(f"The model {name} is not loaded here: there is {', '.join(self.names)}.")
        return self.searches[self.names.index(name) if name else 0]


@cache
def _search_units(
    search: Search, feature: str, kind: str | None
) -> tuple[look.Listing, list[tuple[int, int]]]:
    """The units that follow a feature, searched once: it takes seconds and depends on no text."""
    rows = range(min(PASSAGES_SEARCHED_FOR_UNITS, len(search.index.passages)))
    texts = [search.index.passages[row].text for row in rows]
    return look.search_units(search.encoder, texts, feature, kind=kind)


def error_html(sentence: str) -> str:
    """An error as the page shows it."""
    return f'<p class="error" role="alert">{safe(sentence)}</p>'


def _checked(text: str, what: str = "text") -> str:
    if not text.strip():
        raise InputError(f"The {what} is empty: type one.")
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"The {what} is longer than {MAX_CHARACTERS:,} characters.")
    return text


def _answer(search: Search, state: State) -> Answer:
    _checked(state.q, "question")
    if state.weights not in WEIGHTS:
        raise InputError(f"There are no weights {state.weights}: there are {', '.join(WEIGHTS)}.")
    if not 1 <= state.k <= 20 or state.rerank > 200:
        raise InputError("The page shows 1 to 20 passages, out of at most 200 that are read closely.")
    encoder = replace(search.encoder, layer=state.layer, weights=state.weights)
    encoder = replace(encoder, statistics=search.index.statistics)
    rerank, answerer = search.rerank(state), search.answerer
    results = ask(encoder, state.q, search.index, k=state.k, rerank=rerank, answerer=answerer)
    return Answer(encoder, results, answerer)


def _influence(encoder: Encoder, query: str, passage: str) -> str:
    try:
        return "".join(view.html() for view in look.influence(saliency(encoder, query, passage)))
    except InputError as error:  # about this passage alone
        return error_html(str(error))


def _made(state: State, answers: Sequence[Answer], search: Search, clock: Clock) -> str:
    """Below answers: words that a model does not know, and how the answers were made."""
    notes = [unknown_note(made.encoder.name, [made.results[0].heat_map.query]) for made in answers]
    passages = f"{len(search.index.passages):,} passages, {search.rerank(state)} read closely"
    lines = [f"{passages}, {sum(clock.seconds.values()) * 1000:.0f} ms"]
    lines += [described(made.encoder, made.answerer) for made in answers]
    shown = "".join(f'<p class="note">{safe(sentence)}</p>' for sentence in notes if sentence)
    return shown + _foot(state, lines)


def _foot(state: State, lines: Sequence[str]) -> str:
    link = f'<a href="{safe(state.address)}">Link to this view</a>'
    return f'<p class="foot">{link} · {"<br>".join(map(safe, lines))}</p>'
