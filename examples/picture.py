"""Draw the picture in the README: `python examples/picture.py examples/ask.svg`."""

import io
import re
import sys
from pathlib import Path

import platformdirs
from rich.console import Console
from rich.text import Text

import minqa
from minqa import show
from minqa.ask import ask, embed_query
from minqa.clock import Clock
from minqa.index import SHARD, write_index

QUESTION = "Who developed the theory of relativity?"

encoder = minqa.load()
passages = minqa.demo_passages()[:SHARD]
index = write_index(encoder, passages, platformdirs.user_cache_path("minqa"))
for clock in (Clock(), Clock()):  # the second is free of compiling
    query = embed_query(encoder, QUESTION, clock=clock)
    results = ask(encoder, query, passages, index.vectors, k=2, clock=clock)

console = Console(record=True, width=92, file=io.StringIO(), force_terminal=True, color_system="truecolor")
console.print(Text(f'$ uv run minqa ask "{QUESTION}" -k 2\n'))
show.print_answer(console, results, clock.seconds)
svg = console.export_svg(title="minqa ask")
# Fonts come from the reader's machine, not from a server.
Path(sys.argv[1]).write_text(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL), "utf-8")
