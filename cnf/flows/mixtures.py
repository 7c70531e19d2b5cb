"""Gaussian mixtures fitted to rows by scikit-learn, and as bases."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from cnf.flows.bases import MixtureBase

# In units of model coordinates: keeps a component from collapsing onto a few rows.
SMALLEST_VARIANCE = 1e-5


def fitted_mixture(
    rows: np.ndarray,
    components: int,
    *,
    seed: int,
    iterations: int,
    smallest: float = SMALLEST_VARIANCE,
    tolerance: float = 1e-3,
) -> GaussianMixture:
    """A Gaussian mixture of rows (n, dim), by expectation-maximization.

    A mixture that has not converged after `iterations` is returned all the same: held-out rows
    judge it like any other.

    Args:
        rows: to learn from, (n, dim).
        components: how many Gaussians.
        seed: of the start, by k-means++.
        iterations: at most.
        smallest: is added to all variances.
        tolerance: gain of the mean log-likelihood, in nats, below which the iterations end.

    Raises:
        ValueError: where rows are so far apart that the widths of a Gaussian overflow.
    """
    model = GaussianMixture(
        components,
        reg_covar=smallest,
        max_iter=iterations,
        tol=tolerance,
        init_params="k-means++",
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(rows)


def mixture_base(model: GaussianMixture, dtype: torch.dtype, device: torch.device) -> MixtureBase:
    """A fitted mixture of full or diagonal covariances as a base of this dtype on this device."""
    covariances = model.covariances_.astype(np.float64)
    if model.covariance_type == "diag":
        covariances = covariances[:, :, None] * np.eye(covariances.shape[1])
    parts = (model.weights_, model.means_, np.linalg.cholesky(covariances))
    return MixtureBase(*(torch.as_tensor(part, dtype=dtype, device=device) for part in parts))
