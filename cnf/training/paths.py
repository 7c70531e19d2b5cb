"""Probability paths of flow matching."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


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
