"""Run the benchmarks; print one table, and write a roofline and all figures.

uv run --group bench python -m benchmarks.report --quick
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
COLUMNS = ("what", "size", "dtype", "minqa", "spread", "per second", "first call", "compile")
COLUMNS += ("best peer", "ratio", "of the ceiling")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few sizes and rounds: 5 minutes on 2 cores")
    parser.add_argument("--only", metavar="EXPRESSION", help="the benchmarks that pytest -k would take")
    parser.add_argument(
        "--out", type=Path, default=Path("report"), help="folder for report.json and roofline.png"
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "report.json"
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", str(HERE), "-v", f"--benchmark-json={path}"]
    command += ["--benchmark-columns=median,iqr,rounds"]
    command += ["--quick"] * options.quick + (["-k", options.only] if options.only else [])
    status = subprocess.run(command, stdout=sys.stderr, cwd=HERE.parent).returncode
    if not path.is_file() or not path.stat().st_size:
        print("No benchmark ran; what pytest said is above.", file=sys.stderr)
        return status or 1
    report = json.loads(path.read_text("utf-8"))
    print(markdown(report))
    draw(report, options.out / "roofline.png")
    print(f"All figures are in {path}.", file=sys.stderr)
    return status


def markdown(report: dict) -> str:
    """The figures for people: the machine, its ceilings, a row for every race, what grows, what is absent."""
    machine, rows = report["machine_info"], [one["extra_info"] for one in report["benchmarks"]]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items() if number)
    lines = [f"{machine['device']} ({machine['cores']} cores, {machine['devices']} JAX devices); {versions}"]
    if ceilings := report.get("ceilings"):
        products = ", ".join(
            f"{rate / 1e9:,.0f} GFLOP/s in {name}" for name, rate in ceilings["products"].items()
        )
        lines.append(
            f"Ceilings of this run: matrix product {products}; "
            f"memory read {ceilings['memory'] / 1e9:,.1f} GB/s; "
            f"dispatch {ceilings['dispatch'] * 1e6:,.0f} µs."
        )
    lines += ["", f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
    lines += [f"| {' | '.join(cells(row))} |" for row in rows if "what" in row]
    if machine["backend"] == "cpu":
        empty = ["not measured: no accelerator", *["–"] * (len(COLUMNS) - 4)]
        lines.append(
            f"| {' | '.join(['BERT-large; match', '32 × 384; 1 × 1,000,000', 'bfloat16', *empty])} |"
        )
    lines += [""] + [steps(row) for row in rows if "steps" in row]
    for row in rows:
        if "growth" in row:
            found = " (superlinear)" if row["slope"] > 1.1 else ""
            points = ", ".join(
                f"{n:,}: {clock(t)}" for n, t in zip(row["sizes"], row["medians"], strict=True)
            )
            lines.append(f"- {row['growth']}: time grows as n^{row['slope']:.2f}{found}; {points}")
    absent = sorted({name for row in rows for name in row.get("absent", ())})
    if absent:
        lines += ["", f"Peers left out: {'; '.join(absent)}."]
    return "\n".join(lines)


def cells(row: dict) -> list[str]:
    recall = f", recall {row['recall']:.3f}" if "recall" in row else ""
    peer = ("–", "–")
    if row["peers"]:
        peer = f"{row['best_peer']} {clock(row['peers'][row['best_peer']])}", f"{row['ratio']:.2f}"
    share = "–" if row["share"] is None else f"{row['share']:.0%} of {row['bound']}"
    return [
        *(row["what"], row["size"], row["dtype"] + recall, clock(row["median"]), f"± {row['spread']:.0%}"),
        f"{row['rate'] / row['median']:,.0f} {row['rate_of']}",
        *(clock(row["first"]), clock(row["compile"]), *peer, share),
    ]


def steps(row: dict) -> str:
    each = ", ".join(f"{name} {clock(t)}" for name, t in row["steps"].items() if name != "compile")
    return f"- {row['what']}, by step: {each}"


def clock(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.2f} ms" if seconds < 0.1 else f"{seconds * 1e3:.0f} ms"


def draw(report: dict, path: Path) -> None:
    """A roofline (Williams, Waterman and Patterson 2009): rate against operations per byte."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("The roofline is left out: matplotlib is not installed.", file=sys.stderr)
        return
    ceilings = report.get("ceilings")
    rows = [one["extra_info"] for one in report["benchmarks"]]
    rows = [row for row in rows if row.get("operations") and row.get("read")]
    if not ceilings or not rows:
        return
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.add_subplot()
    intensities = [row["operations"] / row["read"] for row in rows]
    left, right = min(intensities) / 2, max(intensities) * 2
    colours = {"float32": "#0072b2", "bfloat16": "#d55e00", "int8": "#009e73"}
    for dtype, rate in ceilings["products"].items():
        corner = rate / ceilings["memory"]
        xs = [left, min(max(corner, left), right), right]
        ys = [min(x * ceilings["memory"], rate) / 1e9 for x in xs]
        axes.plot(xs, ys, color=colours[dtype], lw=1.5, label=f"ceiling, {dtype}")
    kinds = {"encode": "o", "match": "s", "MaxSim": "^", "ELMo": "D"}
    for row, x in zip(rows, intensities, strict=True):
        kind = next((kind for kind in kinds if row["what"].startswith(kind)), "encode")
        y = row["operations"] / row["median"] / 1e9
        axes.plot(x, y, kinds[kind], color=colours[row["dtype"]], ms=7, alpha=0.8)
        if row["peers"]:
            peer = row["operations"] / row["peers"][row["best_peer"]] / 1e9
            axes.plot([x, x], [y, peer], color="#999999", lw=0.8, zorder=0)
            axes.plot(x, peer, kinds[kind], mfc="none", mec="#555555", ms=7)
    for kind, marker in kinds.items():
        axes.plot([], [], marker, color="#444444", label=f"{kind} (hollow: best peer)")
    axes.set(xscale="log", yscale="log", xlim=(left, right))
    axes.set_xlabel("operations per byte that must be read")
    axes.set_ylabel("GFLOP/s")
    axes.set_title(f"{report['machine_info']['device']}, {report['machine_info']['cores']} cores")
    axes.grid(alpha=0.25, which="both")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    sys.exit(main())
