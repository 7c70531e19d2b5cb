"""What few rows can bear: Gaussian mixtures stacked by cross-validation, where no flow is ahead of them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import KFold

from cnf.flows import CNF, MixtureBase, Preprocess
from cnf.training.data import Rows
from cnf.training.judge import weighted_nll
from cnf.training.mixtures import chosen_rows, mixture_base

Matrix = NDArray[np.float64]

# From so many rows on, held-out rows choose among mixtures by themselves.
FEW = 2_000
COMPONENTS = (1, 2, 3, 5, 8, 12)
SHAPES = ("full", "diag")
FOLDS, STARTS = 5, 2
FEWEST_ROWS_A_COMPONENT = 5
# Of the shares in the stack: rounds of expectation-maximisation, and the least that keeps a mixture in.
ROUNDS, SMALLEST_SHARE = 200, 0.01
# By so many standard errors of the paired difference a flow has to lead on held-out rows: they have picked
# its weights, and not the mixtures'.
SURE = 2.0
# In units of the columns' deviations.
SMALLEST_VARIANCE = 1e-4


@torch.no_grad()
def mixture_ahead(
    flow: CNF, to_model: Preprocess, train: Rows, valid: Rows, *, seed: int, seconds: float | None
) -> MixtureBase | None:
    """Stacked mixtures of all rows, unless the flow is ahead of those of the training rows on the held-out
    ones.

    What each mixture counts for is settled by held-out folds of the training rows: a tenth of few rows says
    too little to choose by, and the best of many by a little is the luck of folds and starts as much as its
    number of components (Smyth and Wolpert 1999).

    Args:
        flow: fitted to the training rows.
        to_model: map to where the mixtures are fitted. Along the columns themselves a diagonal covariance
            says more than along axes that whitening has turned.
        train: rows it was fitted to.
        valid: rows set apart.
        seed: of folds and starts.
        seconds: time for the folds; None for no limit.
    """
    (y, _), (held_out, ladj) = (to_model.to_model(rows.x) for rows in (train, valid))
    rows = chosen_rows(y, train.weights, seed).astype(np.float64)
    if len(rows) < 2 * FOLDS:
        return None
    with warnings.catch_warnings():
        # A mixture that has not converged is judged like any other.
        warnings.simplefilter("ignore", ConvergenceWarning)
        models, shares = _chosen(rows, seed, seconds)
        other = _stacked(models, shares, rows, held_out).log_prob(held_out) + ladj
        behind, error = weighted_nll(flow.log_prob(valid.x) - other, valid.weights)
        if -behind > SURE * error:
            return None
        everything = np.concatenate([rows, chosen_rows(held_out, valid.weights, seed)])
        return _stacked(models, shares, everything, flow.like)


def _chosen(rows: Matrix, seed: int, seconds: float | None) -> tuple[list[GaussianMixture], Matrix]:
    """Mixtures of more and more components, until time is up, and the share of each."""
    start, models, scores = time.perf_counter(), [], []
    for some in _candidates(len(rows) - len(rows) // FOLDS, seed):
        models += some
        scores += [_out_of_fold(model, rows, seed) for model in some]
        if seconds is not None and time.perf_counter() - start > seconds:
            break
    shares = stacking_shares(np.stack(scores, 1))
    kept = shares >= SMALLEST_SHARE
    return [model for model, keep in zip(models, kept) if keep], shares[kept]


def _candidates(rows: int, seed: int) -> Iterator[list[GaussianMixture]]:
    """Mixtures of every shape with as many components as each other."""
    settings = {"reg_covar": SMALLEST_VARIANCE, "n_init": STARTS, "random_state": seed}
    for components in COMPONENTS:
        if components == 1 or components * FEWEST_ROWS_A_COMPONENT <= rows:
            yield [GaussianMixture(components, covariance_type=shape, **settings) for shape in SHAPES]


def _out_of_fold(model: GaussianMixture, rows: Matrix, seed: int) -> Matrix:
    """The log-density (rows,) of every row under the mixture fitted without its fold."""
    found = np.empty(len(rows))
    for train, test in KFold(FOLDS, shuffle=True, random_state=seed).split(rows):
        found[test] = clone(model).fit(rows[train]).score_samples(rows[test])
    return found


def stacking_shares(log_prob: Matrix) -> Matrix:
    """Shares w (models,) of densities, given what each makes of rows that it has not seen (rows, models):
    those that maximise Σᵢ log Σₖ wₖ pₖ(xᵢ).

    Example:
        >>> stacking_shares(np.log([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8]])).round(2)
        array([0.69, 0.31])
    """
    density = np.exp(log_prob - log_prob.max(1, keepdims=True))
    shares = np.full(density.shape[1], 1 / density.shape[1])
    for _ in range(ROUNDS):
        parts = shares * density
        shares = (parts / parts.sum(1, keepdims=True)).mean(0)
    return shares


def _stacked(models: list[GaussianMixture], shares: Matrix, rows: Matrix, like: torch.Tensor) -> MixtureBase:
    """The mixtures fitted to the rows, as one: a mixture of mixtures is a mixture."""
    bases = [mixture_base(clone(model).fit(rows), like) for model in models]
    weights = [float(share) * base.weights for share, base in zip(shares, bases)]
    means, factors = ([getattr(base, part) for base in bases] for part in ("means", "factors"))
    return MixtureBase(torch.cat(weights), torch.cat(means), torch.cat(factors))
