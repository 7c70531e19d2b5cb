"""The space that a flow moves in: a product of a plane, circles and spheres."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Of the sine of an arc, below which two points are taken as opposite: the arc has no direction.
OPPOSITE = 1e-4


@dataclass(frozen=True)
class Geometry:
    """Model coordinates (*batch, dim): real numbers, then angles in radians, then unit vectors of
    three numbers each.

    Attributes:
        reals: number of real coordinates.
        angles: number of coordinates on circles of period 2π.
        spheres: number of unit vectors.

    Raises:
        ValueError: for a negative number, or no coordinate at all.

    Example:
        >>> Geometry(reals=1, angles=2, spheres=1).dim
        6
    """

    reals: int
    angles: int = 0
    spheres: int = 0

    def __post_init__(self) -> None:
        if min(self.reals, self.angles, self.spheres) < 0 or not self.dim:
            raise ValueError(
                "a geometry: expected numbers >= 0 of reals, angles and spheres, one above zero;"
                f" got {self.reals}, {self.angles} and {self.spheres}"
            )

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return self.reals + self.angles + 3 * self.spheres

    @property
    def flat(self) -> bool:
        """Whether all coordinates are real."""
        return self.reals == self.dim

    def split(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The reals (…, reals), angles (…, angles) and vectors (…, spheres, 3) of y (…, dim)."""
        reals, angles, vectors = y.split((self.reals, self.angles, 3 * self.spheres), -1)
        return reals, angles, vectors.unflatten(-1, (self.spheres, 3))

    def join(self, reals: Tensor, angles: Tensor, vectors: Tensor) -> Tensor:
        """The coordinates (…, dim) from the parts of `split`."""
        if self.dim == 3 * self.spheres:  # nothing to copy
            return vectors.flatten(-2)
        return torch.cat([reals, angles, vectors.flatten(-2)], -1)

    def geodesic(self, z: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The point x_t (…, dim) at time t on the shortest path from z to y, and its velocity.

        Reals move straight, angles along the shorter arc, x_t = z + t wrap(y − z), and vectors
        along the great circle, x_t = (sin((1 − t)ω) z + sin(tω) y) / sin ω with ω the angle
        between them (Chen & Lipman 2024).
        """
        (a, from_angle, from_vector), (b, to_angle, to_vector) = self.split(z), self.split(y)
        turn = wrap(to_angle - from_angle)
        vector, spin = great_circle(from_vector, to_vector, t[..., None])
        point = self.join(torch.lerp(a, b, t), from_angle + t * turn, vector)
        return point, self.join(b - a, turn, spin)

    def chord(self, y: Tensor) -> Tensor:
        """Points of a plane (…, coordinates) whose distances are nearly those of y: angles become
        cosine and sine."""
        reals, angles, vectors = self.split(y)
        return torch.cat([reals, angles.cos(), angles.sin(), vectors.flatten(-2)], -1)


def wrap(angles: Tensor) -> Tensor:
    """The same angles in [−π, π].

    >>> wrap(torch.tensor([3.0, 4.0]))
    tensor([ 3.0000, -2.2832])
    """
    return angles - 2 * math.pi * torch.round(angles / (2 * math.pi))


def unit(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Normalized vectors (…, 3), and their lengths (…, 1); zero vectors stay zero."""
    lengths = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    lengths = lengths.clamp(min=math.sqrt(torch.finfo(vectors.dtype).tiny))
    return vectors / lengths, lengths


def great_circle(z: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The point at time t of the great circle from z to y (…, 3), and its velocity."""
    apart, together = ((y + sign * z).norm(dim=-1, keepdim=True) for sign in (-1, 1))
    arc = 2 * torch.atan2(apart, together)
    # sin(sω) / sin ω without a division by zero where the points are the same.
    sine = torch.sinc(arc / math.pi).clamp(min=OPPOSITE)
    ahead, behind = ((s * torch.sinc(s * arc / math.pi) / sine) for s in (t, 1 - t))
    velocity = ((t * arc).cos() * y - ((1 - t) * arc).cos() * z) / sine
    return behind * z + ahead * y, velocity
