"""The scikit-learn face of a flow."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_consistent_length, check_is_fitted, validate_data

from cnf.flows import CNF
from cnf.training.fit import FEWEST_ROWS, fit
from cnf.training.start import fresh_flow


class CNFDensity(DensityMixin, BaseEstimator):
    """A continuous normalizing flow as a scikit-learn density estimator: fit, score_samples, score, sample.

    It goes into pipelines, searches and cross-validation as any estimator does; scores are in nats per row
    and in the units of X, computed in float64.

    Args:
        steps: budget of the fit in updates; None grows with the rows.
        seconds: budget in seconds instead.
        hidden: widths of the two hidden layers; None chooses by rows and columns.
        random_state: seed of the first weights and of the fit: an int, a RandomState, or None for numpy's.

    Attributes:
        flow_: the fitted `cnf.CNF`, in float32.
        history_: the course of the fit, a `cnf.History`.
        n_features_in_: number of columns.
        feature_names_in_: their names, where X had any.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> density = CNFDensity(steps=20, hidden=(8, 8), random_state=0).fit(X)
        >>> density.score_samples(X).shape, density.sample(5).shape
        ((200,), (5, 2))
    """

    def __init__(
        self,
        *,
        steps: int | None = None,
        seconds: float | None = None,
        hidden: tuple[int, int] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.steps = steps
        self.seconds = seconds
        self.hidden = hidden
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> CNFDensity:
        """Fit the density to rows X (rows, columns), weighted by sample_weight (rows,); y is not used.

        Raises:
            ValueError: for fewer than 10 rows, numbers that are not finite, columns that are constant or
                linearly dependent, or weights that are negative, all zero or of another length.
        """
        X = validate_data(self, X, dtype=np.float64, order="C", ensure_min_samples=FEWEST_ROWS)
        if sample_weight is not None:
            sample_weight = check_array(sample_weight, dtype=np.float64, ensure_2d=False)
            check_consistent_length(X, sample_weight)
            if not sample_weight.any():
                raise ValueError("sample_weight: expected a weight above zero; all are zero")
        seed = _seed(self.random_state)
        self.flow_ = fresh_flow(*X.shape, hidden=self.hidden, seed=seed)
        rows = torch.tensor(X)
        self.history_ = fit(
            self.flow_, rows, weights=sample_weight, seed=seed, steps=self.steps, seconds=self.seconds
        )
        return self

    def score_samples(self, X: ArrayLike) -> np.ndarray:
        """Log-density (rows,) of every row of X (rows, columns), in nats."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, order="C", reset=False)
        with torch.no_grad():
            return self._exact_flow().log_prob(torch.tensor(X)).numpy()

    def score(self, X: ArrayLike, y: Any = None) -> float:
        """Mean log-density of the rows of X (rows, columns), in nats; y is not used."""
        return float(self.score_samples(X).mean())

    def sample(
        self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None
    ) -> np.ndarray:
        """Draw rows (n_samples, columns) from the fitted density; random_state seeds the draws."""
        check_is_fitted(self)
        generator = torch.Generator().manual_seed(_seed(random_state))
        with torch.no_grad():
            return self._exact_flow().sample((n_samples,), generator=generator).numpy()

    def _exact_flow(self) -> CNF:
        """The flow in float64."""
        return copy.deepcopy(self.flow_).double()


def _seed(random_state: int | np.random.RandomState | None) -> int:
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
