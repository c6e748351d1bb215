"""The tabs in a browser: Gradio's components around what `tabs` shows, and the server."""

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypeAlias

# Before Gradio is imported: nobody outside is told that it was.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from minqa import look
from minqa.errors import InputError
from minqa.features import FEATURES
from minqa.page import READY, STYLE
from minqa.statistics import CENTRINGS, WEIGHTS
from minqa.tabs import CHARACTERS, EMPTY, Search, State, Tabs, error_html

QUESTIONS = [
    "Who developed the theory of relativity?",
    "Which planet has rings?",
    "What do bees make?",
    "Where do penguins live?",
    "Who wrote Hamlet?",
]
TIRED = "The animal didn't cross the street because it was too tired."
WIDE = "The animal didn't cross the street because it was too wide."
NUMBERS = 'In 1915 Albert Einstein (a physicist) published it; "3 others" agreed. They met in Berlin.'

_STYLE = (
    f"{STYLE}{look.STYLE}"
    + """
.minqa{max-width:52em}
.side{display:grid;gap:2em;grid-template-columns:repeat(auto-fit,minmax(min(20em,100%),1fr))}
.tab .foot{font-size:.85em;opacity:.85;overflow-wrap:anywhere}
.tab .empty{opacity:.85;padding:1em 0}
.tab .error{border-left:4px solid #d2601a;padding:.6em 1em}
.minqa summary{cursor:pointer;padding:.3em 0}
.minqa.heads svg{cursor:pointer}
.minqa :focus-visible{outline:3px solid #2f86d0;outline-offset:2px}
"""
)
# What the server does not need to know: which word is kept, which maps are open; and the address.
_SCRIPT = (
    READY
    + """
const minqaTab=()=>[...document.querySelectorAll('.tab')].find(tab=>tab.offsetParent);
const minqaWord=()=>{const tab=minqaTab();if(!tab)return -1;
  const asked=document.querySelector('#ask-question textarea,#ask-question input');
  if(asked&&new URLSearchParams(tab.dataset.address).get('q')!==asked.value)return -1;
  return [...tab.querySelectorAll('.query')].map(one=>[...one.querySelectorAll('b')].findIndex(
    word=>word.getAttribute('aria-pressed')==='true'))[0]??-1};
const minqaMaps=()=>{const tab=minqaTab();if(!tab)return '';
  return [...tab.querySelectorAll('details[open][data-rank]')].map(one=>one.dataset.rank).join('.')};
const minqaAddress=()=>{const tab=minqaTab();if(!tab)return;
  const address=new URLSearchParams(tab.dataset.address);
  for(const [name,value] of [['word',minqaWord()],['map',minqaMaps()]])
    value===-1||value===''?address.delete(name):address.set(name,value);
  const text='?'+address;
  history.replaceState(null,'',text==='?'?location.pathname:text);
  const link=tab.querySelector('.foot a');if(link)link.setAttribute('href',text)};
const minqaSet=(id,value)=>{const field=document.querySelector(id+' input[type=number]');
  field.value=value;field.dispatchEvent(new Event('input',{bubbles:true}))};
document.addEventListener('click',event=>{
  const word=event.target.closest('.query b[role]'),map=event.target.closest('.heads svg');
  if(word&&!word.closest('.side')){
    const number=[...word.parentNode.querySelectorAll('b')].indexOf(word);
    const kept=word.getAttribute('aria-pressed');
    for(const query of minqaTab().querySelectorAll('.query')){
      const other=query.querySelectorAll('b')[number];
      if(other&&other!==word&&other.getAttribute('aria-pressed')!==kept)other.onclick()}}
  if(map){minqaSet('#layer',map.dataset.layer);minqaSet('#head',map.dataset.head)}
  if(word)minqaAddress()});
document.addEventListener('toggle',event=>event.target.dataset?.rank&&minqaAddress(),true);
new MutationObserver(()=>{
  minqaReady();
  for(const tab of document.querySelectorAll('.tab:not([data-seen])')){tab.dataset.seen=1;minqaAddress()}
}).observe(document.documentElement,{childList:true,subtree:true});
"""
)
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; worker-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'"
)


