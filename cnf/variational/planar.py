"""Planar flows: the discrete flows of Rezende and Mohamed (2015)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from cnf.flows import NormalBase


class PlanarFlow(nn.Module):
    """A standard normal carried through K planar maps, x ← x + û tanh(w·x + b).

    û = u + (softplus(w·u) − 1 − w·u) w / |w|² keeps w·û above −1, so that every map is invertible.
    Its log-Jacobian is log(1 + (1 − tanh²(w·x + b)) w·û). The inverse has no closed form, so this
    flow can score only its own draws.

    Args:
        dim: number of columns.
        layers: K, the number of maps.

    Raises:
        ValueError: if there is no column or no map.

    Example:
        >>> x, log_prob = PlanarFlow(2, layers=8).sample_and_log_prob((100,))
        >>> x.shape, log_prob.shape
        (torch.Size([100, 2]), torch.Size([100]))
    """

    def __init__(self, dim: int, layers: int) -> None:
        super().__init__()
        if dim < 1 or layers < 1:
            raise ValueError(
                f"a planar flow needs dim >= 1 and layers >= 1; got {dim} and {layers}"
            )
        self.base = NormalBase(dim)
        self.u = nn.Parameter(torch.randn(layers, dim) / math.sqrt(dim))
        self.w = nn.Parameter(torch.randn(layers, dim) / math.sqrt(dim))
        self.b = nn.Parameter(torch.zeros(layers))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x (*batch, dim) and log |det ∂x/∂z| (*batch,) of base points z (*batch, dim)."""
        along = (self.w * self.u).sum(-1)
        kept = softplus(along) - 1  # w·û > −1
        pushes = self.u + ((kept - along) / self.w.square().sum(-1))[:, None] * self.w
        x, ladj = z, z.new_zeros(z.shape[:-1])
        for push, w, b, slope in zip(pushes, self.w, self.b, kept):
            h = torch.tanh(x @ w + b)
            x = x + h[..., None] * push
            ladj = ladj + torch.log1p((1 - h.square()) * slope)
        return x, ladj

    def sample_and_log_prob(
        self, shape: Sequence[int] = (), *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draws (*shape, dim) and their log-densities (*shape,); both are differentiable."""
        z = self.base.sample(tuple(shape), generator, dtype=self.b.dtype, device=self.b.device)
        x, ladj = self(z)
        return x, self.base.log_prob(z) - ladj
