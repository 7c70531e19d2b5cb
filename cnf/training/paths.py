"""Probability paths of flow matching."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from scipy.interpolate import CubicHermiteSpline, CubicSpline, PPoly
from torch import Tensor

from cnf.fields import Geometry


class Path(Protocol):
    """A conditional probability path between a source point z (t = 0) and a row y (t = 1)."""

    def __call__(self, z: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The point x_t and the velocity u_t = dx_t/dt (times, rows, dim).

        Args:
            z: source points (times, rows, dim).
            y: data in model coordinates (times, rows, dim).
            t: times in [0, 1], (times, 1, 1).
        """


@dataclass(frozen=True)
class LinearPath:
    """Straight lines at constant speed, x_t = (1 − t) z + t y, u_t = y − z (Lipman et al. 2023).

    Example:
        >>> z, y, t = torch.zeros(1, 1, 2), torch.ones(1, 1, 2), torch.full((1, 1, 1), 0.25)
        >>> LinearPath()(z, y, t)
        (tensor([[[0.2500, 0.2500]]]), tensor([[[1., 1.]]]))
    """

    def __call__(self, z: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The point and the velocity."""
        return torch.lerp(z, y, t), y - z


@dataclass(frozen=True)
class GeodesicPath:
    """Shortest paths at constant speed: straight lines for real columns, arcs for angles, great
    circles for unit vectors (Chen & Lipman 2024).

    Attributes:
        geometry: the space of model coordinates.

    Example:
        >>> z, y, t = torch.full((1, 1, 1), 3.0), torch.full((1, 1, 1), -3.0), torch.ones(1, 1, 1)
        >>> GeodesicPath(Geometry(0, angles=1))(z, y, t)[1]
        tensor([[[0.2832]]])
    """

    geometry: Geometry

    def __call__(self, z: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The point and the velocity."""
        return self.geometry.geodesic(z, y, t)


@dataclass(frozen=True)
class SplinePath:
    """Cubic splines through points at more than two times; straight lines through two.

    Attributes:
        times: times of the points, increasing from 0 to 1.
        ends: "natural", the curves of least mean squared acceleration (Rohbeck et al. 2025), which
            is zero at the ends; or "not-a-knot", whose first two pieces are one cubic, as are the
            last two.

    Example:
        >>> points = torch.tensor([0.0, 1.0, 0.0]).view(3, 1, 1, 1)
        >>> x, u = SplinePath((0.0, 0.5, 1.0))(points, torch.tensor([0.25]).view(1, 1, 1))
        >>> round(x.item(), 4), round(u.item(), 4)
        (0.6875, 2.25)
    """

    times: tuple[float, ...]
    ends: str = "natural"

    def __call__(self, points: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The point x_t and the velocity dx_t/dt (times, rows, dim).

        Args:
            points: (len(self.times), times, rows, dim).
            t: times in [0, 1], (times, 1, 1).
        """
        basis = CubicSpline(self.times, np.eye(len(self.times)), bc_type=self.ends)
        return _combined(basis, points, t)

    def through(self, points: Tensor, slopes: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The spline with known slopes at the points (a Hermite spline); NaN slopes are replaced by
        those of the spline without slopes.

        Args:
            points: (len(self.times), times, rows, dim).
            slopes: dx_t/dt at the points, of the same shape.
            t: times in [0, 1], (times, 1, 1).
        """
        one = np.eye(len(self.times))
        rates = torch.from_numpy(CubicSpline(self.times, one, bc_type=self.ends)(self.times, 1))
        usual = torch.einsum("lk,ktnd->ltnd", rates.to(points), points)
        slopes = torch.where(slopes.isnan(), usual, slopes)
        of_points = _combined(CubicHermiteSpline(self.times, one, 0 * one), points, t)
        of_slopes = _combined(CubicHermiteSpline(self.times, 0 * one, one), slopes, t)
        return of_points[0] + of_slopes[0], of_points[1] + of_slopes[1]


def _combined(basis: PPoly, points: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """A spline and its slope at t (times, 1, 1), computed as linear functions of points (points, times,
    rows, dim)."""
    at = t.flatten().numpy(force=True)
    weights = (torch.from_numpy(basis(at, order)).to(points) for order in (0, 1))
    x, u = (torch.einsum("tk,ktnd->tnd", weight, points) for weight in weights)
    return x, u


def shortest_path(geometry: Geometry) -> Path:
    """The shortest path of flow matching in a geometry."""
    return LinearPath() if geometry.flat else GeodesicPath(geometry)
