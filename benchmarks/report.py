"""What the benchmarks recorded, as one table and a roofline.

`python -m benchmarks.report --quick` measures all of it first, as `python -m benchmarks all` does.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

MARKERS = {"encode": "o", "match": "s", "MaxSim": "^", "ELMo": "D"}
COLUMNS = ("what", "size", "dtype", "end to end", "device", "per second", "first call", "compile")
COLUMNS += ("peak memory", "FLOP/s", "MFU", "of the ceiling", "best peer", "ratio")


def markdown(report: dict) -> str:
    """The report: the machine, its ceilings, a row per race, how times grow, which peers are absent."""
    machine, ceilings = report["machine_info"], report["ceilings"]
    rows = [race["extra_info"] for race in report["benchmarks"]]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    quick = ", --quick" if machine["quick"] else ""
    place = f"{name_of(machine)}, {machine['cores']} cores, {machine['devices']} JAX devices"
    lines = [f"{report['datetime'][:10]}{quick}: {place}; {versions}."]
    if report["load"] > 0.5 * machine["cores"]:
        busy = f"The machine was busy when this began (load {report['load']:.1f})"
        lines.append(f"{busy}: figures may be far off.")
    rates = [f"{rate / 1e9:,.0f} GFLOP/s in {name}" for name, rate in ceilings["products"].items()]
    lines.append(
        f"Ceilings of this run: matrix product {', '.join(rates)}; memory read "
        f"{ceilings['memory'] / 1e9:,.1f} GB/s; dispatch {ceilings['dispatch'] * 1e6:,.0f} µs."
    )
    lines += ["", f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
    lines += [f"| {' | '.join(cells(row))} |" for row in rows]
    lines += ["", *growths(rows)]
    for row in rows:
        if each := [f"{name} {duration(t)}" for name, t in row.get("steps", {}).items() if name != "compile"]:
            lines.append(f"- {row['what']}, {row['size']}: {', '.join(each)}")
    if absent := sorted({name for row in rows for name in row["absent"]}):
        lines += ["", f"Peers left out: {'; '.join(absent)}."]
    return "\n".join(lines)


def growths(rows: list[dict]) -> Iterator[str]:
    """How time grows with the operations of a sweep: its slope on doubly logarithmic paper."""
    for name in dict.fromkeys((row["what"], row["dtype"]) for row in rows):
        sweep = [row for row in rows if (row["what"], row["dtype"]) == name and row["operations"]]
        points = np.log([(row["operations"], row["device"] or row["median"]) for row in sweep])
        if len({row["operations"] for row in sweep}) > 2:
            slope = np.polyfit(*points.T, 1)[0]
            warning = " (superlinear)" * bool(slope > 1.1)
            yield f"- {', '.join(name)}: time grows as operations^{slope:.2f}{warning}"


def cells(row: dict) -> list[str]:
    recall = f", recall {min(row['recalls']):.3f}" if row.get("recalls") else ""
    padding = f", + {row['padding']:.0%} padding" if "padding" in row else ""
    ceiling = f"{row['share']:.0%} of {row['bound']}" if row["share"] else "–"
    if row["bound"] and not row["share"]:
        ceiling = f"faulty ceiling: {row['bound']}"  # it took less time than is possible
    # What an earlier row reached may hide what this one needed.
    memory = f"{'≤ ' * (row['peak_memory'] <= row['earlier_peak'])}{row['peak_memory'] / 2**20:,.0f} MiB"
    peer = "–"
    if name := row.get("best_peer"):
        peer = f"{name} {duration(row['peers'][name])} ± {row['peer_spread']:.0%}"
    return [
        *(row["what"], row["size"] + padding, row["dtype"] + recall),
        f"{duration(row['median'])} ± {row['spread']:.0%}",
        duration(row["device"]) if row["device"] else "–",
        f"{row['rate'] / row['median']:,.0f} {row['rate_of']}",
        *(duration(row["first"]), duration(row["compile"]), memory),
        f"{row['flops'] / 1e9:,.0f} G" if row["flops"] else "–",
        ("faulty peak" if row["mfu"] > 1 else f"{row['mfu']:.1%}") if row["mfu"] else "–",
        *(ceiling, peer, f"{row['ratio']:.2f}" if "ratio" in row else "–"),
    ]


def name_of(machine: dict) -> str:
    return machine["cpu"].get("brand_raw", "CPU") if machine["backend"] == "cpu" else machine["device"]


def duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.2f} ms" if seconds < 0.1 else f"{seconds * 1e3:.0f} ms"


def draw(report: dict, path: Path) -> str:
    """Draw a roofline (Williams, Waterman and Patterson 2009), and say where it is or why there is none."""
    from matplotlib.figure import Figure

    ceilings, machine = report["ceilings"], report["machine_info"]
    rows = [race["extra_info"] for race in report["benchmarks"]]
    rows = [row for row in rows if row["operations"] and row["read"]]
    if not rows:
        return "There is no roofline: none of these has a count of operations."
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.add_subplot()
    intensities = [row["operations"] / row["read"] for row in rows]
    ends = np.array([min(*intensities, 1) / 2, max(*intensities, 100) * 2])
    colours = {"float32": "#0072b2", "bfloat16": "#d55e00", "int8": "#009e73"}
    for dtype, rate in ceilings["products"].items():
        xs = np.sort([*ends, np.clip(rate / ceilings["memory"], *ends)])
        ys = np.minimum(xs * ceilings["memory"], rate) / 1e9
        axes.plot(xs, ys, color=colours[dtype], lw=1.5, label=f"ceiling, {dtype}")
    for row, x in zip(rows, intensities, strict=True):
        marker = MARKERS.get(row["what"].split(",")[0], ".")
        y = row["operations"] / row["median"] / 1e9
        axes.plot(x, y, marker, color=colours[row["dtype"]], ms=7, alpha=0.8)
        for seconds in row["peers"].values():
            axes.plot(x, row["operations"] / seconds / 1e9, marker, mfc="none", mec="#999999", ms=7)
    for what, marker in MARKERS.items():
        axes.plot([], [], marker, color="#444444", label=what)
    axes.plot([], [], "o", mfc="none", mec="#555555", label="hollow: its peers")
    axes.set(xlabel="operations per byte that must be read", ylabel="GFLOP/s, end to end")
    axes.set(xscale="log", yscale="log", xlim=ends)
    axes.set_title(f"{name_of(machine)}, {machine['cores']} cores, {report['datetime'][:10]}")
    axes.grid(alpha=0.25, which="both")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)
    return f"The roofline is {path}."


if __name__ == "__main__":
    from benchmarks.__main__ import main

    sys.exit(main(["all", *sys.argv[1:]]))
