"""Baselines for typed tables: a Gaussian copula, independent columns, chained equations."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 - makes the next name known
from sklearn.impute import IterativeImputer
from sklearn.metrics import roc_auc_score


def independent(train: pd.DataFrame, rows: int, random: np.random.Generator) -> pd.DataFrame:
    """Every column drawn from its own cells, missing ones included."""
    columns = {
        name: train[name].to_numpy()[random.integers(len(train), size=rows)] for name in train
    }
    return pd.DataFrame(columns).astype(train.dtypes.to_dict())


def gaussian_copula(train: pd.DataFrame, rows: int, random: np.random.Generator) -> pd.DataFrame:
    """Empirical columns joined by a Gaussian: ranks (ties at random) as normal scores, their
    correlation.

    A missing cell ranks last.
    """
    scores, ordered = [], []
    for name in train:
        codes = codes_of(train[name]).fillna(np.inf).to_numpy()
        order = np.lexsort((random.random(len(codes)), codes))
        ranks = np.empty(len(codes))
        ranks[order] = np.arange(len(codes))
        scores.append(stats.norm.ppf((ranks + 0.5) / len(codes)))
        ordered.append(train[name].iloc[order])
    z = random.multivariate_normal(np.zeros(len(scores)), np.corrcoef(scores), size=rows)
    places = np.minimum((stats.norm.cdf(z) * len(train)).astype(int), len(train) - 1)
    columns = {
        name: column.iloc[places[:, i]].to_numpy()
        for i, (name, column) in enumerate(zip(train, ordered))
    }
    return pd.DataFrame(columns).astype(train.dtypes.to_dict())


def codes_of(column: pd.Series) -> pd.Series:
    """A column as numbers: categories by their place in the alphabet, NaN where missing."""
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return column.astype("float64").reset_index(drop=True)
    codes, _ = pd.factorize(column, sort=True)
    return pd.Series(np.where(codes < 0, np.nan, codes.astype(float)))


def auc(real: pd.DataFrame, drawn: pd.DataFrame, seed: int) -> tuple[float, float]:
    """How well boosted trees tell real rows from drawn ones, on rows they have not seen; ½ is not
    at all.

    With the standard error of the area (Hanley & McNeil 1982).
    """
    both = pd.concat([real, drawn], ignore_index=True)
    features = np.column_stack([codes_of(both[name]) for name in both])
    kinds = [not pd.api.types.is_numeric_dtype(both[name]) for name in both]
    labels = np.repeat([0, 1], [len(real), len(drawn)])
    order = np.random.default_rng(seed).permutation(len(labels))
    learn, validator = np.split(order, 2)
    trees = HistGradientBoostingClassifier(
        max_iter=200, categorical_features=kinds, random_state=seed
    )
    trees.fit(features[learn], labels[learn])
    area = float(roc_auc_score(labels[validator], trees.predict_proba(features[validator])[:, 1]))
    return area, _area_error(area, len(validator) / 2)


def _area_error(area: float, rows: float) -> float:
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (rows - 1) * (q1 + q2 - 2 * area**2)
    return float(np.sqrt(spread) / rows)


def chained_equations(
    train: pd.DataFrame, holes: pd.DataFrame, names: list[str], draws: int, seed: int
) -> np.ndarray:
    """scikit-learn's IterativeImputer with posterior draws (draws, rows, columns) of numeric
    columns.

    Categories stand beside the numbers one-hot; that of a hidden category is missing. Draws stay
    within what
    was seen of a column: without bounds the chains of nearly dependent columns run away.
    """
    levels = {name: sorted(train[name].dropna().unique()) for name in train if name not in names}

    def matrix(table: pd.DataFrame) -> np.ndarray:
        parts = [table[names].astype("float64").to_numpy()]
        for name, found in levels.items():
            hidden = np.where(table[name].isna(), np.nan, 0.0)[:, None]
            parts.append(
                (table[name].to_numpy()[:, None] == np.array(found, dtype=object)) + hidden
            )
        return np.column_stack(parts).astype("float64")

    known, rows = matrix(train), matrix(holes)
    bounds = {"min_value": np.nanmin(known, 0), "max_value": np.nanmax(known, 0)}
    imputer = IterativeImputer(sample_posterior=True, max_iter=10, random_state=seed, **bounds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        imputer.fit(known)
        return np.stack([imputer.transform(rows)[:, : len(names)] for _ in range(draws)])


def crps(draws: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Continuous ranked probability score (n,) of draws (draws, n): E|X − y| − ½ E|X − X′|,
    unbiased."""
    count = len(draws)
    ordered = np.sort(draws, axis=0)
    weights = 2 * np.arange(count) - count + 1
    spread = 2 * (weights[:, None] * ordered).sum(0) / (count * (count - 1))
    return np.abs(draws - truth).mean(0) - 0.5 * spread
