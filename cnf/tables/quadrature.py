"""Quadrature rules for the mean of a density over an integer cell."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from cnf.rows import row_products

# Nodes of the Gauss-Legendre rule for one and two integer columns, and number of points of the rule for
# more columns.
NODES = {1: 12, 2: 8}
POINTS = 32
# The rule that follows the sparse ones: nodes in each of one to three integer columns, and points for more.
# Beyond MOST_SPARSE columns, whose planes have too many points, rules have these numbers of points.
LAST_NODES, LAST_POINTS, MOST_SPARSE, POINTS_OF_MANY = {1: 24, 2: 10, 3: 7}, 256, 10, (16, 64)
# Rules along one column of a cell of width 1 around 0: weights of nodes. Gauss's has three nodes, Kronrod's
# extends it to seven (QUADPACK, 1983).
SIDE, FAR, NEAR = math.sqrt(0.15), 0.9604912687080202 / 2, 0.4342437493468026 / 2
GAUSS = {0.0: 4 / 9, SIDE: 5 / 18, -SIDE: 5 / 18}
KRONROD = {
    0.0: 0.4509165386584741 / 2,
    **dict.fromkeys((SIDE, -SIDE), 0.2684880898683334 / 2),
    **dict.fromkeys((FAR, -FAR), 0.1046562260264673 / 2),
    **dict.fromkeys((NEAR, -NEAR), 0.4013974147759622 / 2),
}
KRONROD_LESS_GAUSS = {node: weight - GAUSS.get(node, 0.0) for node, weight in KRONROD.items()}
# The first two Legendre coefficients by Gauss's nodes: 5/18 √1.8 (f₊ − f₋), and √5/9 (f₊ + f₋ − 2 f₀).
SLOPE = {SIDE: 5 / 18 * math.sqrt(1.8), -SIDE: -5 / 18 * math.sqrt(1.8)}
BEND = {0.0: -2 * math.sqrt(5) / 9, SIDE: math.sqrt(5) / 9, -SIDE: math.sqrt(5) / 9}
# Coordinates in a cell, the columns of a rule along some, and the weights of its points.
Point: TypeAlias = tuple[float, ...]
Columns: TypeAlias = tuple[int, ...]
Weights: TypeAlias = dict[Point, float]
# The error of a rule with points everywhere is at most this multiple of its check.
FULL_MARGIN = 2.0


@dataclass(frozen=True)
class Rule:
    """Points of a cell and their weights.

    Attributes:
        offsets: positions (points, columns), in the units of the columns; zero for a column without
            integers.
        weights: weights (points,) with sum 1.
        checks: other weights (rules, points); their results, relative to the mean, bound its error.
        indicators: other weights (rules, points), whose results are proportional to its error.
        coefficients: weights (columns, 2, points) for the first two Legendre coefficients of the density
            along each column, for a sparse rule; products of the variations along `together` + 1 columns
            are another indicator.
        together: the largest number of columns along which a point of a sparse rule is away from the
            center; zero for a rule with points everywhere, which has no indicators.
    """

    offsets: Tensor
    weights: Tensor
    checks: Tensor
    indicators: Tensor
    coefficients: Tensor
    together: int

    @classmethod
    def full(cls, offsets: Tensor, weights: Tensor, checks: Tensor) -> Rule:
        """A rule with points everywhere."""
        none = weights.new_zeros(0, len(weights))
        return cls(offsets, weights, FULL_MARGIN * checks, none, none[:, None].expand(0, 2, -1), 0)

    @property
    def moved(self) -> Tensor:
        """Mask of the columns along which the points differ (columns,)."""
        return (self.offsets != 0).any(0)

    def log_mean(self, log_density: Tensor) -> Tensor:
        """Logarithm of the mean density (rows,), from the log-densities at the points (points, rows)."""
        peak = log_density.amax(0).clamp(min=torch.finfo(log_density.dtype).min)
        (mean,) = _sums(self.weights[None], (log_density - peak).exp())
        return peak + mean.clamp(min=torch.finfo(mean.dtype).tiny).log()

    def errors(self, log_ratio: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
        """Part of the error of `log_mean` (rows,), and an indicator of the rest of it, which is this times a
        factor to be calibrated.

        Args:
            log_ratio: log-densities at the points, minus that mean (points, rows).
            widths: widths of the cells (rows, columns) in deviations of the density. Variations along wide
                columns depend more on each other.
        """
        density = log_ratio.exp()
        error = _sums(self.checks, density).abs().sum(0)
        found = _sums(self.coefficients.flatten(0, 1), density).abs()
        varied = found.unflatten(0, (len(self.coefficients), 2)).sum(1)
        indicator = _products(widths[:, self.moved].T[: len(varied)] * varied, self.together + 1)
        indicator = indicator + _sums(self.indicators, density).abs().sum(0)
        return error.where(~error.isnan() | log_ratio.isnan().all(0), torch.inf), indicator


def _products(factors: Tensor, count: int) -> Tensor:
    """The sum of the products of every `count` of some factors (factors, rows)."""
    sums = [factors.new_ones(factors.shape[1:]), *factors.new_zeros(count, *factors.shape[1:])]
    for factor in factors:
        for k in range(count, 0, -1):
            sums[k] = sums[k] + factor * sums[k - 1]
    return sums[count]


def _sums(weights: Tensor, density: Tensor) -> Tensor:
    """Σ of the density at the points (points, rows) with each of several weights (rules, points)."""
    return row_products(density.T, weights.to(density)).T


def cell_rules(steps: Tensor) -> list[Rule]:
    """Rules for a cell with these steps, each with more points than the one before."""
    count = int((steps > 0).sum())
    if count > MOST_SPARSE:
        return [cell_rule(steps, points) for points in POINTS_OF_MANY]
    last = (
        end_rule(steps, LAST_NODES[count])
        if count in LAST_NODES
        else cell_rule(steps, LAST_POINTS)
    )
    return [sparse_rule(steps, 1), sparse_rule(steps, 2), last]


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
        return Rule.full(
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
    return Rule.full(offsets, weights, checks)


def sparse_rule(steps: Tensor, together: int) -> Rule:
    """A rule whose points have at most one or two integer columns away from the center, the first point.

    With Gⱼ the rule of three nodes along column j, Kⱼ Kronrod's extension of it, and E the value at the
    center, the rule is E + Σⱼ (Gⱼ − E) for one column, exact to third order in the widths of the cell; for
    two, it is E + Σⱼ (Kⱼ − E) + Σᵢⱼ (Gᵢ − E) (Gⱼ − E), exact to fifth order. The weight of the center may
    be negative. The second Legendre coefficient of every column indicates the error of the first, that of
    every two columns the error of the second, and the differences of Kⱼ and Gⱼ are its checks.

    >>> rule = sparse_rule(torch.ones(2), together=2)
    >>> round(float(rule.weights @ rule.offsets.square().prod(1)), 6)  # the mean of x² y²
    0.006944
    """
    steps = steps.double().cpu()
    integers = steps.nonzero().squeeze(1)
    unit, weights, checks, indicators, coefficients = _sparse(len(integers), together)
    offsets = torch.zeros(len(unit), len(steps), dtype=torch.float64)
    offsets[:, integers] = unit * steps[integers]
    return Rule(offsets, weights, checks, indicators, coefficients, together)


@cache
def _sparse(count: int, together: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Points (points, count) of the unit cube around 0, their weights, the checks, the indicators and the
    coefficients."""
    columns: list[Columns] = [(j,) for j in range(count)]
    pairs: list[Columns] = [*combinations(range(count), 2)]
    checks: list[Weights] = []
    if together == 1:
        terms, indicated = [(column, GAUSS) for column in columns], columns
    else:
        terms, indicated = [(column, KRONROD) for column in columns], pairs
        terms += [(pair, GAUSS) for pair in pairs]
        checks = [_along(count, column, KRONROD_LESS_GAUSS) for column in columns]
    rule = defaultdict(float, {(0.0,) * count: 1.0})
    for some, along in terms:
        for point, weight in _along(count, some, {**along, 0.0: along[0.0] - 1}).items():
            rule[point] += weight
    indicators = [_along(count, some, BEND) for some in indicated]
    coefficients = [_along(count, column, each) for column in columns for each in (SLOPE, BEND)]
    points = [*rule]
    whole, *others = (_at(points, part) for part in ([rule], checks, indicators, coefficients))
    unit = torch.tensor(points, dtype=torch.float64)
    return unit, whole[0], others[0], others[1], others[2].view(count, 2, -1)


def _at(points: list[Point], rules: Sequence[Weights]) -> Tensor:
    """Weights (rules, points) of several rules."""
    weights = [[rule.get(point, 0.0) for point in points] for rule in rules]
    return torch.tensor(weights, dtype=torch.float64).view(-1, len(points))


def _along(count: int, columns: Columns, rule: dict[float, float]) -> Weights:
    """The weights of points in the product of a rule along some of `count` columns, with the others at the
    center."""
    found = {}
    for nodes in product(rule, repeat=len(columns)):
        point = [0.0] * count
        for column, node in zip(columns, nodes):
            point[column] = node
        found[tuple(point)] = math.prod(rule[node] for node in nodes)
    return found


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
    return Rule.full(offsets, weights * density, checks * density)


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
