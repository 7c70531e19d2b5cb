"""What few rows can bear: Gaussian mixtures stacked by cross-validation, where no flow is ahead of
them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import KFold
from torch import Tensor

from cnf.flows import CNF, MixtureBase
from cnf.flows.mixtures import mixture_base
from cnf.recipe.gaussian_mixtures import systematic
from cnf.rows import Rows, weighted_nll
from cnf.training.validation import exact, fill_unsolved_with_worst
from cnf.transforms import Transform

Matrix = NDArray[np.float64]

# From so many rows on, held-out rows choose among mixtures by themselves.
FEW = 2_000
COMPONENTS = (1, 2, 3, 5, 8, 12)
SHAPES = ("full", "diag")
FOLDS, STARTS = 5, 2
FEWEST_ROWS_A_COMPONENT = 5
# Of a row, at most, on average, where weights differ.
MOST_COPIES = 4
# Of the shares in the stack: rounds of expectation-maximization, and the least that keeps a
# mixture in.
ROUNDS, SMALLEST_SHARE = 200, 0.01
# By so many standard errors of the paired difference a flow has to lead on held-out rows: they
# have picked its weights, and not the mixtures'.
SURE = 2.0
# In units of the columns' deviations.
SMALLEST_VARIANCE = 1e-4


class StackedMixture(NamedTuple):
    """Mixtures as one, and what those of the training rows alone make of held-out rows: NLL in
    nats a row of the data's units, and its standard error."""

    base: MixtureBase
    held_out: tuple[float, float]


@torch.no_grad()
def stacked_mixture_if_better(
    flow: CNF,
    transform: Transform,
    train: Rows,
    valid: Rows,
    *,
    refit: bool,
    seed: int,
    seconds: float | None,
) -> StackedMixture | None:
    """Stacked mixtures, unless the flow is ahead of those of the training rows on the held-out
    ones.

    What each mixture counts for is settled by held-out folds of the training rows: a tenth of few
    rows says too little to choose by, and the best of many by a little is the luck of folds and
    starts as much as its number of components (Smyth and Wolpert 1999).

    Args:
        flow: fitted to the training rows.
        transform: map to where the mixtures are fitted. Along the columns themselves a diagonal
            covariance says more than along axes that whitening has turned.
        train: rows it was fitted to.
        valid: rows set apart.
        refit: whether the stack that is handed over learns them too, once they have judged.
        seed: of folds and starts.
        seconds: time for the folds; None for no limit.
    """
    if len(train) < 2 * FOLDS:
        return None
    (y, _), (held_out, ladj) = (transform(rows.x) for rows in (train, valid))
    rows, judges = WeightedRows.of(y, train.weights), WeightedRows.of(held_out, valid.weights)
    with warnings.catch_warnings():
        # A mixture that has not converged is judged like any other.
        warnings.simplefilter("ignore", ConvergenceWarning)
        models, shares = _chosen(rows, seed, seconds)
        stack = _stacked(models, shares, rows, flow.device)
        log_prob = stack.to(held_out).log_prob(held_out) + ladj
        behind, error = weighted_nll(
            fill_unsolved_with_worst(exact(flow).log_prob(valid.x)) - log_prob, valid.weights
        )
        if -behind > SURE * error:
            return None
        if refit:
            everything = WeightedRows(*(np.concatenate(both) for both in zip(rows, judges)))
            stack = _stacked(models, shares, everything, flow.device)
        return StackedMixture(stack.to(flow.dtype), weighted_nll(log_prob, valid.weights))


class WeightedRows(NamedTuple):
    """Rows (rows, dim) and their weights (rows,)."""

    y: Matrix
    weights: Matrix

    @classmethod
    def of(cls, y: Tensor, weights: Tensor | None) -> WeightedRows:
        """Tensors as arrays; weights of one where there are none."""
        weights = y.new_ones(len(y)) if weights is None else weights
        return cls(*(part.double().numpy(force=True) for part in (y, weights)))

    def take(self, places: NDArray[np.int64]) -> WeightedRows:
        """The rows at `places`."""
        return WeightedRows(self.y[places], self.weights[places])

    def repeated(self) -> Matrix:
        """The rows, each as often as its weight says beside the smallest: mixtures take no
        weights."""
        draws = min(round(self.weights.sum() / self.weights.min()), MOST_COPIES * len(self.y))
        return self.y[systematic(self.weights, draws)]


def _chosen(
    rows: WeightedRows, seed: int, seconds: float | None
) -> tuple[list[GaussianMixture], Matrix]:
    """Mixtures of more and more components, until time is up, and the share of each."""
    start, models, scores = time.perf_counter(), [], []
    for some in _candidates(len(rows.y) - len(rows.y) // FOLDS, seed):
        models += some
        scores += [_out_of_fold(model, rows, seed) for model in some]
        if seconds is not None and time.perf_counter() - start > seconds:
            break
    shares = stacking_shares(np.stack(scores, 1), rows.weights)
    kept = shares >= SMALLEST_SHARE
    return [model for model, keep in zip(models, kept) if keep], shares[kept]


def _candidates(rows: int, seed: int) -> Iterator[list[GaussianMixture]]:
    """Mixtures of every shape with as many components as each other."""
    settings = {"reg_covar": SMALLEST_VARIANCE, "n_init": STARTS, "random_state": seed}
    for components in COMPONENTS:
        if components == 1 or components * FEWEST_ROWS_A_COMPONENT <= rows:
            yield [
                GaussianMixture(components, covariance_type=shape, **settings) for shape in SHAPES
            ]


def _out_of_fold(model: GaussianMixture, rows: WeightedRows, seed: int) -> Matrix:
    """The log-density (rows,) of every row under the mixture fitted without its fold."""
    found = np.empty(len(rows.y))
    for train, test in KFold(FOLDS, shuffle=True, random_state=seed).split(rows.y):
        found[test] = clone(model).fit(rows.take(train).repeated()).score_samples(rows.y[test])
    return found


def stacking_shares(log_prob: Matrix, weights: Matrix) -> Matrix:
    """Shares w (models,) of densities, given what each makes of rows that it has not seen (rows,
    models): those that maximize Σᵢ log Σₖ wₖ pₖ(xᵢ), every row as often as its weight (rows,)
    says.

    Example:
        >>> stacking_shares(np.log([[0.9, 0.1], [0.2, 0.8]]), np.array([2.0, 1.0])).round(2)
        array([0.85, 0.15])
    """
    density = np.exp(log_prob - log_prob.max(1, keepdims=True))
    shares = np.full(density.shape[1], 1 / density.shape[1])
    for _ in range(ROUNDS):
        parts = shares * density
        shares = np.average(parts / parts.sum(1, keepdims=True), axis=0, weights=weights)
    return shares


def _stacked(
    models: list[GaussianMixture], shares: Matrix, rows: WeightedRows, device: torch.device
) -> MixtureBase:
    """The mixtures fitted to the rows, as one: a mixture of mixtures is a mixture."""
    repeated = rows.repeated()
    bases = [mixture_base(clone(model).fit(repeated), torch.float64, device) for model in models]
    weights = [float(share) * base.weights for share, base in zip(shares, bases)]
    means, factors = ([getattr(base, part) for base in bases] for part in ("means", "factors"))
    return MixtureBase(torch.cat(weights), torch.cat(means), torch.cat(factors))
