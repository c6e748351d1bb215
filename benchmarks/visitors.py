"""Visitors of the app at once: how long they wait, and whether all are answered.

uv run --group bench python -m benchmarks.visitors --visitors 8 --seconds 60

Starts `minqa app` on this machine alone, asks it as a browser does, and stops it again. Of ten requests seven
are questions, two move the layer, which embeds 30 passages again, and one looks at heads.
"""

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx

NAMES = ("relativity", "a planet", "honey", "a penguin", "Hamlet", "a vaccine", "an ocean", "a war")


def visit(address: str, seed: int, until: float, waits: dict[str, list[float]], errors: list[str]):
    """One visitor, who asks the next thing as soon as the last was answered."""
    draw = random.Random(seed)
    with httpx.Client(timeout=60) as client:
        while time.monotonic() < until:
            kind = draw.choices(["question", "layer", "heads"], [7, 2, 1])[0]
            question, start = f"What is {draw.choice(NAMES)}?", time.perf_counter()
            asked: dict[str, str] = {"tab": "heads", "text": question} if kind == "heads" else {"q": question}
            asked |= {"layer": str(draw.randrange(6))} if kind == "layer" else {}
            try:
                page = client.get(address, params=asked).raise_for_status().text
                waits[kind].append(time.perf_counter() - start)
                wanted = "<svg" if kind == "heads" else 'class="passage"'
                errors += [] if wanted in page else [f"{kind}: no {wanted}"]
            except httpx.HTTPError as error:
                errors.append(f"{type(error).__name__}: {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--visitors", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    program = [sys.executable, "-m", "minqa", "app"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline().split()[4].rstrip(";")
        waits: dict[str, list[float]] = {"question": [], "layer": [], "heads": []}
        errors: list[str] = []
        until = time.monotonic() + options.seconds
        with ThreadPoolExecutor(options.visitors) as visitors:
            run = partial(visit, address, until=until, waits=waits, errors=errors)
            list(visitors.map(run, range(options.visitors)))
        process.send_signal(signal.SIGINT)
    print(f"{options.visitors} visitors, {options.seconds:.0f} s, {os.cpu_count()} cores")
    by_kind = {"all": [wait for seconds in waits.values() for wait in seconds], **waits}
    for kind, seconds in by_kind.items():
        if len(seconds) > 1:
            median, high = statistics.median(seconds), statistics.quantiles(seconds, n=20)[18]
            print(f"{kind:9} {len(seconds):5} answers  median {median:.2f} s  95th percentile {high:.2f} s")
    print(f"{len(errors)} errors", *errors[:5], sep="\n")
    sys.exit(bool(errors))


if __name__ == "__main__":
    main()
