"""Gaussian mixtures that grow by doubling, the fastest initial density of rows.

Every Gaussian is split in two along its longest axis. A pass of stepwise
expectation-maximization over the rows (Cappé & Moulines 2009) then refines them; few rows get a few
passes. All doublings together cost two passes of the largest mixture, while a fit from random
centers takes tens of passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from cnf.flows import MixtureBase
from cnf.recipe.defaults import MIXTURE_ROWS_A_COMPONENT

BATCH, FEWEST_STEPS = 2_000, 12  # rows per step, and steps per doubling
# The t-th step of a pass discounts earlier statistics by the fraction (t + 1)^−DECAY.
DECAY = 0.6
OFFSET = 0.8  # distance of a half from the center, in deviations along the longest axis
SMALLEST_VARIANCE = 1e-4  # in model coordinates; added to the variances
# The covariance of half a Gaussian is shrunk to that of the whole by this many pseudo-rows per column.
PRIOR_ROWS_A_COLUMN = 2.0
DOUBLED_COST = 2.2  # cost of a mixture relative to one of half its size
MOST_NUMBERS = 2**14  # Gaussians times columns
# Rows times Gaussians times columns of a block: a larger one does not fit the processor's cache.
CACHED_NUMBERS = 2**17
FEWEST = 1e-12  # lower limit of a Gaussian's share of the rows, since moments are divided by it


@dataclass(frozen=True)
class Gaussians:
    """A mixture during its fit; the fields are in float64.

    Attributes:
        weights: weights of the Gaussians (components,); they sum to one.
        means: means of the Gaussians (components, dim).
        covariances: covariances of the rows alone (components, dim, dim).
        prior: covariances to which these are shrunk (components, dim, dim).
        pull: pseudo-rows of the prior, as a fraction of all rows.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor
    prior: Tensor
    pull: float

    @classmethod
    def of(cls, rows: Tensor) -> Gaussians:
        """One Gaussian with the moments of rows (rows, dim)."""
        x = rows.double()
        centered = x - x.mean(0)
        covariance = (centered.T @ centered / len(x))[None]
        pull = PRIOR_ROWS_A_COLUMN * x.shape[1] / len(x)
        return cls(x.new_ones(1), x.mean(0)[None], covariance, covariance, pull)

    @cached_property
    def pulled(self) -> Tensor:
        """The covariances after shrinkage."""
        share = (self.weights / (self.weights + self.pull))[:, None, None]
        return self.prior.lerp(self.covariances, share)

    @cached_property
    def factors(self) -> Tensor:
        """Cholesky factors L of the covariances LLᵀ (components, dim, dim)."""
        floor = SMALLEST_VARIANCE * torch.eye(self.means.shape[1], dtype=torch.float64)
        return torch.linalg.cholesky(self.pulled + floor)

    def doubled(self) -> Gaussians:
        """Split each Gaussian in two; the mean and the covariance of the pair stay unchanged."""
        variances, axes = torch.linalg.eigh(self.pulled)
        step = OFFSET * variances[:, -1:].clamp(min=0).sqrt() * axes[..., -1]
        halves = (self.pulled - step[..., None] * step[:, None]).repeat(2, 1, 1)
        means = torch.cat((self.means + step, self.means - step))
        return Gaussians(self.weights.repeat(2) / 2, means, halves, halves, self.pull)

    def after(self, rows: Tensor, rate: float) -> Gaussians:
        """One step of expectation-maximization: rows (rows, dim) in single precision contribute the
        fraction `rate` to the statistics, and earlier rows the rest."""
        seen, moved, spread = self.moments(rows)
        weights = self.weights.lerp(seen, rate)
        rates = (rate * seen / weights.clamp(min=FEWEST))[:, None]
        step = rates * (self.factors @ moved[..., None])[..., 0]
        spread = self.factors @ spread @ self.factors.mT
        covariances = self.covariances.lerp(spread, rates[..., None])
        covariances = covariances - step[..., None] * step[:, None]
        return replace(
            self, weights=weights / weights.sum(), means=self.means + step, covariances=covariances
        )

    def moments(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Moments of rows (rows, dim) under the responsibilities of the Gaussians: the share of each
        Gaussian (components,), and the mean (components, dim) and the second moment (components, dim,
        dim) of L⁻¹(x − μ).

        In these standardized coordinates, no Gaussian is too narrow for single precision.
        """
        inverse = torch.linalg.inv(self.factors)
        scale, shift = inverse.float().flatten(0, 1), (inverse @ self.means[..., None]).float()
        volume = self.factors.diagonal(dim1=1, dim2=2).log().sum(1)
        height = (self.weights.log() - volume).float()[:, None]
        sums = [
            torch.zeros(shape) for shape in (len(self.weights), shift.shape[:2], inverse.shape)
        ]
        for some in rows.split(max(CACHED_NUMBERS // len(scale), 1)):
            off = (scale @ some.T).unflatten(0, self.means.shape) - shift
            share = (height - off.square().sum(1) / 2).softmax(0)
            shared = share[:, None] * off
            for total, part in zip(sums, (share.sum(1), shared.sum(2), shared @ off.mT)):
                total += part
        seen, moved, spread = (total.double() / len(rows) for total in sums)
        each = seen.clamp(min=FEWEST)[:, None]
        return seen, moved / each, spread / each[..., None]

    def base(self) -> MixtureBase:
        """The mixture as a base in float64."""
        return MixtureBase(self.weights, self.means, self.factors)


def growing_mixtures(
    rows: Tensor, seed: int, *, most: int = MOST_NUMBERS
) -> Iterator[MixtureBase]:
    """Mixtures of 1, 2, 4, … Gaussians of rows, on the CPU and in float64, as many as the rows
    support; none if the rows are too far apart for a covariance.

    Args:
        rows: training rows in model coordinates, in single precision (rows, dim).
        seed: seed of the order of the rows.
        most: largest number of Gaussians.

    Example:
        >>> rows = torch.randn(400, 1, generator=torch.Generator().manual_seed(0))
        >>> [len(mixture.weights) for mixture in growing_mixtures(rows, seed=0)]
        [1, 2, 4, 8, 16]
    """
    generator = torch.Generator().manual_seed(seed)
    most = min(most, len(rows) // MIXTURE_ROWS_A_COMPONENT, MOST_NUMBERS // rows.shape[1])
    try:
        found = Gaussians.of(rows)
        yield found.base()
        while 2 * len(found.weights) <= most:
            found = found.doubled()
            for step, some in enumerate(_parts(len(rows), generator), 1):
                found = found.after(rows[some], (step + 1) ** -DECAY)
            yield found.base()
    except torch.linalg.LinAlgError:  # a covariance that float64 cannot hold
        return


def _parts(rows: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices of the rows of each step of a doubling, with enough passes over the rows for all steps."""
    parts = -(-rows // BATCH)
    for _ in range(-(-FEWEST_STEPS // parts)):
        # There is no short last part, in which a row would count more than elsewhere.
        yield from torch.randperm(rows, generator=generator).tensor_split(parts)
