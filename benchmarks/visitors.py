"""Visitors of the app at once: how long they wait, and whether all are answered.

uv run --group bench python -m benchmarks.visitors --visitors 8 --seconds 60 --pause 0

Starts `minqa app` on this machine alone, asks it through Gradio's own protocol, and stops it again. Of ten
requests seven are questions, two move the layer, which embeds 30 passages again, and one looks at heads.
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

import httpx

NAMES = ("relativity", "a planet", "honey", "a penguin", "Hamlet", "a vaccine", "an ocean", "a war")


class App:
    """What can be asked of the page at an address: its tabs' controls with their first values."""

    def __init__(self, address: str):
        self.address = address
        config = httpx.get(f"{address}config").json()
        self.components = {part["id"]: part["props"] for part in config["components"]}
        self.tabs = {}
        for event in config["dependencies"]:
            for output in event["outputs"]:
                name = self.components[output].get("elem_id", "")
                if name.endswith("-shown") and len(event["outputs"]) == 1:
                    self.tabs.setdefault(name.removesuffix("-shown"), event)

    def request(self, client: httpx.Client, tab: str, **values: object) -> str:
        """What the tab shows for these values of its controls, named by their labels."""
        event = self.tabs[tab]
        controls = [self.components[number] for number in event["inputs"]]
        data = [values.get(control.get("label", ""), control.get("value")) for control in controls]
        request = {"data": data, "fn_index": event["id"]}
        answer = client.post(f"{self.address}gradio_api/run/predict", json=request).raise_for_status()
        return answer.json()["data"][0]


def visit(app: App, seed: int, until: float, pause: float, waits: dict[str, list[float]], errors: list[str]):
    """One visitor, who asks the next thing a pause after the last was answered."""
    draw = random.Random(seed)
    with httpx.Client(timeout=60) as client:
        while time.monotonic() < until:
            kind = draw.choices(["question", "layer", "heads"], [7, 2, 1])[0]
            question, start = f"What is {draw.choice(NAMES)}?", time.perf_counter()
            layer = {"Layer (0: embeddings)": draw.randrange(6)} if kind == "layer" else {}
            try:
                if kind == "heads":
                    good = "<svg" in app.request(client, "heads", Text=question)
                else:
                    good = 'class="passage"' in app.request(client, "ask", Question=question, **layer)
                waits[kind].append(time.perf_counter() - start)
                errors += [] if good else [f"{kind}: no passage, no head"]
            except Exception as error:
                errors.append(f"{type(error).__name__}: {error}")
            time.sleep(draw.expovariate(1 / pause) if pause else 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--visitors", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--pause", type=float, default=0, help="mean pause between requests, in seconds")
    options = parser.parse_args()
    program = [sys.executable, "-m", "minqa", "app"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[4].rstrip(";")
        app = App(address)
        waits: dict[str, list[float]] = {"question": [], "layer": [], "heads": []}
        errors: list[str] = []
        until = time.monotonic() + options.seconds
        with ThreadPoolExecutor(options.visitors) as visitors:
            for seed in range(options.visitors):
                visitors.submit(visit, app, seed, until, options.pause, waits, errors)
        process.send_signal(signal.SIGINT)
    setting = f"{options.seconds:.0f} s, mean pause {options.pause} s, {os.cpu_count()} cores"
    print(f"{options.visitors} visitors, {setting}")
    by_kind = {"all": [wait for seconds in waits.values() for wait in seconds], **waits}
    for kind, seconds in by_kind.items():
        if len(seconds) > 1:
            median, high = statistics.median(seconds), statistics.quantiles(seconds, n=20)[18]
            print(f"{kind:9} {len(seconds):5} answers  median {median:.2f} s  95th percentile {high:.2f} s")
    print(f"{len(errors)} errors", *errors[:5], sep="\n")
    sys.exit(bool(errors))


if __name__ == "__main__":
    main()
