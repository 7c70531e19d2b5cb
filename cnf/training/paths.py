"""Probability paths of flow matching."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
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
    """Shortest ways at constant speed: straight for real columns, along arcs for angles, along great
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


def shortest_path(geometry: Geometry) -> Path:
    """The path of flow matching in a space."""
    return LinearPath() if geometry.flat else GeodesicPath(geometry)
