"""A motion in which Gaussians stay Gaussians."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.polynomial import chebyshev as series
from torch import Tensor

from cnf.fields.base import BoundField, FieldAt, VelocityField
from cnf.fields.displacement import DisplacementField, root
from cnf.fields.growing import chebyshev, interpolate
from cnf.registry import register

# Of the polynomials in time, and the times at which they meet the splines.
DEGREE, TIMES = 12, 65
# Where a spline of roots comes so much nearer to a singular matrix than the roots do, it is none of
# covariances.
NARROWEST = 0.3


@register
class LinearMotion(VelocityField):
    """v = a(t) + B(t) x, with polynomials in time; tr ∂v/∂x = tr B(t). The field has no trainable
    parameters.

    Args:
        shifts: coefficients of Chebyshev polynomials of 2t − 1 for a (degree + 1, dim).
        matrices: those of B (degree + 1, dim, dim).

    Example:
        >>> grow = LinearMotion(torch.zeros(1, 1), torch.ones(1, 1, 1))
        >>> grow(torch.tensor(0.5), torch.tensor([2.0]))
        tensor([2.])
    """

    shifts: Tensor
    matrices: Tensor
    hidden: tuple[int, ...] = ()  # it has no layers

    def __init__(self, shifts: Tensor, matrices: Tensor) -> None:
        super().__init__(shifts.shape[-1])
        self.register_buffer("shifts", shifts)
        self.register_buffer("matrices", matrices)

    @classmethod
    def through(
        cls, times: Sequence[float], gaussians: Sequence[tuple[Tensor, Tensor]]
    ) -> LinearMotion | None:
        """The motion x(t) = m(t) + R(t) z through Gaussians at times in [0, 1], given by means
        (dim,) and covariances (dim, dim); None if they are too different.

        m and R are cubic splines through the means and through roots of the covariances, R Rᵀ = S;
        optimal transport maps each root to the next. Natural splines, which have no curvature at
        the ends, cannot represent a motion that comes to rest. For two Gaussians, it is the motion
        of `DisplacementField`.

        Example:
            >>> wide = (torch.ones(1), 4 * torch.eye(1))
            >>> motion = LinearMotion.through((0.0, 1.0), [(torch.zeros(1), torch.eye(1)), wide])
            >>> motion(torch.tensor(1.0), torch.tensor([3.0])).round(decimals=4)  # as x = t + (1 + t) z
            tensor([2.])
        """
        roots = [root(gaussians[0][1])]
        for before, after in pairwise(gaussians):
            roots.append(DisplacementField.between(before, after).matrix @ roots[-1])
        means = np.stack([mean.numpy(force=True) for mean, _ in gaussians])
        known = np.stack([part.numpy(force=True) for part in roots])
        m, R = (
            interpolate.CubicSpline(times, part, bc_type="not-a-knot") for part in (means, known)
        )
        t = (1 - np.cos(np.pi * np.arange(TIMES) / (TIMES - 1))) / 2
        narrowest = np.linalg.svd(R(t), compute_uv=False).min()
        if narrowest < NARROWEST * np.linalg.svd(known, compute_uv=False).min():
            return None
        B = R(t, 1) @ np.linalg.inv(R(t))
        a = m(t, 1) - (B @ m(t)[..., None])[..., 0]
        shifts, matrices = (
            torch.from_numpy(series.chebfit(2 * t - 1, part.reshape(TIMES, -1), DEGREE))
            for part in (a, B)
        )
        dim = a.shape[1]
        like = gaussians[0][0]
        return cls(shifts.to(like), matrices.view(-1, dim, dim).to(like))

    def config(self) -> dict[str, Any]:
        """The degree; all else is tensors."""
        return {"degree": len(self.shifts) - 1}

    @classmethod
    def from_config(cls, config: dict[str, Any], dim: int, context_dim: int) -> LinearMotion:
        """A zero field, whose tensors are then read from a file."""
        count = config["degree"] + 1
        return cls(torch.zeros(count, dim), torch.zeros(count, dim, dim))

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Velocity (*batch, dim) at times t () or (*batch,) and states x (*batch, dim)."""
        return self.bind().velocity(t, x)

    def bind(self, context: Tensor | None = None) -> BoundField:
        """The field, ready for many times."""

        def at(times: Tensor) -> list[FieldAt]:
            shifts, matrices = (chebyshev(part, times) for part in (self.shifts, self.matrices))
            return [self._moment(a, B) for a, B in zip(shifts, matrices)]

        return BoundField(at, closed_form=True, tensors=())

    def _moment(self, a: Tensor, B: Tensor) -> FieldAt:
        """The field at one time, a (…, dim) and B (…, dim, dim)."""
        rate = B.diagonal(dim1=-2, dim2=-1).sum(-1)

        def velocity(x: Tensor) -> Tensor:
            return a + (B * x[..., None, :]).sum(-1)  # many small matrices take longer by products

        def both(x: Tensor) -> tuple[Tensor, Tensor]:
            return velocity(x), rate.expand(x.shape[:-1])

        return FieldAt(velocity, both)
