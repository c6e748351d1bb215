"""The tabs in a browser: Gradio's controls around what `tabs` shows, and the server."""

import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.resources import files
from typing import Any

# Before Gradio is imported: nobody outside is told that it was.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
from starlette.middleware import Middleware

from minqa.app.guard import Guard
from minqa.app.tabs import EMPTY, MAX_CHARACTERS, State, Tabs
from minqa.app.work import Search
from minqa.encoder import WEIGHTS
from minqa.inside.features import FEATURES
from minqa.text import InputError
from minqa.views.html import SCRIPT, STYLE

QUESTIONS = [
    "Who developed the theory of relativity?",
    "What is the capital of Egypt?",
    "When did World War II end?",
    "Who was the first president of the United States?",
    "Where do penguins live?",
]
TIRED = "The animal didn't cross the street because it was too tired."
WIDE = "The animal didn't cross the street because it was too wide."
NUMBERS = 'In 1915 Albert Einstein (a physicist) published it; "3 others" agreed. They met in Berlin.'

APP_STYLE, APP_SCRIPT = (
    files("minqa.app").joinpath(f"app.{kind}").read_text("utf-8") for kind in ("css", "js")
)


def build(searches: Sequence[Search]) -> gr.Blocks:
    """The page, for `serve`.

    Args:
        searches: one per model; the first is asked unless another is chosen.
    """
    tabs = Tabs(searches)
    with gr.Blocks(title="minqa", analytics_enabled=False) as page:
        gr.HTML("<h1>minqa</h1><p>Ask, see which words matched, and look inside the model.</p>")
        with gr.Tabs() as chosen:
            names = ("ask", *(("compare",) if len(searches) > 1 else ()), "heads", "units")
            made = {name: _Tab(tabs, name) for name in names}
        outputs = [chosen, *(part for tab in made.values() for part in (*tab.controls.values(), tab.shown))]

        def load(request: gr.Request) -> list[Any]:
            """What the address says, in its place; other controls keep what was typed meanwhile."""
            given = dict(request.query_params)
            tab = made.get(given.get("tab", State.tab), made[State.tab])
            changes: dict[Any, Any] = {}
            if given:
                texts = {name: part.value for name, part in tab.controls.items() if name not in tab.initial}
                changes = {chosen: gr.Tabs(selected=tab.name), tab.shown: tabs.show(texts | given)}
            with suppress(InputError):
                state = State.of(given)
                values = {part: getattr(state, name) for name, part in tab.controls.items() if name in given}
                changes |= {part: value for part, value in values.items() if _fits(part, value)}
            return [changes.get(part, gr.skip()) for part in outputs]

        page.load(load, None, outputs, show_progress="hidden", queue=False)
    return page


def warm_up(searches: Sequence[Search]) -> None:
    """Compile what the first visitor would wait for when asking."""
    for values in ({}, {"layer": 0}, {"influence": True}):
        Tabs(searches).show({"q": QUESTIONS[0], **values})


def serve(page: gr.Blocks, host: str, port: int | None, root_path: str = "") -> str:
    """Start a server in the background, and return its address.

    Args:
        root_path: the address at which a reverse proxy shows the page, if there is one.

    Raises:
        InputError: there is no such address here, or the port is taken.
    """
    at = f"{host}, port {port}" if port else host
    refused = InputError(f"The page cannot listen at {at}: name another --host or --port.")
    try:  # Gradio would try a hundred ports of an address that is not here
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port or 0), family=family).close()
    except (OSError, OverflowError, ValueError, TypeError):  # a name may be none, in many ways
        raise refused from None
    try:
        functions = {number: (len(one.inputs), len(one.outputs)) for number, one in page.fns.items()}
        font, mono = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            root_path=root_path.rstrip("/"),
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            footer_links=[],
            theme=gr.themes.Base(primary_hue="orange", font=font, font_mono=mono),
            css=STYLE + APP_STYLE,
            head=f"<script>{SCRIPT}{APP_SCRIPT}</script>",
            app_kwargs={"middleware": [Middleware(Guard, functions, host, root_path)]},
        )
    except OSError:
        raise refused from None
    return address


def _fits(part: Any, value: Any) -> bool:
    """Whether a control can show a value, which an address may have from anybody."""
    if isinstance(part, gr.Slider):
        return part.minimum <= value <= part.maximum
    return not isinstance(part, gr.Dropdown | gr.Radio) or value in [choice for _, choice in part.choices]


