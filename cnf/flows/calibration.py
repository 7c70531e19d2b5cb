"""Placing a grid on training rows, and making its error bar honest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cnf.flows.scoring import Accuracy, Scores, rounding_error
from cnf.ode import Grid, place

# One evaluation a step: half of the evaluations that Runge-Kutta pairs take for the same error.
METHOD = "adams"
# The bar of this share of the calibration rows must be within the tolerance. The rest goes again on a finer
# grid when scored, which costs less than a grid that is fine enough for all.
COVERED = 0.9
# Steps are spread evenly for rows that are harder than this share of all.
HARD = 0.95
# The bar is this many times what covers all but one per cent of the calibration rows.
MARGIN = 1.5
# Which of the two estimates of a solve, of the state and of the quadrature, says more about the error differs
# from flow to flow. The quadrature's never counts for nothing: a row at rest has no other.
QUADRATURE_WEIGHTS = (1.0, 0.1, 0.03)
FIRST_STEPS, FEWEST_STEPS, MOST_STEPS = 24, 4, 384
# Grids are placed by the errors of this many equal steps: few enough for errors to stand above rounding. The
# errors on a grid that is uneven already would be noise that the next placement amplifies.
PILOT_STEPS = 16
# Power of the step in the estimate of one pilot step's error, and in the sum over the steps of "adams".
LOCAL_ORDER, GLOBAL_ORDER = 5, 5

ScoreOn = Callable[[Grid], Scores]


def spread_evenly(score: ScoreOn, steps: int) -> Grid:
    """A grid of `steps` one-step steps on which every step makes the same error on the rows `score` holds."""
    return _placed(_difficulty(score), steps, "dopri5")


def _difficulty(score: ScoreOn) -> Tensor:
    """The error that each of the pilot's equal steps makes on a hard row, (PILOT_STEPS,)."""
    errors = score(Grid.uniform(PILOT_STEPS)).step_error.nan_to_num(nan=torch.inf).quantile(HARD, dim=1)
    # Below this, an estimate shows rounding and not the step.
    return errors.clamp(min=4 * torch.finfo(errors.dtype).eps)


def _placed(difficulty: Tensor, steps: int, method: str) -> Grid:
    if not difficulty.isfinite().all():
        return Grid.uniform(steps, method)
    return Grid(place(difficulty, Grid.uniform(PILOT_STEPS).nodes, steps, LOCAL_ORDER), method)


def calibrate(few: Calibrated, many: Calibrated, tolerance: float) -> tuple[Grid, Accuracy]:
    """The smallest evenly spread grid whose bars are within `tolerance` nats, and how wide those bars are.

    Args:
        few: rows that the grid is searched with.
        many: rows that the bars are fitted to once the grid is found.
        tolerance: of a row's bar, in nats.
    """
    difficulty = _difficulty(few.score)
    grid = _placed(difficulty, FIRST_STEPS, METHOD)
    best: Grid | None = None
    for _ in range(12):
        bars = few.accuracy(grid, tolerance).estimate(few.score(grid))
        bar = bars.nan_to_num(nan=torch.inf).quantile(COVERED).item()
        if bar <= tolerance and (best is None or grid.steps < best.steps):
            best = grid
        steps = _steps_for(grid.steps, bar / tolerance)
        if (best is not None and steps >= best.steps) or grid.steps == MOST_STEPS == steps:
            break
        grid = _placed(difficulty, steps, METHOD)
    best = best or grid
    return best, many.accuracy(best, tolerance)


def _steps_for(steps: int, excess: float) -> int:
    """How many steps bring a bar that is `excess` times the tolerance just below it."""
    if not excess < 1e12:
        return min(2 * steps, MOST_STEPS)
    wanted = steps * max(excess, 1e-6) ** (1 / GLOBAL_ORDER)
    # Never trust the extrapolation beyond a factor of two, and always move.
    stretched = max(wanted * 1.03, steps + 1) if excess > 1 else min(wanted * 1.03, steps - 1)
    return int(min(max(stretched, steps / 2, FEWEST_STEPS), 2 * steps, MOST_STEPS))


@dataclass(frozen=True)
class Calibrated:
    """Rows to calibrate on.

    Attributes:
        score: solves them on a grid.
        reference: the same in float64.
    """

    score: ScoreOn
    reference: ScoreOn

    def accuracy(self, grid: Grid, tolerance: float) -> Accuracy:
        """Bars that cover the true error of all but one per cent of the rows, with a margin.

        How much the estimates of a solve are worth is measured against the same solve in float64 with halved
        steps. Of the weights that the quadrature's estimate may have, the one that leaves the smallest bars
        at the median is taken.
        """
        scores = self.score(grid)
        true = (scores.log_prob.double() - self.reference(grid.refined()).log_prob.double()).abs()
        found = [_fitted(Accuracy(tolerance, 1.0, weight), scores, true) for weight in QUADRATURE_WEIGHTS]
        return min(found, key=lambda accuracy: accuracy.estimate(scores).nanmedian().item())


def _fitted(accuracy: Accuracy, scores: Scores, true: Tensor) -> Accuracy:
    """The accuracy with `MARGIN` times the scale that covers all but one per cent of the true errors."""
    raw, rounding = accuracy.estimate(scores).double(), rounding_error(scores.log_prob).double()
    ratio = ((true - rounding).clamp(min=0) / (raw + rounding)).nan_to_num(nan=1.0)
    return replace(accuracy, bar_scale=min(max(MARGIN * ratio.quantile(0.99).item(), 1e-3), 100.0))


def calibration_rows(x: Tensor, most: int = 512) -> Tensor:
    """Places of at most `most` rows, spread evenly over the table."""
    return torch.linspace(0, len(x) - 1, min(most, len(x)), device=x.device).round().long()