def build(searches: Sequence[Search]) -> gr.Blocks:
    """The page, for `serve`.

    Args:
        searches: one for each model; the first is the one that is asked unless another is chosen.
    """
    tabs = Tabs(searches)
    with gr.Blocks(title="minqa", analytics_enabled=False) as page:
        gr.HTML("<h1>minqa</h1><p>Ask, see which words matched, and look inside the model.</p>")
        with gr.Tabs() as chosen:
            wired = {
                "ask": _ask(tabs),
                "compare": _compare(tabs),
                "heads": _heads(tabs),
                "units": _units(tabs),
            }
        outputs = [chosen, *(part for parts, shown in wired.values() for part in (*parts.values(), shown))]

        def load(request: gr.Request) -> list[Any]:
            """What the address says, in its place; whatever else was typed meanwhile stays."""
            given = dict(request.query_params)
            try:
                state = State.of(given)
                if state.tab not in wired:
                    raise InputError(f"There is no tab {state.tab}: there are {', '.join(wired)}.")
            except InputError as error:
                told: dict[Any, Any] = {wired["ask"][1]: error_html(str(error))}
            else:
                parts, shown = wired[state.tab]
                held = {name: getattr(state, name) for name in parts if name in given}
                told = {parts[name]: value for name, value in held.items()}
                if given:
                    kept = {"word": state.word, "map": state.map}
                    texts = {n: part.value for n, part in parts.items() if isinstance(part, gr.Textbox)}
                    values = texts | held | kept
                    told |= {chosen: gr.Tabs(selected=state.tab), shown: _shown(tabs, state.tab, values)}
            return [told.get(part, gr.skip()) for part in outputs]

        page.load(load, None, outputs, show_progress="hidden")
    # What the first visitor would wait for when asking is compiled now.
    for state in (State(q=QUESTIONS[0], influence=True), State(q=QUESTIONS[0], layer=0)):
        tabs.ask(state)
    return page


def serve(page: gr.Blocks, host: str, port: int | None) -> str:
    """Start a server in the background, and return its address.

    Raises:
        InputError: there is no such address here, or the port is taken.
    """
    try:  # Gradio would try a hundred ports of an address that is not here
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port or 0), family=family).close()
        page.queue(default_concurrency_limit=os.cpu_count())
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            footer_links=[],
            theme=gr.themes.Base(
                primary_hue="orange",
                font=["system-ui", "sans-serif"],
                font_mono=["ui-monospace", "monospace"],
            ),
            css=_STYLE,
            head=f"<script>{_SCRIPT}</script>",
            app_kwargs={"middleware": [Middleware(_Policy)]},
        )
    except (OSError, OverflowError):
        at = f", port {port}" if port else ""
        raise InputError(f"The page cannot listen at {host}{at}: name another --host or --port.") from None
    return address


