"""The cost of scoring a row on circles or a sphere, compared with as many ordinary columns.

    python scripts/circular_speed.py            # figures/circular_speed.json

The data are five clusters in 2 and in 7 columns, and the same clusters wrapped around circles and
projected to a sphere. All fits have the same width, the same number of training steps, and the plainest
base, so that the flow has to do all the work. They are timed in turn on one thread: first each on its
own calibrated grid, then all on one grid, which compares the cost of an evaluation. The script prints
medians of processor time, with the smallest and largest.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from results import write_json
from torch import Tensor

import cnf
from cnf.flows import UniformCircleBase, UniformSphereBase

ROWS, LEARNED, STEPS, WIDTH = 10_000, 20_000, 1_500, 64
SAME_GRID = cnf.Grid.uniform(24, "adams")


def clouds(dim: int, rows: int) -> Tensor:
    """Five Gaussian clouds in units of their whole spread."""
    torch.manual_seed(0)
    centers = 2 * torch.randn(5, dim)
    x = centers[torch.randint(5, (rows,))] + 0.5 * torch.randn(rows, dim)
    return (x - x.mean(0)) / x.std(0)


def sides() -> dict[str, tuple[cnf.CNF, Tensor, str]]:
    """Flows, their rows, and the ordinary columns that each is measured against."""
    hidden, found = (WIDTH, WIDTH), {}
    for dim in (2, 7):
        x, beside = clouds(dim, LEARNED), f"{dim} columns"
        plain = cnf.CNF(dim, base=cnf.NormalBase(dim), hidden=hidden)
        turns, base = dict.fromkeys(range(dim), 360.0), UniformCircleBase(dim)
        found[beside] = plain, x, beside
        found[f"{dim} angles"] = (
            cnf.CNF(dim, periods=turns, base=base, hidden=hidden),
            60 * x,
            beside,
        )
    globe = cnf.CNF(2, spheres=[(0, 1)], base=UniformSphereBase(), hidden=hidden)
    return {**found, "a sphere": (globe, 25 * clouds(2, LEARNED), "2 columns")}


def in_turns(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Microseconds a row, after one round to warm up: median, smallest and largest."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if turn:
                times[name].append(1e6 * (time.process_time() - start) / ROWS)
    return {name: [statistics.median(seen), min(seen), max(seen)] for name, seen in times.items()}


def on(flow: cnf.CNF, solver: cnf.Grid) -> cnf.CNF:
    """The same flow on another grid."""
    other = copy.deepcopy(flow)
    other.solver = solver
    return other


@torch.no_grad()
def measured(flows: dict[str, tuple[cnf.CNF, Tensor, str]], repeats: int) -> dict[str, dict]:
    """The costs of each, and its ratios to that of ordinary columns."""
    fitted = {name: partial(flow.log_prob, x[:ROWS]) for name, (flow, x, _) in flows.items()}
    alike = {
        name: partial(on(flow, SAME_GRID).bind(tolerance=torch.inf).log_prob, x[:ROWS])
        for name, (flow, x, _) in flows.items()
    }
    costs, same = in_turns(fitted, repeats), in_turns(alike, repeats)
    return {
        name: {
            "microseconds": costs[name],
            "ratio": costs[name][0] / costs[beside][0],
            "microseconds on one grid": same[name],
            "ratio on one grid": same[name][0] / same[beside][0],
            "evaluations": flow.evaluate(x[:ROWS]).nfe.double().mean().item(),
        }
        for name, (flow, x, beside) in flows.items()
    }


def main() -> None:
    """Fit, measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "figures")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="a trial run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    flows = sides()
    for flow, x, _ in flows.values():
        cnf.fit(flow, x, steps=10 if options.quick else STEPS, seed=0)
    found = measured(flows, 1 if options.quick else options.repeats)
    for name, each in found.items():
        print(name, each)
    write_json(options.out / "circular_speed.json", found)


if __name__ == "__main__":
    main()
