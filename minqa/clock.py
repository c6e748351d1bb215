"""Seconds by step, what JAX spends on compiling kept apart."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax


class Clock:
    """Collects the time of named steps in `seconds`; the compile time of all of them is under "compile"."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what runs inside; it must wait for its own results."""
        compiled, thread = 0.0, threading.get_ident()

        def listen(event: str, duration_secs: float, **_: str | int) -> None:
            nonlocal compiled
            # What other threads compile meanwhile is theirs.
            if event.startswith("/jax/core/compile/") and threading.get_ident() == thread:
                compiled += duration_secs

        jax.monitoring.register_event_duration_secs_listener(listen)
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            jax.monitoring.unregister_event_duration_listener(listen)
            self.seconds[name] = self.seconds.get(name, 0.0) + elapsed - compiled
            self.seconds["compile"] = self.seconds.pop("compile", 0.0) + compiled
