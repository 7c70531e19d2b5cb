"""Gaussian mixtures stacked by cross-validation, for few rows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import KFold
from torch import Tensor

import cnf.recipe.defaults as defaults
from cnf.flows import CNF, MixtureBase
from cnf.flows.mixtures import fitted_mixture, mixture_base
from cnf.recipe.gaussian_mixtures import systematic
from cnf.rows import Rows, weighted_nll
from cnf.training.config import Clock
from cnf.training.validation import exact, fill_unsolved_with_worst
from cnf.transforms import Transform

Matrix = NDArray[np.float64]


class Stack:
    """Stacked mixtures of the training rows, combined into one, with their score on held-out rows.

    The weight of each mixture is found by cross-validation on the training rows. A tenth of few rows is
    too small a sample for a choice, and the best of many similar mixtures depends on the folds and the
    starts as much as on the number of components (Smyth and Wolpert 1999).

    Args:
        transform: map to the coordinates in which the mixtures are fitted. A diagonal covariance fits
            better along the columns themselves than along the axes of a whitening.
        train: training rows.
        valid: held-out rows.
        seed: seed of folds and starts.
        seconds: time for the folds; None for no limit.
        clock: function that returns seconds.

    Attributes:
        nll: NLL of the held-out rows and its standard error, in nats per row, in the data's units.
    """

    @torch.no_grad()
    def __init__(
        self,
        transform: Transform,
        train: Rows,
        valid: Rows,
        *,
        seed: int,
        seconds: float | None,
        clock: Clock = time.perf_counter,
    ) -> None:
        self.transform, self.valid, self.device = transform, valid, train.x.device
        (y, _), (held_out, ladj) = (transform(rows.x) for rows in (train, valid))
        self.rows, self.judges = (
            WeightedRows.of(y, train.weights),
            WeightedRows.of(held_out, valid.weights),
        )
        self.models, self.shares = _chosen(self.rows, seed, seconds, clock)
        self.mixture = _stacked(self.models, self.shares, self.rows, self.device)
        self.log_prob = self.mixture.to(held_out).log_prob(held_out) + ladj
        self.nll = weighted_nll(self.log_prob, valid.weights)

    @torch.no_grad()
    def is_led_by(self, flow: CNF) -> bool:
        """Whether the flow is significantly better on the held-out rows; one row does not suffice."""
        found = fill_unsolved_with_worst(exact(flow).log_prob(self.valid.x))
        behind, error = weighted_nll(found - self.log_prob, self.valid.weights)
        return len(self.valid) > 1 and -behind > defaults.STACKING_ERRORS * error

    def of_all_rows(self) -> MixtureBase:
        """The same mixtures, refitted to training and held-out rows once these have scored them."""
        everything = WeightedRows(*(np.concatenate(both) for both in zip(self.rows, self.judges)))
        return _stacked(self.models, self.shares, everything, self.device)


class WeightedRows(NamedTuple):
    """Rows (rows, dim) and their weights (rows,)."""

    y: Matrix
    weights: Matrix

    @classmethod
    def of(cls, y: Tensor, weights: Tensor | None) -> WeightedRows:
        """The tensors as arrays, with unit weights by default."""
        weights = y.new_ones(len(y)) if weights is None else weights
        return cls(*(part.double().numpy(force=True) for part in (y, weights)))

    def take(self, places: NDArray[np.int64]) -> WeightedRows:
        """The rows at `places`."""
        return WeightedRows(self.y[places], self.weights[places])

    def repeated(self) -> Matrix:
        """The rows, repeated in proportion to their weights, since mixture fits take no weights."""
        draws = min(
            round(self.weights.sum() / self.weights.min()), defaults.MOST_REPEATS * len(self.y)
        )
        return self.y[systematic(self.weights, draws)]


@dataclass(frozen=True)
class MixtureModel:
    """The specification of a mixture to fit."""

    components: int
    shape: str
    seed: int

    def fit(self, rows: WeightedRows) -> GaussianMixture:
        """Fit the mixture to rows."""
        return fitted_mixture(
            rows.repeated(), self.components, shape=self.shape, seed=self.seed, init="kmeans",
            starts=defaults.STACKING_STARTS, smallest=defaults.STACKING_VARIANCE,
        )  # fmt: skip


def _chosen(
    rows: WeightedRows, seed: int, seconds: float | None, clock: Clock
) -> tuple[list[MixtureModel], Matrix]:
    """Mixtures with a growing number of components, as long as time allows, and the stacking weight of
    each."""
    start, models, scores = clock(), [], []
    before = start
    for some in _candidates(len(rows.y) - len(rows.y) // defaults.STACKING_FOLDS, seed):
        models += some
        scores += [_out_of_fold(model, rows, seed) for model in some]
        now = clock()
        if seconds is not None and 2 * now - before - start > seconds:  # the next takes as long
            break
        before = now
    shares = stacking_shares(np.stack(scores, 1), rows.weights)
    kept = shares >= defaults.SMALLEST_SHARE
    return [model for model, keep in zip(models, kept) if keep], shares[kept]


def _candidates(rows: int, seed: int) -> Iterator[list[MixtureModel]]:
    """Mixtures of every shape, with more and more components."""
    for components in defaults.STACKING_COMPONENTS:
        if components == 1 or components * defaults.STACKING_ROWS_A_COMPONENT <= rows:
            yield [MixtureModel(components, shape, seed) for shape in defaults.STACKING_SHAPES]


def _out_of_fold(model: MixtureModel, rows: WeightedRows, seed: int) -> Matrix:
    """The log-density (rows,) of every row under the mixture fitted without its fold."""
    found = np.empty(len(rows.y))
    folds = KFold(defaults.STACKING_FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(rows.y):
        found[test] = model.fit(rows.take(train)).score_samples(rows.y[test])
    return found


def stacking_shares(log_prob: Matrix, weights: Matrix) -> Matrix:
    """Stacking weights w (models,) from out-of-fold log-densities (rows, models). They maximize
    Σᵢ log Σₖ wₖ pₖ(xᵢ), in which each row counts by its weight (rows,).

    Example:
        >>> stacking_shares(np.log([[0.9, 0.1], [0.2, 0.8]]), np.array([2.0, 1.0])).round(2)
        array([0.85, 0.15])
    """
    density = np.exp(log_prob - log_prob.max(1, keepdims=True))
    shares = np.full(density.shape[1], 1 / density.shape[1])
    for _ in range(defaults.STACKING_ROUNDS):
        parts = shares * density
        shares = np.average(parts / parts.sum(1, keepdims=True), axis=0, weights=weights)
    return shares


def _stacked(
    models: list[MixtureModel], shares: Matrix, rows: WeightedRows, device: torch.device
) -> MixtureBase:
    """Fit the mixtures to the rows, and combine them: a mixture of mixtures is a mixture."""
    bases = [mixture_base(model.fit(rows), torch.float64, device) for model in models]
    weights = [float(share) * base.weights for share, base in zip(shares, bases)]
    means, factors = ([getattr(base, part) for base in bases] for part in ("means", "factors"))
    return MixtureBase(torch.cat(weights), torch.cat(means), torch.cat(factors))
