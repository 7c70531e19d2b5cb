"""Base densities: what a flow starts from at t = 0."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Base(nn.Module, ABC):
    """A density on `dim` columns that can be sampled and scored.

    Args:
        dim: number of columns.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density (*batch,) of z (*batch, dim)."""

    @abstractmethod
    def sample(
        self, shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws (*shape, dim) on the device and in the dtype of `like`."""

    def describe(self) -> str:
        """The base in words."""
        return type(self).__name__


class NormalBase(Base):
    """The standard normal density, log p(z) = −½|z|² − ½ dim log 2π.

    Example:
        >>> round(NormalBase(2).log_prob(torch.zeros(2)).item(), 4)
        -1.8379
    """

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density (*batch,) of z (*batch, dim)."""
        return -0.5 * z.square().sum(-1) - 0.5 * self.dim * math.log(2 * math.pi)

    def sample(
        self, shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws (*shape, dim) on the device and in the dtype of `like`."""
        return torch.randn(
            (*shape, self.dim), generator=generator, device=like.device, dtype=like.dtype
        )

    def describe(self) -> str:
        """The base in words."""
        return "normal"


class StudentTBase(Base):
    """Independent Student-t columns: tails of order ν = `freedom` for data with outliers.

    Args:
        dim: number of columns.
        freedom: degrees of freedom ν > 2; columns are scaled to unit variance.

    Raises:
        ValueError: if `freedom` is not above 2.

    Example:
        >>> StudentTBase(2, freedom=5.0).log_prob(torch.zeros(3, 2)).shape
        torch.Size([3])
    """

    def __init__(self, dim: int, freedom: float = 5.0) -> None:
        super().__init__(dim)
        if not freedom > 2:
            raise ValueError(f"freedom of a StudentTBase: expected more than 2; got {freedom}")
        self.freedom = freedom
        self.scale = math.sqrt((freedom - 2) / freedom)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density (*batch,) of z (*batch, dim)."""
        nu = self.freedom
        peak = (
            math.lgamma((nu + 1) / 2)
            - math.lgamma(nu / 2)
            - 0.5 * math.log(math.pi * nu)
            - math.log(self.scale)
        )
        tails = torch.log1p((z / self.scale).square() / nu)
        return self.dim * peak - (nu + 1) / 2 * tails.sum(-1)

    def sample(
        self, shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws (*shape, dim) by Bailey's polar method (1994): √(ν(u^(−2/ν) − 1)) cos 2πv."""
        size = (2, *shape, self.dim)
        u, v = torch.rand(size, generator=generator, device=like.device, dtype=torch.float64)
        radius = (self.freedom * ((1 - u) ** (-2 / self.freedom) - 1)).sqrt()
        return (self.scale * radius * torch.cos(2 * math.pi * v)).to(like.dtype)

    def describe(self) -> str:
        """The base in words."""
        return f"Student-t, {self.freedom:g} degrees of freedom"


