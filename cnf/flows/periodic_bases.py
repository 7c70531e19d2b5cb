"""Base densities on circles and spheres."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from cnf.fields.geometry import unit, wrap
from cnf.flows.bases import Base
from cnf.registry import register
from cnf.rows import row_products

# Numbers of a mixture, rows times components, that are made at once: many megabytes else.
AT_ONCE = 2**22


@register
class UniformCircleBase(Base):
    """Independent uniform angles in radians: log p = −dim log 2π.

    Example:
        >>> round(UniformCircleBase(1).log_prob(torch.zeros(1)).item(), 4)
        -1.8379
    """

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density (*batch,) of z (*batch, dim)."""
        return z.new_full(z.shape[:-1], -self.dim * math.log(2 * math.pi))

    def sample(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draws (*shape, dim) in [−π, π)."""
        size = (*shape, self.dim)
        u = torch.rand(size, generator=generator, device=device, dtype=dtype)
        return (2 * u - 1) * math.pi

    def describe(self) -> str:
        """The base in words."""
        return "uniform on circles"


@register
class UniformSphereBase(Base):
    """Uniform unit vectors of three columns: log p = −log 4π per unit area.

    Args:
        dim: 3.

    Raises:
        ValueError: for another number of columns.

    Example:
        >>> round(UniformSphereBase().log_prob(torch.tensor([0.0, 0.0, 1.0])).item(), 4)
        -2.531
    """

    def __init__(self, dim: int = 3) -> None:
        super().__init__(dim)
        _require_vectors(dim)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density (*batch,) of z (*batch, 3), per unit area."""
        return z.new_full(z.shape[:-1], -math.log(4 * math.pi))

    def sample(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draws (*shape, 3)."""
        size = (*shape, 3)
        return unit(torch.randn(size, generator=generator, device=device, dtype=dtype))[0]

    def describe(self) -> str:
        """The base in words."""
        return "uniform on a sphere"


class _ComponentsBase(Base):
    """A mixture of components, each with a center (dim,) and a spread.

    Args:
        weights: positive, normalized here, (components,)
        centers: (components, dim)
        spreads: positive, (components, …)
    """

    weights: Tensor
    centers: Tensor
    spreads: Tensor

    def __init__(self, weights: Tensor, centers: Tensor, spreads: Tensor) -> None:
        super().__init__(centers.shape[-1])
        self.register_buffer("weights", weights / weights.sum())
        self.register_buffer("centers", centers)
        self.register_buffer("spreads", spreads)

    def config(self) -> dict[str, Any]:
        """The number of components; the rest is tensors."""
        return {"components": len(self.weights)}

    def require_drawable(self) -> None:
        """Raise a ValueError for weights that are not probabilities, or an invalid spread."""
        if (self.weights < 0).any() or not self.weights.sum() > 0 or not (self.spreads > 0).all():
            raise ValueError("a mixture: expected weights >= 0 with a positive sum, spreads > 0")

    @abstractmethod
    def component_log_probs(self, z: Tensor) -> Tensor:
        """Log-density (*batch, components) of z (*batch, dim) under each component."""

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density (*batch,) of z (*batch, dim), in blocks of rows."""
        rows = z.reshape(-1, self.dim).split(max(1, AT_ONCE // len(self.weights)))
        parts = [
            (self.weights.log() + self.component_log_probs(some)).logsumexp(-1) for some in rows
        ]
        return torch.cat(parts).reshape(z.shape[:-1])

    def _choose(self, count: int, generator: torch.Generator | None) -> Tensor:
        """A component for each of so many draws."""
        if not count:
            return torch.empty(0, dtype=torch.long, device=self.weights.device)
        return torch.multinomial(self.weights, count, replacement=True, generator=generator)


@register
class VonMisesBase(_ComponentsBase):
    """A mixture of independent von Mises densities of angles in radians.

    log f(z) = logsumexpₖ (log wₖ + Σⱼ κₖⱼ (cos(zⱼ − μₖⱼ) − 1) − log 2π e^(−κₖⱼ) I₀(κₖⱼ)) (Mardia & Jupp
    2000, 3.5.4).

    Args:
        weights: w, positive, normalized here, (components,)
        centers: μ, (components, dim)
        spreads: 1 / √κ, about the standard deviation in radians, (components, dim)

    Example:
        >>> base = VonMisesBase(torch.ones(1), torch.zeros(1, 1), torch.ones(1, 1))
        >>> z = torch.linspace(-3.1415927, 3.1415927, 1001)[:, None]
        >>> round(torch.trapezoid(base.log_prob(z).exp(), z[:, 0]).item(), 4)
        1.0
    """

    @classmethod
    def from_config(cls, config: dict[str, Any], dim: int) -> VonMisesBase:
        """A mixture with this number of components, whose tensors are then read from a file."""
        shape = (config["components"], dim)
        return cls(torch.ones(shape[0]), torch.zeros(shape), torch.ones(shape))

    def component_log_probs(self, z: Tensor) -> Tensor:
        """Log-density (*batch, components) of z (*batch, dim) under each component."""
        angles, centers, kappa = z.double(), self.centers.double(), self.spreads.double() ** -2
        # κ cos(z − μ) of all angles in two products; float64 keeps what −κ takes away.
        cosines = row_products(angles.cos(), kappa * centers.cos())
        sines = row_products(angles.sin(), kappa * centers.sin())
        constant = kappa + (2 * math.pi * torch.special.i0e(kappa)).log()
        return (cosines + sines - constant.sum(-1)).to(z.dtype)

    def sample(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draws (*shape, dim) in [−π, π], by rejection from wrapped Cauchy densities (Best & Fisher
        1979)."""
        chosen = self._choose(math.prod(shape), generator)
        kappa, turns = self.spreads[chosen].double() ** -2, self.centers[chosen].double()
        tau = 1 + (1 + 4 * kappa.square()).sqrt()
        rho = (tau - (2 * tau).sqrt()) / (2 * kappa)
        r = (1 + rho.square()) / (2 * rho)
        drawn, open_ = torch.zeros_like(kappa), torch.ones_like(kappa, dtype=torch.bool)
        while open_.any():
            u, keep, side = torch.rand(
                (3, *kappa.shape), generator=generator, device=kappa.device, dtype=torch.float64
            )
            cosine = (math.pi * u).cos()
            cosine = ((1 + r * cosine) / (r + cosine)).clamp(-1, 1)
            c = kappa * (r - cosine)
            accepted = open_ & ((c / keep).log() + 1 - c >= 0)
            drawn = torch.where(accepted, (side - 0.5).sign() * cosine.acos(), drawn)
            open_ = open_ & ~accepted
        dtype = torch.get_default_dtype() if dtype is None else dtype
        return wrap(turns + drawn).to(dtype).reshape(*shape, self.dim)

    def describe(self) -> str:
        """The base in words."""
        return f"mixture of {len(self.weights)} von Mises densities"


@register
class VonMisesFisherBase(_ComponentsBase):
    """A mixture of von Mises-Fisher densities of unit vectors, per unit area.

    log f(z) = log κ − log 2π − log(1 − e^(−2κ)) + κ (μᵀz − 1) (Mardia & Jupp 2000, 9.3.2).

    Args:
        weights: w, positive, normalized here, (components,)
        centers: μ, unit vectors (components, 3)
        spreads: 1 / √κ, about the standard deviation in radians, (components,)

    Raises:
        ValueError: for another number of columns.

    Example:
        >>> pole = torch.tensor([[0.0, 0.0, 1.0]])
        >>> base = VonMisesFisherBase(torch.ones(1), pole, torch.full((1,), 0.1))
        >>> base.sample((5,)).norm(dim=1).allclose(torch.ones(5))
        True
    """

    def __init__(self, weights: Tensor, centers: Tensor, spreads: Tensor) -> None:
        super().__init__(weights, centers, spreads)
        _require_vectors(self.dim)

    @classmethod
    def from_config(cls, config: dict[str, Any], dim: int) -> VonMisesFisherBase:
        """A mixture with this number of components, whose tensors are then read from a file."""
        count = config["components"]
        return cls(torch.ones(count), torch.zeros(count, dim), torch.ones(count))

    def component_log_probs(self, z: Tensor) -> Tensor:
        """Log-density (*batch, components) of z (*batch, 3) under each component, independent of
        the length of z."""
        kappa = self.spreads.double() ** -2
        cosine = row_products(unit(z.double())[0], unit(self.centers.double())[0])
        peak = kappa.log() - math.log(2 * math.pi) - torch.log1p(-torch.exp(-2 * kappa))
        return (peak + kappa * (cosine - 1)).to(z.dtype)

    def sample(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draws (*shape, 3): the height along the center by inversion (Ulrich 1984), with a
        uniform direction around it."""
        chosen = self._choose(math.prod(shape), generator)
        center, kappa = self.centers[chosen].double(), self.spreads[chosen].double()[:, None] ** -2
        u = torch.rand(
            (len(chosen), 1), generator=generator, device=center.device, dtype=torch.float64
        )
        fall = -torch.log(u + (1 - u) * torch.exp(-2 * kappa)) / kappa  # 1 − μᵀz
        noise = torch.randn(
            center.shape, generator=generator, device=center.device, dtype=torch.float64
        )
        around = unit(noise - (noise * center).sum(-1, keepdim=True) * center)[0]
        drawn = (1 - fall) * center + (fall * (2 - fall)).clamp(min=0).sqrt() * around
        dtype = torch.get_default_dtype() if dtype is None else dtype
        return unit(drawn)[0].to(dtype).reshape(*shape, 3)

    def describe(self) -> str:
        """The base in words."""
        return f"mixture of {len(self.weights)} von Mises-Fisher densities"


def _require_vectors(dim: int) -> None:
    if dim != 3:
        raise ValueError(f"a base on a sphere: expected 3 columns; got {dim}")
