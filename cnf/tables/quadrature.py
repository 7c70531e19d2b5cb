"""The mass of an integer cell: rules for the mean of a density over the cell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

# Nodes of the Gauss-Legendre rule in each of up to two integer columns, and points of the rule for
# more; those that come before and after where points are added until they are enough.
NODES = {1: 12, 2: 8}
POINTS = 32
NODES_IN_TURN = {1: (3, 8, 16), 2: (3, 6, 10)}
POINTS_IN_TURN = (16, 64)


@dataclass(frozen=True)
class Rule:
    """Points of a cell and what they weigh.

    Attributes:
        offsets: (points, columns), in the units of the columns; zero where a column is no integer.
        weights: (points,), their sum 1.
        checks: (rules, points): other weights whose results, relative to the mean, bound its
            error.
    """

    offsets: Tensor
    weights: Tensor
    checks: Tensor

    def log_mean(self, log_density: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithm of the mean density (rows,) from those at the points (points, rows), and its
        error."""
        peak = log_density.amax(0).clamp(min=torch.finfo(log_density.dtype).min)
        density = (log_density - peak).exp()
        mean = self.weights.to(density) @ density
        error = (self.checks.to(density) @ density).abs().sum(0) / mean
        return peak + mean.log(), error


def cell_rules(steps: Tensor) -> list[Rule]:
    """Rules for a cell of these steps, each with more points than the one before."""
    count = int((steps > 0).sum())
    return [cell_rule(steps, size) for size in NODES_IN_TURN.get(count, POINTS_IN_TURN)]


def cell_rule(steps: Tensor, size: int | None = None) -> Rule:
    """The rule for a cell of these steps (columns,), zero for a column that is no integer.

    One or two integer columns take the Gauss-Legendre product; the check is the highest Legendre
    coefficient that its nodes can see, far above the rule's error where the coefficients fall.
    More take a Sobol sequence; the check is the difference to its first half. Without integer
    columns the cell is a point. `size` is the number of nodes in each of up to two integer columns,
    or of points for more.

    >>> rule = cell_rule(torch.tensor([1.0]))
    >>> x = rule.offsets[:, 0]
    >>> round(float(rule.weights @ x.square()), 6)  # the mean of x² over (−½, ½) is 1/12
    0.083333
    """
    steps = steps.double().cpu()
    integers = steps.nonzero().squeeze(1)
    if len(integers) == 0:
        return Rule(
            torch.zeros(1, len(steps)).double(),
            torch.ones(1).double(),
            torch.zeros(1, 1).double(),
        )
    if len(integers) in NODES:
        unit, weights, checks = _gauss_legendre(size or NODES[len(integers)], len(integers))
    else:
        unit, weights, checks = _sobol(len(integers), size or POINTS)
    offsets = torch.zeros(len(unit), len(steps), dtype=torch.float64)
    offsets[:, integers] = unit * steps[integers]
    return Rule(offsets, weights, checks)


def axes_rule(steps: Tensor) -> Rule:
    """Three Gauss-Legendre nodes along each integer column through the center, which comes first.

    Exact to third order in the widths of the cell; for narrow cells alone, as the weight of the
    center is negative beyond one column.
    """
    integers = steps.cpu().nonzero().squeeze(1)
    offsets = torch.zeros(1 + 2 * len(integers), len(steps), dtype=torch.float64)
    for k, j in enumerate(integers.tolist()):
        reach = math.sqrt(0.15) * steps[j]
        offsets[1 + 2 * k, j], offsets[2 + 2 * k, j] = reach, -reach
    weights = torch.full((len(offsets),), 5 / 18, dtype=torch.float64)
    weights[0] = 1 - 5 / 9 * len(integers)
    return Rule(offsets, weights, torch.zeros_like(weights)[None])


@cache
def _gauss_legendre(nodes: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    where, mass = np.polynomial.legendre.leggauss(nodes)
    top = math.sqrt(2 * nodes - 1) * np.polynomial.legendre.Legendre.basis(nodes - 1)(where)
    at, weight, check = (torch.tensor(part) for part in (where / 2, mass / 2, mass / 2 * top))
    if dim == 1:
        return at[:, None], weight, check[None]
    product = torch.outer(weight, weight).flatten()
    checks = torch.stack(
        (torch.outer(check, weight).flatten(), torch.outer(weight, check).flatten())
    )
    return torch.cartesian_prod(at, at), product, checks


@cache
def _sobol(dim: int, points: int) -> tuple[Tensor, Tensor, Tensor]:
    sequence = torch.quasirandom.SobolEngine(dim, scramble=True, seed=0)
    unit = sequence.draw(points, dtype=torch.float64) - 0.5
    weights = torch.full((points,), 1 / points, dtype=torch.float64)
    half = weights.clone()
    half[: points // 2] = -half[: points // 2]
    return unit, weights, half[None]
