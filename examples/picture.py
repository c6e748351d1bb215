"""Draw the pictures in the README: what a command prints, as it looks in a terminal.

uv run python examples/picture.py examples/ask.svg
uv run python examples/picture.py examples/compare.svg small-elmo  # of examples/train_elmo.py
"""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 92
QUESTION = "Who developed the theory of relativity?"
PASSAGE = (
    "The general theory of relativity was published by Einstein in 1915. The physicist had worked out "
    "special relativity ten years before."
)
COMMANDS = {"ask": ["ask", QUESTION, "-k", "2"], "compare": ["compare", QUESTION, PASSAGE]}

path, *elmo = sys.argv[1:]
arguments = COMMANDS[Path(path).stem]
if elmo:
    arguments += ["--model", "all-MiniLM-L6-v2", "--model", *elmo]
program = [sys.executable, "-m", "minqa", *arguments]
colours = {"FORCE_COLOR": "1", "COLORTERM": "truecolor", "TERM": "xterm-256color", "COLUMNS": str(WIDTH)}
for _ in range(2):  # the second run finds what the first has compiled
    printed = subprocess.run(program, env=os.environ | colours, capture_output=True, text=True, check=True)

quoted = [f'"{argument}"' if " " in argument else argument for argument in arguments]
command = " ".join(quoted).replace(f'"{PASSAGE}"', '"$PASSAGE"')
console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
console.print(Text(f"$ uv run minqa {command}\n"))
console.print(Text.from_ansi(printed.stdout))
svg = console.export_svg(title=f"minqa {arguments[0]}")
# Fonts come from the reader's machine, not from a server.
Path(path).write_text(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL), "utf-8")
