"""Imputation of masked cells in three tables, compared with miceforest and scikit-learn.

    pip install miceforest "lightgbm<4.7"        # without them, miceforest is skipped
    CNF_SHARED_DATA=... python scripts/imputation.py        # figures/imputation.json

Tables, split and masked cells are those of `tables.py`: a fifth of the rows is held out, and 20 % of the
cells of 1,000 held-out rows are masked. Each imputer is trained on the other rows and completes the
held-out ones 19 times. CRPS is the continuous ranked probability score of the draws of a masked number, in
standard deviations of its column, averaged over the cells of a column and then over the columns. Coverage
is the fraction of masked numbers between the lowest and the highest draw, with ties broken at random; draws
from the true law have 18 / 20 = 90 %. The scikit-learn method is IterativeImputer.

Our fit has a budget of processor seconds; the others run at their defaults, without a limit. All use one
thread. `--methods cnf` replaces our results and keeps those of the others."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from results import read_json, write_json
from table_rivals import chained_equations, crps
from tables import FOLDER, HELD_OUT, HIDDEN, IMPUTED_ROWS, TABLES, generated

import cnf
from cnf.tables import read_typed_table

try:
    import miceforest
except ImportError:
    miceforest = None

METHODS = "cnf", "IterativeImputer", "miceforest"
DRAWS, ITERATIONS = 19, 3

Imputer = Callable[[pd.DataFrame, pd.DataFrame, list[str], int], np.ndarray]


def forests(train: pd.DataFrame, holes: pd.DataFrame, names: list[str], seed: int) -> np.ndarray:
    """Draws (draws, rows, columns) of numbers by miceforest: chained trees and mean matching.

    The rows with holes are among those it learns from: `impute_new_data` of 6.0.5 conditions every
    iteration on the random cells that it starts with."""
    levels = {name: sorted(train[name].dropna().unique()) for name in train if name not in names}

    def typed(table: pd.DataFrame) -> pd.DataFrame:
        kinds = {name: pd.CategoricalDtype(levels[name]) for name in levels}
        return table.astype({name: kinds.get(name, "float64") for name in table})

    both = pd.concat([typed(train), typed(holes)], ignore_index=True)
    # A category is drawn by its probability: matched by logits, one of probability zero stops it.
    strategy = {name: "fast" if name in levels else "normal" for name in train}
    kernel = miceforest.ImputationKernel(
        both, num_datasets=DRAWS, mean_match_strategy=strategy, random_state=seed
    )
    kernel.mice(ITERATIONS, num_threads=1)
    drawn = [kernel.complete_data(dataset=k)[len(train) :] for k in range(DRAWS)]
    return np.stack([table[names].to_numpy(dtype=float) for table in drawn])


def equations(train: pd.DataFrame, holes: pd.DataFrame, names: list[str], seed: int) -> np.ndarray:
    """Draws of scikit-learn's IterativeImputer with `sample_posterior`."""
    return chained_equations(train, holes, names, DRAWS, seed)


def ours(budget: dict[str, Any]) -> Imputer:
    """Draws of `TableFlow.impute` after a fit within a budget."""

    def drawn(train: pd.DataFrame, holes: pd.DataFrame, names: list[str], seed: int) -> np.ndarray:
        model = cnf.fit_table(train, imputer=True, seed=seed, clock=time.process_time, **budget)
        generator = torch.Generator().manual_seed(seed)
        tables = model.impute(holes, DRAWS, generator=generator)
        return np.stack([table[names].to_numpy(dtype=float) for table in tables])

    return drawn


def hide(table: pd.DataFrame, seed: int) -> tuple[list[pd.DataFrame], np.ndarray, list[str]]:
    """Rows to learn from, held-out ones whole and with holes, which cells are hidden, and the
    names of the numeric columns; see `tables.study`."""
    schema = cnf.Schema.infer(table)
    table = table[[column.name for column in schema.modeled]].reset_index(drop=True)
    order = np.random.default_rng(seed).permutation(len(table))
    held = round(HELD_OUT * len(table))
    test, train = (table.iloc[part].reset_index(drop=True) for part in np.split(order, [held]))
    test = test[:IMPUTED_ROWS]
    names = [column.name for column in schema.modeled if column.numeric]
    hidden = (np.random.default_rng(seed).random(test.shape) < HIDDEN) & test.notna().to_numpy()
    holes = test.astype(object).mask(hidden).infer_objects()
    holes = holes.astype(dict.fromkeys(names, "float64"))
    return [train, test, holes], hidden, names


def judged(draws: np.ndarray, truth: np.ndarray, source: np.random.Generator) -> dict[str, float]:
    """Mean CRPS of draws (draws, n), and how many numbers (n,) lie within them."""
    below, ties = (draws < truth).sum(0), (draws == truth).sum(0)
    place = below + source.integers(ties + 1)
    within = (place > 0) & (place < len(draws))
    return {"crps": float(crps(draws, truth).mean()), "within": int(within.sum())}


def study(table: pd.DataFrame, seed: int, imputers: dict[str, Imputer]) -> dict[str, Any]:
    """CRPS and coverage of every imputer on one table."""
    (train, test, holes), hidden, names = hide(table, seed)
    places = [hidden[:, list(test).index(name)] for name in names]
    cells = int(sum(place.sum() for place in places))
    found: dict[str, Any] = {"rows": len(train), "cells": cells, "seed": seed}
    for method, impute in imputers.items():
        start = time.process_time()
        draws = impute(train, holes, names, seed)
        spent, source = time.process_time() - start, np.random.default_rng(seed)
        columns = {
            name: judged(
                draws[:, rows, j] / train[name].std(),
                test[name].to_numpy(dtype=float)[rows] / train[name].std(),
                source,
            )
            for j, (name, rows) in enumerate(zip(names, places))
        }
        found[method] = {
            "crps": float(np.mean([each["crps"] for each in columns.values()])),
            "covered": sum(each["within"] for each in columns.values()) / cells,
            "seconds": spent,
            "columns": columns,
        }
    return found


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "figures")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seconds", type=float, default=150, help="processor seconds of our fit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a generated table and few steps")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    if miceforest is None:
        print("miceforest is not installed: left out")
    there = [name for name in options.only if (FOLDER / TABLES[name]).is_file()]
    budget: dict[str, Any] = {"seconds": options.seconds}
    if options.quick:
        budget, there = {"steps": 40, "hidden": (16, 16)}, ["generated"]
    if not there:
        raise SystemExit(f"no table in {FOLDER}: set CNF_SHARED_DATA")
    imputers = dict(zip(METHODS, (ours(budget), equations, forests)))
    asked = [name for name in options.methods if name != "miceforest" or miceforest is not None]
    imputers = {name: imputers[name] for name in asked}
    path = options.out / "imputation.json"
    results = {} if options.quick else read_json(path)
    for name in there:
        table = generated() if options.quick else read_typed_table(FOLDER / TABLES[name])
        found = study(table, options.seed, imputers)
        results[name] = results.get(name, {}) | found
        lines = [
            f"{method} CRPS {each['crps']:.4f}, {100 * each['covered']:.1f} % covered"
            for method, each in found.items()
            if isinstance(each, dict)
        ]
        print(f"{name}: " + "; ".join(lines), flush=True)
        write_json(path, results)


if __name__ == "__main__":
    main()
