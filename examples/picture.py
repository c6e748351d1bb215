"""Draw the pictures in the README.

uv run python examples/picture.py ask examples/ask.svg
uv run python examples/picture.py compare examples/compare.svg small-elmo  # of examples/train_elmo.py
"""

import io
import re
import sys
import tempfile
from pathlib import Path

import platformdirs
from minqa.comparison import Answer, compare
from minqa.statistics import RANKING
from minqa.survey import demo_statistics
from rich.console import Console
from rich.text import Text

import minqa
from minqa import show
from minqa.ask import ask, embed_query, read, settings
from minqa.clock import Clock

QUESTION = "Who developed the theory of relativity?"
PASSAGE = (
    "The general theory of relativity was published by Einstein in 1915. The physicist had worked out "
    "special relativity ten years before."
)


def draw_ask():
    encoder = minqa.load()
    head, folder = minqa.load_span_head(), tempfile.mkdtemp()
    minqa.write_index(encoder, minqa.open_corpus(), folder, store_tokens=True, max_shards=1)
    index = minqa.open_index(folder, encoder)
    for clock in (Clock(), Clock()):  # the second is free of compiling
        query = embed_query(encoder, QUESTION, index.statistics, clock=clock)
        results = ask(encoder, query, index, k=2, finder=head, clock=clock)
    lines = [settings(encoder, index.statistics, RANKING, head)]
    return f'ask "{QUESTION}" -k 2', show.terminal(results, marks=False), lines, clock.seconds.items()


def draw_compare(elmo):
    names = ["all-MiniLM-L6-v2", elmo]
    answers = []
    for encoder in map(minqa.load, names):
        statistics = demo_statistics(encoder, platformdirs.user_cache_path("minqa"))
        for clock in (Clock(), Clock()):
            query = embed_query(encoder, QUESTION, statistics, clock=clock)
            results = read(encoder, query, [minqa.Passage("", PASSAGE)], statistics, clock=clock)
        answers.append(Answer(encoder, statistics, query, results, RANKING, None, clock))
    shown = show.terminal_comparison(
        names, [answer.results for answer in answers], compare(answers), marks=False
    )
    seconds = [(answer.encoder.name, sum(answer.clock.seconds.values())) for answer in answers]
    lines = [settings(one.encoder, one.statistics, one.measure, one.finder) for one in answers]
    return f'compare "{QUESTION}" "$PASSAGE" --model {names[0]} --model {elmo}', shown, lines, seconds


what, file, *rest = sys.argv[1:]
command, shown, lines, seconds = {"ask": draw_ask, "compare": draw_compare}[what](*rest)
console = Console(record=True, width=92, file=io.StringIO(), force_terminal=True, color_system="truecolor")
console.print(Text(f"$ uv run minqa {command}\n"))
show.print_answer(console, shown, lines, seconds)
svg = console.export_svg(title=f"minqa {what}")
# Fonts come from the reader's machine, not from a server.
Path(file).write_text(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL), "utf-8")
