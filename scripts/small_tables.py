"""Small tables
============

Held-out likelihood by ten-fold cross-validation, compared with a Gaussian and a Gaussian mixture.

Run it with::

    python scripts/small_tables.py            # writes figures/small_tables.json and .png

Every choice is made inside the training folds: `CNFDensity` at its defaults holds out some of its rows,
and five-fold cross-validation chooses the mixture's number of components and shape of covariance. (The
principal components of the digits are those of all rows, for every method: they define the table.) Scores
are in nats per row, in units standardized by the training fold. The differences to the better of Gaussian
and mixture are paired row by row, and positive if the flow is worse."""

# sphinx_gallery_thumbnail_path = "../figures/small_tables.png"
from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import real_tables
import torch
from numpy.typing import NDArray
from results import read_json, write_json
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.preprocessing import StandardScaler

import cnf
from cnf import plotting
from cnf.datasets import TOYS

Matrix = NDArray[np.float64]
FOLDS = 10
GRID = {"n_components": [1, 2, 3, 5, 8, 12], "covariance_type": ["full", "diag"]}
TOY_ROWS, GALAXIES = 500, 1_000
# A difference counts where it is both larger than this and than two of its standard errors.
WORTH = 0.02


def diabetes() -> Matrix:
    """Without the column that has two values only: it has no density."""
    x = load_diabetes().data
    return x[:, [column for column in range(x.shape[1]) if len(np.unique(x[:, column])) > 2]]


def digits() -> Matrix:
    return PCA(16, random_state=0).fit_transform(load_digits().data)


def galaxies() -> Matrix:
    return real_tables.load("galaxy_photometry").train[:GALAXIES].numpy()


def toy(name: str) -> Matrix:
    return TOYS[name].sample(TOY_ROWS, torch.Generator().manual_seed(0)).double().numpy()


TABLES: dict[str, Callable[[], Matrix]] = {
    "iris": lambda: load_iris().data,
    "wine": lambda: load_wine().data,
    "breast_cancer": lambda: load_breast_cancer().data,
    "diabetes": diabetes,
    "digits, 16 components": digits,
    "moons": lambda: toy("moons"),
    "8gaussians": lambda: toy("8gaussians"),
    "pinwheel": lambda: toy("pinwheel"),
    "galaxies": galaxies,
}


def fold(name: str, number: int, steps: int | None) -> dict[str, Matrix]:
    """Log-densities of the held-out rows of one fold under every density."""
    torch.set_num_threads(1)
    x = TABLES[name]()
    train, test = list(KFold(FOLDS, shuffle=True, random_state=0).split(x))[number]
    scale = StandardScaler().fit(x[train])
    train, test = scale.transform(x[train]), scale.transform(x[test])
    chosen = GridSearchCV(
        GaussianMixture(reg_covar=1e-4, n_init=2, random_state=0), GRID, cv=5
    ).fit(train)
    densities = {
        "cnf": cnf.CNFDensity(steps=steps, random_state=0).fit(train),
        "Gaussian": GaussianMixture(1, reg_covar=1e-6).fit(train),
        "mixture": chosen.best_estimator_,
    }
    return {method: density.score_samples(test) for method, density in densities.items()}


def compare(scores: dict[str, Matrix]) -> dict[str, object]:
    """NLL of every density, and the paired difference of the flow to the best of the others."""
    nll = {method: -float(values.mean()) for method, values in scores.items()}
    best = min(("Gaussian", "mixture"), key=nll.__getitem__)
    difference = scores[best] - scores["cnf"]
    mean, error = float(difference.mean()), float(difference.std() / len(difference) ** 0.5)
    return {
        **{"nll": nll, "best": best, "difference": mean, "difference_se": error},
        "worse": mean > max(WORTH, 2 * error),
    }


def draw(results: dict[str, dict], path: Path) -> None:
    figure, axes = plotting.figure(panel=(5.2, 0.6 + 0.25 * len(results)))
    ax = axes.flat[0]
    differences = [found["difference"] for found in results.values()]
    errors = [found["difference_se"] for found in results.values()]
    ax.errorbar(
        differences,
        list(results),
        xerr=[2 * error for error in errors],
        fmt="o",
        color="#c44",
        markersize=4,
    )
    ax.axvline(0, color="#888", linewidth=0.8)
    ax.set_xscale("symlog", linthresh=0.1)
    ax.invert_yaxis()
    ax.set_xlabel("nats a row above the better of Gaussian and mixture, two standard errors")
    plotting.save(figure, path)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "figures")
    parser.add_argument("--only", nargs="+", choices=TABLES, help="which tables")
    parser.add_argument(
        "--workers", type=int, default=2, help="folds in parallel, one thread each"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a trial run: one table, few training steps"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    there = [
        name for name in TABLES if name != "galaxies" or real_tables.there("galaxy_photometry")
    ]
    names, folds, steps = options.only or there, range(FOLDS), None
    if options.quick:
        names, folds, steps, options.workers = ["iris"], range(2), 40, 1
    path = options.out / "small_tables.json"
    results = {} if options.quick else read_json(path)
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        jobs = {
            name: [pool.submit(fold, name, number, steps) for number in folds] for name in names
        }
        for name, some in jobs.items():
            parts = [job.result() for job in some]
            scores = {
                method: np.concatenate([part[method] for part in parts]) for method in parts[0]
            }
            results[name] = found = compare(scores)
            each = "  ".join(f"{method} {value:8.3f}" for method, value in found["nll"].items())
            difference = f"{found['difference']:+.3f} ± {found['difference_se']:.3f}"
            print(
                f"{name:<22} {each}   {difference}{'   worse' if found['worse'] else ''}",
                flush=True,
            )
            write_json(path, {name: results[name] for name in TABLES if name in results})
    draw(read_json(path), options.out / "small_tables.png")


if __name__ == "__main__":
    main()
