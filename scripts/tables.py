"""Typed tables
============

Do samples pass for real rows, and are hidden cells found again?

Run it with::

    python scripts/tables.py                       # the tables of CNF_SHARED_DATA, from the csv, no options
    python scripts/tables.py --only diamonds --steps 2000
    python scripts/tables.py --quick               # a generated table, seconds

For each table: boosted trees tell held-out rows from samples of ours, of a Gaussian copula with
empirical columns and of independent columns (AUC, ½ is best); a fifth of the cells of held-out
rows is hidden and drawn again by ours and by scikit-learn's IterativeImputer (mean CRPS of
numbers, in standard deviations of the column). Writes figures/tables.png and tables.json, one
entry a table; a rerun replaces what it computed.
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
from table_rivals import auc, chained_equations, crps, gaussian_copula, independent

import cnf
from cnf import plotting
from cnf.plotting.style import ACCENT, DATA, FAINT, MODEL, styled
from cnf.recipe import default_table_flow, fit_table_flow
from cnf.tables import read_typed_table

FOLDER = Path(os.environ.get("CNF_SHARED_DATA", "../shared/data"))
TABLES = {
    "beijing_pm25": "beijing_pm25/data.csv.gz",
    "california_housing": "california_housing/california_housing_mixed.csv.gz",
    "diamonds": "diamonds/data.csv.gz",
}
HELD_OUT = 0.2
JUDGED_ROWS, IMPUTED_ROWS, SCORED_ROWS, DRAWS, HIDDEN = 8000, 1000, 500, 20, 0.2


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


def study(
    table: pd.DataFrame,
    *,
    steps: int | None,
    hidden: tuple[int, int] | None,
    likelihood_share: float | None,
    impute: bool,
    seed: int,
) -> dict[str, Any]:
    """All figures of one table."""
    schema = cnf.Schema.infer(table)
    table = table[[column.name for column in schema.modeled]].reset_index(drop=True)
    order = np.random.default_rng(seed).permutation(len(table))
    held = round(HELD_OUT * len(table))
    test, train = (table.iloc[part].reset_index(drop=True) for part in np.split(order, [held]))
    model = default_table_flow(schema, len(train), hidden=hidden, imputer=impute, seed=seed)
    start = time.perf_counter()
    history = fit_table_flow(
        model, train, steps=steps, seed=seed, imputer=impute, likelihood_share=likelihood_share
    )
    found: dict[str, Any] = {
        "rows": len(train),
        "steps": history.records[-1].step,
        "hidden": None if model.flow is None else model.flow.field.hidden,
        "seed": seed,
        "seconds": time.perf_counter() - start,
        "schema": schema.lines(),
    }
    found["log_prob"] = held_out(model, test)
    found["auc"] = told_apart(model, train, test[:JUDGED_ROWS], seed)
    if impute:
        found["crps"] = refilled(model, train, test[:IMPUTED_ROWS], seed) | {
            "steps": found["steps"]
        }
    return found


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


def refilled(
    model: cnf.TableFlow, train: pd.DataFrame, test: pd.DataFrame, seed: int
) -> dict[str, float]:
    """Mean CRPS of hidden numbers, in standard deviations, of ours and of chained equations."""
    names = [c.name for c in model.schema.modeled if c.numeric]
    hidden = (np.random.default_rng(seed).random(test.shape) < HIDDEN) & test.notna().to_numpy()
    holes = test.astype(object).mask(hidden).infer_objects()
    holes = holes.astype(dict.fromkeys(names, "float64"))
    ours = model.impute(holes, DRAWS, generator=torch.Generator().manual_seed(seed))
    ours = np.stack([frame[names].astype("float64").to_numpy() for frame in ours])
    theirs = chained_equations(train, holes, names, DRAWS, seed)
    found: dict[str, list[float]] = {"cnf": [], "IterativeImputer": []}
    for j, name in enumerate(names):
        rows = hidden[:, list(test).index(name)]
        truth, spread = test[name].to_numpy(dtype=float)[rows], train[name].std()
        for method, draws in zip(found, (ours, theirs)):
            found[method].append(float(crps(draws[:, rows, j], truth).mean() / spread))
    means = {method: float(np.mean(values)) for method, values in found.items()}
    return means | {"columns": dict(zip(names, zip(*found.values())))}


def keep(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """Write the results beside those that are there already, and return them all."""
    known = read_json(path)
    known |= {name: known.get(name, {}) | found for name, found in results.items()}
    write_json(path, known)
    return known


def show(name: str, found: dict[str, Any]) -> None:
    """The figures of one table, for people."""
    score, areas, scores = found["log_prob"], found["auc"], found.get("crps")
    print(f"{name}: {found['rows']:,} rows, {found['steps']:,} steps")
    mean, error, bar = (score[key] for key in ("mean", "standard_error", "bar"))
    print(f"  held-out log-probability {mean:.3f} ± {error:.3f}, bar {bar:.4f}")
    print(
        "  AUC   "
        + ", ".join(
            f"{method} {area:.3f} ± {spread:.3f}" for method, (area, spread) in areas.items()
        )
    )
    if scores:
        print(
            f"  CRPS  cnf {scores['cnf']:.3f}, IterativeImputer {scores['IterativeImputer']:.3f}",
            flush=True,
        )


@styled
def draw(results: dict[str, Any], path: Path) -> None:
    """AUC and CRPS of every table as dots with their errors, one row a table."""
    page, axes = plotting.figure(1, 2, panel=(3.2, 1.3 + 0.3 * len(results)))
    ours, others = axes.flat
    for row, found in enumerate(results.values()):
        for (method, (area, error)), color in zip(found["auc"].items(), (MODEL, ACCENT, DATA)):
            label = method if row == 0 else None
            ours.errorbar(area, row, xerr=2 * error, fmt="o", ms=4, color=color, label=label)
        for method, color in (("cnf", MODEL), ("IterativeImputer", ACCENT)):
            label = method if row == 0 else None
            others.plot(
                found.get("crps", {}).get(method, np.nan), row, "o", ms=4, color=color, label=label
            )
    titles = (
        "AUC, real rows or samples (½: not told apart)",
        "CRPS of hidden cells, standard deviations",
    )
    for ax, title in zip((ours, others), titles):
        ax.set(title=title, ylim=(len(results) - 0.4, -0.6), yticks=range(len(results)))
        ax.set_yticklabels([name.replace("_", " ") for name in results] if ax is ours else [])
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)
    ours.axvline(0.5, color=FAINT, lw=0.6)
    others.set_xlim(0, 1.05 * others.get_xlim()[1])
    plotting.save(page, path)


def main() -> None:
    """Study the tables asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("figures"))
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument(
        "--likelihood-share", type=float, help="of the steps; the default is that of cnf.fit"
    )
    parser.add_argument(
        "--no-imputation", action="store_true", help="samples alone, in half the time"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a generated table and few steps")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    hidden = None if options.width is None else (options.width, options.width)
    if options.quick:
        jobs = {"generated": (generated(), 40, (16, 16))}
    else:
        there = [name for name in options.only if (FOLDER / TABLES[name]).is_file()]
        if not there:
            parser.exit(message=f"no table in {FOLDER}: set CNF_SHARED_DATA\n")
        jobs = {
            name: (read_typed_table(FOLDER / TABLES[name]), options.steps, hidden)
            for name in there
        }
    for name, (table, steps, widths) in jobs.items():
        found = study(
            table,
            steps=steps,
            hidden=widths,
            likelihood_share=options.likelihood_share,
            impute=not options.no_imputation,
            seed=options.seed,
        )
        show(name, found)
        draw(keep({name: found}, options.out / "tables.json"), options.out / "tables.png")


if __name__ == "__main__":
    main()
