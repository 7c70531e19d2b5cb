"""Base densities, from which a flow starts at t = 0."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from cnf.deprecation import renamed_argument
from cnf.functional import identity, transformed
from cnf.registry import arguments, described, rebuild, register
from cnf.rows import row_products

# A draw of a `ContaminatedBase` takes so many normal numbers, and tails of such order are a
# Gaussian's.
MOST_DF = 1000


class Base(nn.Module, ABC):
    """A density on `dim` columns that can be sampled and scored.

    Args:
        dim: number of columns.

    Attributes:
        solves: whether its log-density needs a solve of its own.
    """

    solves = False

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density (*batch,) of z (*batch, dim)."""

    @abstractmethod
    def sample(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draws (*shape, dim) in a dtype (default: that of torch) and on a device (default: that
        of the base's tensors)."""

    def steepness(self, z: Tensor) -> Tensor:
        """|∇ log p₀(z)| (*batch,) at z (*batch, dim): the change of the log-density, in nats, per
        unit of error in z."""
        if transformed():
            return torch.func.grad(lambda z: self.log_prob(z).sum())(z).norm(dim=-1)
        # The first use of torch.func takes seconds, as it imports torch's compiler.
        with torch.inference_mode(mode=False), torch.enable_grad():
            z = z.detach().clone().requires_grad_()
            total = self.log_prob(z).sum()
            if not total.requires_grad:  # a uniform density
                return z.detach().new_zeros(z.shape[:-1])
            (gradient,) = torch.autograd.grad(total, z)
        return gradient.norm(dim=-1)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, except columns and tensors, that rebuild the base; ready
        for JSON."""
        return arguments(self, "dim")

    @classmethod
    def from_config(cls, config: dict[str, Any], dim: int) -> Base:
        """The base that `config` described; its tensors come with the weights."""
        return cls(dim, **config)

    def require_drawable(self) -> None:
        """Raise a ValueError if the tensors of a file do not define a density."""

    def describe(self) -> str:
        """The base in words."""
        return type(self).__name__


@register
class NormalBase(Base):
    """The standard normal density, log p(z) = −½|z|² − ½ dim log 2π.

    Example:
        >>> round(NormalBase(2).log_prob(torch.zeros(2)).item(), 4)
        -1.8379
    """

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density (*batch,) of z (*batch, dim)."""
        return -0.5 * z.square().sum(-1) - 0.5 * self.dim * math.log(2 * math.pi)

    def steepness(self, z: Tensor) -> Tensor:
        """|z| (*batch,)."""
        return torch.linalg.vector_norm(z, dim=-1)

    def sample(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draws (*shape, dim)."""
        size = (*shape, self.dim)
        return torch.randn(size, generator=generator, device=device, dtype=dtype)

    def describe(self) -> str:
        """The base in words."""
        return "normal"


@register
class StudentTBase(Base):
    """Independent Student-t columns: tails of order ν = `df` for data with outliers.

    Args:
        dim: number of columns.
        df: degrees of freedom ν > 2; columns are scaled to unit variance.

    Raises:
        ValueError: if `df` is not above 2.

    Example:
        >>> StudentTBase(2, df=5.0).log_prob(torch.zeros(3, 2)).shape
        torch.Size([3])
    """

    @renamed_argument("freedom", "df")
    def __init__(self, dim: int, df: float = 5.0) -> None:
        super().__init__(dim)
        if not df > 2:
            raise ValueError(f"df of a StudentTBase: expected more than 2; got {df}")
        self.df = df
        self.scale = math.sqrt((df - 2) / df)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density (*batch,) of z (*batch, dim)."""
        nu = self.df
        peak = (
            math.lgamma((nu + 1) / 2)
            - math.lgamma(nu / 2)
            - 0.5 * math.log(math.pi * nu)
            - math.log(self.scale)
        )
        tails = torch.log1p((z / self.scale).square() / nu)
        return self.dim * peak - (nu + 1) / 2 * tails.sum(-1)

    def sample(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draws (*shape, dim) by Bailey's polar method (1994): √(ν(u^(−2/ν) − 1)) cos 2πv."""
        size = (2, *shape, self.dim)
        u, v = torch.rand(size, generator=generator, device=device, dtype=torch.float64)
        radius = (self.df * ((1 - u) ** (-2 / self.df) - 1)).sqrt()
        return (self.scale * radius * torch.cos(2 * math.pi * v)).to(_dtype(dtype))

    def describe(self) -> str:
        """The base in words."""
        return f"Student-t, {self.df:g} degrees of freedom"


@register
class MixtureBase(Base):
    """A mixture of Gaussians, log p(z) = logsumexpₖ (log wₖ + log N(z; μₖ, LₖLₖᵀ)).

    Args:
        weights: w, positive, normalized here, (components,)
        means: μ, (components, dim)
        factors: L, lower triangular with positive diagonal, (components, dim, dim)

    Example:
        >>> base = MixtureBase(torch.ones(2), torch.tensor([[-3.0], [3.0]]), torch.ones(2, 1, 1))
        >>> base.sample((5,), torch.Generator().manual_seed(0)).shape
        torch.Size([5, 1])
    """

    weights: Tensor
    means: Tensor
    factors: Tensor

    def __init__(self, weights: Tensor, means: Tensor, factors: Tensor) -> None:
        super().__init__(means.shape[-1])
        weights = weights.to(torch.promote_types(weights.dtype, means.dtype), copy=True)
        self.register_buffer("weights", weights.div_(weights.sum()))
        self.register_buffer("means", means)
        self.register_buffer("factors", factors)

    def config(self) -> dict[str, Any]:
        """The number of components; the rest is tensors."""
        return {"components": len(self.weights)}

    @classmethod
    def from_config(cls, config: dict[str, Any], dim: int) -> MixtureBase:
        """A mixture with this number of components, whose tensors are then read from a file."""
        count = config["components"]
        unit = identity(dim).expand(count, dim, dim).clone()
        return cls(torch.ones(count), torch.zeros(count, dim), unit)

    def require_drawable(self) -> None:
        """Raise a ValueError for weights that are not probabilities."""
        if (self.weights < 0).any() or not self.weights.sum() > 0:
            raise ValueError("weights of a mixture: expected numbers >= 0 with a positive sum")

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density (*batch,) of z (*batch, dim)."""
        unit = torch.eye(self.dim, dtype=self.factors.dtype, device=self.factors.device)
        inverse = torch.linalg.solve_triangular(
            self.factors, unit.expand_as(self.factors), upper=False
        )
        # One product for all components: Lₖ⁻¹z − Lₖ⁻¹μₖ.
        scaled = row_products(z, inverse.flatten(0, 1)).unflatten(-1, self.means.shape)
        scaled = scaled - (inverse @ self.means[..., None]).squeeze(-1)
        volume = self.factors.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        constant = 0.5 * self.dim * math.log(2 * math.pi)
        parts = self.weights.log() - 0.5 * scaled.square().sum(-1) - volume - constant
        return parts.logsumexp(-1)

    def sample(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draws (*shape, dim)."""
        count = math.prod(shape)
        if count == 0:
            return torch.empty((*shape, self.dim), dtype=dtype, device=self.weights.device)
        chosen = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        size, device = (count, self.dim), self.weights.device
        noise = torch.randn(size, generator=generator, device=device, dtype=dtype)
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


@register
class ContaminatedBase(Base):
    """A base with a share ε of its mass in heavy tails, p = (1 − ε) p_base + ε t_ν (Tukey 1960).

    A field hardly moves an outlier, so the base determines its cost: a row at 40 standard
    deviations costs 800 nats under a Gaussian, and about 60 here. t_ν is the multivariate
    Student-t density around zero with unit scale,

        log t_ν(z) = log Γ((ν + d)/2) − log Γ(ν/2) − (d/2) log πν − (ν + d)/2 log(1 + |z|²/ν).

    Args:
        base: the base with the remaining mass.
        share: ε in (0, 1).
        df: degrees of freedom ν, a whole number from 1 to `MOST_DF`.

    Raises:
        ValueError: for a share or degrees of freedom out of range.

    Example:
        >>> far = torch.tensor([[40.0, 0.0]])
        >>> ContaminatedBase(NormalBase(2)).log_prob(far) > -25
        tensor([True])
    """

    @renamed_argument("freedom", "df")
    def __init__(self, base: Base, share: float = 0.002, df: int = 2) -> None:
        super().__init__(base.dim)
        if not (0 < share < 1 and 1 <= df <= MOST_DF):
            raise ValueError(
                f"expected a share in (0, 1) and df from 1 to {MOST_DF}; got share={share}, df={df}"
            )
        self.base = base
        self.share = share
        self.df = df

    def config(self) -> dict[str, Any]:
        """The inner base, and the share and the degrees of freedom of the tails."""
        return {"base": described(self.base), "share": self.share, "df": self.df}

    @classmethod
    def from_config(cls, config: dict[str, Any], dim: int) -> ContaminatedBase:
        """The base that `config` described."""
        return cls(rebuild(Base, config["base"], dim), config["share"], config["df"])

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density (*batch,) of z (*batch, dim)."""
        nu, dim = self.df, self.dim
        peak = math.lgamma((nu + dim) / 2) - math.lgamma(nu / 2) - dim / 2 * math.log(math.pi * nu)
        tails = peak - (nu + dim) / 2 * torch.log1p(z.square().sum(-1) / nu)
        return torch.logaddexp(
            self.base.log_prob(z) + math.log1p(-self.share), tails + math.log(self.share)
        )

    def sample(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draws (*shape, dim)."""
        # A t vector is a normal one over the root of a chi-square over ν.
        size = (*shape, self.dim + self.df)
        normal = torch.randn(size, generator=generator, device=device, dtype=torch.float64)
        spread = normal[..., self.dim :].square().mean(-1, keepdim=True).sqrt()
        heavy = (normal[..., : self.dim] / spread).to(_dtype(dtype))
        from_tails = torch.rand(shape, generator=generator, device=device) < self.share
        others = self.base.sample(shape, generator, dtype=dtype, device=device)
        return torch.where(from_tails[..., None], heavy, others)

    def describe(self) -> str:
        """The base in words."""
        return f"{self.base.describe()} with heavy tails"


def _dtype(dtype: torch.dtype | None) -> torch.dtype:
    return torch.get_default_dtype() if dtype is None else dtype
