"""Placing a grid on training rows, and making its error bar honest."""

from __future__ import annotations

from collections.abc import Callable

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


def calibrate(score: ScoreOn, reference: ScoreOn, tolerance: float) -> tuple[Grid, Accuracy]:
    """The smallest evenly spread grid whose bars are within `tolerance` nats, and the scale of those bars.

    The embedded estimate belongs to the lower-order method of the pair and is usually far above the error of
    the value reported; how far is measured against `reference`, the same rows in float64 on finer grids.
    """
    difficulty = _difficulty(score)
    grid = _placed(difficulty, FIRST_STEPS, METHOD)
    best: tuple[Grid, Accuracy] | None = None
    for _ in range(12):
        scores = score(grid)
        scale = _bar_scale(scores, reference(grid.refined()))
        bar = (scale * scores.step_error.sum(0)).nan_to_num(nan=torch.inf).quantile(COVERED).item()
        if bar <= tolerance and (best is None or grid.steps < best[0].steps):
            best = grid, Accuracy(tolerance, scale)
        steps = _steps_for(grid.steps, bar / tolerance)
        if best is not None and steps >= best[0].steps:
            break
        if grid.steps == MOST_STEPS == steps:
            return grid, Accuracy(tolerance, scale)
        grid = _placed(difficulty, steps, METHOD)
    return best or (grid, Accuracy(tolerance, scale))


def _steps_for(steps: int, excess: float) -> int:
    """How many steps bring a bar that is `excess` times the tolerance just below it."""
    if not excess < 1e12:
        return min(2 * steps, MOST_STEPS)
    wanted = steps * max(excess, 1e-6) ** (1 / GLOBAL_ORDER)
    # Never trust the extrapolation beyond a factor of two, and always move.
    stretched = max(wanted * 1.03, steps + 1) if excess > 1 else min(wanted * 1.03, steps - 1)
    return int(min(max(stretched, steps / 2, FEWEST_STEPS), 2 * steps, MOST_STEPS))


def _bar_scale(scores: Scores, reference: Scores) -> float:
    """`MARGIN` times what makes the raw estimate cover the true error of all but one per cent of rows."""
    raw = scores.step_error.sum(0).double()
    true = (scores.log_prob.double() - reference.log_prob.double()).abs()
    rounding = rounding_error(scores.log_prob).double()
    ratio = ((true - rounding).clamp(min=0) / (raw + rounding)).nan_to_num(nan=1.0)
    return float(min(max(MARGIN * ratio.quantile(0.99).item(), 1e-3), 100.0))


def calibration_rows(x: Tensor, most: int = 512) -> Tensor:
    """Places of at most `most` rows, spread evenly over the table."""
    return torch.linspace(0, len(x) - 1, min(most, len(x)), device=x.device).round().long()
