"""Maps between the units of the data and the coordinates of the flow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from cnf.fields.geometry import Geometry
from cnf.functional import identity
from cnf.registry import arguments, described, rebuild, register
from cnf.rows import row_products
from cnf.transforms.covariances import ROWS_A_COLUMN, shrinkage
from cnf.transforms.float64 import Float64Module


class Transform(Float64Module, ABC):
    """An invertible map from data x to model coordinates y; the flow adds its log-Jacobian, so that
    densities are in the units of the data.

    Every method also receives the context of the rows (*batch, context_dim), in the units of the
    data, and a mask (*batch, dim) of the columns that each row has; None means all of them. A
    transform that needs neither ignores both. Numbers are float64, because raw columns may be
    large compared with their spread.

    Args:
        dim: number of columns.

    Attributes:
        spheres: indices of the longitude and the latitude of each pair of columns of x.
    """

    spheres: Sequence[tuple[int, int]] = ()

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    @property
    def turns(self) -> dict[int, tuple[float, float]]:
        """The start and the end of a full turn, for each column of x on a circle or a sphere."""
        return {}

    def log_area(self, x: Tensor) -> Tensor:
        """Log of the area, (*batch,) or (), of one unit of the columns of x (*batch, dim) in the
        measure of the density; zero unless the columns are longitudes and latitudes."""
        return x.new_zeros(())

    @property
    def geometry(self) -> Geometry:
        """The space of y; a plane, unless a subclass has another."""
        return Geometry(self.dim)

    @property
    def bounded(self) -> bool:
        """Whether some x have no y; their log-Jacobian is −∞."""
        return False

    def column_mask(self, mask: Tensor) -> Tensor:
        """Which columns of x (*batch, dim) a row has, from a mask (*batch, coordinates) of y."""
        return mask

    def config(self) -> dict[str, Any]:
        """The settings, except columns and tensors, that rebuild the transform; ready for JSON."""
        return arguments(self, "dim")

    @classmethod
    def from_config(cls, config: dict[str, Any], dim: int) -> Transform:
        """The transform that `config` described; its tensors come with the weights."""
        return cls(dim, **config)

    @abstractmethod
    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Model coordinates y (*batch, dim) in float64, and log |det ∂y/∂x|, () or (*batch,)."""

    @abstractmethod
    def inverse(
        self, y: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Data x (*batch, dim), in the dtype of y."""

    @abstractmethod
    def pushforward(
        self, v: Tensor, y: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """dx/dt (*batch, dim) for dy/dt = v at y (*batch, dim), in the dtype of v."""


@register
class Affine(Transform):
    """x = shift + A y: data x, model coordinates y, log |det ∂y/∂x| = −log |det A|.

    Args:
        shift: (dim,)
        matrix: A, invertible, (dim, dim)

    Example:
        >>> map = Affine.whiten(torch.randn(1000, 2) * torch.tensor([1.0, 100.0]))
        >>> y, ladj = map(torch.tensor([[0.0, 100.0]]))
        >>> y.shape, ladj.shape
        (torch.Size([1, 2]), torch.Size([]))
    """

    shift: Tensor
    matrix: Tensor
    inverse_matrix: Tensor

    def __init__(self, shift: Tensor, matrix: Tensor) -> None:
        super().__init__(len(shift))
        self.register_buffer("shift", shift.double())
        self.register_buffer("matrix", matrix.double())
        self.register_buffer("inverse_matrix", torch.linalg.inv(self.matrix))

    def config(self) -> dict[str, Any]:
        """Empty, because all settings are tensors."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any], dim: int) -> Affine:
        """The identity, whose tensors are then read from a file."""
        return cls.identity(dim, **config)

    @classmethod
    def identity(cls, dim: int) -> Affine:
        """x = y."""
        return cls(torch.zeros(dim), identity(dim))

    @classmethod
    def standardize(cls, x: Tensor, weights: Tensor | None = None) -> Affine:
        """Every column of x (rows, dim) to mean 0 and standard deviation 1."""
        mean, covariance = moments(x, weights)
        return cls(mean, covariance.diagonal().sqrt().diag())

    @classmethod
    def standardize_context(cls, context: Tensor, weights: Tensor | None = None) -> Affine:
        """`standardize` for a context (rows, context_dim): a constant column, which a density can
        be given although it says nothing, is shifted to 0 and not scaled.

        >>> Affine.standardize_context(torch.tensor([[1.0, 7.0], [3.0, 7.0]]))(torch.ones(2))[0]
        tensor([-1., -6.], dtype=torch.float64)
        """
        mean, covariance = _moments(context, weights)
        spread = covariance.diagonal().sqrt()
        return cls(mean, spread.masked_fill(_constant(mean, spread), 1.0).diag())

    @classmethod
    def whiten(cls, x: Tensor, weights: Tensor | None = None) -> Affine:
        """Columns of x (rows, dim) to mean 0 and the identity as covariance.

        With standard deviations S and correlation P, A = S P^½. Of all whitening maps, this one
        changes the columns least, for any units and order (Kessy, Lewin & Strimmer 2018,
        "ZCA-cor"). For few rows, P is shrunk towards 1, see
        `cnf.transforms.covariances.shrinkage`: with no more rows than columns, the rows lie in a
        plane by chance.

        Raises:
            ValueError: if columns are linearly dependent, so that no density exists.
        """
        mean, covariance = moments(x, weights)
        deviation = covariance.diagonal().sqrt()
        correlation = covariance / deviation / deviation[:, None]
        eigenvalues, vectors = torch.linalg.eigh(correlation)
        if eigenvalues[0] < 1e-10 and len(x) > len(mean):
            worst = vectors[:, 0].abs().topk(2).indices.tolist()
            raise ValueError(
                f"columns are linearly dependent (above all columns {worst[0]} and {worst[1]}, from 0),"
                " so the rows have no density: drop one of them"
            )
        if len(x) < ROWS_A_COLUMN * len(mean):
            share = shrinkage(eigenvalues, vectors, (x - mean) / deviation, weights)
            eigenvalues = (1 - share) * eigenvalues + share
        return cls(mean, deviation[:, None] * (vectors * eigenvalues.sqrt()) @ vectors.T)

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Model coordinates y (*batch, dim) in float64, and the log-Jacobian log |det ∂y/∂x|
        ()."""
        y = row_products(x.to(self.shift.dtype) - self.shift, self.inverse_matrix)
        return y, -torch.linalg.slogdet(self.matrix).logabsdet

    def inverse(
        self, y: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Data x (*batch, dim), in the dtype of y."""
        return (self.shift + row_products(y.to(self.shift.dtype), self.matrix)).to(y.dtype)

    def pushforward(
        self, v: Tensor, y: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """dx/dt (*batch, dim) for dy/dt = v anywhere, in the dtype of v."""
        return row_products(v.to(self.shift.dtype), self.matrix).to(v.dtype)


@register
class Chain(Transform):
    """One map after another, y = mₙ(… m₁(x)); log-Jacobians add.

    Args:
        maps: in the order of application, from the data.

    Example:
        >>> double = Affine(torch.zeros(1), torch.tensor([[0.5]]))
        >>> Chain(double, double)(torch.ones(1))[0].item()
        4.0
    """

    maps: Sequence[Transform]

    def __init__(self, *maps: Transform) -> None:
        super().__init__(maps[0].dim)
        self.add_module("maps", nn.ModuleList(maps))

    @property
    def bounded(self) -> bool:
        """Whether one of the maps is bounded."""
        return any(map.bounded for map in self.maps)

    def config(self) -> dict[str, Any]:
        """The maps, ready for JSON."""
        return {"maps": [described(map) for map in self.maps]}

    @classmethod
    def from_config(cls, config: dict[str, Any], dim: int) -> Chain:
        """The chain that `config` described."""
        return cls(*(rebuild(Transform, part, dim) for part in config["maps"]))

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Model coordinates y (*batch, dim) in float64, and log |det ∂y/∂x|, () or (*batch,)."""
        ladjs = []
        for map in self.maps:
            x, ladj = map(x, context, mask)
            ladjs.append(ladj)
        return x, reduce(torch.add, ladjs)

    def inverse(
        self, y: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Data x (*batch, dim), in the dtype of y."""
        x = y.double()
        for map in reversed(self.maps):
            x = map.inverse(x, context, mask)
        return x.to(y.dtype)

    def pushforward(
        self, v: Tensor, y: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """dx/dt (*batch, dim) for dy/dt = v at y, in the dtype of v."""
        at = y.double()
        for map in reversed(self.maps):
            v, at = map.pushforward(v, at, context, mask), map.inverse(at, context, mask)
        return v


def column_moments(x: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of columns in float64, each (dim,).

    Raises:
        ValueError: if a column is constant.
    """
    mean, covariance = moments(x, weights)
    return mean, covariance.diagonal().sqrt()


def moments(x: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and covariance in float64; raises an error for a constant column."""
    mean, covariance = _moments(x, weights)
    constant = _constant(mean, covariance.diagonal().sqrt()).nonzero().flatten().tolist()
    if constant:
        raise ValueError(
            f"column {constant[0]} (counted from 0) is constant and has no density: drop it"
        )
    return mean, covariance


def _moments(x: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    x = x.double()
    mass = x.new_ones(len(x)) if weights is None else weights.double()
    mean = (mass @ x) / mass.sum()
    centered = x - mean
    return mean, (mass[:, None] * centered).T @ centered / mass.sum()


def _constant(mean: Tensor, spread: Tensor) -> Tensor:
    """Which columns are constant to rounding (dim,)."""
    return spread <= 1e-12 * mean.abs()
