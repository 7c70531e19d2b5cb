"""The numbers of rows: densities of continuous cells, and probabilities of integer cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cnf.flows import CNF, Evaluation
from cnf.rows import evenly_spaced
from cnf.tables.columns import Column
from cnf.tables.masked_flow import gaussianizing_maps
from cnf.tables.quadrature import Rule, axes_rule, cell_rule, cell_rules
from cnf.transforms.patterns import by_pattern

# Solves of one row at several points of its cell go together, in parts of about this many.
AT_ONCE = 2**16
# Nats that the quadrature of a cell may err by before it takes more points.
TOLERANCE = 1e-2
# Rows that the error of a single point is measured on, with cells that are narrower than this many
# squared deviations; the share of them that its estimate has to cover, and how much larger it is
# made for the rest. What is smaller than the last may be the solver's.
MEASURED_ROWS, NARROW, COVERED, MARGIN, SMALLEST_ERROR = 128, 1.0, 0.98, 2.0, 5e-4
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class NumberRows:
    """Rows of numbers, as a flow over typed columns takes them.

    Attributes:
        values: (rows, numeric), in the units of the table.
        present: which cells hold an ordinary number (rows, numeric).
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
        """Every row at each of some offsets (points, numeric): x (points · rows, numeric) and its
        context."""
        x = (self.values + offsets.to(self.values)[:, None]).flatten(0, 1)
        context = self.conditions
        return x, None if context is None else context.repeat(len(offsets), 1)


