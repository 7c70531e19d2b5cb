"""Couplings of flow matching, which pair source points with rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from cnf.fields import Geometry

# Unbalanced plans: the weight of their entropy, as a squared distance, the number of Sinkhorn
# iterations, and a lower limit of masses that are divided by.
BLUR, UNBALANCED_SWEEPS, LEAST_MASS = 0.01, 100, 1e-200


class Coupling(Protocol):
    """A joint distribution of source points and rows with the given marginals."""

    def __call__(self, z: Tensor, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Paired source points and rows, each (rows, dim); row k keeps the context of row k."""


@dataclass(frozen=True)
class IndependentCoupling:
    """Independent pairs."""

    def __call__(self, z: Tensor, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """The pairs."""
        return z, y


@dataclass(frozen=True)
class MinibatchOT:
    """Optimal transport within blocks of a batch (Tong et al. 2024; Pooladian et al. 2023).

    Paths of such pairs cross less often, so the field is straighter and cheaper to solve.

    Attributes:
        block: number of rows that are paired together; the cost per row grows with its square.
        geometry: the space for distances; None is a plane.
    """

    block: int = 64
    geometry: Geometry | None = None

    def __call__(self, z: Tensor, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Pair source points with rows.

        Raises:
            ValueError: for rows with a context, which must stay with their rows.
        """
        if context is not None:
            raise ValueError("coupling: expected IndependentCoupling for a flow with a context")
        return z, couple(z, y, self.block, self.geometry)


def couple(z: Tensor, y: Tensor, block: int, geometry: Geometry | None = None) -> Tensor:
    """The rows of y, permuted within blocks to minimize Σ |z − y|²; on circles and spheres, distances
    are chords.

    Args:
        z: source points (rows, dim).
        y: data (rows, dim); the number of rows is a multiple of `block`.
        block: number of rows that are paired together.
        geometry: the space of the rows; None is a plane.

    Example:
        >>> couple(torch.tensor([[0.0], [1.0]]), torch.tensor([[5.0], [4.0]]), block=2)
        tensor([[4.],
                [5.]])
    """
    blocks = y.reshape(-1, block, y.shape[-1])
    order = assignment(z.reshape_as(blocks), blocks, geometry)
    return blocks.gather(1, order[..., None].expand_as(blocks)).reshape_as(y)


def assignment(z: Tensor, y: Tensor, geometry: Geometry | None = None) -> Tensor:
    """The index within its block of the row of y paired with each row of z (blocks, rows); see
    `couple`.

    Args:
        z: source points (blocks, rows, dim).
        y: data (blocks, rows, dim).
        geometry: the space of the rows; None is a plane.
    """
    ends = (z, y) if geometry is None else (geometry.chord(z), geometry.chord(y))
    costs = torch.cdist(*ends).square().double().numpy(force=True)
    return torch.from_numpy(np.stack([linear_sum_assignment(cost)[1] for cost in costs])).to(
        y.device
    )


def unbalanced_odds(z: Tensor, y: Tensor, reach: float) -> Tensor:
    """The odds (rows, rows of y) of the destinations of each row of z, from the entropic plan of
    unbalanced optimal transport (Chizat et al. 2018),

        min over π ≥ 0 of Σ |z − y|² π + r² KL(π 1 | a) + r² KL(πᵀ 1 | b) + ε KL(π | a bᵀ),

    with equal masses a and b for every row; mass need not be preserved.

    Args:
        z: source rows of the mass (rows, dim).
        y: target rows, of any number.
        reach: r, a distance beyond which mass is removed and created rather than moved.

    Example:
        >>> z, y = torch.tensor([[0.0], [9.0]]), torch.tensor([[0.0], [9.0], [9.0]])
        >>> unbalanced_odds(z, y, 1.0).round(decimals=3)
        tensor([[1.0000, 0.0000, 0.0000],
                [0.0000, 0.5000, 0.5000]], dtype=torch.float64)
    """
    costs = torch.cdist(z.double(), y.double()).square() / BLUR
    kernel, power = (-costs).exp(), reach**2 / (reach**2 + BLUR)
    v = torch.ones_like(costs[0])
    for _ in range(UNBALANCED_SWEEPS):
        u = (kernel @ v / len(v)).clamp_min(LEAST_MASS) ** -power
        v = (u @ kernel / len(u)).clamp_min(LEAST_MASS) ** -power
    return (v.log() - costs).softmax(1)
