"""Measure one kind of work, or all of it: a run of pytest-benchmark, and a table of what it recorded.

uv run --group bench python -m benchmarks encode --model bert-large --shape 1x128,32x384 --dtype bfloat16
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import draw, markdown

HERE = Path(__file__).parent
EPILOG = """Times are medians, ± the interquartile range. End to end starts and ends in the host's memory,
device on the device. Of the ceiling: the least time that product, memory or dispatch allow, as measured in
the same run, relative to the device's. A ratio above 1: minqa is faster than the best peer."""


def several(pattern: str, convert: Callable[[str], Any], wanted: str) -> dict[str, Any]:
    """An option for values of this pattern, separated by commas."""

    def check(text: str) -> list:
        if not all(re.fullmatch(pattern, part) for part in text.split(",")):
            raise argparse.ArgumentTypeError(f"must be {wanted}, not {text!r}")
        return [convert(part) for part in text.split(",")]

    return {"type": check, "help": wanted}


def peak(text: str) -> float:
    return several(r"\d*[1-9]\d*(\.\d+)?|0?\.\d+", float, "a number above 0")["type"](text)[0]


def folder(text: str) -> Path:
    path = Path(text).resolve()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be a folder: {error.strerror}") from error
    return path


NUMBER = r"0*[1-9]\d*"
SHAPE = f"{NUMBER}x{NUMBER}", lambda text: tuple(map(int, text.split("x")))
# What can be swept, and how to measure it: options of pytest in this folder, too.
SWEPT: dict[str, dict[str, Any]] = {
    "model": several(".+", str, "minilm, bert-base or bert-large with random weights, or a checkpoint"),
    "devices": several(NUMBER, int, "how many devices share each batch, a whole number"),
    "shape": several(*SHAPE, "batch x length, as 1x128,32x384"),
    "dtype": several("float32|bfloat16|int8", str, "float32, bfloat16 or, of match alone, int8"),
    "passages": several(NUMBER, int, "how many are searched, a whole number"),
    "articles": several(NUMBER, int, "how many are embedded and indexed, a whole number, at most 10,033"),
    "queries": several(NUMBER, int, "how many are searched for at once, a whole number"),
    "k": several(NUMBER, int, "how many passages are found for each, a whole number"),
}
MEASURED: dict[str, dict[str, Any]] = {
    "quick": dict(action="store_true", help="few sizes and rounds: 5 minutes on 2 idle cores for all"),
    "peers": dict(action="store_true", help="race the peers that are installed and use the same device"),
    "peak-tflops": dict(type=peak, help="the device's peak, for MFU, where its name is not known"),
    "profile": dict(type=folder, help="folder for traces, for xprof or Perfetto"),
    "hlo": dict(type=folder, help="folder for the compiled programs, as text"),
}
# The benchmarks of each kind of work.
WORKS = {
    "encode": "bench_encode.py",
    "texts": "bench_texts.py::bench_embed_texts",
    "index": "bench_texts.py::bench_index",
    "match": "bench_match.py::bench_match",
    "disk": "bench_match.py::bench_disk",
    "spans": "bench_vectors.py",
    "maxsim": "bench_vectors.py::bench_maxsim",
    "heat": "bench_vectors.py::bench_heat_map",
    "elmo": "bench_elmo.py",
    "all": "",
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, epilog=EPILOG)
    parser.add_argument("work", choices=WORKS)
    forwarded = SWEPT | MEASURED
    for name, how in forwarded.items():  # which pytest reads
        parser.add_argument(f"--{name}", **{key: value for key, value in how.items() if key != "type"})
    parser.add_argument("--only", metavar="EXPRESSION", help="benchmarks by their names, as pytest -k")
    parser.add_argument("--save", metavar="NAME", help="keep the figures, as pytest-benchmark does")
    parser.add_argument("--compare", metavar="NUMBER", nargs="?", const="", help="with those kept")
    parser.add_argument("--out", type=folder, help="folder for report.json and roofline.png")
    options = parser.parse_args(arguments)
    if options.work == "all":
        options.peers, options.out = True, options.out or folder("report")
    command = [sys.executable, "-m", "pytest", str(HERE / WORKS[options.work]), "-v"]
    command += ["--benchmark-group-by=fullname", "--benchmark-columns=median,iqr,rounds"]
    for name in forwarded:
        if value := getattr(options, name.replace("-", "_")):
            command.append(f"--{name}" if value is True else f"--{name}={value}")
    command += ["-k", options.only] if options.only else []
    command += [f"--benchmark-save={options.save}"] if options.save else []
    command += [f"--benchmark-compare={options.compare}".rstrip("=")] if options.compare is not None else []
    with tempfile.TemporaryDirectory() as aside:
        path = Path(aside) / "report.json"
        status = subprocess.run([*command, f"--benchmark-json={path}"], stdout=sys.stderr).returncode
        content = path.read_bytes() if path.is_file() else b""
    if not content:
        print("No benchmark was measured; earlier figures stay. pytest's reason is above.", file=sys.stderr)
        return status or 1
    report = json.loads(content)
    print(markdown(report))
    if options.out:
        (options.out / "report.json").write_bytes(content)
        (options.out / "roofline.png").unlink(missing_ok=True)
        drawn = draw(report, options.out / "roofline.png")
        print(f"All figures are in {options.out / 'report.json'}. {drawn}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
