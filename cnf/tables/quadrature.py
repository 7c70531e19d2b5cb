"""Quadrature rules for the mean of a density over an integer cell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from cnf.rows import row_products

# Nodes of the Gauss-Legendre rule for one and two integer columns, and number of points of the rule for
# more columns.
NODES = {1: 12, 2: 8}
POINTS = 32
# Successive rules with an increasing number of points, after a rule along the axes: nodes for one to
# four integer columns, and points for more columns.
NODES_IN_TURN = {1: (8, 24), 2: (5, 10), 3: (4, 7), 4: (4,)}
POINTS_IN_TURN = (16, 64)
# The reference for the errors of the last of these rules.
FINEST_NODES, FINEST_POINTS = {1: 48, 2: 20, 3: 10, 4: 6}, 512


@dataclass(frozen=True)
class Rule:
    """Points of a cell and their weights.

    Attributes:
        offsets: positions (points, columns), in the units of the columns; zero for a column without
            integers.
        weights: weights (points,) with sum 1.
        checks: other weights (rules, points); their results, relative to the mean, bound its error.
        slopes: weights (rules, points) for the slope of the density along the column of each check, for
            rules without points off the axes: products of two slopes then add to the error.
    """

    offsets: Tensor
    weights: Tensor
    checks: Tensor
    slopes: Tensor | None = None

    @property
    def moved(self) -> Tensor:
        """Mask of the columns along which the points differ (columns,)."""
        return (self.offsets != 0).any(0)

    def log_mean(self, log_density: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithm of the mean density (rows,) from the log-densities at the points (points, rows), and
        its error."""
        peak = log_density.amax(0).clamp(min=torch.finfo(log_density.dtype).min)
        density = (log_density - peak).exp()
        (mean,) = _sums(self.weights[None], density)
        mean = mean.clamp(min=torch.finfo(density.dtype).tiny)
        found = _sums(self.checks, density).abs() / mean
        error = found.sum(0)
        if self.slopes is not None:
            varied = found + _sums(self.slopes, density).abs() / mean
            error = error + (varied.sum(0).square() - varied.square().sum(0)) / 2
        return peak + mean.log(), error.where(~error.isnan() | mean.isnan(), torch.inf)


def _sums(weights: Tensor, density: Tensor) -> Tensor:
    """Σ of the density at the points (points, rows) with each of several weights (rules, points)."""
    return row_products(density.T, weights.to(density)).T


def cell_rules(steps: Tensor) -> list[Rule]:
    """Rules for a cell with these steps, each with more points than the one before."""
    count = int((steps > 0).sum())
    if count in NODES_IN_TURN:
        return [axes_rule(steps), *(end_rule(steps, nodes) for nodes in NODES_IN_TURN[count])]
    return [cell_rule(steps, points) for points in POINTS_IN_TURN]


def finest_rule(steps: Tensor) -> Rule:
    """A rule with more points than the last of `cell_rules`."""
    count = int((steps > 0).sum())
    if count in FINEST_NODES:
        return end_rule(steps, FINEST_NODES[count])
    return cell_rule(steps, FINEST_POINTS)


def cell_rule(steps: Tensor, size: int | None = None) -> Rule:
    """The rule for a cell with these steps (columns,), zero for a column without integers.

    For one or two integer columns, it is the Gauss-Legendre product. Its check is the highest Legendre
    coefficient that the nodes determine, which is far above the error of the rule if the coefficients
    decay. For more columns, it is a Sobol sequence, and the check is the difference from its first half.
    Without integer columns, the cell is a point. `size` is the number of nodes in each of up to two
    integer columns, or the number of points for more.

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
    """Three Gauss-Legendre nodes along each integer column through the center, which is the first point.

    The rule is exact to third order in the widths of the cell; with more than one column, the weight of
    the center is negative. With f₊ and f₋ beside the center f₀, the check of a column is its second
    Legendre coefficient, √5/9 (f₊ + f₋ − 2 f₀), and its slope the first one, 5/18 √1.8 (f₊ − f₋).
    """
    steps = steps.double().cpu()
    integers = steps.nonzero().squeeze(1)
    offsets = torch.zeros(1 + 2 * len(integers), len(steps), dtype=torch.float64)
    bends, slopes = offsets.new_zeros(2, len(integers), len(offsets))
    for k, j in enumerate(integers.tolist()):
        up, down = 1 + 2 * k, 2 + 2 * k
        offsets[[up, down], j] = math.sqrt(0.15) * steps[j] * steps.new_tensor([1.0, -1.0])
        bends[k, [0, up, down]] = math.sqrt(5) / 9 * steps.new_tensor([-2.0, 1.0, 1.0])
        slopes[k, [up, down]] = 5 / 18 * math.sqrt(1.8) * steps.new_tensor([1.0, -1.0])
    weights = torch.full((len(offsets),), 5 / 18, dtype=torch.float64)
    weights[0] = 1 - 5 / 9 * len(integers)
    return Rule(offsets, weights, bends, slopes if len(integers) > 1 else None)


def end_rule(steps: Tensor, nodes: int) -> Rule:
    """The Gauss-Legendre product in v, where a fraction u = v² (3 − 2v) of the cell lies below each node.

    At an end of the support, the ratio of the density to a Gaussian behaves like a power of u, which a
    polynomial in u approximates poorly; since u is proportional to v² there, few nodes in v suffice. The
    checks are the highest two coefficients of each column, because a single one may vanish by symmetry.

    >>> rule = end_rule(torch.tensor([1.0]), 5)
    >>> round(float(rule.weights @ rule.offsets[:, 0].square()), 6)
    0.083333
    """
    steps = steps.double().cpu()
    integers = steps.nonzero().squeeze(1)
    unit, weights, checks = _gauss_legendre(nodes, len(integers), 2)
    v = unit + 0.5
    density = (6 * v * (1 - v)).prod(1)
    offsets = torch.zeros(len(unit), len(steps), dtype=torch.float64)
    offsets[:, integers] = (v.square() * (3 - 2 * v) - 0.5) * steps[integers]
    return Rule(offsets, weights * density, checks * density)


@cache
def _gauss_legendre(nodes: int, dim: int, tops: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Points (points, dim) of the unit cube around 0, their weights, and the `tops` highest coefficients
    of each column (dim · tops, points)."""
    where, mass = np.polynomial.legendre.leggauss(nodes)
    at, weight = torch.tensor(where / 2), torch.tensor(mass / 2)
    parts = [_product(*[weight] * dim)]
    for k in range(dim):
        for degree in range(nodes - tops, nodes):
            basis = np.polynomial.legendre.Legendre.basis(degree)(where)
            top = torch.tensor(mass / 2 * math.sqrt(2 * degree + 1) * basis)
            parts.append(_product(*(top if j == k else weight for j in range(dim))))
    points = torch.cartesian_prod(*[at] * dim).view(-1, dim)
    return points, parts[0], torch.stack(parts[1:])


def _product(*factors: Tensor) -> Tensor:
    """All products of one number from each factor."""
    return torch.cartesian_prod(*factors).view(-1, len(factors)).prod(1)


@cache
def _sobol(dim: int, points: int) -> tuple[Tensor, Tensor, Tensor]:
    sequence = torch.quasirandom.SobolEngine(dim, scramble=True, seed=0)
    unit = sequence.draw(points, dtype=torch.float64) - 0.5
    weights = torch.full((points,), 1 / points, dtype=torch.float64)
    half = weights.clone()
    half[: points // 2] = -half[: points // 2]
    return unit, weights, half[None]
