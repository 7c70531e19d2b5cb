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
from cnf.tables.quadrature import Rule, axes_rule, cell_rule, cell_rules, finest_rule
from cnf.transforms.patterns import by_pattern

# Rows are solved at several points of their cells in parts of about this many points.
AT_ONCE = 2**16
# Quadrature error of a cell, in nats, above which it gets more points.
TOLERANCE = 1e-2
# Calibration of the error estimate of a single point: the number of training rows, the largest squared
# width of their cells in deviations, the fraction of rows that the estimate must cover, and a safety
# factor. Errors below SMALLEST_ERROR may come from the solver.
MEASURED_ROWS, NARROW, COVERED, MARGIN, SMALLEST_ERROR = 128, 1.0, 0.98, 2.0, 5e-4
# The error bound of a rule is a factor times its check. RULE_MARGIN is the factor without calibration: at
# an end of the support, the check alone is too small for one cell in ten. Then the number of wide cells
# for its calibration, its smallest value, and the fewest cells for either calibration.
RULE_MARGIN, MEASURED_WIDE, SMALLEST_SCALE, FEWEST_MEASURED = 2.0, 64, 1e-3, 8
# Rules along one, two, three, four and more columns have separate factors: the error of a product rule is
# far below its check, while that of Sobol points in five columns exceeds it.
SCALES = 5
# The narrowest columns of a cell stay at their center while others are integrated, as long as their
# total error is at most this fraction of the tolerance.
NARROW_SHARE = 0.8
# Error estimate of a single point, in nats, above which a rule along the axes is skipped.
VERY_WIDE = 0.1
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
        check_scales: calibrated ratios of a rule's error to its check, by the number of columns along
            which it integrates: one, two, three, four, more.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        with torch.device("cpu"):  # plain numbers, whatever device a model is made on
            steps = [column.step or 0.0 for column in columns]
            self.steps = torch.tensor(steps, dtype=torch.float64)
        self.kappa: float | None = None
        self.check_scales = [RULE_MARGIN] * SCALES

    @property
    def measured(self) -> list[float] | None:
        """κ and the scales of checks, as stored in a model file; None without calibration."""
        return None if self.kappa is None else [self.kappa, *self.check_scales]

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
        self.kappa, self.check_scales = 1.0, [RULE_MARGIN] * SCALES
        correction, sizes = self.from_center(GaussianCells.of(flow, self.steps, rows))
        size = sizes.sum(1)
        narrow = ((size > SMALLEST_ERROR) & (size < NARROW)).nonzero().squeeze(1)
        if len(narrow):
            chosen = narrow[evenly_spaced(narrow, MEASURED_ROWS)]
            some = rows.take(chosen)
            self.kappa = self._measured_kappa(flow, some, size[chosen], correction[chosen])
        wide = (self.kappa * size > TOLERANCE).nonzero().squeeze(1)
        chosen = wide[evenly_spaced(wide, MEASURED_WIDE)]
        self.check_scales = self._measured_scales(
            flow, rows, self._jobs(self.kappa * sizes, chosen)
        )

    def _measured_kappa(
        self, flow: CNF, rows: NumberRows, size: Tensor, correction: Tensor
    ) -> float:
        """κ from integrals along each column through the center; their sum equals the mean over the cell
        up to terms of fourth order."""
        rule = axes_rule(self.steps)
        found = flow.evaluate(*rows.at(rule.offsets)).log_prob.double().view(len(rows), -1).T
        whole = rule.log_mean(found)[0] + self._log_steps(rows)
        error = (found[0] + correction - whole).abs()
        ratio = (error - SMALLEST_ERROR).clamp(min=0) / (size - SMALLEST_ERROR)
        return MARGIN * _covering(ratio, otherwise=1.0)

    def _measured_scales(self, flow: CNF, rows: NumberRows, jobs: list[Job]) -> list[float]:
        """Ratios of errors to checks of the first rules of jobs, from rules with more points; with too few
        cells for a number of columns, the ratio of all cells together is used."""
        self.check_scales = [1.0] * SCALES
        ratios = [[rows.values.new_zeros(0, dtype=torch.float64)] for _ in range(SCALES)]
        first = self._solve(flow, rows, jobs)
        finer = [
            (some, rules[1:] or [finest_rule(self.steps * rules[0].moved)]) for some, rules in jobs
        ]
        second = self._solve(flow, rows, finer)
        for (_, rules), (found, check), (better, _) in zip(jobs, first, second):
            error = (found.log_prob - better.log_prob).abs() - SMALLEST_ERROR
            ratios[_along(rules[0])].append(error.clamp(min=0) / check)
        groups = [torch.cat(group) for group in ratios]
        usual = _covering(torch.cat(groups), otherwise=RULE_MARGIN / MARGIN)
        return [MARGIN * max(_covering(group, usual), SMALLEST_SCALE) for group in groups]

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
        jobs, errors = [], errors[places]
        very = (errors > VERY_WIDE).any(1, keepdim=True)
        for pattern, found in by_pattern(torch.cat((_wide(errors), very), 1)):
            steps = self.steps * pattern[:-1].cpu()
            rules = [cell_rule(steps)] if self.kappa is None else cell_rules(steps)
            jobs.append((places[found], rules[1:] if pattern[-1] and rules[1:] else rules))
        return jobs

    def _by_rules(self, flow: CNF, rows: NumberRows, jobs: list[Job], result: Evaluation) -> None:
        """Integrate cells by increasingly large rules until their error is small enough; `result` holds
        the errors from other sources."""
        beside = result.error.clone()
        while jobs:
            left = []
            for some in _batches(jobs):
                for (places, rules), (found, error) in zip(some, self._solve(flow, rows, some)):
                    nfe, bar = result.nfe[places] + found.nfe, found.error + beside[places]
                    _put(result, places, replace(found, nfe=nfe, error=bar))
                    left.append((places[error > TOLERANCE], rules[1:]))
            jobs = [(places, rules) for places, rules in left if len(places) and rules]

    def _solve(
        self, flow: CNF, rows: NumberRows, jobs: list[Job]
    ) -> Iterator[tuple[Evaluation, Tensor]]:
        """The integrals over the cells of jobs by the first rule of each, and the quadrature errors; all
        points are scored in one solve."""
        if not jobs:
            return
        sizes = [len(places) * len(rules[0].weights) for places, rules in jobs]
        x, context, log_ratio = self._points(flow, rows, jobs)
        shares = partial(_shares, sizes=sizes, rules=[rules[0] for _, rules in jobs])
        found = _evaluated(flow, x, context, lambda log_prob: shares(log_prob + log_ratio))
        parts = (*vars(found).values(), shares(found.log_prob + log_ratio), log_ratio)
        solved = zip(*(part[: sum(sizes)].split(sizes) for part in parts))
        for (places, rules), points in zip(jobs, solved):
            whole = in_blocks(torch.arange(len(places), device=places.device))
            log_density, bound, nfe, ok, share, log_there = (
                part.view(len(places), -1)[whole].T for part in points
            )
            log_mean, check = rules[0].log_mean(log_density + log_there)
            error = self.check_scales[_along(rules[0])] * check + SMALLEST_ERROR
            integral = Evaluation(log_mean, (share * bound).sum(0) + error, nfe.sum(0), ok.all(0))
            kept = [part[: len(places)] for part in (*vars(integral).values(), error)]
            yield Evaluation(*kept[:-1]), kept[-1]

    def _points(
        self, flow: CNF, rows: NumberRows, jobs: list[Job]
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """The points of the rules in the cells of jobs, with those of a row next to each other, padded to
        whole blocks; their context, and the log of the factors of the density, in nats."""
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
            return some.values[row] + offsets, context, self._log_steps(some)[row]
        steps = self.steps.to(offsets)
        cells = GaussianCells.of(flow, self.steps, some).within_reach().take(row)
        x, log_ratio = cells.at(0.5 + offsets / steps.where(steps > 0, 1.0), moved & cells.on_grid)
        return x, context, log_ratio


def _along(rule: Rule) -> int:
    """The index of the scale of a rule."""
    return min(int(rule.moved.sum()), SCALES) - 1


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


def _put(into: Evaluation, places: Tensor, found: Evaluation) -> None:
    for whole, part in zip(vars(into).values(), vars(found).values()):
        whole[places] = part.to(whole.dtype)
