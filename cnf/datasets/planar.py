"""Families of planar densities, sampled and scored exactly: squares, Gaussians, rings and noisy
curves.

Densities are closed forms, or integrals along a curve by Gauss–Legendre quadrature, whose error in
log p is below 1e-9 nats wherever log p > −50."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class Toy(ABC):
    """A density p(x) on the plane that can be sampled and scored exactly.

    `entropy` is −∫ p log p dx in nats, to five decimals.
    """

    name: str
    entropy: float
    chunk: ClassVar[int] = 2048  # rows scored at once

    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draw n independent points (n, 2), on the generator's device.

        >>> Checkerboard("board", 3.46574).sample(3).shape
        torch.Size([3, 2])
        """
        device = None if generator is None else generator.device
        return self._draw(
            n, {"generator": generator, "device": device, "dtype": torch.float64}
        ).to(dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x) in nats, shape (*batch,), of points x (*batch, 2); float64 whatever the
        type of x.

        −inf outside the support, NaN where x is not finite; differentiable in x once. ValueError
        if the last axis is not 2.

        >>> Checkerboard("board", 3.46574).log_prob(torch.tensor([[0.5, 0.5], [0.5, 2.5]]))
        tensor([-3.4657,    -inf], dtype=torch.float64)
        """
        if x.shape[-1:] != (2,):
            raise ValueError(
                f"{self.name} is planar: expected points (*batch, 2), got {tuple(x.shape)}"
            )
        rows = x.reshape(-1, 2).to(torch.float64)
        values = _Chunked.apply(rows, self._log_density, self.chunk)
        return values.masked_fill(~rows.isfinite().all(1), torch.nan).reshape(x.shape[:-1])

    @abstractmethod
    def _draw(self, n: int, like: dict[str, Any]) -> Tensor:
        """Draw (n, 2) points; `like` goes to torch's random functions."""

    @abstractmethod
    def _log_density(self, x: Tensor) -> Tensor:
        """Return log p (n,) of points x (n, 2) in float64."""


@dataclass(frozen=True)
class Checkerboard(Toy):
    """Uniform on the eight squares of side 2 in [−4, 4]² whose corner indices have an even sum: p
    = 1/32."""

    def _draw(self, n: int, like: dict[str, Any]) -> Tensor:
        u = torch.rand(n, 3, **like)
        column = 4 * u[:, 0] - 2
        row = u[:, 1] - 2 * (u[:, 2] < 0.5) + column.floor() % 2
        return 2 * torch.stack((column, row), dim=1)

    def _log_density(self, x: Tensor) -> Tensor:
        corner = (x / 2).floor()
        # The squares are closed: rounding a point to a shorter float may move it onto an edge.
        light = (corner.sum(1) % 2 == 0) | (corner == x / 2).any(1)
        inside = light & (x.abs() <= 4).all(1)
        return torch.where(inside, 0 * x.sum(1) - math.log(32), -torch.inf)


@dataclass(frozen=True)
class GaussianCircle(Toy):
    """k equal isotropic Gaussians at equal distances on a circle: p(x) = 1/k Σⱼ N(x; cⱼ, scale²
    I)."""

    components: int
    radius: float
    scale: float

    def _centers(self, index: Tensor) -> Tensor:
        angle = 2 * math.pi / self.components * index
        return self.radius * torch.stack((angle.cos(), angle.sin()), dim=-1)

    def _draw(self, n: int, like: dict[str, Any]) -> Tensor:
        index = (self.components * torch.rand(n, **like)).floor()
        return self._centers(index) + self.scale * torch.randn(n, 2, **like)

    def _log_density(self, x: Tensor) -> Tensor:
        centers = self._centers(torch.arange(self.components, dtype=x.dtype, device=x.device))
        exponents = log_normal(x[:, None] - centers, self.scale).sum(-1)
        return exponents.logsumexp(1) - math.log(self.components)


@dataclass(frozen=True)
class Rings(Toy):
    """Concentric circles with Gaussian noise: p(x) = 1/k Σⱼ exp(−(‖x‖² + Rⱼ²)/2s²) I₀(‖x‖Rⱼ/s²) /
    2πs²."""

    radii: tuple[float, ...]
    scale: float

    def _draw(self, n: int, like: dict[str, Any]) -> Tensor:
        radii = torch.tensor(self.radii, dtype=like["dtype"], device=like["device"])
        radius = radii[(len(radii) * torch.rand(n, **like)).long()]
        angle = 2 * math.pi * torch.rand(n, **like)
        circle = torch.stack((angle.cos(), angle.sin()), dim=1)
        return radius[:, None] * circle + self.scale * torch.randn(n, 2, **like)

    def _log_density(self, x: Tensor) -> Tensor:
        radii = torch.tensor(self.radii, dtype=x.dtype, device=x.device)
        distance = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        bessel = torch.special.i0e(distance * radii / self.scale**2).log()
        terms = -(((distance - radii) / self.scale) ** 2) / 2 + bessel
        return terms.logsumexp(1) - math.log(2 * math.pi * self.scale**2 * len(radii))


