"""Gaussian mixtures fitted by expectation-maximization, and their form as bases."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from cnf.flows import MixtureBase
from cnf.recipe.defaults import MIXTURE_ROWS, MIXTURE_VARIANCE

DEFAULT_ITERATIONS = 100  # scikit-learn's


def fitted_mixture(
    rows: NDArray[np.floating],
    components: int,
    *,
    seed: int,
    iterations: int = DEFAULT_ITERATIONS,
    smallest: float = MIXTURE_VARIANCE,
    shape: str = "full",
    init: str = "k-means++",
    starts: int = 1,
    tolerance: float = 1e-3,
) -> GaussianMixture:
    """A mixture fitted to rows (n, dim), converged or not: held-out rows judge it.

    Args:
        rows: to learn from.
        components: number of Gaussians.
        seed: of the start.
        iterations: at most.
        smallest: added to the variances.
        shape: "full" or "diag" covariances.
        init: how the start is found, a word of scikit-learn's.
        starts: number of starts; the best is kept.
        tolerance: gain of the likelihood at which it has converged.

    Raises:
        ValueError: where rows are so far apart that float64 cannot hold a covariance.
    """
    model = GaussianMixture(
        components, covariance_type=shape, tol=tolerance, reg_covar=smallest,
        max_iter=iterations, n_init=starts, init_params=init, random_state=seed,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(rows)


def mixture_base(model: GaussianMixture, dtype: torch.dtype, device: torch.device) -> MixtureBase:
    """A fitted mixture as a base of this dtype on this device."""
    covariances = model.covariances_.astype(np.float64)
    if model.covariance_type == "diag":
        covariances = covariances[:, :, None] * np.eye(covariances.shape[1])
    parts = (model.weights_, model.means_, np.linalg.cholesky(covariances))
    return MixtureBase(*(torch.as_tensor(part, dtype=dtype, device=device) for part in parts))


def rows_for_mixture(y: Tensor, weights: Tensor | None, seed: int) -> NDArray[np.float32]:
    """Rows for a mixture, which takes no weights: some of many, each as often as its weight says,
    in single precision."""
    rows, count = y.float().numpy(force=True), min(len(y), MIXTURE_ROWS)
    if weights is not None:
        return rows[systematic(weights.double().numpy(force=True), count)]
    if len(rows) == count:
        return rows
    return rows[np.random.default_rng(seed).choice(len(rows), count, replace=False)]


def systematic(weights: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Places (count,) of rows, each as often as its weight (rows,) says, but for less than one.

    Example:
        >>> systematic(np.array([1.0, 2.0, 1.0]), 4), systematic(np.ones(4), 2)
        (array([0, 1, 1, 2]), array([0, 2]))
    """
    ends = np.cumsum(weights) / np.sum(weights)
    return np.searchsorted(ends, (np.arange(count) + 0.5) / count).clip(max=len(weights) - 1)
