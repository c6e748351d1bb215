"""The app's state, as its address holds it → what each tab shows, as HTML."""

import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import wraps
from typing import Any, TypeAlias
from urllib.parse import urlencode

from minqa import look
from minqa.ask import RERANK_STORED, Finder, ask, embed_query, settings
from minqa.clock import Clock
from minqa.comparison import Answer, compare
from minqa.encoder import Encoder
from minqa.errors import InputError
from minqa.index import Index
from minqa.influence import saliency
from minqa.page import safe, word_matrix
from minqa.show import html, html_comparison, title_of
from minqa.statistics import CENTRINGS, RANKING, WEIGHTS
from minqa.text import well_formed

# Where the token vectors of a layer are not stored, so many candidates can be embedded anew within a second.
EMBEDDED = 30
# Passages that units are looked for in, and the longest question and text that the page takes.
SEARCHED = 128
CHARACTERS = 2000
EMPTY = '<p class="empty">Type a question, or click one of the examples.</p>'


@dataclass(frozen=True, eq=False)
class Search:
    """What answers: an encoder, what is searched, and what finds answers."""

    encoder: Encoder
    index: Index
    finder: Finder | None

    def rerank(self, layers: tuple[int, ...], asked: int) -> int:
        """How many candidates are read closely: as asked, -1 for as many as usual; what a second allows."""
        if self.index.tokens is not None and layers == (self.encoder.model.num_layers,):
            return RERANK_STORED if asked < 0 else asked
        return EMBEDDED if asked < 0 else min(asked, EMBEDDED)


@dataclass(frozen=True)
class State:
    """All that a tab shows depends on, as it stands in the page's address; defaults are left out there."""

    tab: str = "ask"
    q: str = ""
    k: int = 3
    layer: int = -1
    centring: str = RANKING.centring
    weights: str = RANKING.weights
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
    def of(cls, parameters: Mapping[str, str]) -> "State":
        """The state that an address holds. Raises InputError where a number is none."""
        values: dict[str, Any] = {}
        for one in fields(cls):
            if (given := parameters.get(one.name)) is not None:
                kind: Callable = type(one.default)
                try:
                    values[one.name] = given == "1" if kind is bool else kind(given)
                except ValueError:
                    raise InputError(
                        f"The address says {one.name}={given}, but {one.name} is a whole number."
                    ) from None
        return cls(**values)

    @property
    def address(self) -> str:
        """What `of` reads."""
        changed = {name: value for name, value in vars(self).items() if value != getattr(State, name)}
        given = {name: int(one) if isinstance(one, bool) else one for name, one in changed.items()}
        return "?" + urlencode({name: well_formed(str(one)) for name, one in given.items()})


def _told(tab: Callable[["Tabs", State], str]) -> Callable[["Tabs", State], str]:
    """A tab whose errors are sentences on the page, and which knows its own address."""

    @wraps(tab)
    def safely(self: "Tabs", state: State) -> str:
        try:
            shown = tab(self, state)
        except InputError as error:
            shown = error_html(str(error))
        except Exception as error:  # a fault of ours: the terminal has the details
            traceback.print_exc(file=sys.stderr)
            shown = error_html(
                f"This went wrong inside minqa ({type(error).__name__}); the terminal says more."
            )
        return f'<div class="tab" data-address="{safe(state.address)}">{shown}</div>'

    return safely


Found: TypeAlias = tuple[look.View, list[tuple[int, int]]]


