"""Speed of typed tables: the cost of scoring and drawing a row, and the accuracy of time budgets.

    python scripts/benchmark_tables.py            # writes figures/benchmark_tables.json
    python scripts/benchmark_tables.py --quick    # few rows and steps
    python scripts/benchmark_tables.py --parts budgets   # the results of the other part are kept

The table is generated and resembles a census: eight categories, five integers (an age, years of school,
hours with a heap at forty, weeks, children) and two real columns. Results are medians of processor time
on one thread.

Budgets are measured with `cnf fit --seconds`, each in its own process, and include imports and reading.
Their tables alternate real, integer and categorical columns; in those with missing cells, each cell is
missing with probability 0.1. The clock of these processes is their processor time, so that other work
on the machine does not shorten a fit."""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from results import read_json, write_json

import cnf

LEVELS = (9, 16, 7, 14, 6, 5, 2, 41)
FIGURE = "benchmark_tables.json"
PARTS = ("speed", "budgets")
# Rows and columns of the tables whose budgets are watched.
SHAPES = ((1_000, 15), (100, 100), (1_000, 100), (100_000, 3))
PROCESSOR_CLOCK = """
import sys, time
time.perf_counter = time.process_time
from cnf.cli import main
sys.exit(main(sys.argv[1:]))
"""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "figures")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=int, default=32_561)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    measured: dict[str, Any] = {}
    if "speed" in args.parts:
        rows, steps = (1_000, 20) if args.quick else (args.rows, None)
        measured["speed"] = speed(census(rows), steps, args.repeats)
    if "budgets" in args.parts:
        shapes, seconds = (((100, 3),), 2.0) if args.quick else (SHAPES, 15.0)
        measured["imports"] = imports()
        measured["budgets"] = budgets(shapes, seconds)
    print(measured)
    write_json(args.out / FIGURE, read_json(args.out / FIGURE) | measured)


def census(rows: int, seed: int = 0) -> pd.DataFrame:
    """Rows of a table like a census, from four hidden factors and noise."""
    random = np.random.default_rng(seed)
    z, noise = random.normal(size=(rows, 4)), random.normal(size=(rows, 6))
    school = np.clip(np.round(10 + 1.8 * z[:, 1] + 1.5 * noise[:, 0]), 1, 16)
    age = np.clip(np.round(40 + 10 * z[:, 0] + 8 * noise[:, 1]), 17, 90)
    usual = random.random(rows) < 0.45
    hours = np.clip(np.round(np.where(usual, 40, 40 + 8 * z[:, 2] + 8 * noise[:, 2])), 1, 99)
    numbers = {
        "age": age,
        "school": school,
        "hours": hours,
        "weeks": np.clip(np.round(30 + 8 * z[:, 3] + 6 * noise[:, 3]), 0, 52),
        "children": random.poisson(np.exp(0.3 * z[:, 0])),
    }
    table = {name: column.astype(int) for name, column in numbers.items()}
    table["wage"] = np.exp(2 + 0.1 * school + 0.01 * age + 0.3 * z[:, 3] + 0.3 * noise[:, 4])
    table["gain"] = 10 * z[:, 2] + 5 * noise[:, 5]
    for j, count in enumerate(LEVELS):
        score = z[:, j % 4] + random.normal(size=rows)
        shares = np.random.default_rng(j).dirichlet(np.ones(count)).cumsum()[:-1]
        names = np.array([f"level {k}" for k in range(count)])
        table[f"group{j}"] = names[np.searchsorted(np.quantile(score, shares), score)]
    return pd.DataFrame(table)


def speed(table: pd.DataFrame, steps: int | None, repeats: int) -> dict[str, Any]:
    """Milliseconds of the processor that a row costs, and what the scores are like."""
    cost, model = timed(lambda: cnf.fit_table(table, steps=steps))
    rows = 1_000 / len(table)
    scored = [timed(lambda: model.evaluate(table)) for _ in range(repeats)]
    drawn = [timed(lambda: model.sample(len(table)))[0] for _ in range(repeats)]
    found = scored[0][1]
    return {
        "rows": len(table),
        "repeats": repeats,
        "fit_seconds": cost,
        "score_milliseconds_a_row": statistics.median(cost for cost, _ in scored) * rows,
        "sample_milliseconds_a_row": statistics.median(drawn) * rows,
        "evaluations_a_row": found.nfe.double().mean().item(),
        "evaluations_of_one_solve": model.flow.solver.nfe,
        "bar": found.error.quantile(torch.tensor([0.5, 0.99], dtype=torch.float64)).tolist(),
        "ok": found.ok.double().mean().item(),
        "valid_nll": model.history.valid_nll,
    }


def budgets(shapes: tuple[tuple[int, int], ...], seconds: float) -> list[dict[str, Any]]:
    """Seconds of the processor that commands take beside those asked for."""
    return [
        {
            "rows": rows,
            "columns": columns,
            "holes": holes,
            "asked": seconds,
            "took": command_seconds(mixed(rows, columns, holes=holes), seconds),
        }
        for rows, columns in shapes
        for holes in (False, True)
    ]


def imports() -> float:
    """Processor seconds of what a command imports before it begins."""
    before = children_seconds()
    subprocess.run([sys.executable, "-c", "import cnf.cli.fitting"], check=True)
    return round(children_seconds() - before, 1)


def mixed(rows: int, columns: int, *, holes: bool) -> pd.DataFrame:
    """Real, integer and categorical columns in turn, from four hidden factors and noise."""
    random = np.random.default_rng(0)
    z, table = random.normal(size=(rows, 4)), {}
    for j in range(columns):
        score = z @ random.normal(size=4) + random.normal(size=rows)
        kinds = score, np.round(20 + 4 * score), np.digitize(score, (-2, -0.5, 0.5, 2))
        table[f"{'xng'[j % 3]}{j}"] = kinds[j % 3]
    frame = pd.DataFrame(table)
    groups = [name for name in frame if name.startswith("g")]
    frame[groups] = frame[groups].map("abcde".__getitem__)
    return frame.mask(random.random(frame.shape) < 0.1) if holes else frame


def command_seconds(table: pd.DataFrame, seconds: float) -> float:
    """Processor seconds of `cnf fit` with this budget."""
    with tempfile.TemporaryDirectory() as folder:
        data, model = Path(folder, "t.csv"), Path(folder, "m.safetensors")
        table.to_csv(data, index=False)
        command = [sys.executable, "-c", PROCESSOR_CLOCK, "fit", data, "-o", model]
        before = children_seconds()
        subprocess.run([*command, "--seconds", str(seconds)], check=True, capture_output=True)
        return round(children_seconds() - before, 1)


def children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the processor, and the result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


if __name__ == "__main__":
    main()
