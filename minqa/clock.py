"""Seconds by step, with the time that JAX spends on compiling apart."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax

_running: ContextVar["Clock | None"] = ContextVar("clock", default=None)
_compiled = threading.local()  # .seconds that a thread has spent on compiling so far


def _listen(event: str, duration_secs: float, **_: str | int) -> None:
    if event.startswith("/jax/core/compile/"):
        _compiled.seconds = getattr(_compiled, "seconds", 0.0) + duration_secs


jax.monitoring.register_event_duration_secs_listener(_listen)


class Clock:
    """Collects, while it is entered, the time of each `step` in `seconds`; compiling is under "compile"."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __enter__(self) -> "Clock":
        self._token = _running.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _running.reset(self._token)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Time what runs inside, if a clock is running; it must wait for its results."""
    before, start = getattr(_compiled, "seconds", 0.0), time.perf_counter()
    try:
        yield
    finally:
        elapsed, compiled = time.perf_counter() - start, getattr(_compiled, "seconds", 0.0) - before
        if clock := _running.get():
            clock.seconds[name] = clock.seconds.get(name, 0.0) + elapsed - compiled
            clock.seconds["compile"] = clock.seconds.pop("compile", 0.0) + compiled
