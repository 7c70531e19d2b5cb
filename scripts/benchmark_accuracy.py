"""Accuracy compared with other density estimators
===============================================

Held-out likelihood with the same rows, the same seconds and one thread for each method.

Run it with::

    python scripts/benchmark_accuracy.py                  # toys, and the tables of CNF_SHARED_DATA
    python scripts/benchmark_accuracy.py --only magic_gamma --methods cnf NSF mixture --seconds 600

A cell is one method on one data set with one seed. Every finished cell is saved as JSON in --cells,
and a rerun continues after the last one. A cell does not record the code that produced it: after a
change of the recipe, choose another folder. Peers run with the first seed only. The script prints a
table with the NLL in nats per row (for a toy, the gap to its exact density), and the paired
difference between ours and the best peer with its standard error. It writes the tables of all runs
to figures/benchmark_accuracy.json, with a picture beside it. Methods that a run leaves out keep
their earlier results; differences are paired within one run."""

# sphinx_gallery_thumbnail_path = "../figures/benchmark_accuracy.png"
from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import real_tables
import torch
from peers import METHODS, Budget
from real_tables import Table
from results import read_json, write_json
from threadpoolctl import threadpool_limits

from cnf import plotting
from cnf.datasets import TOYS
from cnf.files import atomic_path
from cnf.plotting.style import DATA, MODEL, styled

TABLES = (
    *("galaxy_photometry", "casp_protein", "magic_gamma", "power_hourly", "california_housing"),
    *("gas_turbine", "miniboone_partial", "us_zipcodes"),
)
TOY_ROWS, QUICK_ROWS, HELD_OUT = 500_000, 5_000, 20_000
OWN = ("cnf", "flow matching", "cnf, no budget", "cnf, adjoint")
FAR, FAR_ON_TOYS = 1.5, 0.05  # nats behind the best that a picture still shows
DIGITS = 4  # of a row's log-density in a cell


class Cell(NamedTuple):
    """One method on one data set."""

    data: str
    method: str
    seconds: float
    seed: int
    clock: str
    toy_rows: int

    def path(self, folder: Path) -> Path:
        """Where it is kept."""
        method = self.method.replace(", ", "_").replace(" ", "_")
        # Of toys fitted to other numbers of rows, the test rows differ too.
        data = f"{self.data}-{self.toy_rows}" if self.data in TOYS else self.data
        return folder / f"{data}-{method}-{self.seconds:g}s-{self.clock}-{self.seed}.json"


def load(name: str, toy_rows: int) -> Table:
    """So many rows of a toy as they are, or a real table in units standardized by its training
    part."""
    if name not in TOYS:
        return real_tables.load(name)
    x = TOYS[name].sample(toy_rows + 2 * HELD_OUT, torch.Generator().manual_seed(0))
    return Table(name, *x.double().split((toy_rows, HELD_OUT, HELD_OUT)))


def compute(cell: Cell, folder: Path) -> Cell:
    """Fit, score the test rows, and keep their log-densities (for a toy, minus the gap of each
    row)."""
    # Every side, ours and the peers, reads its budget from this clock.
    clock = time.process_time if cell.clock == "cpu" else time.perf_counter
    torch.set_num_threads(1)
    table = load(cell.data, cell.toy_rows)
    with threadpool_limits(1):
        log_prob, notes = METHODS[cell.method](table, Budget(cell.seconds, clock), cell.seed)
    found = log_prob.double()
    if cell.data in TOYS:
        found = found - TOYS[cell.data].log_prob(table.test)
    kept = {
        **cell._asdict(),
        "notes": notes,
        "log_prob": [round(value, DIGITS) for value in found.tolist()],
    }
    with atomic_path(cell.path(folder)) as path:
        path.write_text(json.dumps(kept) + "\n")
    return cell


def compute_all(cells: Sequence[Cell], options: argparse.Namespace) -> None:
    """The cells that are not there yet, a few at a time."""
    missing = [cell for cell in cells if not cell.path(options.cells).exists()]
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(compute, cell, options.cells) for cell in missing]
        for count, done in enumerate(as_completed(jobs), 1):
            cell = done.result()
            values, notes = read(cell, options.cells)
            nll = f"{values.mean():.3f} ± {error(values):.3f}"
            print(
                f"[{count}/{len(jobs)}] {cell.data} {cell.method} {cell.seed}: {nll} {notes}",
                flush=True,
            )


def read(cell: Cell, folder: Path) -> tuple[np.ndarray, dict]:
    """The negative log-densities and the notes of a cell."""
    kept = json.loads(cell.path(folder).read_text())
    return -np.array(kept["log_prob"]), kept["notes"]


def error(values: np.ndarray) -> float:
    return float(values.std() / len(values) ** 0.5)


def summarize(cells: Sequence[Cell], folder: Path) -> dict[str, object]:
    """Of one data set: every method's NLL, the mean over its seeds, and the paired difference of
    ours to the best peer, negative where ours wins."""
    rows: dict[str, list[np.ndarray]] = {}
    notes: dict[str, list[dict]] = {}
    for cell in cells:
        values, said = read(cell, folder)
        rows.setdefault(cell.method, []).append(values)
        notes.setdefault(cell.method, []).append(said)
    means = {method: np.mean(runs, 0) for method, runs in rows.items()}
    summary: dict[str, object] = {
        "nll": {method: [float(run.mean()) for run in runs] for method, runs in rows.items()},
        "se": {method: error(values) for method, values in means.items()},
        "notes": notes,
    }
    peers = [method for method in means if method not in OWN]
    if "cnf" in means and peers:
        best = min(peers, key=lambda method: means[method].mean())
        difference = means["cnf"] - means[best]
        summary["best_peer"] = best
        summary["difference"], summary["difference_se"] = (
            float(difference.mean()),
            error(difference),
        )
    return summary


