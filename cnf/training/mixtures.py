"""The Gaussian mixture that a flow has to beat, and falls back on where it does not."""

from __future__ import annotations

import time
import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from cnf.flows import MixtureBase

COMPONENTS = (2, 5, 10, 20, 40, 80)
MOST_ROWS = 20_000
ROWS_A_COMPONENT = 25
# In standardised units: keeps a component from collapsing onto a few rows.
SMALLEST_VARIANCE = 1e-4


def best_mixture(
    y: Tensor, valid: Tensor, *, weights: Tensor | None, seed: int, most: int, seconds: float | None
) -> MixtureBase | None:
    """The mixture with the number of components that held-out rows like best; None where rows are too few.

    Args:
        y: rows to learn from, in model coordinates.
        valid: rows to judge by.
        weights: of the rows of y.
        seed: of the start of expectation-maximisation, and of the rows taken where there are many.
        most: components to try at most.
        seconds: no further mixture is tried after this time; None for no limit.
    """
    start = time.perf_counter()
    rows = _chosen(y, weights, seed)
    held_out = valid.double().cpu().numpy()
    best: tuple[GaussianMixture, float] | None = None
    for components in COMPONENTS:
        late = seconds is not None and time.perf_counter() - start > seconds
        if late or components > min(most, len(rows) // ROWS_A_COMPONENT):
            break
        model = GaussianMixture(
            components, reg_covar=SMALLEST_VARIANCE, max_iter=60, init_params="k-means++", random_state=seed
        )
        with warnings.catch_warnings():
            # A mixture that has not converged is judged by held-out rows like any other.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(rows)
        nll = -model.score(held_out)
        if best is not None and nll > best[1]:
            break
        best = model, nll
    return None if best is None else _as_base(best[0], y)


def _chosen(y: Tensor, weights: Tensor | None, seed: int) -> np.ndarray:
    """At most `MOST_ROWS` rows, drawn by their weights where they have any."""
    rows, random = y.double().cpu().numpy(), np.random.default_rng(seed)
    if weights is not None:
        share = weights.double().cpu().numpy()
        return rows[random.choice(len(rows), min(len(rows), MOST_ROWS), p=share / share.sum())]
    return rows if len(rows) <= MOST_ROWS else rows[random.choice(len(rows), MOST_ROWS, replace=False)]


def _as_base(model: GaussianMixture, like: Tensor) -> MixtureBase:
    parts = (model.weights_, model.means_, np.linalg.cholesky(model.covariances_))
    return MixtureBase(*(torch.as_tensor(part, dtype=like.dtype, device=like.device) for part in parts))
