"""Typed tables
============

Can samples be distinguished from real rows?

Run it with::

    python scripts/tables.py                       # the tables of CNF_SHARED_DATA, 150 s of one core each
    python scripts/tables.py --only diamonds --seconds 60
    python scripts/tables.py --quick               # a generated table, a few seconds

For each table, boosted trees separate held-out rows from our samples, from those of a Gaussian copula with
empirical columns, and from those of independent columns (AUC, ½ is best). Seconds are processor seconds.
The script writes figures/tables.png and tables.json, with one entry per table; a rerun replaces its own
entries.
"""

# sphinx_gallery_thumbnail_path = "../figures/tables.png"
from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from results import read_json, write_json
from table_rivals import auc, gaussian_copula, independent

import cnf
from cnf import plotting
from cnf.plotting.style import ACCENT, DATA, FAINT, MODEL, styled
from cnf.tables import read_typed_table

FOLDER = Path(os.environ.get("CNF_SHARED_DATA", "../shared/data"))
TABLES = {
    "beijing_pm25": "beijing_pm25/data.csv.gz",
    "california_housing": "california_housing/california_housing_mixed.csv.gz",
    "diamonds": "diamonds/data.csv.gz",
}
HELD_OUT = 0.2
JUDGED_ROWS, SCORED_ROWS = 8000, 500
IMPUTED_ROWS, HIDDEN = 1000, 0.2  # of the rows held out, and of their cells; see imputation.py


def generated(rows: int = 1500) -> pd.DataFrame:
    """A table of known make: a category, a count, a positive and a real column, the last with
    holes."""
    random = np.random.default_rng(0)
    z = random.normal(size=(rows, 3))
    return pd.DataFrame(
        {
            "region": np.where(z[:, 0] > 0.4, "north", "south"),
            "visits": random.poisson(np.exp(1 + 0.5 * z[:, 0])),
            "spent": np.exp(z[:, 0] + 0.5 * z[:, 1]),
            "mood": np.where(random.random(rows) < 0.1, np.nan, z[:, 1] ** 2 + 0.3 * z[:, 2]),
        }
    )


def study(table: pd.DataFrame, seed: int, **budget: Any) -> dict[str, Any]:
    """All figures of one table, of the columns that are modeled before its rows are shuffled."""
    schema = cnf.Schema.infer(table)
    table = table[[column.name for column in schema.modeled]]
    order = np.random.default_rng(seed).permutation(len(table))
    held = round(HELD_OUT * len(table))
    test, train = (table.iloc[part].reset_index(drop=True) for part in np.split(order, [held]))
    start = time.process_time()
    model = cnf.fit_table(train, seed=seed, clock=time.process_time, **budget)
    spent = time.process_time() - start
    return {
        "rows": len(train),
        "steps": model.history.records[-1].step,
        "seed": seed,
        "seconds": spent,
        "schema": model.schema.lines(),
        "log_prob": held_out(model, test),
        "auc": told_apart(model, train, test[:JUDGED_ROWS], seed),
    }


def held_out(model: cnf.TableFlow, test: pd.DataFrame) -> dict[str, float]:
    """Mean log-probability of held-out rows, its standard error and the mean bar."""
    scores = model.evaluate(test[:SCORED_ROWS])
    log_prob = scores.log_prob[scores.ok]
    return {
        "mean": log_prob.mean().item(),
        "standard_error": (log_prob.std() / len(log_prob) ** 0.5).item(),
        "bar": scores.error[scores.ok].mean().item(),
        "not_ok": int((~scores.ok).sum()),
    }


def told_apart(
    model: cnf.TableFlow, train: pd.DataFrame, test: pd.DataFrame, seed: int
) -> dict[str, Any]:
    """AUC and its standard error of ours and of what samples without a flow."""
    random = np.random.default_rng(seed)
    drawn = {
        "cnf": model.sample(len(test), generator=torch.Generator().manual_seed(seed)),
        "gaussian copula": gaussian_copula(train, len(test), random),
        "independent": independent(train, len(test), random),
    }
    return {name: auc(test, rows[list(test)], seed) for name, rows in drawn.items()}


def keep(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """Write the results beside those that are there already, and return them all."""
    known = read_json(path)
    write_json(path, known | results)
    return known | results


def show(name: str, found: dict[str, Any]) -> None:
    """The figures of one table, for people."""
    score, areas = found["log_prob"], found["auc"]
    print(f"{name}: {found['rows']:,} rows, {found['steps']:,} steps in {found['seconds']:.0f} s")
    mean, error, bar = (score[key] for key in ("mean", "standard_error", "bar"))
    print(f"  held-out log-probability {mean:.3f} ± {error:.3f}, bar {bar:.4f}")
    print(
        "  AUC   "
        + ", ".join(
            f"{method} {area:.3f} ± {spread:.3f}" for method, (area, spread) in areas.items()
        ),
        flush=True,
    )


@styled
def draw(results: dict[str, Any], path: Path) -> None:
    """AUC of every table as dots with their errors, one row a table."""
    page, axes = plotting.figure(1, 1, panel=(4.2, 1.3 + 0.3 * len(results)))
    ax = axes.flat[0]
    for row, found in enumerate(results.values()):
        for (method, (area, error)), color in zip(found["auc"].items(), (MODEL, ACCENT, DATA)):
            label = method if row == 0 else None
            ax.errorbar(area, row, xerr=2 * error, fmt="o", ms=4, color=color, label=label)
    title = "AUC, real rows or samples (½: not told apart)"
    ax.set(title=title, ylim=(len(results) - 0.4, -0.6), yticks=range(len(results)))
    ax.set_yticklabels([name.replace("_", " ") for name in results])
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)
    ax.axvline(0.5, color=FAINT, lw=0.6)
    plotting.save(page, path)


def main() -> None:
    """Study the tables asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("figures"))
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--seconds", type=float, default=150, help="processor seconds per fit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a generated table and few steps")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    budget: dict[str, Any] = {"seconds": options.seconds}
    if options.quick:
        budget, tables = {"steps": 40, "hidden": (16, 16)}, {"generated": generated()}
    else:
        there = [name for name in options.only if (FOLDER / TABLES[name]).is_file()]
        tables = {name: read_typed_table(FOLDER / TABLES[name]) for name in there}
    if not tables:
        parser.exit(message=f"no table in {FOLDER}: set CNF_SHARED_DATA\n")
    for name, table in tables.items():
        found = study(table, options.seed, **budget)
        show(name, found)
        draw(keep({name: found}, options.out / "tables.json"), options.out / "tables.png")


if __name__ == "__main__":
    main()
