"""Accuracy against processor seconds
==================================

Held-out likelihood of our fits and of three peers at each budget.

Run it with::

    CNF_SHARED_DATA=... python scripts/benchmark_time.py             # figures/benchmark_time.json and .png
    python scripts/benchmark_time.py --only magic_gamma --budgets 2 15

Every method is run separately for each budget, in seconds of its process on one thread, including model
selection and calibration. The script prints the NLL in nats per row, the seconds of our fit, and the
first budget at which our fit beats the best peer at its largest budget. Cells are saved as in
benchmark_accuracy.py, and a rerun continues after the last one. Methods and budgets that a run leaves
out keep their earlier results."""

# sphinx_gallery_thumbnail_path = "../figures/benchmark_time.png"
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import real_tables
from benchmark_accuracy import QUICK_ROWS, TABLES, Cell, compute_all, error, read
from results import read_json, write_json

from cnf import plotting
from cnf.plotting.style import ACCENT, DATA, FAINT, MODEL, styled

BUDGETS = (2.0, 5.0, 15.0, 50.0, 150.0)
METHODS = {"cnf": MODEL, "NSF": ACCENT, "MAF": DATA, "mixture": FAINT}
SHOWN_WHOLE = {"cnf", "mixture"}


def cells_of(name: str, options: argparse.Namespace) -> list[Cell]:
    """The cells of a data set, by method and budget."""
    return [
        Cell(name, method, seconds, 0, "cpu", QUICK_ROWS)
        for method in options.methods
        for seconds in options.budgets
    ]


def summarize(cells: Sequence[Cell], folder: Path) -> dict[str, dict]:
    """NLL of each method and budget with its standard error, and the seconds that ours took."""
    found: dict[str, dict] = {}
    for cell in cells:
        values, notes = read(cell, folder)
        found.setdefault(cell.method, {})[f"{cell.seconds:g}"] = {
            "nll": float(np.mean(values)), "se": error(values), "seconds": notes.get("seconds"),
        }  # fmt: skip
    return found


def merged(before: dict[str, dict], now: dict[str, dict]) -> dict[str, dict]:
    """The figures of a run, with the methods and budgets that it left out as they stood before."""
    order = [method for method in METHODS if method in before.keys() | now.keys()]
    runs = {method: before.get(method, {}) | now.get(method, {}) for method in order}
    return {
        method: dict(sorted(each.items(), key=lambda run: float(run[0])))
        for method, each in runs.items()
    }


def passes_at(found: dict[str, dict]) -> tuple[float, float | None]:
    """NLL of the best peer at its largest budget, and the first budget at which ours is lower."""
    peers = [runs for method, runs in found.items() if method != "cnf"]
    best = min(runs[max(runs, key=float)]["nll"] for runs in peers)
    lower = [float(seconds) for seconds, run in found["cnf"].items() if run["nll"] < best]
    return best, min(lower, default=None)


def print_table(name: str, found: dict[str, dict]) -> None:
    budgets = sorted({seconds for runs in found.values() for seconds in runs}, key=float)
    print(f"\n{name}\n  {'seconds':<10}" + "".join(f"{seconds:>9}" for seconds in budgets))
    for method, runs in found.items():
        print(f"  {method:<10}" + "".join(f"{runs[seconds]['nll']:>9.3f}" for seconds in budgets))
    if "cnf" in found:
        took = "".join(f"{found['cnf'][seconds]['seconds']:>9.1f}" for seconds in budgets)
        print(f"  {'ours took':<10}{took}")
    if "cnf" in found and len(found) > 1:
        best, at = passes_at(found)
        when = "not yet" if at is None else f"from {at:g} s on"
        print(f"  ours is ahead of the best peer's last ({best:.3f}) {when}")


@styled
def draw(data: dict[str, dict], path: Path) -> None:
    """NLL of every method against its budget, a panel a table."""
    across = min(len(data), 4)
    figure, axes = plotting.figure(-(-len(data) // across), across, panel=(2.4, 2.0))
    for ax in axes.flat[len(data) :]:
        ax.set_visible(False)
    for ax, (name, found) in zip(axes.flat, data.items()):
        for method, runs in found.items():
            seconds, nll = zip(*((float(s), run["nll"]) for s, run in runs.items()))
            color = METHODS.get(method, DATA)
            ax.plot(seconds, nll, marker="o", markersize=3, color=color, label=method)
        # Peers far behind would hide the rest.
        best = min(run["nll"] for runs in found.values() for run in runs.values())
        worst = max(
            run["nll"] for way in SHOWN_WHOLE & found.keys() for run in found[way].values()
        )
        margin = 0.08 * (worst - best)
        ax.set_ylim(best - margin, worst + margin)
        ax.set_xscale("log")
        ax.set_xticks(seconds, [f"{each:g}" for each in seconds], minor=False)
        ax.set_xticks([], minor=True)
        ax.set_title(name)
        ax.set_xlabel("processor seconds")
        ax.set_ylabel("NLL, nats a row")
    axes[0, 0].figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=len(METHODS)
    )
    plotting.save(figure, path)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    root = Path(__file__).parent.parent
    parser.add_argument("--out", type=Path, default=root / "figures")
    parser.add_argument(
        "--cells", type=Path, default=root / "demo" / "time", help="folder of the cells"
    )
    parser.add_argument("--only", nargs="+", choices=TABLES, help="which tables")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--budgets", nargs="+", type=float, default=BUDGETS, help="seconds")
    parser.add_argument(
        "--workers", type=int, default=2, help="cells in parallel, one thread each"
    )
    parser.add_argument("--quick", action="store_true", help="a trial run: one toy, two budgets")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    names = options.only or [*filter(real_tables.there, TABLES)]
    if options.quick:
        names, options.methods, options.budgets = ["moons"], ["cnf", "mixture"], [0.5, 1.0]
        options.cells, options.workers = options.out / "cells", 1
    for folder in (options.out, options.cells):
        folder.mkdir(parents=True, exist_ok=True)
    kept = options.out / "benchmark_time.json"
    data = read_json(kept)
    for name in names:
        cells = cells_of(name, options)
        compute_all(cells, options)
        data[name] = merged(data.get(name, {}), summarize(cells, options.cells))
        print_table(name, data[name])
        write_json(kept, data)
    if data:
        draw(data, options.out / "benchmark_time.png")


if __name__ == "__main__":
    main()
