"""Seconds by step, with the time that JAX spends on compiling apart."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax

_running: ContextVar["Clock | None"] = ContextVar("clock", default=None)


class Clock:
    """Collects, while it is entered, the time of each `step` in `seconds`; compiling is under "compile"."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float, {"compile": 0.0})

    def __enter__(self) -> "Clock":
        self._token = _running.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _running.reset(self._token)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Time what runs inside, if a clock is running; it must wait for its results."""
    clock = _running.get() or Clock()
    compiled, start = clock.seconds["compile"], time.perf_counter()
    try:
        yield
    finally:
        clock.seconds[name] += time.perf_counter() - start - (clock.seconds["compile"] - compiled)


def _listen(event: str, duration_secs: float, **_: str | int) -> None:
    if (clock := _running.get()) and event.startswith("/jax/core/compile/"):
        clock.seconds["compile"] += duration_secs


jax.monitoring.register_event_duration_secs_listener(_listen)
