"""Gaussian mixtures fitted by scikit-learn, and their use as bases."""

from __future__ import annotations

import warnings
from pkgutil import resolve_name
from typing import TYPE_CHECKING

import numpy as np
import torch

from cnf.flows.bases import MixtureBase

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

# In units of model coordinates: keeps a component from collapsing onto a few rows.
SMALLEST_VARIANCE = 1e-5


def fitted_mixture(
    rows: np.ndarray,
    components: int,
    *,
    seed: int,
    iterations: int = 100,
    smallest: float = SMALLEST_VARIANCE,
    shape: str = "full",
    init: str = "k-means++",
    starts: int = 1,
    tolerance: float = 1e-3,
) -> GaussianMixture:
    """A mixture fitted to rows (n, dim); it need not converge, because held-out rows decide on it.

    Args:
        rows: training rows.
        components: number of Gaussians.
        seed: of the start.
        iterations: largest number of iterations.
        smallest: added to the variances.
        shape: "full" or "diag" covariances.
        init: method of initialization, in the terms of scikit-learn.
        starts: number of starts; the best is kept.
        tolerance: gain of the likelihood at convergence.

    Raises:
        ValueError: where rows are so far apart that float64 cannot hold a covariance.
    """
    # scikit-learn is slow to load, and a model that is only scored needs none of it.
    model = resolve_name("sklearn.mixture:GaussianMixture")(
        components, covariance_type=shape, tol=tolerance, reg_covar=smallest,
        max_iter=iterations, n_init=starts, init_params=init, random_state=seed,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", resolve_name("sklearn.exceptions:ConvergenceWarning"))
        fitted: GaussianMixture = model.fit(rows)
        return fitted


def mixture_base(model: GaussianMixture, dtype: torch.dtype, device: torch.device) -> MixtureBase:
    """A fitted mixture of full or diagonal covariances as a base of this dtype on this device."""
    covariances = model.covariances_.astype(np.float64)
    if model.covariance_type == "diag":
        covariances = covariances[:, :, None] * np.eye(covariances.shape[1])
    parts = (model.weights_, model.means_, np.linalg.cholesky(covariances))
    return MixtureBase(*(torch.as_tensor(part, dtype=dtype, device=device) for part in parts))
