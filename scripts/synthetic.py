"""Synthetic tables: how far draws are from their training rows, in the protocol of a published benchmark.

    CNF_SHARED_DATA=... python scripts/synthetic.py               # MAGIC and Beijing, five seeds
    python scripts/synthetic.py --only magic --seeds 0 --seconds 300
    python scripts/synthetic.py --quick                           # a generated table, a few seconds

The protocol is that of TabPC (arXiv 2603.23016). Nine tenths of the rows are for training (split of seed
1234), rows with missing cells are left out, and as many rows are drawn. Training rows and draws are
compared by the measures of `cnf compare`; the other tenth of the rows measures memorization. Our fit has
default options and a budget of processor seconds. It is compared with a Gaussian copula with empirical
columns, and with independent columns. The script prints the mean over seeds and its spread, and saves
every seed in figures/synthetic.json; a rerun computes the missing ones."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from results import read_json, write_json
from table_rivals import gaussian_copula, independent
from tables import generated

import cnf
from cnf.diagnostics import compare

FOLDER = Path(os.environ.get("CNF_SHARED_DATA", "../shared/data"))
SPLIT_SEED, TRAIN_SHARE = 1234, 0.9
MEASURES = (
    "detection by trees",
    "trend",
    "shape",
    "α-precision",
    "β-recall",
    "memorization",
)


def magic() -> pd.DataFrame:
    """The ten numbers of MAGIC and the class."""
    data = np.load(FOLDER / "magic_gamma" / "data.npz")
    names = ("fLength", "fWidth", "fSize", "fConc", "fConc1", "fAsym", "fM3Long", "fM3Trans")
    table = pd.DataFrame(data["X"].astype(float), columns=[*names, "fAlpha", "fDist"])
    return table.assign(**{"class": data["label"].astype(str)})


def beijing() -> pd.DataFrame:
    """Beijing's hours without their number."""
    return pd.read_csv(FOLDER / "beijing_pm25" / "data.csv.gz").drop(columns="No")


TABLES = {"magic": magic, "beijing": beijing, "generated": generated}


def parts(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows to learn from, and the others."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(table))
    train, other = np.split(order, [round(TRAIN_SHARE * len(table))])
    return table.iloc[train].reset_index(drop=True), table.iloc[other].reset_index(drop=True)


def measured(train: pd.DataFrame, fake: pd.DataFrame, other: pd.DataFrame) -> dict[str, float]:
    """The measures by name."""
    found = compare(train, fake[list(train)], held_out=other)
    return {name: found[name].value for name in MEASURES}


def study(table: pd.DataFrame, seconds: float, seed: int) -> dict[str, Any]:
    """All measures of every way to draw, and the seconds that each took."""
    train, other = parts(table)
    start = time.process_time()
    model = cnf.fit_table(train, seconds=seconds, clock=time.process_time, seed=seed)
    fitted = time.process_time() - start
    generator, random = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    drawn = {
        "cnf": model.sample(len(train), generator=generator),
        "Gaussian copula": gaussian_copula(train, len(train), random),
        "independent": independent(train, len(train), random),
    }
    found = {way: measured(train, fake, other) for way, fake in drawn.items()}
    return {"rows": len(train), "seconds": fitted, "measures": found}


def print_table(name: str, runs: dict[str, dict]) -> None:
    """Mean over seeds and standard deviation of every measure."""
    took = np.mean([run["seconds"] for run in runs.values()])
    print(f"\n{name}: {len(runs)} seeds, our fits took {took:.0f} s")
    for way in next(iter(runs.values()))["measures"]:
        cells = []
        for measure in MEASURES:
            values = [run["measures"][way][measure] for run in runs.values()]
            spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
            cells.append(f"{measure} {np.mean(values):.4f}{spread}")
        print(f"  {way:<16}" + "  ".join(cells), flush=True)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    root = Path(__file__).parent.parent
    parser.add_argument("--out", type=Path, default=root / "figures")
    parser.add_argument("--only", nargs="+", choices=("magic", "beijing"), help="which tables")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--seconds", type=float, default=300.0, help="processor seconds per fit")
    parser.add_argument("--quick", action="store_true", help="a generated table, 3 s, one seed")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    names = options.only or ["magic", "beijing"]
    if options.quick:
        names, options.seeds, options.seconds = ["generated"], [0], 3.0
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    kept = options.out / "synthetic.json"
    data = read_json(kept)
    for name in names:
        runs = data.setdefault(f"{name}, {options.seconds:g} s", {})
        for seed in map(str, options.seeds):
            if seed not in runs:
                runs[seed] = study(TABLES[name]().dropna(), options.seconds, int(seed))
                write_json(kept, data)
        print_table(name, runs)


if __name__ == "__main__":
    main()
