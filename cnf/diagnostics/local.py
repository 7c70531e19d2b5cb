"""Flat coordinates around points of a space with circles and spheres."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cnf.fields import Geometry
from cnf.fields.geometry import unit, wrap
from cnf.transforms import Transform


class LocalCoordinates:
    """Coordinates (…, dim) around points: differences of reals and of angles, and two along the
    tangent plane of each sphere.

    Args:
        geometry: of the space.
        at: the points (rows, geometry.dim).

    Example:
        >>> circle = LocalCoordinates(Geometry(0, angles=1), torch.tensor([[3.0]]))
        >>> circle.of(torch.tensor([[-3.0]]))
        tensor([[0.2832]])
    """

    def __init__(self, geometry: Geometry, at: Tensor) -> None:
        self.geometry = geometry
        self.reals, self.angles, self.vectors = geometry.split(at)
        self.tangents = tangents(self.vectors)
        self.dim = geometry.reals + geometry.angles + 2 * geometry.spheres

    def point(self, u: Tensor) -> Tensor:
        """The points (…, rows, geometry.dim) at coordinates u (…, rows, dim)."""
        sizes = (self.geometry.reals, self.geometry.angles, 2 * self.geometry.spheres)
        reals, angles, along = u.split(sizes, -1)
        along = along.unflatten(-1, (self.geometry.spheres, 2))
        moved = self.vectors + (self.tangents @ along[..., None]).squeeze(-1)
        return self.geometry.join(self.reals + reals, self.angles + angles, unit(moved)[0])

    def of(self, points: Tensor) -> Tensor:
        """The coordinates (…, rows, dim) of points (…, rows, geometry.dim)."""
        reals, angles, vectors = self.geometry.split(points)
        along = (vectors[..., None, :] @ self.tangents).squeeze(-2)
        turned = wrap(angles - self.angles)
        return torch.cat([reals - self.reals, turned, along.flatten(-2)], -1)


class DataSpace:
    """The columns of a table as points of a space: reals as they are, angles in radians, longitude
    and latitude as unit vectors.

    Args:
        transform: of the flow; it knows which columns come back to themselves.

    Attributes:
        geometry: of the space.
        log_volume: log of the data's volume beside that of the space.

    Example:
        >>> from cnf.transforms import Charts
        >>> hours = DataSpace(Charts(1, periods={0: 24.0}))
        >>> hours.points(torch.tensor([[6.0]]))
        tensor([[1.5708]])
    """

    def __init__(self, transform: Transform) -> None:
        self.spheres = [list(pair) for pair in transform.spheres]
        paired = {place for pair in self.spheres for place in pair}
        self.turns = {
            place: turn for place, turn in transform.turns.items() if place not in paired
        }
        taken = paired | self.turns.keys()
        self.reals = [place for place in range(transform.dim) if place not in taken]
        self.geometry = Geometry(len(self.reals), len(self.turns), len(self.spheres))
        self.log_volume = sum(math.log(end - begin) for begin, end in self.turns.values())
        self.log_volume -= len(self.turns) * math.log(2 * math.pi)

    def points(self, x: Tensor) -> Tensor:
        """The points (*batch, geometry.dim) of rows x (*batch, dim)."""
        ends = torch.tensor(list(self.turns.values()), dtype=x.dtype, device=x.device)
        begin, end = ends.reshape(-1, 2).unbind(-1)
        angles = 2 * math.pi * (x[..., list(self.turns)] - begin) / (end - begin)
        return self.geometry.join(x[..., self.reals], angles, self._vectors(x))

    def _vectors(self, x: Tensor) -> Tensor:
        places = torch.tensor(self.spheres, dtype=torch.long, device=x.device).reshape(-1, 2)
        longitude, latitude = torch.deg2rad(x[..., places]).unbind(-1)
        across = latitude.cos()
        parts = (across * longitude.cos(), across * longitude.sin(), latitude.sin())
        return torch.stack(parts, -1)

    def around(self, points: Tensor) -> LocalCoordinates:
        """The coordinates around points (rows, geometry.dim)."""
        return LocalCoordinates(self.geometry, points)


def center(geometry: Geometry, points: Tensor) -> Tensor:
    """The mean (1, geometry.dim) of points (rows, geometry.dim), on each circle and sphere that of
    directions."""
    reals, angles, vectors = geometry.split(points)
    angle = torch.atan2(angles.sin().mean(0), angles.cos().mean(0))
    return geometry.join(reals.mean(0), angle, unit(vectors.mean(0))[0])[None]


def spread(geometry: Geometry, points: Tensor) -> Tensor:
    """The root mean square (dim,) of the coordinates around the center."""
    around = LocalCoordinates(geometry, center(geometry, points))
    return around.of(points).square().mean(0).sqrt()


def tangents(vectors: Tensor) -> Tensor:
    """An orthonormal basis (…, 3, 2) of the tangent plane at unit vectors (…, 3).

    >>> tangents(torch.tensor([0.0, 0.0, 1.0])).T @ torch.tensor([0.0, 0.0, 1.0])
    tensor([0., 0.])
    """
    axis = torch.nn.functional.one_hot(vectors.abs().argmin(-1), 3).to(vectors.dtype)
    first = unit(torch.linalg.cross(vectors, axis))[0]
    return torch.stack([first, torch.linalg.cross(vectors, first)], -1)
