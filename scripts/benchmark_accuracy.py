"""Held-out likelihood beside other density estimators: the same rows, the same seconds, one thread each.

    python scripts/benchmark_accuracy.py                  # toys, and the tables of CNF_SHARED_DATA
    python scripts/benchmark_accuracy.py --only magic_gamma --methods cnf NSF mixture --seconds 150

Every cell, one method on one data set, is kept in --cells as soon as it is done; a rerun goes on where the
last one stopped. Writes figures/benchmark_accuracy.json and prints a table: NLL in nats a row (for a toy, the
gap to its exact density), and the paired difference of ours to the best peer with its standard error.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import real_tables
import torch
from peers import METHODS
from real_tables import Table

from cnf.datasets import TOYS
from cnf.files import atomic_path

TABLES = (
    *("galaxy_photometry", "casp_protein", "magic_gamma", "power_hourly", "california_housing"),
    *("gas_turbine", "miniboone_partial", "us_zipcodes"),
)
TRAIN, HELD_OUT = 50_000, 20_000
OWN = ("cnf", "flow matching", "cnf, adjoint")


def load(name: str) -> Table:
    """A toy's rows as they are, or a real table in units standardised by its training part."""
    if name not in TOYS:
        return real_tables.load(name)
    x = TOYS[name].sample(TRAIN + 2 * HELD_OUT, torch.Generator().manual_seed(0))
    return Table(name, *x.double().split((TRAIN, HELD_OUT, HELD_OUT)))


def compute(name: str, method: str, *, seconds: float, seed: int, path: Path) -> Path:
    """Fit, score the test rows, and keep their log-densities (for a toy, minus the gap of each row)."""
    torch.set_num_threads(1)
    table = load(name)
    found = METHODS[method](table, seconds, seed).double().numpy()
    if name in TOYS:
        found = found - TOYS[name].log_prob(table.test).numpy()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, found, allow_pickle=False)
    return path


def cell(options: argparse.Namespace, name: str, method: str) -> Path:
    """Where a cell is kept."""
    seconds = options.toy_seconds if name in TOYS else options.seconds
    return (
        options.cells
        / f"{name}-{method.replace(', ', '_').replace(' ', '_')}-{seconds:g}s-{options.seed}.npy"
    )


def compute_all(options: argparse.Namespace, wanted: Sequence[tuple[str, str]]) -> None:
    """The cells that are not there yet, two at a time."""
    missing = [(pair, cell(options, *pair)) for pair in wanted if not cell(options, *pair).exists()]
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        jobs = {}
        for (name, method), path in missing:
            seconds = options.toy_seconds if name in TOYS else options.seconds
            job = partial(compute, name, method, seconds=seconds, seed=options.seed, path=path)
            jobs[pool.submit(job)] = (name, method)
        for count, job in enumerate(as_completed(jobs), 1):
            name, method = jobs[job]
            found = -np.load(job.result(), allow_pickle=False)
            print(
                f"[{count}/{len(jobs)}] {name} {method}: {found.mean():.3f} ± {error(found):.3f}", flush=True
            )


def error(values: np.ndarray) -> float:
    return float(values.std() / len(values) ** 0.5)


def summarise(options: argparse.Namespace, names: Sequence[str]) -> dict[str, dict]:
    """NLL of every method, and the paired difference of ours to the best peer, negative where ours wins."""
    summary = {}
    for name in names:
        rows = {method: -np.load(cell(options, name, method)) for method in options.methods}
        summary[name] = {
            "nll": {method: float(values.mean()) for method, values in rows.items()},
            "se": {method: error(values) for method, values in rows.items()},
        }
        peers = [method for method in rows if method not in OWN]
        if "cnf" in rows and peers:
            best = min(peers, key=lambda method: rows[method].mean())
            difference = rows["cnf"] - rows[best]
            summary[name] |= {
                "best_peer": best,
                "difference": float(difference.mean()),
                "difference_se": error(difference),
            }
    return summary


def print_table(summary: dict[str, dict], methods: Sequence[str]) -> None:
    print("\n" + f"{'':<19}" + "".join(f"{method:>15}" for method in methods) + "   ours − best peer")
    for name, found in summary.items():
        cells = "".join(f"{found['nll'][method]:>15.3f}" for method in methods)
        tail = ""
        if "best_peer" in found:
            tail = f"   {found['difference']:+.3f} ± {found['difference_se']:.3f} ({found['best_peer']})"
        print(f"{name:<19}{cells}{tail}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    root = Path(__file__).parent.parent
    parser.add_argument("--out", type=Path, default=root / "figures")
    parser.add_argument("--cells", type=Path, default=root / "demo" / "accuracy", help="folder of the cells")
    parser.add_argument("--only", nargs="+", choices=(*TOYS, *TABLES), help="which data sets")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seconds", type=float, default=150, help="budget of a table's cell")
    parser.add_argument("--toy-seconds", type=float, default=60, help="budget of a toy's cell")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="cells at a time, one thread each")
    parser.add_argument("--quick", action="store_true", help="a trial run: one toy, two methods")
    options = parser.parse_args(argv)
    names = options.only or [*TOYS, *filter(real_tables.there, TABLES)]
    if options.quick:
        names, options.methods, options.toy_seconds = ["moons"], ["cnf", "mixture"], 0.5
        options.cells, options.workers = options.out / "cells", 1
    for folder in (options.out, options.cells):
        folder.mkdir(parents=True, exist_ok=True)
    compute_all(options, [(name, method) for name in names for method in options.methods])
    summary = summarise(options, names)
    print_table(summary, options.methods)
    numbers = {"seconds": options.seconds, "toy_seconds": options.toy_seconds, "seed": options.seed}
    with atomic_path(options.out / "benchmark_accuracy.json") as path:
        path.write_text(json.dumps({**numbers, "data": summary}, indent=1) + "\n")


if __name__ == "__main__":
    main()