class CellIntegrals:
    """log p(x | s) of rows: the flow's density, integrated over the integer cells of each row.

    Where a cell is narrow, one point is enough. At its center c, a Gaussian g with the mean and
    covariance that the flow starts from says, column by column, how the integral differs from the
    density there:

        log ∫ p dx ≈ log p(c) + Σⱼ log (∫ g(xⱼ | c₋ⱼ) dxⱼ / g(cⱼ | c₋ⱼ))

    What that leaves is of second order in the width wⱼ of the cell in deviations of g(xⱼ | c₋ⱼ).
    Where the estimate κ Σⱼ wⱼ² (1 + eⱼ²) of it, with the standardized residuals e of the center, is
    above the tolerance, rules with more and more points take over, until their own checks are below
    it.

    Args:
        columns: the numeric columns.

    Attributes:
        kappa: κ, measured on training rows; None for a model that was not: then one rule of fixed
            size serves every cell.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        with torch.device("cpu"):  # plain numbers, whatever device a model is made on
            steps = [column.step or 0.0 for column in columns]
            self.steps = torch.tensor(steps, dtype=torch.float64)
        self.kappa: float | None = None

    @property
    def fewest_points(self) -> int:
        """Points of a cell whose columns are all integers, at least."""
        return 1 if self.kappa is not None else len(cell_rule(self.steps).weights)

    def evaluate(self, flow: CNF, rows: NumberRows) -> Evaluation:
        """log-probability, error, NFE and verdict (rows,), in float64."""
        on_grid, result = self._on_grid(rows), _blank(rows)
        correction, estimate = self._from_center(flow, rows, on_grid)
        center = (estimate <= TOLERANCE).nonzero().squeeze(1)
        if len(center):
            found = flow.evaluate(*rows.take(center).at(self.steps.new_zeros(1, len(self.steps))))
            log_prob = found.log_prob.double() + correction[center]
            error = found.error.double() + estimate[center]
            _put(result, center, Evaluation(log_prob, error, found.nfe, found.ok))
        left = (~(estimate <= TOLERANCE)).nonzero().squeeze(1)
        for pattern, places in by_pattern(on_grid[left]):
            steps = self.steps * pattern.cpu()
            rules = [cell_rule(steps)] if self.kappa is None else cell_rules(steps)
            self._by_rules(flow, rows, left[places], rules, result)
        logs = self.steps.where(self.steps > 0, 1.0).log().to(rows.values)
        return replace(result, log_prob=result.log_prob + (rows.present * logs).sum(1))

    @torch.no_grad()
    def measure(self, flow: CNF, rows: NumberRows) -> None:
        """Find κ on some of the rows that a default flow was fitted to.

        Their cells are integrated along each column through the center, which is the mean over the
        cell but for terms of fourth order.
        """
        self.kappa = 1.0
        correction, size = self._from_center(flow, rows, self._on_grid(rows))
        narrow = ((size > SMALLEST_ERROR) & (size < NARROW)).nonzero().squeeze(1)
        if not len(narrow):
            return
        chosen = narrow[evenly_spaced(narrow, MEASURED_ROWS)]
        rule = axes_rule(self.steps)
        found, _ = _by_rule(flow, rows.take(chosen), rule)
        center = flow.evaluate(*rows.take(chosen).at(rule.offsets[:1])).log_prob
        error = (center + correction[chosen] - found.log_prob).abs().nan_to_num(torch.inf)
        ratio = (error - SMALLEST_ERROR).clamp(min=0) / (size[chosen] - SMALLEST_ERROR)
        self.kappa = MARGIN * ratio.quantile(COVERED).item()

    def _from_center(self, flow: CNF, rows: NumberRows, on_grid: Tensor) -> tuple[Tensor, Tensor]:
        """What a single point at the center of each cell is corrected by, in nats per volume of the
        cell, and the estimate of its error (rows,)."""
        nothing = rows.values.new_zeros(len(rows), dtype=torch.float64)
        if self.kappa is None:
            return nothing, nothing.masked_fill(on_grid.any(1), torch.inf)
        if not on_grid.any():
            return nothing, nothing
        marginals, whitening = gaussianizing_maps(flow)
        half = (self.steps / 2).to(rows.values)
        (y, log_slope), (low, _), (high, _) = (
            marginals.by_cell(x) for x in (rows.values, rows.values - half, rows.values + half)
        )
        assert rows.conditions is not None, "states condition the flow"
        features = rows.conditions[:, y.shape[1] :].double()
        mean, deviation = whitening.conditionals(
            y.where(rows.present, 0.0), rows.present, features
        )
        e, a, b = ((part - mean) / deviation for part in (y, low, high))
        log_density = -0.5 * e.square() - HALF_LOG_2PI - deviation.log() + log_slope
        log_steps = self.steps.where(self.steps > 0, 1.0).log().to(e)
        log_ratio = _log_mass(a, b) - log_density - log_steps
        error = (b - a).square() * (1 + e.square())
        estimate = self.kappa * error.where(on_grid, 0.0).sum(1)
        estimate = (SMALLEST_ERROR + estimate).where(on_grid.any(1), 0.0)
        return log_ratio.where(on_grid, 0.0).sum(1), estimate

    def _on_grid(self, rows: NumberRows) -> Tensor:
        """Which numbers are integers (rows, numeric)."""
        return rows.present & (self.steps > 0).to(rows.present.device)

    def _by_rules(
        self, flow: CNF, rows: NumberRows, places: Tensor, rules: list[Rule], result: Evaluation
    ) -> None:
        """Integrate the cells at `places` by one rule after the other, as long as they err."""
        for rule in rules:
            points, again = len(rule.weights), []
            for part in places.split(max(1, AT_ONCE // points)):
                found, error = _by_rule(flow, rows.take(part), rule)
                nfe = result.nfe[part] + found.nfe
                _put(result, part, replace(found, nfe=nfe))
                again.append(part[error > TOLERANCE])
            places = torch.cat(again)
            if not len(places):
                break


def _by_rule(flow: CNF, rows: NumberRows, rule: Rule) -> tuple[Evaluation, Tensor]:
    """The mean density over each row's cell, and the error of the rule alone (rows,)."""
    found = flow.evaluate(*rows.at(rule.offsets))
    parts = (found.log_prob, found.error, found.nfe, found.ok)
    log_density, bound, nfe, ok = (part.unflatten(0, (-1, len(rows))) for part in parts)
    log_mean, error = rule.log_mean(log_density.double())
    return Evaluation(log_mean, bound.double().mean(0) + error, nfe.sum(0), ok.all(0)), error


def _log_mass(a: Tensor, b: Tensor) -> Tensor:
    """log (Φ(b) − Φ(a)), for a < b, with its digits in both tails."""
    flipped = a > 0
    a, b = torch.where(flipped, -b, a), torch.where(flipped, -a, b)
    log_a, log_b = torch.special.log_ndtr(a), torch.special.log_ndtr(b)
    return log_b + torch.log1p(-torch.exp(log_a - log_b))


def _blank(rows: NumberRows) -> Evaluation:
    nothing = rows.values.new_full((len(rows),), torch.nan, dtype=torch.float64)
    zero = torch.zeros_like(nothing, dtype=torch.long)
    return Evaluation(nothing, nothing.clone(), zero, zero.bool())


def _put(into: Evaluation, places: Tensor, found: Evaluation) -> None:
    for whole, part in zip(vars(into).values(), vars(found).values()):
        whole[places] = part.to(whole.dtype)