class _Tab:
    """A tab: its controls, by their names in `State`, and what it shows."""

    def __init__(self, tabs: Tabs, name: str):
        self.tabs, self.name = tabs, name
        self.controls: dict[str, Any] = {}
        self.events: list[Callable] = []  # that ask for the tab
        self.examples: Any = None
        with gr.Tab(name.capitalize(), id=name) as selected:
            getattr(self, f"add_{name}")()
            empty = EMPTY if "q" in self.controls else '<p class="empty">Press Look.</p>'
            self.shown = gr.HTML(empty, elem_id=f"{name}-shown", apply_default_css=False)
            self.wire(selected if name in ("heads", "units") else None)

    def add_ask(self) -> None:
        self.question("Ask")
        with gr.Accordion("How words are compared: layer, weights, re-ranking", open=False):
            with gr.Row():
                self.slider("layer", 0, self.tabs.layers, "Layer (0: embeddings)", value=self.tabs.layers)
                self.slider("rerank", 0, 200, "Passages read closely", step=10, value=self.tabs.rerank)
                self.slider("k", 1, 10, "Passages shown")
                self.slider("answers", 1, 5, "Answers")
            with gr.Row():
                self.add("weights", gr.Radio, choices=[*WEIGHTS], label="Weights of words")
                self.add("influence", gr.Checkbox, label="Influence too: gradient × input of the score")
                self.model()

    def add_compare(self) -> None:
        self.question("Compare")
        with gr.Row():
            self.model("One model")
            self.choice("other", self.tabs.names, "Another", value=self.tabs.names[1])
            self.slider("k", 1, 5, "Passages of each")

    def add_heads(self) -> None:
        self.text("text", "Look", "Text", value=TIRED)
        with gr.Row():
            self.slider("layer", 1, self.tabs.depth, "Layer", value=1, elem_id="layer")
            self.slider("head", 0, self.tabs.heads_per_layer - 1, "Head", elem_id="head")
            self.model()
        label = "A text that differs in a word: which heads move?"
        boxes = [self.add("changed", gr.Textbox, label=label, placeholder=WIDE)]
        with gr.Row():
            for name, label in {"source": "Attention of", "first": "to", "second": "or to"}.items():
                boxes.append(self.add(name, gr.Textbox, label=label))
        self.events += [box.submit for box in boxes]
        example = [TIRED, WIDE, State.source, State.first, State.second]
        boxes, labels = [self.controls["text"], *boxes], ["Too tired, or too wide?"]
        self.examples = gr.Examples([example], boxes, label="An example", example_labels=labels)

    def add_units(self) -> None:
        self.text("text", "Look", "Text", value=NUMBERS)
        with gr.Row():
            self.choice("feature", [*FEATURES], "Units that follow", value=State.feature)
            self.choice("kind", self.tabs.kinds, "Kind of unit")
            self.slider("layer", 0, self.tabs.depth, "… or one: its layer", value=1)
            unit = self.add("unit", gr.Number, precision=0, label="… and its number (-1: none)")
            self.model()
        self.events.append(unit.submit)

    def add(self, name: str, kind: Callable, **options: Any) -> Any:
        """A control; its first value is the state's default, unless another is given."""
        self.controls[name] = kind(**{"value": getattr(State, name), **options})
        return self.controls[name]

    def slider(self, name: str, low: int, high: int, label: str, **options: Any) -> None:
        choice = {"minimum": low, "maximum": max(high, low + 1), "interactive": high > low}
        self.add(name, gr.Slider, label=label, **{"step": 1, **choice, **options})

    def choice(self, name: str, choices: Sequence[str], label: str, **options: Any) -> None:
        self.add(name, gr.Dropdown, choices=choices, label=label, **{"value": choices[0], **options})

    def model(self, label: str = "Model") -> None:
        self.choice("model", self.tabs.names, label, visible=len(self.tabs.names) > 1)

    def text(self, name: str, verb: str, label: str, **options: Any) -> None:
        """A text with a button; both ask for the tab."""
        with gr.Row(equal_height=True):
            box = self.add(name, gr.Textbox, label=label, scale=6, max_length=MAX_CHARACTERS, **options)
            button = gr.Button(verb, variant="primary", scale=1, min_width=90)
        self.events += [box.submit, button.click]

    def question(self, verb: str) -> None:
        self.text("q", verb, "Question", placeholder=QUESTIONS[0], elem_id=f"{self.name}-question")
        self.examples = gr.Examples([[text] for text in QUESTIONS], [self.controls["q"]], label="Examples")

    def wire(self, selected: Any) -> None:
        """Show the tab when it is asked for or selected, a control is moved, or an example is chosen."""
        kept = [gr.Number(-1, visible=False), gr.Textbox("", visible=False)]
        moved = {name: part for name, part in self.controls.items() if not isinstance(part, gr.Textbox)}
        # A control that nobody has moved is not in the address.
        self.initial = {name: part.value for name, part in moved.items()}

        def run(*values: Any) -> Any:
            state = dict(zip([*self.controls, "word", "map"], values, strict=True))
            if state["map"] is None:  # the address shows this tab already
                return gr.skip()
            unmoved = [name for name, value in self.initial.items() if state[name] == value]
            return self.tabs.show({"tab": self.name, **state, **dict.fromkeys(unmoved)})

        how = {
            "fn": run,
            "inputs": [*self.controls.values(), *kept],
            "outputs": self.shown,
            "js": "(...values) => [...values.slice(0, -2), ...minqaKept()]",
            "trigger_mode": "always_last",
            "show_progress": "full",
            "api_visibility": "private",
            "queue": False,  # guard has one
            "preprocess": False,  # `State.of` says what is wrong with a value
        }
        gr.on([*self.events, *(part.input for part in moved.values())], **how)
        if selected:
            unless = f"new URLSearchParams(location.search).get('tab') === '{self.name}' ? [-1, null]"
            js = f"(...values) => [...values.slice(0, -2), ...({unless} : minqaKept())]"
            selected.select(**how | {"js": js})
        if self.examples:
            self.examples.load_input_event.then(**how)
