"""Small tables with a category: held-out likelihood by ten-fold cross-validation, compared with Gaussians
and mixtures per class.

    python scripts/small_typed_tables.py            # writes figures/small_typed_tables.json

All densities are compared with the same measure: a cell counts by the probability of its step of the
column's grid, the largest power of ten of which all its numbers are multiples. `cnf.fit_table` runs at its
defaults. Each class has a Gaussian with its own covariance. Five-fold cross-validation in the training fold
chooses the mixtures' number of components and shape of covariance, which all classes share. Differences to
the better of the two are paired row by row, and positive if the flow is worse."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from results import read_json, write_json
from scipy.special import logsumexp
from scipy.stats import qmc
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import KFold
from sklearn.preprocessing import StandardScaler

import cnf

Vector = NDArray[np.float64]
TABLES = {"iris": load_iris, "wine": load_wine, "breast_cancer": load_breast_cancer}
FOLDS, WORTH = 10, 0.02
MIXTURES = [(k, shape) for k in (1, 2, 3, 5) for shape in ("full", "diag", "tied")]
POINTS = 64  # of a cell


def table(name: str) -> pd.DataFrame:
    """The columns of a data set of scikit-learn, and the name of the class."""
    found = TABLES[name](as_frame=True)
    return found.data.assign(group=np.array(found.target_names)[found.target])


def step(column: pd.Series) -> float:
    """The largest power of ten of which all numbers are multiples."""
    for digits in range(-3, 9):
        if np.allclose(column, column.round(digits), rtol=0, atol=1e-9):
            return 10.0**-digits
    raise ValueError(f"{column.name}: on no grid")


def flow_scores(train: pd.DataFrame, test: pd.DataFrame, steps: dict[str, float]) -> Vector:
    """Log-probabilities of cells under the model of `cnf.fit_table`."""
    model = cnf.fit_table(train)
    found = model.log_prob(test).numpy()
    for column in model.numeric_columns:
        if column.step is None:  # a density, but for atoms
            plain = ~np.isin(test[column.name], column.atoms)
            found = found + plain * np.log(steps[column.name])
    return found


def class_scores(
    train: pd.DataFrame, test: pd.DataFrame, steps: dict[str, float], components: int, shape: str
) -> Vector:
    """Log-probabilities of cells under a mixture of each class."""
    names, found = list(steps), np.empty(len(test))
    scale = StandardScaler().fit(train[names])
    unit = qmc.Sobol(len(names), seed=0).random(POINTS) - 0.5
    for group, rows in train.groupby("group"):
        own = (test.group == group).to_numpy()
        if not own.any():
            continue
        count = min(components, len(rows))
        mixture = GaussianMixture(count, covariance_type=shape, reg_covar=1e-4, random_state=0)
        mixture.fit(scale.transform(rows[names]))
        cells = test.loc[own, names].to_numpy()[:, None] + unit * np.array(list(steps.values()))
        points = scale.transform(pd.DataFrame(cells.reshape(-1, len(names)), columns=names))
        logs = mixture.score_samples(points).reshape(own.sum(), POINTS)
        volume = np.log(list(steps.values())).sum() - np.log(scale.scale_).sum()
        found[own] = logsumexp(logs, axis=1) - np.log(POINTS) + volume
        found[own] += np.log(len(rows) / len(train))
    return found


def chosen(train: pd.DataFrame, steps: dict[str, float]) -> tuple[int, str]:
    """Components and shape with the best likelihood by cross-validation."""
    folds = list(KFold(5, shuffle=True, random_state=0).split(train))
    scores = [
        sum(
            class_scores(train.iloc[a], train.iloc[b], steps, *mixture).clip(-1e3).sum()
            for a, b in folds
        )
        for mixture in MIXTURES
    ]
    return MIXTURES[int(np.argmax(scores))]


def compare(scores: dict[str, Vector]) -> dict[str, object]:
    """NLL of every density, and the paired difference of the flow to the better of the others."""
    nll = {method: -float(values.mean()) for method, values in scores.items()}
    best = min(("Gaussian", "mixture"), key=nll.__getitem__)
    difference = scores[best] - scores["cnf"]
    mean, error = float(difference.mean()), float(difference.std() / len(difference) ** 0.5)
    return {
        **{"nll": nll, "best": best, "difference": mean, "difference_se": error},
        "worst": float(scores["cnf"].min()),
        "rows": len(difference),
        "worse": mean > max(WORTH, 2 * error),
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "figures")
    parser.add_argument("--only", nargs="+", choices=TABLES, help="which tables")
    parser.add_argument("--folds", type=int, default=FOLDS, help="number of folds to run, of ten")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "small_typed_tables.json"
    results = read_json(path)
    for name in args.only or TABLES:
        whole = table(name)
        steps = {column: step(whole[column]) for column in whole if column != "group"}
        parts: dict[str, list[Vector]] = {"cnf": [], "Gaussian": [], "mixture": []}
        splits = list(KFold(FOLDS, shuffle=True, random_state=0).split(whole))[: args.folds]
        for a, b in splits:
            train, test = whole.iloc[a], whole.iloc[b]
            parts["Gaussian"].append(class_scores(train, test, steps, 1, "full"))
            parts["mixture"].append(class_scores(train, test, steps, *chosen(train, steps)))
            parts["cnf"].append(flow_scores(train, test, steps))
            found = compare({method: np.concatenate(some) for method, some in parts.items()})
            print(name, found, flush=True)
        results[name] = found
        write_json(path, results)


if __name__ == "__main__":
    main()
