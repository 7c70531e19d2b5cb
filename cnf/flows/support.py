"""The support of the density of a flow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Transform, biject_to, constraints, transform_to

from cnf.flows.bound import BoundFlow


def support_of(bound: BoundFlow) -> constraints.Constraint:
    """The support of a bound flow as a constraint of vectors."""
    return WithinRanges(bound) if bound.flow.preprocess.bounded else constraints.real_vector


class WithinRanges(constraints.Constraint):
    """Vectors within the ranges of the transform of a flow.

    Args:
        bound: the flow under a context.
    """

    event_dim = 1

    def __init__(self, bound: BoundFlow) -> None:
        self.bound = bound
        super().__init__()

    def __repr__(self) -> str:
        return "WithinRanges()"

    def check(self, value: Tensor) -> Tensor:
        """Which vectors (*batch,) of value (*batch, dim) are inside."""
        rows, given, shape = self.bound.rows(value)
        y, ladj = self.bound.flow.preprocess(rows, given.context, given.mask)
        inside = y.isfinite().all(-1) & (ladj > -torch.inf) & rows.isfinite().all(-1)
        return inside.reshape(shape)


class FromModelCoordinates(Transform):
    """The map from unconstrained model coordinates to vectors inside the ranges, for samplers such
    as NUTS.

    Args:
        constraint: the ranges.
    """

    domain = constraints.real_vector
    bijective = True

    def __init__(self, constraint: WithinRanges) -> None:
        super().__init__()
        self.bound, self.codomain = constraint.bound, constraint

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FromModelCoordinates) and other.bound is self.bound

    def _call(self, y: Tensor) -> Tensor:
        rows, given, shape = self.bound.rows(y)
        x = self.bound.flow.preprocess.inverse(rows, given.context, given.mask)
        return x.reshape(*shape, -1)

    def _inverse(self, x: Tensor) -> Tensor:
        return self._to_model(x)[0].to(x.dtype)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log |det ∂y/∂x| (*batch,) for data y at model coordinates x."""
        return -self._to_model(y)[1].to(y.dtype)

    def _to_model(self, x: Tensor) -> tuple[Tensor, Tensor]:
        rows, given, shape = self.bound.rows(x)
        y, ladj = self.bound.flow.preprocess(rows, given.context, given.mask)
        return y.reshape(*shape, -1), ladj.expand(len(rows)).reshape(shape)


@biject_to.register(WithinRanges)
@transform_to.register(WithinRanges)
def _from_model_coordinates(constraint: Any) -> FromModelCoordinates:
    return FromModelCoordinates(constraint)
