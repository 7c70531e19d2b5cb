"""Prediction by models trained on synthetic rows and on real ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import r2_score, roc_auc_score

from cnf.diagnostics.comparison.detection import encoded
from cnf.diagnostics.comparison.pair import TablePair
from cnf.tables import TableError

FEW_VALUES = 10  # up to so many different numbers are classes


def efficacy(
    pair: TablePair, held_out: pd.DataFrame, target: str, seed: int
) -> tuple[float, float]:
    """How well boosted trees predict the target of held-out rows, learned from synthetic rows and
    from real ones.

    The score is the area under the ROC curve of a category or of a number with few values (one
    class against all others, averaged), and R² of any other number.

    Raises:
        TableError: for an unknown target, or one that is constant.
    """
    if target not in pair.real:
        names = ", ".join(map(repr, pair.real))
        raise TableError(f"target: no column {target!r}; the columns are {names}")
    cells = pair.real[target]
    if cells.nunique() < 2:
        raise TableError(f"target {target!r}: expected different values; got one")
    classes = target in pair.categorical or cells.nunique() <= FEW_VALUES
    judge = _class_score if classes else _number_score
    features = _without(pair, target)
    found = []
    for table in (pair.fake, pair.real):
        learned, judged = (part[part[target].notna()] for part in (table, held_out))
        X = [encoded(TablePair(pair.real, part, *features))[1] for part in (learned, judged)]
        found.append(judge(X, learned[target].to_numpy(), judged[target].to_numpy(), seed))
    return found[0], found[1]


def _without(pair: TablePair, target: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return (
        tuple(name for name in pair.numeric if name != target),
        tuple(name for name in pair.categorical if name != target),
    )


def _class_score(X: list[np.ndarray], learned: np.ndarray, judged: np.ndarray, seed: int) -> float:
    model = HistGradientBoostingClassifier(random_state=seed).fit(X[0], learned.astype(str))
    shares, judged = model.predict_proba(X[1]), judged.astype(str)
    areas = [
        roc_auc_score(judged == level, share)
        for level, share in zip(model.classes_, shares.T)
        if 0 < (judged == level).sum() < len(judged)
    ]
    return float(np.mean(areas)) if areas else np.nan


def _number_score(
    X: list[np.ndarray], learned: np.ndarray, judged: np.ndarray, seed: int
) -> float:
    model = HistGradientBoostingRegressor(random_state=seed).fit(X[0], learned.astype(float))
    return float(r2_score(judged.astype(float), model.predict(X[1])))
