"""The motion of optimal transport between Gaussians."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cnf.fields.base import BoundField, FieldAt, VelocityField
from cnf.functional import identity
from cnf.registry import register
from cnf.rows import row_products


@register
class DisplacementField(VelocityField):
    """Straight lines from x to b + A x, for a symmetric positive A (McCann 1997).

    A point that started at x₀ is at xₜ = x₀ + t (b + (A − I) x₀) and keeps its velocity. With the
    eigenvalues a of A = Q diag(a) Qᵀ,

        v(t, x) = b + Q diag(r) Qᵀ (x − t b),    tr ∂v/∂x = Σ r,    r = (a − 1) / (1 + t (a − 1)).

    Such maps are the optimal transport maps between Gaussians. The field has no trainable
    parameters.

    Args:
        shift: b (dim,)
        matrix: A (dim, dim)

    Example:
        >>> double = DisplacementField(torch.zeros(1), torch.tensor([[2.0]]))
        >>> double(torch.tensor(1.0), torch.tensor([2.0]))  # from 1 to 2, at its end
        tensor([1.])
    """

    shift: Tensor
    matrix: Tensor
    hidden: tuple[int, ...] = ()  # it has no layers

    def __init__(self, shift: Tensor, matrix: Tensor) -> None:
        super().__init__(len(shift))
        self.register_buffer("shift", shift)
        self.register_buffer("matrix", matrix)

    @classmethod
    def between(
        cls, before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor]
    ) -> DisplacementField:
        """The motion between two Gaussians, given by their means (dim,) and covariances (dim,
        dim): A = S₀^−½ (S₀^½ S₁ S₀^½)^½ S₀^−½.

        Raises:
            ValueError: for a covariance of `before` that is singular.

        Example:
            >>> wide = (torch.ones(2), 4 * torch.eye(2))
            >>> DisplacementField.between((torch.zeros(2), torch.eye(2)), wide).matrix
            tensor([[2., 0.],
                    [0., 2.]])
        """
        half = root(before[1])
        back, failure = torch.linalg.inv_ex(half)
        if failure:
            raise ValueError("before: expected a positive definite covariance; got a singular one")
        matrix = back @ root(half @ after[1] @ half) @ back
        return cls(after[0] - matrix @ before[0], matrix)

    def config(self) -> dict[str, Any]:
        """Empty, because all settings are tensors."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any], dim: int, context_dim: int) -> DisplacementField:
        """A zero field, whose tensors are then read from a file."""
        return cls(torch.zeros(dim), identity(dim))

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Velocity (*batch, dim) at times t () or (*batch,) and states x (*batch, dim)."""
        return self.bind().velocity(t, x)

    def bind(self, context: Tensor | None = None) -> BoundField:
        """The field, with its eigenvalues computed once."""
        values, vectors = torch.linalg.eigh(self.matrix)

        def at(times: Tensor) -> list[FieldAt]:
            shares = times[..., None]
            rates = (values - 1) / (1 + shares * (values - 1))
            return [self._moment(*now, vectors) for now in zip(shares * self.shift, rates)]

        return BoundField(at, closed_form=True, tensors=())

    def _moment(self, shifted: Tensor, rates: Tensor, vectors: Tensor) -> FieldAt:
        """The field at one time, when the shift has come to `shifted`."""

        def velocity(x: Tensor) -> Tensor:
            return self.shift + row_products(rates * row_products(x - shifted, vectors.T), vectors)

        def both(x: Tensor) -> tuple[Tensor, Tensor]:
            return velocity(x), rates.sum(-1).expand(x.shape[:-1])

        return FieldAt(velocity, both)


def root(matrix: Tensor) -> Tensor:
    """The symmetric root of a positive matrix (dim, dim)."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T
