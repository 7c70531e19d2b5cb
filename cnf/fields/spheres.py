"""The tangential part of a field on spheres, with its divergence in closed form."""

from __future__ import annotations

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
        velocity, divergence, along = self.layers.linearized(point)
        tangent, radial = self._tangent(velocity, vectors, lengths)
        divergence = divergence - 2 * radial.sum((-2, -1))
        for k in range(self.geometry.spheres):
            only = torch.zeros_like(vectors)
            only[..., k, :] = vectors[..., k, :]
            u = self.geometry.join(torch.zeros_like(reals), torch.zeros_like(angles), only)
            divergence = divergence - (u * along(u)).sum(-1)
        return tangent, divergence

    def _parted(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        reals, angles, vectors = self.geometry.split(x)
        return reals, angles, *unit(vectors)

    def _tangent(self, F: Tensor, vectors: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """|x| P F (*batch, dim), and xᵀF of each sphere (*batch, spheres, 1)."""
        reals, angles, ambient = self.geometry.split(F)
        radial = (ambient * vectors).sum(-1, keepdim=True)
        return self.geometry.join(reals, angles, lengths * (ambient - radial * vectors)), radial
