"""The cells of integer columns under the initial Gaussian of a flow."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cnf.flows import CNF
from cnf.tables.masked_flow import gaussianizing_maps
from cnf.transforms.marginals import MarginalTransform
from cnf.transforms.whitening import HALF_LOG_2PI

# Distance from the mean, in deviations, up to which the initial Gaussian is used. For a cell further
# out, its deviation is increased until the nearer end lies at this distance: the tails of the flow, whose
# transform is logarithmic far out, are heavier than those of a Gaussian.
REACH = 4.0
# Deviations: the mass of a narrower cell equals width times density to 1e-12.
NARROWEST = 1e-6


@dataclass(frozen=True)
class NumberRows:
    """Rows of numbers in the form that a flow over typed columns takes.

    Attributes:
        values: numbers (rows, numeric), in the units of the table.
        present: mask of the cells that hold an ordinary number (rows, numeric).
        conditions: context of the flow (rows, width), or None.
    """

    values: Tensor
    present: Tensor
    conditions: Tensor | None

    def __len__(self) -> int:
        return len(self.values)

    def take(self, places: Tensor) -> NumberRows:
        """The rows at `places`."""
        context = None if self.conditions is None else self.conditions[places]
        return NumberRows(self.values[places], self.present[places], context)

    def at(self, offsets: Tensor) -> tuple[Tensor, Tensor | None]:
        """Every row shifted by each of some offsets (points, numeric): x (rows · points, numeric) and its
        context; the points of a row are adjacent."""
        x = (self.values[:, None] + offsets.to(self.values)).flatten(0, 1)
        context = self.conditions
        return x, None if context is None else context.repeat_interleave(len(offsets), 0)


@dataclass(frozen=True)
class GaussianCells:
    """The cells of rows under the initial Gaussian g of a flow, column by column.

    All quantities are in deviations of g(yⱼ | c₋ⱼ) from its mean, where y are the flow's nearly Gaussian
    coordinates.

    Attributes:
        flow: flow with a gaussianizing transform.
        rows: rows of numbers.
        on_grid: mask of the integers (rows, numeric).
        low: lower end of each cell (rows, numeric).
        high: upper end.
        center: center of the cell.
        log_slope: log dy/dx at the center.
        mean: mean of g (rows, numeric), in y.
        deviation: deviation of g, in y.
        log_step: log of the width of each cell, in the units of the table; 0 for other numbers.
    """

    flow: CNF
    rows: NumberRows
    on_grid: Tensor
    low: Tensor
    high: Tensor
    center: Tensor
    log_slope: Tensor
    mean: Tensor
    deviation: Tensor
    log_step: Tensor

    @classmethod
    def of(cls, flow: CNF, steps: Tensor, rows: NumberRows) -> GaussianCells:
        """The cells with these steps around the numbers of rows."""
        marginals, whitening = gaussianizing_maps(flow)
        half = (steps / 2).to(rows.values)
        y, log_slope, low, high = _mapped(marginals, rows.values, half)
        assert rows.conditions is not None, "states condition the flow"
        present, features = rows.present, rows.conditions[:, y.shape[1] :].double()
        mean, deviation = whitening.conditionals(y.where(present, 0.0), present, features)
        low, high, center = ((part - mean) / deviation for part in (low, high, y))
        on_grid = present & (half > 0)
        log_step = log_widths(2 * half).expand_as(y)
        return cls(flow, rows, on_grid, low, high, center, log_slope, mean, deviation, log_step)

    def within_reach(self) -> GaussianCells:
        """The same cells under a Gaussian that is wide enough to reach the nearer end of each."""
        ends = self.low.clamp(min=0.0) - self.high.clamp(max=0.0)
        wider = (ends / REACH).clamp(min=1.0)
        low, high, center = (part / wider for part in (self.low, self.high, self.center))
        deviation = self.deviation * wider
        return replace(self, low=low, high=high, center=center, deviation=deviation)

    def log_ratio(self, e: Tensor, log_slope: Tensor) -> Tensor:
        """The mass of each cell under g over its density dg/dx at e (rows, numeric), in nats
        (rows,)."""
        log_density = log_slope - 0.5 * e.square() - HALF_LOG_2PI - self.deviation.log()
        ratio = _log_mass(self.low, self.high) - log_density
        # The ends of a cell far narrower than the column differ at most in their last digits.
        ratio = ratio.where(self.high - self.low > NARROWEST, self.log_step)
        return ratio.where(self.on_grid, 0.0).sum(-1)

    def take(self, places: Tensor) -> GaussianCells:
        """The cells at `places`."""
        parts = [part[places] for part in vars(self).values() if isinstance(part, Tensor)]
        return GaussianCells(self.flow, self.rows.take(places), *parts)

    def at(self, shares: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
        """The numbers (rows, numeric) below which a fraction `shares` (rows, numeric) of the mass of their
        cells lies, or the centers where they are not `moved`, and their `log_ratio` (rows,)."""
        marginals, _ = gaussianizing_maps(self.flow)
        x, e, log_slope = self.rows.values.clone(), self.center.clone(), self.log_slope.clone()
        for j in moved.any(0).nonzero().squeeze(1).tolist():
            places, column = moved[:, j].nonzero().squeeze(1), shares.new_tensor([j]).long()
            low, high, share, mean, deviation = (
                part[places, j]
                for part in (self.low, self.high, shares, self.mean, self.deviation)
            )
            inside, one = _quantile(low, high, share), marginals.of_columns(column)
            there = one.inverse((mean + deviation * inside)[:, None])
            x[places, j], e[places, j] = there[:, 0], inside
            log_slope[places, j] = one.by_cell(there)[1][:, 0]
        return x, self.log_ratio(e, log_slope)


def log_widths(steps: Tensor) -> Tensor:
    """log of the steps of columns, 0 for a column without a step."""
    return steps.where(steps > 0, 1.0).log()


def _mapped(
    marginals: MarginalTransform, x: Tensor, half: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Coordinates y and log dy/dx at numbers x (rows, numeric), and y at both ends of their cells, which
    extend by these units to either side."""
    y, log_slope = torch.empty_like(x), torch.empty_like(x)
    wide, points = (half > 0).nonzero().squeeze(1), (half == 0).nonzero().squeeze(1)
    y[:, points], log_slope[:, points] = marginals.of_columns(points).by_cell(x[:, points])
    low, high = y.clone(), y.clone()
    maps, center, reach = marginals.of_columns(wide), x[:, wide], half[wide]
    y[:, wide], log_slope[:, wide] = maps.by_value(center)
    low[:, wide], high[:, wide] = (maps.by_value(center + side * reach)[0] for side in (-1, 1))
    return y, log_slope, low, high


def _quantile(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """The value between a and b below which a normal variable there has this fraction of its mass."""
    flipped = a > 0
    share = torch.where(flipped, 1 - share, share)
    a, b = torch.where(flipped, -b, a), torch.where(flipped, -a, b)
    below = torch.special.ndtr(a)
    e = torch.special.ndtri(below + share * (torch.special.ndtr(b) - below))
    e = torch.minimum(torch.maximum(e, a), b)
    return torch.where(flipped, -e, e)


def _log_mass(a: Tensor, b: Tensor) -> Tensor:
    """log (Φ(b) − Φ(a)), for a < b, accurate in both tails."""
    flipped = a > 0
    a, b = torch.where(flipped, -b, a), torch.where(flipped, -a, b)
    log_a, log_b = torch.special.log_ndtr(a), torch.special.log_ndtr(b)
    return log_b + torch.log1p(-torch.exp(log_a - log_b))
