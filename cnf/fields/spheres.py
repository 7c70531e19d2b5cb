"""The tangential part of a field on spheres, with its divergence in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cnf.fields.closed_form import Layers
from cnf.fields.geometry import Geometry, unit


@dataclass(frozen=True)
class OnSpheres:
    """v = P F of layers F, with P = I − x xᵀ on each unit vector x and P = I elsewhere.

    The divergence of P F on a sphere is, in three dimensions,

        div(P F) = tr ∂F − xᵀ(∂F)x − 2 xᵀF,

    the trace of the layers and, for each sphere, one derivative along x: one more product of two
    matrices. A vector whose length is not one moves as its direction does on the unit sphere, v(x)
    = |x| P F(x / |x|), so that what a solver errs in the length changes nothing.

    Attributes:
        layers: F at one time.
        geometry: which coordinates are unit vectors.
    """

    layers: Layers
    geometry: Geometry

    def velocity(self, x: Tensor) -> Tensor:
        """v (*batch, dim) at x (*batch, dim)."""
        reals, angles, vectors, lengths = self._parted(x)
        velocity = self.layers.velocity(self.geometry.join(reals, angles, vectors))
        return self._tangent(velocity, vectors, lengths)[0]

    def velocity_and_divergence(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """v (*batch, dim) and its divergence (*batch,) at x (*batch, dim)."""
        reals, angles, vectors, lengths = self._parted(x)
        point = self.geometry.join(reals, angles, vectors)
        velocity, divergence = self.layers.velocity_and_partial_divergence(
            point, self._alone(point)
        )
        tangent, radial = self._tangent(velocity, vectors, lengths)
        return tangent, torch.sub(divergence, radial.sum(-1), alpha=2)

    def _alone(self, point: Tensor) -> Sequence[Tensor]:
        """Each of the unit vectors with all other coordinates zero (*batch, dim)."""
        if self.geometry.dim == 3:
            return (point,)
        last = torch.arange(-self.geometry.dim, 0, device=point.device)
        return [
            point.where(last.div(3, rounding_mode="floor") == k, 0.0)
            for k in range(-self.geometry.spheres, 0)
        ]

    def _parted(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        reals, angles, vectors = self.geometry.split(x)
        return reals, angles, *unit(vectors)

    def _tangent(self, F: Tensor, vectors: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """|x| P F (*batch, dim), and xᵀF of each sphere (*batch, spheres)."""
        reals, angles, ambient = self.geometry.split(F)
        radial = (ambient * vectors).sum(-1)
        tangent = torch.addcmul(ambient, radial[..., None], vectors, value=-1) * lengths
        return self.geometry.join(reals, angles, tangent), radial
