"""Spirals in time: the noise-free curves of the latent-ODE experiments (Chen et al. 2018, section
5.1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TURNS, POINTS = 3, 500  # of the whole curve that every spiral is a piece of
INNER, GROWTH = 0.2, 0.1  # radius r = INNER + GROWTH · angle
ARC_SPACING = 0.01  # between points, in units of time


def spirals(
    n: int,
    points: int = 100,
    generator: torch.Generator | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Pieces of two Archimedean spirals, one clockwise and one counter-clockwise, in turn.

    The whole curve is (r cos θ, ± r sin θ) with r = 0.2 + 0.1 θ, three turns of 500 points at
    equal angles, 0.01 apart in time. Each piece starts at a random point of it; its angle grows at
    the same pace whatever its radius, so position and direction together decide how it goes on.

    Args:
        n: number of pieces; those with an even index run counter-clockwise.
        points: points of each piece, 2 to 500.
        generator: source of the starting points; they are on its device.
        dtype: of what is returned.

    Returns:
        Times (points,), from zero, and curves (n, points, 2) without noise.

    Raises:
        ValueError: for a number of points outside 2 to 500.

    Example:
        >>> times, curves = spirals(6, points=50)
        >>> times.shape, curves.shape
        (torch.Size([50]), torch.Size([6, 50, 2]))
    """
    if not 2 <= points <= POINTS:
        raise ValueError(f"points of a spiral: expected 2 to {POINTS}; got {points}")
    device = None if generator is None else generator.device
    first = torch.randint(POINTS - points + 1, (n, 1), generator=generator, device=device)
    step = torch.arange(points, device=device)
    angle = (first + step).to(torch.float64) * (2 * math.pi * TURNS / (POINTS - 1))
    direction = 1.0 - 2.0 * (torch.arange(n, device=device)[:, None] % 2)
    circle = torch.stack((angle.cos(), direction * angle.sin()), -1)
    return (ARC_SPACING * step).to(dtype), ((INNER + GROWTH * angle)[..., None] * circle).to(dtype)
