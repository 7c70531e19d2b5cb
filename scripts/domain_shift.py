"""Domain shift on real tables
===========================

Can transported rows be distinguished from rows of the target, and do density-ratio weights improve a
regression?

Run it with::

    python scripts/domain_shift.py            # two tables of CNF_SHARED_DATA, about a minute of one core each
    python scripts/domain_shift.py --quick    # a generated table, a few training steps

The tables are California, inland to coast, and Beijing, 2010 to 2014. Half of the rows of each side train
a model of the covariates, from source to target; all results are for the other halves.
figures/domain_shift.json contains the AUC of boosted trees that separate source rows from target rows
(cross-validated; ½ is chance), before and after transport, and of trees that separate two halves of the
target, split at random and by days. It also contains the root mean square error, on target rows, of
regressions trained on source rows: unweighted, with the weights of a logistic regression, and with those
of the density ratio. Rounded columns are dequantized. figures/domain_shift.png shows both results.
"""

# sphinx_gallery_thumbnail_path = "../figures/domain_shift.png"
from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from results import read_json, write_json
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

import cnf
from cnf.flows import importance_weights
from cnf.plotting.style import ACCENT, DATA, FAINT, MODEL, styled

FOLDER = Path(os.environ.get("CNF_SHARED_DATA", "../shared/data"))
STEPS, FOLDS = 2_000, 5
HOUSES = "california_housing/california_housing_mixed.csv.gz"
AIR = "beijing_pm25/data.csv.gz"
COUNTS = ("total_rooms", "total_bedrooms", "population", "households")
WAYS = {"unweighted": DATA, "logistic": ACCENT, "cnf": MODEL}


class Shift(NamedTuple):
    """Two tables that differ.

    Attributes:
        source: rows with the outcome; likewise `target`.
        target: see `source`.
        steps: what each covariate is rounded to.
        outcome: the column that a regression predicts.
        group: columns whose cells rows share that belong together.
    """

    source: pd.DataFrame
    target: pd.DataFrame
    steps: dict[str, float]
    outcome: str
    group: tuple[str, ...] = ()


def california() -> Shift:
    """Block groups inland and at the coast; where they lie tells them apart, and is left out."""
    table = pd.read_csv(FOLDER / HOUSES).dropna()
    inland = table["ocean_proximity"] == "INLAND"
    steps = dict.fromkeys(("housing_median_age", *COUNTS), 1.0) | {"median_income": 1e-4}
    return Shift(table[inland], table[~inland], steps, "median_house_value")


def beijing() -> Shift:
    """Hours of two years; wind adds up in multiples of about 0.9 m/s."""
    table = pd.read_csv(FOLDER / AIR).dropna()
    steps = {"DEWP": 1.0, "TEMP": 1.0, "PRES": 1.0, "Iws": 0.9}
    source, target = (table[table["year"] == year] for year in (2010, 2014))
    return Shift(source, target, steps, "pm2.5", group=("month", "day"))


def generated() -> Shift:
    """Two Gaussians, for a trial run."""
    random = np.random.default_rng(0)
    tables = [
        pd.DataFrame(random.normal(mean, 1, (400, 2)), columns=["a", "b"]) for mean in (0, 1)
    ]
    source, target = (t.assign(y=t["a"] ** 2 + random.normal(size=len(t))) for t in tables)
    return Shift(source, target, {"a": 0.0, "b": 0.0}, "y")


SHIFTS: dict[str, Callable[[], Shift]] = {
    "California, inland to coast": california,
    "Beijing, 2010 to 2014": beijing,
}


class Part(NamedTuple):
    """Half of the rows of one side: covariates (rows, columns) and outcome (rows,)."""

    x: pd.DataFrame
    y: np.ndarray


def halves(table: pd.DataFrame, shift: Shift, seed: int) -> tuple[Part, Part]:
    """The rows to fit to and those to judge by, rounded cells spread over their steps."""
    random = np.random.default_rng(seed)
    table = table.iloc[random.permutation(len(table))]
    x = table[list(shift.steps)].astype(float)
    x += random.uniform(size=x.shape) * np.array(list(shift.steps.values()))
    middle = len(table) // 2
    y = table[shift.outcome].to_numpy(float)
    first, second = (slice(None, middle), slice(middle, None))
    return tuple(Part(x[part].reset_index(drop=True), y[part]) for part in (first, second))


def auc(a: pd.DataFrame, b: pd.DataFrame) -> float:
    """How well boosted trees tell the rows of a from those of b, on rows they have not seen."""
    x, label = np.vstack([a, b]), np.repeat([0, 1], [len(a), len(b)])
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    trees = HistGradientBoostingClassifier(random_state=0)
    found = cross_val_predict(trees, x, label, cv=folds, method="predict_proba")[:, 1]
    return float(roc_auc_score(label, found))