def merged(before: dict | None, now: dict) -> dict:
    """The summary of a run, with the methods that it left out as they stood before; a paired
    difference is that of the run."""
    if before is None:
        return now
    parts = {key: {**before[key], **now[key]} for key in ("nll", "se", "notes")}
    order = [method for method in METHODS if method in parts["nll"]]
    return now | {key: {method: part[method] for method in order} for key, part in parts.items()}


def print_table(name: str, found: dict) -> None:
    print(f"\n{name}")
    for method, runs in found["nll"].items():
        each = " ".join(f"{run:.3f}" for run in runs)
        print(f"  {method:<15}{np.median(runs):>9.3f} ± {found['se'][method]:.3f}   ({each})")
    if "best_peer" in found:
        difference = f"{found['difference']:+.3f} ± {found['difference_se']:.3f}"
        print(f"  ours − best peer {difference} ({found['best_peer']})")


def place(name: str) -> tuple[bool, float, int]:
    """Where a panel stands: tables first, by seconds, then toys."""
    data, seconds = name.removesuffix(" s").split(", ")
    return data in TOYS, float(seconds), [*TABLES, *TOYS].index(data)


@styled
def draw(data: dict[str, dict], path: Path) -> None:
    """NLL of every method with two standard errors, a panel a data set that has a peer; far behind
    is at the edge."""
    data = {name: data[name] for name in sorted(data, key=place) if len(data[name]["nll"]) > 1}
    if not data:
        return
    columns = min(len(data), 4)
    figure, axes = plotting.figure(-(-len(data) // columns), columns, panel=(2.6, 2.0))
    for ax in axes.flat[len(data) :]:
        ax.set_visible(False)
    for ax, (name, found) in zip(axes.flat, data.items()):
        methods = list(found["nll"])
        nll = np.array([np.median(found["nll"][method]) for method in methods])
        errors = np.array([2 * found["se"][method] for method in methods])
        toy = name.split(",")[0] in TOYS
        far = FAR_ON_TOYS if toy else FAR
        shown = nll <= nll.min() + far
        least, most = (
            (nll - errors)[shown].min() - 0.05 * far,
            max(nll.min() + far, (nll + errors)[shown].max()),
        )
        ax.set_xlim(0 if toy else least, most)
        for row, (method, value, spread) in enumerate(zip(methods, nll, errors)):
            color = MODEL if method in OWN else DATA
            if shown[row]:
                ax.errorbar(value, row, xerr=spread, fmt="o", markersize=4, color=color)
            else:
                text = f"{value:.2f} →".replace("-", "−")
                ax.annotate(text, (most, row), ha="right", va="center", fontsize=6, color=color)
        ax.set_yticks(range(len(methods)), methods)
        ax.set_ylim(len(methods) - 0.5, -0.5)
        ax.set_title(name)
        ax.set_xlabel("gap to the exact density, nats a row" if toy else "NLL, nats a row")
    plotting.save(figure, path)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    root = Path(__file__).parent.parent
    parser.add_argument("--out", type=Path, default=root / "figures")
    parser.add_argument(
        "--cells", type=Path, default=root / "demo" / "accuracy", help="folder of the cells"
    )
    parser.add_argument("--only", nargs="+", choices=(*TOYS, *TABLES), help="which data sets")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument(
        "--seconds", type=float, default=150, help="seconds of each fit to a table"
    )
    parser.add_argument(
        "--toy-seconds", type=float, default=60, help="seconds of each fit to a toy"
    )
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[0, 1],
        help="seeds of our fits; peers use the first",
    )
    parser.add_argument(
        "--workers", type=int, default=2, help="cells in parallel, one thread each"
    )
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: for machines with other work",
    )
    parser.add_argument("--quick", action="store_true", help="a trial run: one toy, two methods")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    names = options.only or [*TOYS, *filter(real_tables.there, TABLES)]
    if options.quick:
        names, options.methods, options.toy_seconds = ["moons"], ["cnf", "mixture"], 0.5
        options.cells, options.workers, options.seeds = options.out / "cells", 1, [0]
    for folder in (options.out, options.cells):
        folder.mkdir(parents=True, exist_ok=True)
    cells: dict[str, list[Cell]] = {}
    for name in names:
        seconds = options.toy_seconds if name in TOYS else options.seconds
        cells[f"{name}, {seconds:g} s"] = [
            Cell(
                name,
                method,
                seconds,
                seed,
                options.clock,
                QUICK_ROWS if options.quick else TOY_ROWS,
            )
            for method in options.methods
            for seed in (options.seeds if method == "cnf" else options.seeds[:1])
        ]
    compute_all([cell for some in cells.values() for cell in some], options)
    kept = options.out / "benchmark_accuracy.json"
    data = read_json(kept)
    for name, some in cells.items():
        data[name] = merged(data.get(name), summarize(some, options.cells))
        print_table(name, data[name])
    write_json(kept, data)
    draw(data, options.out / "benchmark_accuracy.png")


if __name__ == "__main__":
    main()
