"""Covariances of rows with absent cells."""

from __future__ import annotations

import torch
from torch import Tensor

# Of the correlation's eigenvalues: directions narrower than this are not stretched further.
SMALLEST_EIGENVALUE = 1e-6
# With fewer rows for each column, correlations shrink by one of these shares.
ROWS_A_COLUMN, SHRINKAGES = 10, (0.0, 0.01, 0.03, 0.06, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)


def covariance_by_pairs(rest: Tensor, mass: Tensor, weights: Tensor) -> Tensor:
    """Variances of the columns, and the correlation of each pair in the rows that have both, shrunk
    where rows are few."""
    weighed = weights[:, None] * mass
    pairs = (weighed.T @ mass).clamp(min=1e-9)
    squares = (weights[:, None] * rest.square()).T @ mass
    correlation = (
        (weights[:, None] * rest).T @ rest / (squares * squares.T).clamp(min=1e-300).sqrt()
    )
    deviation = (squares / pairs).diagonal().sqrt()
    if len(rest) < ROWS_A_COLUMN * rest.shape[1]:
        z = rest / deviation.clamp(min=1e-12)
        eigenvalues, vectors = torch.linalg.eigh(correlation)
        share = shrinkage(eigenvalues, vectors, z, weights)
        correlation = (1 - share) * correlation + share * torch.eye(len(correlation)).to(z)
    return sound_covariance(deviation[:, None] * correlation * deviation)


def sound_covariance(covariance: Tensor) -> Tensor:
    """The covariance with no direction narrower than a floor. One put together by pairs may have
    negative eigenvalues, which say how wrong it is: no smaller one is believed then."""
    deviation = covariance.diagonal().clamp(min=1e-12).sqrt()
    eigenvalues, vectors = torch.linalg.eigh(covariance / deviation / deviation[:, None])
    floor = (-eigenvalues.min()).clamp(min=SMALLEST_EIGENVALUE)
    floored = (vectors * eigenvalues.clamp(min=floor)) @ vectors.T
    return deviation[:, None] * floored * deviation


def shrinkage(
    eigenvalues: Tensor, vectors: Tensor, z: Tensor, weights: Tensor | None = None
) -> float:
    """The share λ of (1 − λ) R + λ I that the leave-one-out likelihood of a Gaussian prefers.

    Without row i the covariance is Σ − β zᵢ zᵢᵀ, so that one decomposition of the correlation R serves
    all rows and shares (Hoffbeck & Landgrebe 1996).

    Args:
        eigenvalues: of R (columns,).
        vectors: of R (columns, columns).
        z: the rows in deviations from their mean (rows, columns), zero where absent.
        weights: of the rows (rows,); None for equal ones.

    Example:
        >>> z = torch.randn(40, 30, generator=torch.Generator().manual_seed(0)).double()
        >>> shrinkage(*torch.linalg.eigh(z.T.corrcoef()), z)
        1.0
    """
    squares, one = (z @ vectors).square(), 1 / len(z)
    share = z.new_full((len(z),), one) if weights is None else weights / weights.sum()
    found = []
    for each in SHRINKAGES:
        kept = (1 - each) / (1 - one)
        scales = (kept * eigenvalues + each).clamp(min=SMALLEST_EIGENVALUE)
        distance = (squares / scales).sum(1)
        left = (1 - kept * one * distance).clamp(min=SMALLEST_EIGENVALUE)
        found.append(share @ (left.log() + distance / left) + scales.log().sum())
    return SHRINKAGES[int(torch.stack(found).argmin())]
