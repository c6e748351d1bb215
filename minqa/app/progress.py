"""What is said on stderr: notes of one line, and how far a long task is."""

import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from minqa.views.text import one_line


def note(sentence: str) -> None:
    """Print a sentence on a line of stderr."""
    print(one_line(sentence), file=sys.stderr)


@contextmanager
def progress(task_name: str, total: int = 0, unit: str = "passages") -> Iterator[Callable[..., None]]:
    """A progress bar on stderr, and the function that moves it and stops after Ctrl-C.

    The function takes how much was just done and, without `total`, what part of everything is, 0 to 1.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    rate_column = TextColumn("{task.fields[rate]}")
    columns = (TextColumn(task_name), BarColumn(), TaskProgressColumn(), rate_column, TimeRemainingColumn())
    # A KeyboardInterrupt raised while JAX collects garbage is lost, so Ctrl-C only sets a flag.
    pressed, done = False, 0
    recent = deque([(time.monotonic(), 0)], maxlen=64)

    def interrupt(*_: object) -> None:
        nonlocal pressed
        pressed = True

    def advance(more: int, part: float | None = None) -> None:
        nonlocal done
        done += more
        recent.append((time.monotonic(), done))
        (since, before), (now, _) = recent[0], recent[-1]
        rate = (done - before) / max(now - since, 1e-3)
        part = done / max(total, 1) if part is None else part
        bar.start()  # not earlier: until there is work to show, an error stands alone
        if not more and part > bar.tasks[task].completed:
            bar.reset(task)  # what was there already says nothing about the time left
        shown = f"{done:,} {unit}, {rate:,.0f}/s" if done and unit else ""
        bar.update(task, completed=part, total=1 if part else None, rate=shown)
        if pressed:
            raise KeyboardInterrupt

    bar = Progress(*columns, console=Console(stderr=True))
    task = bar.add_task(task_name, total=None, rate="")
    default = signal.signal(signal.SIGINT, interrupt)
    try:
        yield advance
        if pressed:
            raise KeyboardInterrupt
    finally:
        if bar.live.is_started:
            bar.stop()
        signal.signal(signal.SIGINT, default)