@dataclass(frozen=True)
class Curves(Toy):
    """Gaussian noise around k curves: p(x) = 1/k Σⱼ ∫ w(t) N(x; cⱼ(t), scale² I) dt.

    `curves` maps t (n,) to points (n, k, 2); w(t) ∝ t^power on [start, stop].
    """

    curves: Callable[[Tensor], Tensor]
    start: float
    stop: float
    scale: float
    power: int = 0
    chunk: ClassVar[int] = 64  # each row meets hundreds of nodes

    def _draw(self, n: int, like: dict[str, Any]) -> Tensor:
        degree = self.power + 1
        low, high = self.start**degree, self.stop**degree
        t = (low + (high - low) * torch.rand(n, **like)) ** (1 / degree)
        points = self.curves(t)
        branch = (points.shape[1] * torch.rand(n, **like)).long()
        chosen = points[torch.arange(n, device=points.device), branch]
        return chosen + self.scale * torch.randn(n, 2, **like)

    def _nodes(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return points (m, 2) on the curves and the logarithms of their weights (m,)."""
        nodes, weights = (torch.from_numpy(values).to(like) for values in _legendre(384))
        t = self.start + (self.stop - self.start) * (1 + nodes) / 2
        mass = weights * t**self.power
        points = self.curves(t)
        branches = points.shape[1]
        return points.flatten(0, 1), (mass / (branches * mass.sum())).log().repeat_interleave(
            branches
        )

    def _log_density(self, x: Tensor) -> Tensor:
        points, log_weights = self._nodes(x)
        # −‖x − c‖²/2s² without its ‖x‖² is affine in x: one matrix product for all nodes.
        constant = log_weights - (points / self.scale).square().sum(1) / 2
        terms = torch.addmm(constant, x, points.T / self.scale**2)
        return terms.logsumexp(1) + log_normal(x, self.scale).sum(1)


@dataclass(frozen=True)
class BoxedCurves(Curves):
    """Curves whose Gaussian noise is joined by a uniform one, between −box and box in each
    coordinate."""

    box: float = field(kw_only=True)

    def _draw(self, n: int, like: dict[str, Any]) -> Tensor:
        return super()._draw(n, like) + self.box * (2 * torch.rand(n, 2, **like) - 1)

    def _log_density(self, x: Tensor) -> Tensor:
        points, log_weights = self._nodes(x)
        offsets = x.T[:, :, None] - points.T[:, None]
        with torch.no_grad():
            bound = (
                log_weights
                - ((offsets.abs() - self.box).clamp(min=0) / self.scale).square().sum(0) / 2
            )
            # Most nodes are too far from x to change the sum, and the kernel is expensive.
            near = bound > bound.amax(1, keepdim=True) - 45
        terms = torch.full_like(bound, -torch.inf)
        terms[near] = log_weights.expand_as(bound)[near] + self._log_kernel(offsets[:, near]).sum(
            0
        )
        return terms.logsumexp(1)

    def _log_kernel(self, offset: Tensor) -> Tensor:
        """Return log [Φ((y + box)/s) − Φ((y − box)/s)] / 2 box; the scaled erfc keeps its tails
        exact."""
        near, far = (
            (offset.abs() + side) / (math.sqrt(2) * self.scale) for side in (-self.box, self.box)
        )
        ratio = ((near - far) * (near + far)).exp()
        difference = torch.special.erfcx(near) - ratio * torch.special.erfcx(far)
        return difference.log() - near**2 - math.log(4 * self.box)


class _Chunked(torch.autograd.Function):
    """Evaluate a function of rows in chunks, and again in the backward pass, in the memory of one
    chunk.

    Results go into one tensor that is allocated first: small tensors between large temporaries
    would fragment the heap.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, function: Callable[[Tensor], Tensor], chunk: int
    ) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.function, ctx.chunk = function, chunk
        values = rows.new_empty(len(rows))
        for part, value in zip(rows.split(chunk), values.split(chunk)):
            value.copy_(function(part))
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor, None, None]:
        (rows,) = ctx.saved_tensors
        gradient = torch.empty_like(rows)
        parts = zip(*(tensor.split(ctx.chunk) for tensor in (rows, weights, gradient)))
        for part, weight, result in parts:
            with torch.enable_grad():
                part = part.detach().requires_grad_()
                value = ctx.function(part)
            result.copy_(*torch.autograd.grad(value, part, weight))
        return gradient, None, None


def log_normal(offset: Tensor, scale: float) -> Tensor:
    """Return the log-density of N(0, scale²) at the offset, element by element."""
    return -((offset / scale) ** 2) / 2 - math.log(scale * math.sqrt(2 * math.pi))


@cache
def _legendre(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the nodes and weights of Gauss–Legendre quadrature on [−1, 1]."""
    return np.polynomial.legendre.leggauss(n)