class Tabs:
    """Each tab as HTML, from the state alone.

    Attributes:
        searches: one for each model.
        names: of the models, each once.
        usual: how many candidates the first of them reads closely.
        layers: the most that a model has.
        heads_of_a_layer: likewise.
        kinds: of units that any of them has.
    """

    def __init__(self, searches: Sequence[Search]):
        self.searches = searches
        self.names: list[str] = []
        for search in searches:  # two models of one name are told apart
            name = search.encoder.name
            self.names.append(name if name not in self.names else f"{name} ({len(self.names) + 1})")

        self._units: dict[tuple[Search, str, str | None], Found] = {}
        self._searching = threading.Lock()
        models = [search.encoder.model for search in searches]
        self.usual = searches[0].rerank((models[0].num_layers,), -1)
        self.layers = max(model.num_layers for model in models)
        self.heads_of_a_layer = max(getattr(model, "num_heads", 1) for model in models)
        kinds = [kind for model in models for kind in getattr(model, "UNITS", ())]
        self.kinds = list(dict.fromkeys(kinds))

    def search(self, name: str) -> Search:
        """The search of this name; the first, if there is no name."""
        if name and name not in self.names:
            raise InputError(f"The model {name} is not loaded here: there is {', '.join(self.names)}.")
        return self.searches[self.names.index(name) if name else 0]

    @_told
    def ask(self, state: State) -> str:
        if not state.q.strip():
            return EMPTY
        search = self.search(state.model)
        answer = self._answer(search, state)
        opened = state.map.split(".")
        query = answer.query.tokens
        blocks = []
        for rank, result in enumerate(answer.results, 1):
            shade = ""
            if state.influence:
                measure, statistics = answer.measure, answer.statistics
                texts = query.text, result.heat_map.passage.text
                try:
                    moved = saliency(search.encoder, *texts, measure=measure, statistics=statistics)
                    shade = "".join(view.html() for view in look.influence(moved))
                except InputError as error:  # of this passage alone
                    shade = error_html(str(error))
            more = (
                f"<details data-rank={rank}{' open' if str(rank) in opened else ''}><summary>Every word with "
                f"every word</summary>{word_matrix(result.heat_map)}</details>{shade}"
            )
            title = f"{rank}  {title_of(result.passage)}"
            blocks.append(html(result, title, word=state.word, more=more))
        return "".join(blocks) + _foot(state, [answer], search)

    @_told
    def compare(self, state: State) -> str:
        if len(self.searches) < 2:
            return (
                '<p class="empty">One model is loaded, and there is none to compare it with. Start the page '
                f"with another: <code>uv run minqa app --model {safe(self.names[0])} --model "
                "path/or/hub-id</code>. The README says where to get an ELMo, or how to train one.</p>"
            )
        if not state.q.strip():
            return EMPTY
        names = [state.model or self.names[0], state.other or self.names[1]]
        answers = [self._answer(self.search(name), replace(state, layer=-1)) for name in names]
        blocks = [html_comparison(names, one) for one in compare(answers)]
        return "".join(blocks) + _foot(state, answers, self.search(names[0]))

    @_told
    def heads(self, state: State) -> str:
        encoder, text = self.search(state.model).encoder, _given(state.text)
        if state.changed.strip():
            words = (state.first, state.second)
            views = look.look_at_flip(encoder, text, _given(state.changed), state.source, words)
            return _shown(state, views, encoder)
        chosen = (max(state.layer, 1), state.head)
        return _shown(state, look.look_at_heads(encoder, text, chosen, grid=True), encoder)

    @_told
    def units(self, state: State) -> str:
        search, text = self.search(state.model), _given(state.text)
        kind = state.kind or None
        if state.unit >= 0:
            views = look.look_at_units(
                search.encoder, text, [(state.layer if state.layer >= 0 else 1, state.unit)], kind=kind
            )
        else:
            listing, chosen = self._found(search, state.feature, kind)
            views = [listing, *look.look_at_units(search.encoder, text, chosen, kind=kind)]
        return _shown(state, views, search.encoder)

    def _answer(self, search: Search, state: State) -> Answer:
        if len(state.q) > CHARACTERS:
            raise InputError(f"The question is longer than {CHARACTERS:,} characters.")
        if state.centring not in CENTRINGS or state.weights not in WEIGHTS:
            raise InputError(f"There is no centring {state.centring} with weights {state.weights}.")
        chosen: dict[str, Any] = {"centring": state.centring, "weights": state.weights}
        measure = replace(RANKING, layers=(state.layer,), **chosen)
        if not 1 <= state.k <= 20 or state.rerank > 200:
            raise InputError("The page shows 1 to 20 passages, out of at most 200 that are read closely.")
        statistics, clock = search.index.statistics, Clock()
        query = embed_query(search.encoder, state.q, statistics, measure=measure, clock=clock)
        results = ask(
            search.encoder,
            query,
            search.index,
            k=state.k,
            rerank=search.rerank(measure.layers_of(search.encoder.model.num_layers), state.rerank),
            measure=measure,
            finder=search.finder,
            clock=clock,
        )
        return Answer(search.encoder, statistics, query, results, measure, search.finder, clock)

    def _found(self, search: Search, feature: str, kind: str | None) -> Found:
        """What `search_units` finds; it takes seconds and depends on no text, so it is done once."""
        with self._searching:
            key = search, feature, kind
            if key not in self._units:
                some = range(min(SEARCHED, len(search.index.passages)))
                texts = [search.index.passages[row].text for row in some]
                self._units[key] = look.search_units(search.encoder, texts, feature, kind=kind)
            return self._units[key]


def _given(text: str) -> str:
    if not text.strip():
        raise InputError("The text is empty: type one.")
    if len(text) > CHARACTERS:
        raise InputError(f"The text is longer than {CHARACTERS:,} characters.")
    return text


def _shown(state: State, views: Sequence[look.View], encoder: Encoder) -> str:
    foot = f'<p class="foot"><a href="{safe(state.address)}">Link to this view</a> · {safe(encoder.name)}</p>'
    return "".join(view.html() for view in views) + foot


def _foot(state: State, answers: Sequence[Answer], search: Search) -> str:
    made = [settings(one.encoder, one.statistics, one.measure, one.finder) for one in answers]
    spent = sum(sum(one.clock.seconds.values()) for one in answers)
    layers = answers[0].measure.layers_of(search.encoder.model.num_layers)
    read = f"{search.rerank(layers, state.rerank)} read closely"
    lines = [f"{len(search.index.passages):,} passages, {read}, {spent * 1000:.0f} ms", *made]
    link = f'<a href="{safe(state.address)}">Link to this view</a>'
    return f'<p class="foot">{link} · {"<br>".join(map(safe, lines))}</p>'


def error_html(sentence: str) -> str:
    """An error as the page tells it."""
    return f'<p class="error" role="alert">{safe(sentence)}</p>'