def auc_of_other_groups(shift: Shift, seed: int) -> float:
    """How well trees tell rows of half of the groups of the target, such as days, from rows of the
    others: what there is to tell apart where nothing shifts."""
    random = np.random.default_rng(seed)
    group = shift.target.groupby(list(shift.group)).ngroup().to_numpy()
    order = random.permutation(group.max() + 1)
    first = np.isin(group, order[: len(order) // 2])
    ends = [halves(shift.target[side], shift, seed) for side in (first, ~first)]
    return auc(*(pd.concat([part.x for part in end]) for end in ends))


def logistic_ratio(source: Part, target: Part, x: pd.DataFrame) -> Tensor:
    """The log-ratio of the densities at x by a logistic regression: the log-odds p / (1 − p) of target
    rows, less those of their numbers."""
    label = np.repeat([0, 1], [len(source.x), len(target.x)])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(np.vstack([source.x, target.x]), label)
    odds = np.log(len(target.x) / len(source.x))
    return torch.from_numpy(model.decision_function(x.to_numpy()) - odds)


def regression_errors(weights: np.ndarray | None, source: Part, target: Part) -> dict[str, float]:
    """Root mean square errors on the target of regressions that learn from weighted source rows."""
    scaler = StandardScaler().fit(source.x)
    ends = [scaler.transform(part.x) for part in (source, target)]
    models = {"linear": LinearRegression(), "trees": HistGradientBoostingRegressor(random_state=0)}
    return {
        name: float(
            np.sqrt(
                np.mean((model.fit(ends[0], source.y, weights).predict(ends[1]) - target.y) ** 2)
            )
        )
        for name, model in models.items()
    }


def study(shift: Shift, steps: int, seed: int = 0) -> dict[str, Any]:
    """All figures of one shift."""
    (source, held_source), (target, held_target) = (
        halves(table, shift, seed) for table in (shift.source, shift.target)
    )
    start = time.process_time()
    model = cnf.fit_table(target.x, source=source.x, steps=steps, seed=seed)
    seconds = time.process_time() - start
    ratio, error = model.log_density_ratio(held_source.x)
    ratios = {
        "logistic": logistic_ratio(source, target, held_source.x),
        "cnf": ratio.double(),
    }
    weights = {name: importance_weights(r).nan_to_num(0.0) for name, r in ratios.items()}
    errors = {"unweighted": regression_errors(None, held_source, held_target)}
    for name, found in weights.items():
        errors[name] = regression_errors(found.numpy(), held_source, held_target)
    return {
        "rows": [len(source.x), len(target.x), len(held_source.x), len(held_target.x)],
        "columns": list(shift.steps),
        "seconds": seconds,
        "steps": steps,
        "auc": {
            "before": auc(held_source.x, held_target.x),
            "carried": auc(model.transport(held_source.x), held_target.x),
            "halves of the target": auc(target.x, held_target.x),
            **(
                {"other days of the target": auc_of_other_groups(shift, seed)}
                if shift.group
                else {}
            ),
        },
        "rmse": errors,
        "effective": {
            name: (w.sum() ** 2 / w.square().sum() / len(w)).item() for name, w in weights.items()
        },
        "ratio_error": error.mean().item(),
    }


@styled
def draw(found: dict[str, dict[str, Any]], picture: Path) -> None:
    """AUC before and after, and errors beside those without weights."""
    page, axes = cnf.plotting.figure(1, 2, panel=(3.2, 0.9 + 0.5 * len(found)))
    left, right = axes.flat
    shown: set[str] = set()
    for row, case in enumerate(found.values()):
        for (name, area), color in zip(case["auc"].items(), (ACCENT, MODEL, DATA, FAINT)):
            left.plot(area, row, "o", ms=4, color=color, label=name if name not in shown else None)
            shown.add(name)
        for k, model in enumerate(case["rmse"]["unweighted"]):
            for way, color in WAYS.items():
                share = case["rmse"][way][model] / case["rmse"]["unweighted"][model]
                label = None if row or k else way
                right.plot(share, row + 0.3 * k - 0.15, "o", ms=4, color=color, label=label)
    titles = (
        "AUC, source or target (½: not told apart)",
        "error on the target, beside that without weights",
    )
    for ax, title in zip((left, right), titles):
        ax.set(title=title, ylim=(len(found) - 0.5, -0.5), yticks=range(len(found)))
        ax.set_yticklabels([name.replace(", ", "\n") for name in found] if ax is left else [])
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2 if ax is left else 3)
    left.axvline(0.5, color=FAINT, lw=0.6)
    cnf.plotting.save(page, picture)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "figures")
    parser.add_argument("--only", nargs="+", choices=SHIFTS, default=list(SHIFTS))
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps of each model")
    parser.add_argument("--quick", action="store_true", help="a trial run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    shifts = {name: SHIFTS[name] for name in options.only}
    if options.quick:
        shifts = {"generated": generated}
    if not options.quick and not (FOLDER / HOUSES).is_file():
        parser.exit(message=f"no table in {FOLDER}: set CNF_SHARED_DATA\n")
    options.out.mkdir(parents=True, exist_ok=True)
    found = read_json(options.out / "domain_shift.json")
    for name, make in shifts.items():
        found[name] = study(make(), 20 if options.quick else options.steps)
        print(name, found[name], flush=True)
        write_json(options.out / "domain_shift.json", found)
    draw(found, options.out / "domain_shift.png")


if __name__ == "__main__":
    main()
