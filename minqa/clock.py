"""Seconds by step, what JAX spends on compiling kept apart."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax


class _Compiled(threading.local):
    """What this thread has compiled so far, in seconds."""

    seconds = 0.0


_compiled = _Compiled()


def _listen(event: str, duration_secs: float, **_: str | int) -> None:
    if event.startswith("/jax/core/compile/"):
        _compiled.seconds += duration_secs


jax.monitoring.register_event_duration_secs_listener(_listen)


class Clock:
    """Collects the time of named steps in `seconds`; the compile time of all of them is under "compile"."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what runs inside; it must wait for its own results, and compile in this thread."""
        before, start = _compiled.seconds, time.perf_counter()
        try:
            yield
        finally:
            elapsed, compiled = time.perf_counter() - start, _compiled.seconds - before
            self.seconds[name] = self.seconds.get(name, 0.0) + elapsed - compiled
            self.seconds["compile"] = self.seconds.pop("compile", 0.0) + compiled
