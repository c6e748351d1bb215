"""What is said on stderr: notes of one line, and how far a long task is. And Ctrl-C, which is never lost."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from minqa.views.text import one_line

_pressed = threading.Event()  # Ctrl-C, since the command began
_deferred = threading.Event()  # whether it waits for the next step of a task, which leaves nothing half done


def note(sentence: str) -> None:
    """Print a sentence on a line of stderr."""
    print(one_line(sentence), file=sys.stderr, flush=True)


def check_pressed() -> None:
    """Raise KeyboardInterrupt if Ctrl-C was pressed."""
    if _pressed.is_set():
        raise KeyboardInterrupt


@contextmanager
def ctrl_c() -> Iterator[None]:
    """Within, Ctrl-C raises KeyboardInterrupt, wherever it falls, and at the end at the latest.

    In an import it could crash a library that is not ready yet, so it is raised after that. Python drops an
    exception that is raised in a destructor or a callback, as while JAX collects garbage; it is raised again.
    """

    def interrupt(_: int, frame: FrameType | None) -> None:
        _pressed.set()
        if not _deferred.is_set():
            if not _is_importing(frame):
                raise KeyboardInterrupt
            soon_again()

    def again() -> None:
        if running:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def soon_again() -> None:
        threading.Timer(0.05, again).start()

    def dropped(unraisable: Any) -> None:
        if unraisable.exc_type is KeyboardInterrupt:
            soon_again()
        else:
            default_hook(unraisable)

    running = True

    _pressed.clear()
    default_hook, sys.unraisablehook = sys.unraisablehook, dropped
    default = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
        check_pressed()
    except Exception:
        check_pressed()  # a library has made another exception of it
        raise
    finally:
        running = False
        signal.signal(signal.SIGINT, default)
        sys.unraisablehook = default_hook


def _is_importing(frame: FrameType | None) -> bool:
    while frame and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


@contextmanager
def progress(task_name: str, total: int = 0, unit: str = "passages") -> Iterator[Callable[..., None]]:
    """A progress bar on stderr, and the function that moves it and stops after Ctrl-C.

    The function takes how much was just done and, without `total`, what part of everything is, 0 to 1.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    rate_column = TextColumn("{task.fields[rate]}")
    columns = (TextColumn(task_name), BarColumn(), TaskProgressColumn(), rate_column, TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True))
    task, done, start = bar.add_task(task_name, total=None, rate=""), 0, time.monotonic()

    def advance(more: int, part: float | None = None) -> None:
        nonlocal done
        done += more
        part = done / max(total, 1) if part is None else part
        bar.start()  # not earlier: until there is work to show, an error stands alone
        if not more and part > bar.tasks[task].completed:
            bar.reset(task)  # what was there already says nothing about the time left
        rate = done / max(time.monotonic() - start, 1e-3)
        shown = f"{done:,} {unit}, {rate:,.0f}/s" if done and unit else ""
        bar.update(task, completed=part, total=1 if part else None, rate=shown)
        check_pressed()

    _deferred.set()
    try:
        yield advance
        check_pressed()
    finally:
        _deferred.clear()
        if bar.live.is_started:
            bar.stop()
