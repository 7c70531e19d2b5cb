"""The Gaussian that a flow over typed columns starts from: a mean by features, one covariance."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cnf.tables.patterns import by_pattern

# One row's worth of pull towards zero keeps the slopes of rare categories small.
RIDGE = 1.0
# Of the correlation's eigenvalues: directions narrower than this are not stretched further.
SMALLEST_EIGENVALUE = 1e-6


class Whitener(NamedTuple):
    """Of one pattern: z = W (r_free − G r_given) for the free columns, with log |det W|."""

    free: Tensor
    given: Tensor
    matrix: Tensor
    gain: Tensor
    log_det: Tensor


class Whitening(nn.Module):
    """z = W (y − E[y | features, given columns]), by the Gaussian y | features ~ N(B · features, Σ).

    Every row has its own pattern: some columns free, some given, the rest absent. With the conditional
    covariance C of the free columns given the given ones, in standard deviations S and correlation P,
    W = P^(−½) S⁻¹ (as `Affine.whiten`). So where columns are jointly Gaussian, z is standard normal for every
    pattern, and the flow has nothing left to do. All numbers are float64.

    Args:
        dim: number of columns of y.
        features: number of columns that the mean is linear in.

    Example:
        >>> y = torch.randn(500, 2).double() @ torch.tensor([[1.0, 0.9], [0.0, 0.1]]).double()
        >>> whitening = Whitening(2, 0)
        >>> whitening.fit(y, torch.ones(500, 2, dtype=torch.bool), y[:, :0], torch.ones(500).double())
        >>> z, log_det = whitening.to_model(y, torch.ones(500, 2, dtype=torch.bool), y[:, :0])
        >>> bool((z.T.cov() - torch.eye(2)).abs().max() < 0.01)
        True
    """

    def __init__(self, dim: int, features: int) -> None:
        super().__init__()
        self.register_buffer("slopes", torch.zeros(dim, 1 + features, dtype=torch.float64))
        self.register_buffer("covariance", torch.eye(dim, dtype=torch.float64))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Whitening:  # noqa: FBT001, FBT002
        """Moves to another device with the module; its numbers stay float64."""
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)

    @torch.no_grad()
    def fit(self, y: Tensor, present: Tensor, features: Tensor, weights: Tensor) -> None:
        """Mean and covariance from the present cells of rows y (rows, dim), by column and by pair."""
        x = _with_one(features)
        pull = RIDGE * torch.eye(x.shape[1], dtype=y.dtype, device=y.device)
        pull[0, 0] = 1e-9  # the level itself is free
        for j in range(y.shape[1]):
            mass = weights * present[:, j]
            target = y[:, j].where(present[:, j], 0.0)
            self.slopes[j] = torch.linalg.solve(
                (mass[:, None] * x).T @ x + pull, (mass[:, None] * x).T @ target
            )
        rest = (y - x @ self.slopes.T).where(present, 0.0)
        mass = present.to(y.dtype)
        pairs = (weights[:, None] * mass).T @ mass
        products = (weights[:, None] * rest).T @ rest
        self.covariance = _sound(products / pairs.clamp(min=1.0))

    def to_model(
        self, y: Tensor, free: Tensor, features: Tensor, given: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Coordinates z (rows, dim), zero where not free, and the log-Jacobian (rows,)."""
        rest = y - self._mean(features)
        z, log_det = torch.zeros_like(y), y.new_zeros(len(y))
        for whitener, rows in self._whiteners(free, given):
            centred = _pick(rest, rows, whitener.free) - _pick(rest, rows, whitener.given) @ whitener.gain.T
            z[rows[:, None], whitener.free] = centred @ whitener.matrix.T
            log_det[rows] = whitener.log_det
        return z, log_det

    def to_data(
        self, z: Tensor, y: Tensor, free: Tensor, features: Tensor, given: Tensor | None = None
    ) -> Tensor:
        """y (rows, dim) with its free columns put where z is; the others stay as they are."""
        mean = self._mean(features)
        rest = y - mean
        y = y.clone()
        for whitener, rows in self._whiteners(free, given):
            inverse = torch.linalg.inv(whitener.matrix)
            centred = _pick(z, rows, whitener.free) @ inverse.T
            centred = centred + _pick(rest, rows, whitener.given) @ whitener.gain.T
            y[rows[:, None], whitener.free] = centred + _pick(mean, rows, whitener.free)
        return y

    def _mean(self, features: Tensor) -> Tensor:
        return _with_one(features) @ self.slopes.T

    def _whiteners(self, free: Tensor, given: Tensor | None) -> list[tuple[Whitener, Tensor]]:
        both = torch.cat((free, torch.zeros_like(free) if given is None else given), 1)
        return [(self._whitener(*pattern.chunk(2)), rows) for pattern, rows in by_pattern(both)]

    def _whitener(self, free: Tensor, given: Tensor) -> Whitener:
        free, given = (mask.nonzero().squeeze(1) for mask in (free, given))
        crossed = self.covariance[free][:, given]
        gain = torch.linalg.solve(self.covariance[given][:, given], crossed.T).T
        conditional = self.covariance[free][:, free] - gain @ crossed.T
        deviation = conditional.diagonal().sqrt()
        eigenvalues, vectors = torch.linalg.eigh(conditional / deviation / deviation[:, None])
        root = (vectors * eigenvalues.clamp(min=1e-12).rsqrt()) @ vectors.T
        log_det = -0.5 * eigenvalues.clamp(min=1e-12).log().sum() - deviation.log().sum()
        return Whitener(free, given, root / deviation, gain, log_det)


def _pick(values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return values[rows[:, None], columns]


def _with_one(features: Tensor) -> Tensor:
    return torch.cat((features.new_ones(len(features), 1), features), 1)


def _sound(covariance: Tensor) -> Tensor:
    """The covariance with no direction narrower than a floor: one put together by pairs may have some."""
    deviation = covariance.diagonal().clamp(min=1e-12).sqrt()
    eigenvalues, vectors = torch.linalg.eigh(covariance / deviation / deviation[:, None])
    floored = (vectors * eigenvalues.clamp(min=SMALLEST_EIGENVALUE)) @ vectors.T
    return deviation[:, None] * floored * deviation