class MixtureBase(Base):
    """A mixture of Gaussians, log p(z) = logsumexpₖ (log wₖ + log N(z; μₖ, LₖLₖᵀ)).

    Args:
        weights: w, positive, normalized here, (components,)
        means: μ, (components, dim)
        factors: L, lower triangular with positive diagonal, (components, dim, dim)

    Example:
        >>> base = MixtureBase(torch.ones(2), torch.tensor([[-3.0], [3.0]]), torch.ones(2, 1, 1))
        >>> base.sample((5,), torch.empty(0), torch.Generator().manual_seed(0)).shape
        torch.Size([5, 1])
    """

    def __init__(self, weights: Tensor, means: Tensor, factors: Tensor) -> None:
        super().__init__(means.shape[-1])
        self.register_buffer("weights", weights / weights.sum())
        self.register_buffer("means", means)
        self.register_buffer("factors", factors)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density (*batch,) of z (*batch, dim)."""
        unit = torch.eye(self.dim, dtype=self.factors.dtype, device=self.factors.device)
        inverse = torch.linalg.solve_triangular(
            self.factors, unit.expand_as(self.factors), upper=False
        )
        # One product for all components: Lₖ⁻¹z − Lₖ⁻¹μₖ.
        scaled = (z @ inverse.flatten(0, 1).T).unflatten(-1, self.means.shape)
        scaled = scaled - (inverse @ self.means[..., None]).squeeze(-1)
        volume = self.factors.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        constant = 0.5 * self.dim * math.log(2 * math.pi)
        parts = self.weights.log() - 0.5 * scaled.square().sum(-1) - volume - constant
        return parts.logsumexp(-1)

    def sample(
        self, shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws (*shape, dim) on the device and in the dtype of `like`."""
        count = math.prod(shape)
        if count == 0:
            return like.new_empty((*shape, self.dim))
        chosen = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        noise = torch.randn(
            count, self.dim, generator=generator, device=like.device, dtype=like.dtype
        )
        # Component by component: a factor for every row would take many times the memory of the
        # draws.
        order = chosen.argsort(stable=True)
        counts = torch.bincount(chosen, minlength=len(self.weights)).tolist()
        parts = zip(self.means, self.factors, noise[order].split(counts))
        sorted_draws = torch.cat([mean + part @ factor.T for mean, factor, part in parts])
        return torch.empty_like(noise).index_copy(0, order, sorted_draws).reshape(*shape, self.dim)

    def describe(self) -> str:
        """The base in words."""
        return f"mixture of {len(self.weights)} Gaussians"


class ContaminatedBase(Base):
    """A base with a share ε of its mass in heavy tails, p = (1 − ε) p_base + ε t_ν (Tukey 1960).

    A field moves an outlier by little, so the base decides what it costs: under a Gaussian a row
    at 40 standard deviations costs 800 nats, here about 60. t_ν is the multivariate Student-t
    density around zero with unit scale,

        log t_ν(z) = log Γ((ν + d)/2) − log Γ(ν/2) − (d/2) log πν − (ν + d)/2 log(1 + |z|²/ν).

    Args:
        base: what holds the rest of the mass.
        share: ε in (0, 1).
        freedom: ν, a whole number of at least 1.

    Raises:
        ValueError: for a share or freedom out of range.

    Example:
        >>> far = torch.tensor([[40.0, 0.0]])
        >>> ContaminatedBase(NormalBase(2)).log_prob(far) > -25
        tensor([True])
    """

    def __init__(self, base: Base, share: float = 0.002, freedom: int = 2) -> None:
        super().__init__(base.dim)
        if not (0 < share < 1 and freedom >= 1):
            raise ValueError(
                f"expected a share in (0, 1) and freedom >= 1; got share={share}, freedom={freedom}"
            )
        self.base = base
        self.share = share
        self.freedom = freedom

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density (*batch,) of z (*batch, dim)."""
        nu, dim = self.freedom, self.dim
        peak = math.lgamma((nu + dim) / 2) - math.lgamma(nu / 2) - dim / 2 * math.log(math.pi * nu)
        tails = peak - (nu + dim) / 2 * torch.log1p(z.square().sum(-1) / nu)
        return torch.logaddexp(
            self.base.log_prob(z) + math.log1p(-self.share), tails + math.log(self.share)
        )

    def sample(
        self, shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws (*shape, dim) on the device and in the dtype of `like`."""
        settings = {"generator": generator, "device": like.device}
        # A t vector is a normal one over the root of a chi-square over ν.
        normal = torch.randn((*shape, self.dim + self.freedom), **settings, dtype=torch.float64)
        spread = normal[..., self.dim :].square().mean(-1, keepdim=True).sqrt()
        heavy = (normal[..., : self.dim] / spread).to(like.dtype)
        from_tails = torch.rand(shape, **settings) < self.share
        return torch.where(from_tails[..., None], heavy, self.base.sample(shape, like, generator))

    def describe(self) -> str:
        """The base in words."""
        return f"{self.base.describe()} with heavy tails"
