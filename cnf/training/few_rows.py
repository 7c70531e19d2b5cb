"""What few rows can bear: a Gaussian mixture chosen by cross-validation, where no flow is ahead of it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import KFold, cross_val_score

from cnf.flows import CNF, MixtureBase, Preprocess
from cnf.training.data import Rows
from cnf.training.judge import weighted_nll
from cnf.training.mixtures import chosen_rows, mixture_base

# From so many rows on, held-out rows choose among mixtures by themselves.
FEW = 2_000
COMPONENTS = (1, 2, 3, 5, 8, 12)
SHAPES = ("full", "diag")
FOLDS, STARTS = 5, 2
ROWS_A_COMPONENT = 18
# By so many standard errors of the paired difference a flow has to lead on held-out rows: they have picked
# its weights, and not the mixture.
SURE = 2.0
# In units of the columns' deviations.
SMALLEST_VARIANCE = 1e-4


@torch.no_grad()
def mixture_ahead(
    flow: CNF, to_model: Preprocess, train: Rows, valid: Rows, *, seed: int, seconds: float | None
) -> MixtureBase | None:
    """A mixture of all rows, unless the flow is ahead of one of the training rows on the held-out ones.

    Its number of components and shape of covariance are those that held-out folds of the training rows like
    best: a tenth of few rows says too little to choose by.

    Args:
        flow: fitted to the training rows.
        to_model: map to where the mixture is fitted. Along the columns themselves a diagonal covariance says
            more than along axes that whitening has turned.
        train: rows it was fitted to.
        valid: rows set apart.
        seed: of folds and starts.
        seconds: time for the choice; None for no limit.
    """
    (y, _), (held_out, ladj) = (to_model.to_model(rows.x) for rows in (train, valid))
    rows = chosen_rows(y, train.weights, seed).astype(np.float64)
    if len(rows) < 2 * FOLDS:
        return None
    with warnings.catch_warnings():
        # A mixture that has not converged is judged like any other.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = _chosen(rows, seed, seconds)
        other = mixture_base(model.fit(rows), held_out).log_prob(held_out) + ladj
        behind, error = weighted_nll(flow.log_prob(valid.x) - other, valid.weights)
        if -behind > SURE * error:
            return None
        everything = np.concatenate([rows, chosen_rows(held_out, valid.weights, seed)])
        return mixture_base(clone(model).fit(everything), flow.like)


def _chosen(rows: np.ndarray, seed: int, seconds: float | None) -> GaussianMixture:
    """The best of more and more components, until time is up. A score that falls may rise again: with few
    rows it is the luck of a start as much as the number of components."""
    folds, start = KFold(FOLDS, shuffle=True, random_state=seed), time.perf_counter()
    best, best_score = None, -np.inf
    for some in _candidates(len(rows), seed):
        scores = [cross_val_score(model, rows, cv=folds).mean() for model in some]
        if max(scores) > best_score:
            best_score = max(scores)
            best = some[scores.index(best_score)]
        if seconds is not None and time.perf_counter() - start > seconds:
            break
    return best


def _candidates(rows: int, seed: int) -> Iterator[list[GaussianMixture]]:
    """Mixtures of every shape with as many components as each other."""
    settings = {"reg_covar": SMALLEST_VARIANCE, "n_init": STARTS, "random_state": seed}
    for components in COMPONENTS:
        if components == 1 or components * ROWS_A_COMPONENT <= rows:
            yield [GaussianMixture(components, covariance_type=shape, **settings) for shape in SHAPES]
