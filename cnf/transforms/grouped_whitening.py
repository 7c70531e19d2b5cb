"""Whitening with a covariance for each level of a category."""

from __future__ import annotations

import torch
from torch import Tensor

from cnf.functional import identity
from cnf.registry import register
from cnf.transforms.covariances import sound_covariance
from cnf.transforms.whitening import Whitening


@register
class GroupedWhitening(Whitening):
    """`Whitening` whose rows have the covariance of their group, pulled towards the shared one.

    A group g of nᵍ rows with the covariance Sᵍ has Σᵍ = (nᵍ Sᵍ + ν Σ) / (nᵍ + ν), as in the
    regularized discriminant analysis of Friedman (1989). A row of no group has the shared Σ.

    Args:
        dim: number of columns of y.
        features: number of columns that the mean is linear in.
        first: the first of the features that are the groups, one-hot.
        groups: how many groups.
        prior: ν, in rows.

    Example:
        >>> groups = torch.eye(2).double().repeat(200, 1)
        >>> y = torch.randn(400, 1).double() * torch.where(groups[:, :1] > 0, 1.0, 5.0)
        >>> whitening = GroupedWhitening(1, 2, first=0, groups=2, prior=1.0)
        >>> whitening.fit(y, torch.ones(400, 1, dtype=torch.bool), groups, torch.ones(400).double())
        >>> z, _ = whitening(y, torch.cat((torch.ones(400, 1), groups), 1))
        >>> bool(((z[groups[:, 0] > 0].std() / z[groups[:, 1] > 0].std()) - 1).abs() < 0.05)
        True
    """

    by_group: Tensor

    def __init__(self, dim: int, features: int, *, first: int, groups: int, prior: float) -> None:
        super().__init__(dim, features)
        self.first, self.groups, self.prior = first, groups, prior
        self.register_buffer(
            "by_group", identity(dim, torch.float64).expand(groups, dim, dim).clone()
        )

    def _fit_gaussian(
        self,
        y: Tensor,
        present: Tensor,
        features: Tensor,
        weights: Tensor,
        groups: list[tuple[Tensor, Tensor]],
    ) -> None:
        super()._fit_gaussian(y, present, features, weights, groups)
        rest = (y - self.mean(features)).where(present, 0.0)
        for k, member in enumerate(self._group(features).T):
            mass = weights * member
            pairs = (mass[:, None] * present).T @ present.to(y.dtype)
            products = (mass[:, None] * rest).T @ rest
            self.by_group[k] = sound_covariance(
                (products + self.prior * self.covariance) / (pairs + self.prior)
            )

    def _group(self, features: Tensor) -> Tensor:
        return features[:, self.first : self.first + self.groups] != 0

    def _covariance_of(self, present: Tensor, group: Tensor) -> Tensor:
        known = group.nonzero()
        return self.by_group[known[0, 0]] if len(known) else super()._covariance_of(present, group)