class _Policy:
    """A browser that shows the page asks no other host for anything."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY.encode())]
            await send(message)

        await self.app(scope, receive, with_policy)


# The controls of a tab, by the names that the state has for them, and what it shows.
Wired: TypeAlias = tuple[dict[str, Any], gr.HTML]


def _ask(tabs: Tabs) -> Wired:
    with gr.Tab("Ask", id="ask"):
        q, go, examples = _question("ask", "Ask")
        with gr.Accordion("How words are compared: layer, centring, weights, re-ranking", open=False):
            with gr.Row():
                layer = gr.Slider(0, tabs.layers, tabs.layers, step=1, label="Layer (0: embeddings)")
                rerank = gr.Slider(0, 200, tabs.usual, step=10, label="Passages read closely")
                k = gr.Slider(1, 10, 3, step=1, label="Passages shown")
            with gr.Row():
                centring = gr.Radio([*CENTRINGS], value="none", label="Centring")
                weights = gr.Radio([*WEIGHTS], value="idf", label="Weights of words")
                influence = gr.Checkbox(False, label="Influence too: gradient × input of the score")
                model = _model(tabs)
        parts = {"q": q, "k": k, "layer": layer, "centring": centring, "weights": weights}
        parts |= {"rerank": rerank, "influence": influence, "model": model}
        return _wire(tabs, "ask", parts, [q.submit, go.click], examples)


def _compare(tabs: Tabs) -> Wired:
    several = len(tabs.names) > 1
    with gr.Tab("Compare", id="compare"):
        q, go, examples = _question("compare", "Compare")
        with gr.Row(visible=several):
            model = _model(tabs, "One model")
            other = gr.Dropdown(tabs.names, value=tabs.names[several], label="Another")
            k = gr.Slider(1, 5, 3, step=1, label="Passages of each")
        parts = {"q": q, "k": k, "model": model, "other": other}
        return _wire(tabs, "compare", parts, [q.submit, go.click], examples)


def _heads(tabs: Tabs) -> Wired:
    with gr.Tab("Heads", id="heads") as tab:
        text, go = _text(TIRED)
        with gr.Row():
            layer = gr.Slider(1, tabs.layers, 1, step=1, label="Layer", elem_id="layer")
            head = gr.Slider(0, tabs.heads_of_a_layer - 1, 0, step=1, label="Head", elem_id="head")
            model = _model(tabs)
        changed = gr.Textbox(label="A text that differs in a word: which heads move?", placeholder=WIDE)
        with gr.Row():
            source = gr.Textbox("it", label="Attention of")
            first = gr.Textbox("animal", label="to")
            second = gr.Textbox("street", label="or to")
        boxes = [text, changed, source, first, second]
        examples = gr.Examples(
            [[TIRED, WIDE, "it", "animal", "street"]],
            boxes,
            label="An example",
            example_labels=["Too tired, or too wide?"],
        )
        parts = {"text": text, "layer": layer, "head": head, "model": model, "changed": changed}
        parts |= {"source": source, "first": first, "second": second}
        triggers = [tab.select, go.click, *(box.submit for box in boxes)]
        return _wire(tabs, "heads", parts, triggers, examples)


def _units(tabs: Tabs) -> Wired:
    with gr.Tab("Units", id="units") as tab:
        text, go = _text(NUMBERS)
        with gr.Row():
            feature = gr.Dropdown([*FEATURES], value="number", label="Units that follow")
            kind = gr.Dropdown(tabs.kinds, value=tabs.kinds[0], label="Kind of unit")
            layer = gr.Slider(0, tabs.layers, 1, step=1, label="… or one: its layer")
            unit = gr.Number(-1, precision=0, label="… and its number (-1: none)")
            model = _model(tabs)
        parts = {"text": text, "feature": feature, "kind": kind, "layer": layer, "unit": unit, "model": model}
        return _wire(tabs, "units", parts, [tab.select, go.click, text.submit, unit.submit])


def _model(tabs: Tabs, label: str = "Model") -> gr.Dropdown:
    return gr.Dropdown(tabs.names, value=tabs.names[0], label=label, visible=len(tabs.names) > 1)


def _question(name: str, verb: str) -> tuple[gr.Textbox, gr.Button, Any]:
    with gr.Row(equal_height=True):
        q = gr.Textbox(
            label="Question",
            placeholder=QUESTIONS[0],
            scale=6,
            max_length=CHARACTERS,
            elem_id=f"{name}-question",
        )
        go = gr.Button(verb, variant="primary", scale=1, min_width=90)
    return q, go, gr.Examples([[one] for one in QUESTIONS], [q], label="Examples")


def _text(value: str) -> tuple[gr.Textbox, gr.Button]:
    with gr.Row(equal_height=True):
        text = gr.Textbox(value, label="Text", scale=6, max_length=CHARACTERS)
        return text, gr.Button("Look", variant="primary", scale=1, min_width=90)


def _wire(
    tabs: Tabs, name: str, parts: dict[str, Any], triggers: list[Callable], examples: Any = None
) -> Wired:
    """Show a tab when it is asked to, when a control is moved, and when an example is chosen."""
    empty = EMPTY if "q" in parts else '<p class="empty">Press Look.</p>'
    shown = gr.HTML(empty, elem_id=f"{name}-shown", apply_default_css=False)
    word, maps = gr.Number(-1, visible=False), gr.Textbox("", visible=False)

    # A control that nobody has moved is not in the address.
    initial = {one: part.value for one, part in parts.items() if not isinstance(part, gr.Textbox)}

    def run(*values: Any) -> str:
        held = dict(zip([*parts, "word", "map"], values, strict=True))
        moved = {one: value for one, value in held.items() if one not in initial or value != initial[one]}
        return _shown(tabs, name, moved)

    how = {
        "fn": run,
        "inputs": [*parts.values(), word, maps],
        "outputs": shown,
        "js": "(...all)=>[...all.slice(0,-2),minqaWord(),minqaMaps()]",
        "trigger_mode": "always_last",
        "show_progress": "full",
        "api_visibility": "private",
    }
    controls = [part.input for part in parts.values() if not isinstance(part, gr.Textbox)]
    gr.on([*triggers, *controls], **how)
    if examples:
        examples.load_input_event.then(**how)
    return parts, shown


def _shown(tabs: Tabs, name: str, values: dict[str, Any]) -> str:
    """A tab for what its controls hold, each of the type that the state has."""
    kinds: dict[str, Callable] = {one.name: type(one.default) for one in fields(State)}
    given = {one: kinds[one](value) for one, value in values.items() if value is not None}
    return getattr(tabs, name)(State(tab=name, **given))
