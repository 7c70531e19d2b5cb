"""A Gaussian with a mean that is linear in the context, as a baseline for flows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cnf.rows import Rows

SMALLEST_RESIDUAL = 1e-6  # in standardized units: columns may depend on each other


@dataclass(frozen=True)
class LinearGaussian:
    """p(x | c) = N(x; B (1, c), L Lᵀ).

    Attributes:
        mean: of the context (context_dim,); empty without one.
        scale: standard deviation of the context (context_dim,).
        slope: B, for the standardized context (1 + context_dim, dim).
        factor: L, lower triangular (dim, dim).

    Example:
        >>> x = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0)).double()
        >>> fitted = LinearGaussian.fit(Rows(3 + 2 * x))
        >>> fitted.slope.round(), fitted.log_prob(Rows(x[:5])).shape
        (tensor([[3., 3.]], dtype=torch.float64), torch.Size([5]))
    """

    mean: Tensor
    scale: Tensor
    slope: Tensor
    factor: Tensor

    @classmethod
    def fit(cls, rows: Rows) -> LinearGaussian:
        """The maximum-likelihood estimate, by weighted least squares."""
        x = rows.x.double()
        weights = x.new_ones(len(x)) if rows.weights is None else rows.weights.double()
        share = (weights / weights.sum())[:, None]
        context = _context(rows)
        mean = (share * context).sum(0)
        scale = _deviation(context - mean, share)
        regressors = _with_ones((context - mean) / scale)
        root = share.sqrt()
        # The pseudo-inverse takes context columns that depend on each other, as indicators do.
        slope = torch.linalg.pinv(root * regressors) @ (root * x)
        rest = x - regressors @ slope
        width = _deviation(rest, share)
        y = rest / width
        correlation = (share * y).T @ y
        unit = torch.eye(len(width), dtype=y.dtype, device=y.device)
        factor = torch.linalg.cholesky(correlation + SMALLEST_RESIDUAL * unit)
        return cls(mean, scale, slope, width[:, None] * factor)

    def log_prob(self, rows: Rows) -> Tensor:
        """Log-density (rows,) of rows given their context, in nats."""
        regressors = _with_ones((_context(rows) - self.mean) / self.scale)
        rest = rows.x.double() - regressors @ self.slope
        z = torch.linalg.solve_triangular(self.factor, rest.T, upper=False)
        volume = self.factor.diagonal().log().sum()
        constant = 0.5 * len(self.factor) * math.log(2 * math.pi)
        return -0.5 * z.square().sum(0) - volume - constant


def _context(rows: Rows) -> Tensor:
    """The context (rows, context_dim) in float64; no columns where there is none."""
    return (
        rows.x.new_zeros(len(rows), 0).double() if rows.context is None else rows.context.double()
    )


def _with_ones(context: Tensor) -> Tensor:
    return torch.cat((context.new_ones(len(context), 1), context), 1)


def _deviation(x: Tensor, share: Tensor) -> Tensor:
    """Standard deviations of columns with mean 0; 1 for a constant column."""
    deviation = (share * x.square()).sum(0).sqrt()
    return deviation.where(deviation > 0, 1.0)
