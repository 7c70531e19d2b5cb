"""The mass of an integer cell: fixed rules for the mean of a density over the cell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cnf.tables.columns import Column

# Nodes of the Gauss-Legendre rule in each of up to two integer columns, and points of the rule for
# more.
NODES = {1: 12, 2: 8}
POINTS = 32


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


def cell_rule(columns: Sequence[Column]) -> Rule:
    """The rule for the numeric columns of a table.

    One or two integer columns take the Gauss-Legendre product; the check is the highest Legendre
    coefficient that its nodes can see, far above the rule's error where the coefficients fall.
    More take a Sobol sequence; the check is the difference to its first half. Without integer
    columns the cell is a point.

    >>> rule = cell_rule([Column("n", "integer", step=1.0)])
    >>> x = rule.offsets[:, 0]
    >>> round(float(rule.weights @ x.square()), 6)  # the mean of x² over (−½, ½) is 1/12
    0.083333
    """
    steps = torch.tensor([column.step or 0.0 for column in columns], dtype=torch.float64)
    integers = steps.nonzero().squeeze(1)
    if len(integers) == 0:
        return Rule(
            torch.zeros(1, len(columns)).double(),
            torch.ones(1).double(),
            torch.zeros(1, 1).double(),
        )
    if len(integers) in NODES:
        unit, weights, checks = _gauss_legendre(NODES[len(integers)], len(integers))
    else:
        unit, weights, checks = _sobol(len(integers))
    offsets = torch.zeros(len(unit), len(columns), dtype=torch.float64)
    offsets[:, integers] = unit * steps[integers]
    return Rule(offsets, weights, checks)


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


def _sobol(dim: int) -> tuple[Tensor, Tensor, Tensor]:
    unit = (
        torch.quasirandom.SobolEngine(dim, scramble=True, seed=0).draw(POINTS, dtype=torch.float64)
        - 0.5
    )
    weights = torch.full((POINTS,), 1 / POINTS, dtype=torch.float64)
    half = weights.clone()
    half[: POINTS // 2] = -half[: POINTS // 2]
    return unit, weights, half[None]
