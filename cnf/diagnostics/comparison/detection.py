"""Whether a classifier tells the rows of two tables apart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from sklearn.base import ClassifierMixin
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import RobustScaler

from cnf.diagnostics.comparison.pair import TablePair

FOLDS = 3
MOST_ROWS = 20_000  # of each table


def boosted_trees(seed: int) -> ClassifierMixin:
    """Gradient-boosted trees, which see how columns act together."""
    return HistGradientBoostingClassifier(random_state=seed)


def logistic_regression(seed: int) -> ClassifierMixin:
    """Logistic regression, which sees the columns one by one."""
    return make_pipeline(SimpleImputer(), RobustScaler(), LogisticRegression())


def detection(pair: TablePair, classifier: Callable[[int], ClassifierMixin], seed: int) -> float:
    """2 (1 − AUC) of real rows against synthetic ones (Lopez-Paz & Oquab 2017), between 0 and 1.

    The area under the curve is that of held-out folds and counts as ½ where it is less. With
    `logistic_regression` this is LogisticDetection of sdmetrics.

    Args:
        pair: the two tables.
        classifier: makes the classifier, from a seed.
        seed: of the folds and of the classifier.

    Example:
        >>> x = pd.DataFrame({"x": np.arange(60.0)})
        >>> round(detection(TablePair.of(x, x + 1000), logistic_regression, 0), 6)
        0.0
    """
    pair = pair.sampled(MOST_ROWS, seed)
    X = np.concatenate(encoded(pair))
    y = np.repeat([1, 0], [len(pair.real), len(pair.fake)])
    areas = []
    for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(X, y):
        fitted = classifier(seed).fit(X[train], y[train])
        areas.append(roc_auc_score(y[test], fitted.predict_proba(X[test])[:, 1]))
    return 2 * (1 - float(np.mean(np.maximum(areas, 0.5))))


def encoded(pair: TablePair) -> tuple[np.ndarray, np.ndarray]:
    """Both tables as numbers: a missing one is the real mean, a category one column a level."""
    numbers = [table[list(pair.numeric)] for table in (pair.real, pair.fake)]
    means = numbers[0].replace([np.inf, -np.inf], np.nan).mean().fillna(0.0)
    parts = [table.replace([np.inf, -np.inf], np.nan).fillna(means) for table in numbers]
    for name in pair.categorical:
        levels = pd.unique(pair.real[name])
        for k, table in enumerate((pair.real, pair.fake)):
            parts[k] = pd.concat([parts[k], _one_hot(table[name], levels)], axis=1)
    real, fake = (part.to_numpy(float) for part in parts)
    return real, fake


def _one_hot(cells: pd.Series, levels: np.ndarray) -> pd.DataFrame:
    """A column for each level of the real table, and one for all others."""
    places = pd.Index(levels).get_indexer(cells)
    shown = np.eye(len(levels) + 1)[places]
    return pd.DataFrame(shown, index=cells.index).add_prefix(f"{cells.name}=")
