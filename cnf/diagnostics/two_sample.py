"""The classifier two-sample test: can a classifier tell held-out rows from samples?"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from torch import Tensor

from cnf.diagnostics.context import CheckContext
from cnf.diagnostics.result import CheckResult

FOLDS = 3
STANDARD_ERRORS = 3


@torch.no_grad()
def two_sample(case: CheckContext) -> Iterator[CheckResult]:
    """The area under the curve of a boosted classifier, cross-validated (Lopez-Paz & Oquab 2017).

    An area of 0.5 means that rows and samples cannot be told apart, 1 that they always can. The
    context is among the columns of both.
    """
    rows = case.rows
    shape = (len(rows),) if rows.context is None else ()
    samples = case.exact.sample(shape, rows.context, generator=case.generator(9))
    parts = (_beside(rows.x, rows.context), _beside(samples, rows.context))
    yield indistinguishable(*parts, case.seed, strict=case.strict)


def indistinguishable(rows: Tensor, samples: Tensor, seed: int, *, strict: bool) -> CheckResult:
    """The claim that a classifier cannot tell rows (n, columns) from samples (n, columns)."""
    area = separability(rows.double().cpu().numpy(), samples.double().cpu().numpy(), seed)
    chance = math.sqrt((2 * len(rows) + 1) / 12) / len(rows)
    return CheckResult.at_most(
        "two samples",
        "a classifier cannot distinguish held-out rows from samples",
        area,
        (0.55 if strict else 0.65) + STANDARD_ERRORS * chance,
        kind="fit",
        detail=f"area under the curve, 0.5 is chance; {len(rows)} rows each",
    )


def separability(real: np.ndarray, drawn: np.ndarray, seed: int) -> float:
    """Area under the ROC curve of rows (n, columns) against rows (m, columns), cross-validated."""
    X = np.concatenate([real, drawn])
    y = np.repeat([1, 0], [len(real), len(drawn)])
    model = HistGradientBoostingClassifier(
        max_iter=60, early_stopping=False, random_state=seed % 2**32
    )
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed % 2**32)
    found = cross_val_predict(model, X, y, cv=folds, method="predict_proba")[:, 1]
    return float(roc_auc_score(y, found))


def _beside(x: Tensor, context: Tensor | None) -> Tensor:
    return x if context is None else torch.cat([x.double(), context.double()], -1)
