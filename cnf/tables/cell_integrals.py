"""The likelihood of the numbers of rows: densities of continuous cells, probabilities of integer cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from cnf.flows import CNF, Evaluation
from cnf.rows import evenly_spaced, in_blocks
from cnf.tables.columns import Column
from cnf.tables.gaussian_cells import REACH, GaussianCells, NumberRows, log_widths
from cnf.tables.quadrature import (
    Rule,
    cell_rule,
    cell_rules,
    sparse_rule,
)
from cnf.transforms.patterns import by_pattern

# Rows are solved at several points of their cells in parts of about this many points.
AT_ONCE = 2**16
# Quadrature error of a cell, in nats, above which it gets more points.
TOLERANCE = 1e-2
# Calibration of the error estimate of a single point: the number of training rows, the largest squared
# width of their cells in deviations, the fraction of rows that the estimate must cover, and a safety
# factor. Errors below SMALLEST_ERROR may come from the solver.
MEASURED_ROWS, NARROW, COVERED, MARGIN, SMALLEST_ERROR = 128, 1.0, 0.98, 2.0, 5e-4
# The factor of the indicators of rules along the axes is calibrated, that of rules in planes is fixed. Then
# the former without calibration, above which these rules hardly ever suffice and are skipped, the number of
# wide cells for its calibration, its smallest value, and the fewest cells for any calibration.
PLANES_SCALE = 0.05
AXES_SCALE, MEASURED_WIDE, SMALLEST_SCALE, FEWEST_MEASURED = 1.0, 64, 1e-3, 8
# The narrowest columns of a cell stay at their center while others are integrated, as long as their
# total error is at most this fraction of the tolerance.
NARROW_SHARE = 0.8
# Indices of rows, and the rules for their cells, each with more points than the one before.
Job: TypeAlias = tuple[Tensor, list[Rule]]


class CellIntegrals:
    """log p(x | s) of rows: the flow's density, integrated over the integer cells of each row.

    For a narrow cell, one point suffices. At its center c, a Gaussian g with the initial mean and
    covariance of the flow predicts, column by column, how the integral differs from the density at
    the center:

        log ∫ p dx ≈ log p(c) + Σⱼ log (∫ g(xⱼ | c₋ⱼ) dxⱼ / g(cⱼ | c₋ⱼ))

    The remainder is of second order in the width wⱼ of the cell in deviations of g(xⱼ | c₋ⱼ). It is
    estimated by κ Σⱼ wⱼ² (1 + |eⱼ| + |eⱼ|³ / 16), where e are the standardized residuals of the center.
    If the estimate exceeds the tolerance, rules with an increasing number of points in the wide columns
    are applied, until their own checks, multiplied by calibrated factors, are below the tolerance. The
    nodes of the rules divide the mass of the cell under g, so that unbounded y at an end of the support
    needs no special treatment. The error of a node counts in proportion to its part of the integral.

    Args:
        columns: the numeric columns.

    Attributes:
        kappa: κ, calibrated on training rows; if it is None, one rule of fixed size serves every cell.
        axes_scale: calibrated ratio of the error of a rule along the axes to its indicator.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        with torch.device("cpu"):  # plain numbers, whatever device a model is made on
            steps = [column.step or 0.0 for column in columns]
            self.steps = torch.tensor(steps, dtype=torch.float64)
        self.kappa: float | None = None
        self.axes_scale = AXES_SCALE

    @property
    def measured(self) -> list[float] | None:
        """κ and the other scale, as stored in a model file; None without calibration."""
        return None if self.kappa is None else [self.kappa, self.axes_scale]

    @property
    def fewest_points(self) -> int:
        """The smallest number of points for a cell whose columns are all integers."""
        return 1 if self.kappa is not None else len(cell_rule(self.steps).weights)

    def evaluate(self, flow: CNF, rows: NumberRows, count: int | None = None) -> Evaluation:
        """log-probability, error, NFE and verdict (rows,), in float64; NaN for rows beyond `count`, which
        only fill a block."""
        on_grid, result = self._on_grid(rows), _blank(rows)
        if self.kappa is None or not on_grid.any():
            correction = rows.values.new_zeros(len(rows), dtype=torch.float64)
            errors = torch.zeros_like(rows.values).masked_fill(on_grid, torch.inf)
        else:
            correction, errors = self.from_center(GaussianCells.of(flow, self.steps, rows))
        estimate = errors.sum(1)[:count]
        center = in_blocks((estimate <= TOLERANCE).nonzero().squeeze(1))
        if len(center):
            found = flow.evaluate(*rows.take(center).at(self.steps.new_zeros(1, len(self.steps))))
            log_prob = found.log_prob.double() + correction[center]
            error = found.error.double() + estimate[center]
            _put(result, center, Evaluation(log_prob, error, found.nfe, found.ok))
        left = (~(estimate <= TOLERANCE)).nonzero().squeeze(1)
        result.error[left] = errors.where(~_wide(errors), 0.0).sum(1)[left]
        self._by_rules(flow, rows, self._jobs(errors, left), result)
        return result

    @torch.no_grad()
    def measure(self, flow: CNF, rows: NumberRows) -> None:
        """Calibrate κ and the factors of the rules' checks on some training rows of a default flow."""
        self.kappa, self.axes_scale = 1.0, AXES_SCALE
        correction, sizes = self.from_center(GaussianCells.of(flow, self.steps, rows))
        size = sizes.sum(1)
        narrow = ((size > SMALLEST_ERROR) & (size < NARROW)).nonzero().squeeze(1)
        if len(narrow):
            chosen = narrow[evenly_spaced(narrow, MEASURED_ROWS)]
            some = rows.take(chosen)
            self.kappa = self._measured_kappa(flow, some, size[chosen], correction[chosen])
        wide = (self.kappa * size > TOLERANCE).nonzero().squeeze(1)
        chosen = wide[evenly_spaced(wide, MEASURED_WIDE)]
        self.axes_scale = self._measured_scale(flow, rows, self._jobs(self.kappa * sizes, chosen))

    def _measured_kappa(
        self, flow: CNF, rows: NumberRows, size: Tensor, correction: Tensor
    ) -> float:
        """κ from integrals along each column through the center; their sum equals the mean over the cell
        up to terms of fourth order."""
        rule = sparse_rule(self.steps, 1)
        found = flow.evaluate(*rows.at(rule.offsets)).log_prob.double().view(len(rows), -1).T
        whole = rule.log_mean(found) + self._log_steps(rows)
        error = (found[0] + correction - whole).abs()
        ratio = (error - SMALLEST_ERROR).clamp(min=0) / (size - SMALLEST_ERROR)
        return MARGIN * _covering(ratio, otherwise=1.0)

    def _measured_scale(self, flow: CNF, rows: NumberRows, jobs: list[Job]) -> float:
        """Ratio of errors to indicators of rules along the axes, from rules in planes."""
        few = [(some, rules) for some, rules in jobs if rules[0].together]
        many = [(some, rules[1:]) for some, rules in few]
        ratios = [rows.values.new_zeros(0, dtype=torch.float64)]
        for (found, _, indicator), (better, *_) in zip(
            self._solve(flow, rows, few), self._solve(flow, rows, many)
        ):
            apart = (found.log_prob - better.log_prob).abs() - SMALLEST_ERROR
            ratios.append(apart.clamp(min=0) / indicator)
        return MARGIN * max(_covering(torch.cat(ratios), 1 / MARGIN), SMALLEST_SCALE)

    def from_center(self, cells: GaussianCells) -> tuple[Tensor, Tensor]:
        """The log of the factor for the density at the center of each cell (rows,), in nats, and
        its error estimate by columns (rows, numeric)."""
        assert self.kappa is not None, "κ is measured"
        e = cells.center
        size = (cells.high - cells.low).square() * (1 + e.abs() + e.abs() ** 3 / REACH**2)
        errors = self.kappa * size
        count = cells.on_grid.sum(1, keepdim=True)
        errors = (errors + SMALLEST_ERROR / count).where(cells.on_grid, 0.0)
        return cells.log_ratio(e, cells.log_slope), errors

    def _on_grid(self, rows: NumberRows) -> Tensor:
        """Mask of the integer cells (rows, numeric)."""
        return rows.present & (self.steps > 0).to(rows.present.device)

    def _log_steps(self, rows: NumberRows) -> Tensor:
        """The logarithm of the volume of each row's cell (rows,)."""
        logs = log_widths(self.steps).to(rows.values)
        return (rows.present * logs).sum(1)

    def _jobs(self, errors: Tensor, places: Tensor) -> list[Job]:
        """Jobs for the rows at `places`, grouped by their wide columns, from errors (rows, numeric)."""
        jobs = []
        for pattern, found in by_pattern(_wide(errors[places])):
            steps = self.steps * pattern.cpu()
            rules = [cell_rule(steps)] if self.kappa is None else cell_rules(steps)
            few = rules[0].together == 1 and self.axes_scale > AXES_SCALE
            jobs.append((places[found], rules[few:]))
        return jobs

    def _by_rules(self, flow: CNF, rows: NumberRows, jobs: list[Job], result: Evaluation) -> None:
        """Integrate cells by increasingly large rules until their error is small enough; `result` holds
        the errors from other sources."""
        beside = result.error.clone()
        while jobs:
            left = []
            for some in _batches(jobs):
                for (places, rules), (found, error, _) in zip(some, self._solve(flow, rows, some)):
                    _put_better(result, places, replace(found, error=found.error + beside[places]))
                    left.append((places[error > TOLERANCE], rules[1:]))
            jobs = [(places, rules) for places, rules in left if len(places) and rules]

    def _solve(
        self, flow: CNF, rows: NumberRows, jobs: list[Job]
    ) -> Iterator[tuple[Evaluation, Tensor, Tensor]]:
        """The integrals over the cells of jobs by the first rule of each, their quadrature errors and
        indicators; all points are scored in one solve."""
        if not jobs:
            return
        sizes = [len(places) * len(rules[0].weights) for places, rules in jobs]
        x, context, log_ratio, widths = self._points(flow, rows, jobs)
        shares = partial(_shares, sizes=sizes, rules=[rules[0] for _, rules in jobs])
        found = _evaluated(flow, x, context, lambda log_prob: shares(log_prob + log_ratio))
        parts = (*vars(found).values(), shares(found.log_prob + log_ratio), log_ratio)
        solved = zip(*(part[: sum(sizes)].split(sizes) for part in (*parts, widths)))
        for (places, rules), (*points, wide) in zip(jobs, solved):
            whole = in_blocks(torch.arange(len(places), device=places.device))
            log_density, bound, nfe, ok, share, log_there = (
                part.view(len(places), -1)[whole].T for part in points
            )
            wide = wide.view(len(places), -1, wide.shape[1])[whole, 0]
            log_points = log_density + log_there
            log_mean = rules[0].log_mean(log_points)
            check, indicator = rules[0].errors(log_points - log_mean, wide)
            scale = self.axes_scale if rules[0].together == 1 else PLANES_SCALE
            error = check + scale * indicator + SMALLEST_ERROR
            integral = Evaluation(log_mean, (share * bound).sum(0) + error, nfe.sum(0), ok.all(0))
            kept = [part[: len(places)] for part in (*vars(integral).values(), error, indicator)]
            yield Evaluation(*kept[:-2]), kept[-2], kept[-1]

    def _points(
        self, flow: CNF, rows: NumberRows, jobs: list[Job]
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """The points of the rules in the cells of jobs, with those of a row next to each other, padded to
        whole blocks; their context, the log of the factors of the density, in nats, and the widths of
        their cells (points, numeric), in deviations."""
        places = torch.cat([places for places, _ in jobs])
        counts = [len(rules[0].weights) for some, rules in jobs for _ in range(len(some))]
        repeats = torch.tensor(counts, device=places.device)
        row = torch.arange(len(places), device=places.device).repeat_interleave(repeats)
        offsets = torch.cat([rules[0].offsets.repeat(len(some), 1) for some, rules in jobs])
        moved = torch.cat(
            [rules[0].moved.expand(len(some) * len(rules[0].weights), -1) for some, rules in jobs]
        )
        whole = in_blocks(torch.arange(len(row), device=row.device))
        row, offsets = row[whole], offsets.to(rows.values)[whole]
        moved = moved.to(row.device)[whole]
        some = rows.take(in_blocks(places))
        context = None if some.conditions is None else some.conditions[row]
        if self.kappa is None:
            x = some.values[row] + offsets
            return x, context, self._log_steps(some)[row], torch.ones_like(x)
        steps = self.steps.to(offsets)
        cells = GaussianCells.of(flow, self.steps, some).within_reach().take(row)
        x, log_ratio = cells.at(0.5 + offsets / steps.where(steps > 0, 1.0), moved & cells.on_grid)
        return x, context, log_ratio, cells.high - cells.low


def _wide(errors: Tensor) -> Tensor:
    """Mask of the columns along which cells with these errors (rows, numeric) are integrated."""
    sizes, order = errors.sort(1)
    wide = ~(sizes.cumsum(1) <= NARROW_SHARE * TOLERANCE)
    return torch.empty_like(wide).scatter_(1, order, wide)


def _covering(ratios: Tensor, otherwise: float) -> float:
    """A quantile of the ratios (n,) of errors to their estimates that covers most of them, or a default for
    too few ratios; cells that could not be solved are excluded."""
    known = ratios[ratios.isfinite()]
    return otherwise if len(known) < FEWEST_MEASURED else known.quantile(COVERED).item()


def _evaluated(
    flow: CNF, x: Tensor, context: Tensor | None, shares: Callable[[Tensor], Tensor]
) -> Evaluation:
    """Scores of points (points, numeric) from one solve. Points are solved again if their error, weighted
    by their part of an integral from `shares`, exceeds the tolerance."""
    tolerance = flow.error_model.tolerance
    found = flow.bind(context, tolerance=torch.inf).evaluate(x)
    found = replace(found, log_prob=found.log_prob.double(), error=found.error.double())
    again = (~(shares(found.log_prob) * found.error <= tolerance)).nonzero().squeeze(1)
    if len(again):
        whole = in_blocks(again)
        better = flow.evaluate(x[whole], None if context is None else context[whole])
        _put(found, whole, replace(better, nfe=better.nfe + found.nfe[whole]))
    return found


def _shares(log_density: Tensor, sizes: list[int], rules: list[Rule]) -> Tensor:
    """The part of each point (points,) in the integral of its row, by the rules of jobs with these numbers
    of points; points that fill a block have part zero."""
    parts = []
    for rule, part in zip(rules, log_density[: sum(sizes)].split(sizes)):
        density = part.view(-1, len(rule.weights)).softmax(1) * rule.weights.to(part).abs()
        parts.append((density / density.sum(1, keepdim=True)).flatten())
    return functional.pad(torch.cat(parts), (0, len(log_density) - sum(sizes)))


def _batches(jobs: list[Job]) -> Iterator[list[Job]]:
    """Jobs in batches of similar numbers of points; large jobs are divided."""
    batch: list[Job] = []
    points = 0
    for places, rules in jobs:
        size = len(rules[0].weights)
        for part in places.split(max(1, AT_ONCE // size)):
            if batch and points + size * len(part) > AT_ONCE:
                yield batch
                batch, points = [], 0
            batch.append((part, rules))
            points += size * len(part)
    if batch:
        yield batch


def _blank(rows: NumberRows) -> Evaluation:
    nothing = rows.values.new_full((len(rows),), torch.nan, dtype=torch.float64)
    zero = torch.zeros_like(nothing, dtype=torch.long)
    return Evaluation(nothing, nothing.clone(), zero, zero.bool())


def _put_better(into: Evaluation, places: Tensor, found: Evaluation) -> None:
    """Put scores in where none stands or one with a larger error bound; the evaluations of both count."""
    nfe = into.nfe[places] + found.nfe
    better = into.log_prob[places].isnan() | (found.error < into.error[places])
    _put(into, places[better], Evaluation(*(part[better] for part in vars(found).values())))
    into.nfe[places] = nfe


def _put(into: Evaluation, places: Tensor, found: Evaluation) -> None:
    for whole, part in zip(vars(into).values(), vars(found).values()):
        whole[places] = part.to(whole.dtype)
