"""Couplings of flow matching: which source point is paired with which row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from cnf.fields import Geometry


class Coupling(Protocol):
    """A joint distribution of source points and rows that keeps both marginals."""

    def __call__(self, z: Tensor, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Paired source points and rows, each (rows, dim); row k keeps the context of row k."""


@dataclass(frozen=True)
class IndependentCoupling:
    """Pairs as they were drawn."""

    def __call__(self, z: Tensor, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """The pairs."""
        return z, y


@dataclass(frozen=True)
class MinibatchOT:
    """Optimal transport within blocks of a batch (Tong et al. 2024; Pooladian et al. 2023).

    Pairs cross less often, so that the field is straighter and cheaper to solve.

    Attributes:
        block: rows assigned among each other; the cost of a row grows with its square.
        geometry: the space in which they are near each other; None is a plane.
    """

    block: int = 64
    geometry: Geometry | None = None

    def __call__(self, z: Tensor, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """The pairs.

        Raises:
            ValueError: for rows with a context; they cannot change places with each other.
        """
        if context is not None:
            raise ValueError("coupling: expected IndependentCoupling for a flow with a context")
        return z, couple(z, y, self.block, self.geometry)


def couple(z: Tensor, y: Tensor, block: int, geometry: Geometry | None = None) -> Tensor:
    """The rows of y, permuted within blocks so that Σ |z − y|² is smallest; on circles and spheres,
    that of the chords.

    Args:
        z: source points (rows, dim).
        y: data (rows, dim); the number of rows is a multiple of `block`.
        block: rows assigned among each other.
        geometry: the space of the rows; None is a plane.

    Example:
        >>> couple(torch.tensor([[0.0], [1.0]]), torch.tensor([[5.0], [4.0]]), block=2)
        tensor([[4.],
                [5.]])
    """
    blocks = y.reshape(-1, block, y.shape[-1])
    ends = (z.reshape_as(blocks), blocks)
    if geometry is not None:
        ends = (geometry.chord(ends[0]), geometry.chord(blocks))
    costs = torch.cdist(*ends).square().double().numpy(force=True)
    order = [torch.from_numpy(linear_sum_assignment(cost)[1]) for cost in costs]
    chosen = torch.stack(order).to(y.device)[..., None].expand_as(blocks)
    return blocks.gather(1, chosen).reshape_as(y)
