"""Covariances of rows with absent cells."""

from __future__ import annotations

import torch
from torch import Tensor

# Of the correlation's eigenvalues: directions narrower than this are not stretched further.
SMALLEST_EIGENVALUE = 1e-6


def covariance_by_pairs(rest: Tensor, mass: Tensor, weights: Tensor) -> Tensor:
    """Variances of the columns, and the correlation of each pair in the rows that have both."""
    weighed = weights[:, None] * mass
    pairs = (weighed.T @ mass).clamp(min=1e-9)
    squares = (weights[:, None] * rest.square()).T @ mass
    correlation = (
        (weights[:, None] * rest).T @ rest / (squares * squares.T).clamp(min=1e-300).sqrt()
    )
    deviation = (squares / pairs).diagonal().sqrt()
    return sound_covariance(deviation[:, None] * correlation * deviation)


def sound_covariance(covariance: Tensor) -> Tensor:
    """The covariance with no direction narrower than a floor. One put together by pairs may have
    negative eigenvalues, which say how wrong it is: no smaller one is believed then."""
    deviation = covariance.diagonal().clamp(min=1e-12).sqrt()
    eigenvalues, vectors = torch.linalg.eigh(covariance / deviation / deviation[:, None])
    floor = (-eigenvalues.min()).clamp(min=SMALLEST_EIGENVALUE)
    floored = (vectors * eigenvalues.clamp(min=floor)) @ vectors.T
    return deviation[:, None] * floored * deviation
