"""Choosing a grid on training rows, and calibrating its error bounds."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from itertools import product
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from cnf.flows.bound import BoundFlow
from cnf.flows.error_model import (
    GLOBAL_ORDER,
    UNMEASURED,
    USUAL_ROUNDING,
    ErrorModel,
    SolveResult,
)
from cnf.flows.given import Given, finite_rows
from cnf.flows.scoring import MOST_EVALUATIONS, RISE, levels_above
from cnf.ode import Grid, place
from cnf.rows import evenly_spaced

# Rows that a grid is calibrated on, at most.
CALIBRATION_ROWS = 1024
# One evaluation a step: half of the evaluations that Runge-Kutta pairs take for the same error.
METHOD = "adams"
# On the grid of a first look, bars of this share of the rows must be within the tolerance at
# least.
FIRST_LOOK_SHARE = 0.9
# Steps are spread evenly for rows that are harder than this share of all.
HARD = 0.95
# The bar is this many times what covers all but one per cent of the calibration rows: enough for
# 99.9 per cent of held-out rows (scripts/benchmark_errors.py).
MARGIN = 2.0
# Which of the two estimates of a solve, of the state and of the quadrature, says more about the
# error differs from flow to flow. The quadrature's never counts for nothing: a row at rest has no
# other.
QUADRATURE_WEIGHTS = (1.0, 0.1, 0.03)
# An estimate tells one row from another only roughly, in some flows less than in others. Each is
# taken for the larger by so many times the median of all: bars that differ less cover as many
# rows, and the widest of them are narrower.
FLOORS, HIGHEST_FLOOR = (0.1, 0.3, 1.0), 1e5
# Bars of hard rows that differ by less than this factor are as good.
AS_GOOD = 1.1
# A second look is a solve of its own. However few rows it has, each of its evaluations costs as
# much as that of this share of a thousand rows.
SOLVE = 0.1
FIRST_STEPS, FEWEST_GRID_STEPS, MOST_GRID_STEPS = 36, 4, 384
MOST_TRIALS = 8  # grids
# Errors are measured against a grid of at least, and of at first, so many times the steps.
FINER, FINEST = 2, 4
# Grids are placed by the errors of this many equal steps: few enough for errors to stand above
# rounding. The errors on a grid that is uneven already would be noise that the next placement
# amplifies.
PILOT_STEPS = 16
# The estimate of one pilot step's error goes with the fifth power of its length, where steps are
# short. Where a field is steep the pilot's are too long for that, and their estimates too small:
# smaller powers move more steps there. Tried are these; without time to try, the usual one will
# do.
POWERS, USUAL_POWER = (2.0, 2.5, 3.0, 4.0, 5.0), 3.0

# Solves of pilot steps that take as long as a calibration does.
USUAL_SOLVES = 40

SolveOn = Callable[[Grid], SolveResult]


def spread_evenly(score: SolveOn, steps: int) -> Grid:
    """A grid of `steps` steps with about equal errors on the rows of `score`."""
    return _placed(_difficulty(score), steps, USUAL_POWER)


def _difficulty(score: SolveOn) -> Tensor:
    """The error that each of the pilot's equal steps makes on a hard row, (PILOT_STEPS,)."""
    errors = _hard(score(Grid.uniform(PILOT_STEPS)).step_error)
    # Below this, an estimate shows rounding and not the step.
    return errors.clamp(min=4 * torch.finfo(errors.dtype).eps)


def _placed(difficulty: Tensor, steps: int, power: float) -> Grid:
    if not difficulty.isfinite().all():
        return Grid.uniform(steps, METHOD)
    return Grid(place(difficulty, Grid.uniform(PILOT_STEPS).nodes, steps, power), METHOD)


@torch.no_grad()
def calibrated(bound: BoundFlow, x: Tensor, tolerance: float) -> tuple[Grid, ErrorModel]:
    """The grid and the error model of `CNF.calibrate` for rows x; the flow is not changed.

    Args:
        bound: the flow under the context of the rows.
        x: rows (rows, dim); `CALIBRATION_ROWS` finite rows, evenly spaced, are used.
        tolerance: of the error bounds, in nats.

    Raises:
        ValueError: for a tolerance that is not positive, or no finite row.
    """
    if not (isinstance(tolerance, Real) and tolerance > 0):
        raise ValueError(f"tolerance: expected a positive number of nats; got {tolerance!r}")
    y, given = _chosen(bound, x)
    usual = copy.deepcopy(bound.flow).eval()
    exact = copy.deepcopy(usual).double()

    # A field without a parameter knows no dtype of its own.
    def solve(flow: Any, dtype: torch.dtype, grid: Grid) -> SolveResult:
        condition = None if given.condition is None else given.condition.to(dtype)
        # Probes of an estimate would differ between two solves and pass for errors of the solver.
        one = flow.bind(given.context, solver=grid, divergence="auto")
        return one.solve_log_prob(y.to(dtype), condition)

    score, reference = partial(solve, usual, usual.dtype), partial(solve, exact, torch.float64)
    return place_grid(score, reference, tolerance)


def _chosen(bound: BoundFlow, x: Tensor) -> tuple[Tensor, Given]:
    """The rows to calibrate on, in model coordinates, and what is given with them."""
    rows, given, _ = bound.rows(x)
    places = finite_rows(rows, given, bound.flow.preprocess).nonzero().squeeze(1)
    if len(places) == 0:
        raise ValueError("calibrate: expected at least one finite row of x; got none")
    chosen = places[evenly_spaced(places, CALIBRATION_ROWS)]
    if given.condition is not None:  # rows of one context share work
        group = given.condition[chosen].unique(dim=0, return_inverse=True)[1]
        chosen = chosen[group.argsort(stable=True)]
    given = Given(*(None if part is None else part[chosen] for part in given))
    return bound.flow.preprocess(rows[chosen], given.context, given.mask)[0], given


@torch.no_grad()
def pilot_solve(bound: BoundFlow, x: Tensor) -> Callable[[int], object]:
    """A solve of pilot steps for a number of the rows x; calibration on these takes about as long
    as `USUAL_SOLVES` such solves."""
    y, given = _chosen(bound, x)
    flow, y = bound.flow, y.to(bound.flow.dtype)

    def solve(rows: int) -> object:
        some = evenly_spaced(y, rows)
        context, condition = (
            None if part is None else part[some] for part in (given.context, given.condition)
        )
        one = flow.bind(context, solver=Grid.uniform(PILOT_STEPS, METHOD))
        return one.solve_log_prob(y[some], None if condition is None else condition.to(flow.dtype))

    return solve


def place_grid(score: SolveOn, reference: SolveOn, tolerance: float) -> tuple[Grid, ErrorModel]:
    """The grid on which rows take the fewest evaluations to reach `tolerance` nats, including
    re-solves, and the width of its error bounds.

    Args:
        score: solves the rows to calibrate on.
        reference: the same in float64.
        tolerance: of the error bound of a row, in nats.
    """
    difficulty = _difficulty(score)
    truth = Truth(reference, difficulty)
    placed = cache(partial(_placed, difficulty, power=_best_power(score, difficulty, truth)))
    exactly = cache(lambda steps: reference(placed(steps)))
    found: list[tuple[float, Grid, ErrorModel]] = []
    steps = FIRST_STEPS
    while steps not in [grid.steps for _, grid, _ in found] and len(found) < MOST_TRIALS:
        accuracy, bars = _judged(exactly(steps), truth.beside(steps), tolerance)
        excess = (bars / tolerance).nan_to_num(nan=torch.inf).cpu()
        found.append((expected_evaluations(steps, excess), placed(steps), accuracy))
        steps = _cheapest(steps, excess)
    # Where no grid is fine enough, the finest.
    _, grid, accuracy = min(found, key=lambda trial: (trial[0], -trial[1].steps))
    first = score(grid)
    return grid, replace(
        accuracy,
        rounding=_rounding(first.log_prob, exactly(grid.steps).log_prob),
        largest_context=first.context_length.max().item(),
    )


def _best_power(score: SolveOn, difficulty: Tensor, truth: Truth) -> float:
    """The power that leaves the smallest true error when it spreads the first grid."""
    exact, errors = truth.beside(FIRST_STEPS), {}
    for power in POWERS:
        errors[power] = _hard(
            (score(_placed(difficulty, FIRST_STEPS, power)).log_prob - exact).abs()
        ).item()
    return min(errors, key=errors.__getitem__)


def expected_evaluations(steps: int, excess: Tensor) -> float:
    """Expected evaluations per row, including re-solves and their fixed overhead, on a grid whose
    error bounds are `excess` times the tolerance (rows,); infinite if too many rows would need a
    re-solve."""
    if (excess <= 1).double().mean() < FIRST_LOOK_SHARE:
        return math.inf
    levels, rows = levels_above(excess[excess > 1]).unique(return_counts=True)
    again = (steps * RISE**levels).clamp(max=MOST_EVALUATIONS)
    return steps + (again * (rows / len(excess) + SOLVE)).sum().item()


def _cheapest(steps: int, excess: Tensor) -> int:
    """How many steps make rows cheapest, as bars (rows,) in multiples of the tolerance on `steps`
    steps tell.

    The extrapolation is not trusted beyond a factor of two.
    """
    within = range(min(2 * steps, MOST_GRID_STEPS), max(steps // 2, FEWEST_GRID_STEPS) - 1, -1)
    return min(within, key=lambda n: expected_evaluations(n, excess * (steps / n) ** GLOBAL_ORDER))


class Truth:
    """Log-densities in float64 on a grid that is fine enough to measure the errors of coarser
    ones; a finer grid is used on request.

    Args:
        reference: solves the rows in float64.
        difficulty: of the pilot's steps, which places the grids.
    """

    def __init__(self, reference: SolveOn, difficulty: Tensor) -> None:
        self.reference, self.difficulty = reference, difficulty
        self.steps, self.log_prob = 0, torch.empty(0)

    def beside(self, steps: int) -> Tensor:
        """Log-densities (rows,) for measuring the errors of a grid with this number of steps."""
        if self.steps < FINER * steps:
            self.steps = FINEST * steps
            self.log_prob = self.reference(
                _placed(self.difficulty, self.steps, USUAL_POWER)
            ).log_prob
        return self.log_prob


def _rounding(log_prob: Tensor, exact: Tensor) -> float:
    """Units of the last place within which solves on one grid, in the flow's arithmetic and in
    float64, agree on all but one per cent of the rows."""
    units = (log_prob.double() - exact).abs() / ErrorModel(rounding=1.0).rounding_error(log_prob)
    return max(units.nan_to_num(nan=0.0, posinf=0.0).quantile(0.99).item(), USUAL_ROUNDING)


def _judged(scores: SolveResult, truth: Tensor, tolerance: float) -> tuple[ErrorModel, Tensor]:
    """Bars that cover the true error of all but one per cent of the rows, with a margin, but for
    what rounding adds, so that the scores are those of float64; and the bars of these rows
    (rows,).

    Of the floors and of the weights that the quadrature's estimate may have, those that leave the
    smallest bars of hard rows are taken, and of such as are as good, those with the smallest bars
    of the others."""
    true = (scores.log_prob - truth).abs()
    plain = _with_steepness(ErrorModel(tolerance), scores.steepness())
    fitted = [
        _fitted(replace(plain, quadrature_weight=weight), floor, scores, true)
        for weight, floor in product(QUADRATURE_WEIGHTS, FLOORS)
    ]
    sound = [accuracy for accuracy in fitted if _covers(accuracy, scores, true)] or fitted
    bars = [accuracy.estimate(scores) for accuracy in sound]
    widest = [_hard(bar).item() for bar in bars]
    good = [k for k, width in enumerate(widest) if width <= AS_GOOD * min(widest)]
    best = min(good, key=lambda k: bars[k].nanmedian().item())
    return sound[best], bars[best]


def _with_steepness(accuracy: ErrorModel, steepness: Tensor) -> ErrorModel:
    """The accuracy with the steepness of the base at the rows (rows,); the numbers that stand for
    nothing measured, where no row has one."""
    measured = steepness[steepness.isfinite() & (steepness > 0)].clamp(max=UNMEASURED)
    if len(measured) == 0:
        return accuracy
    usual, largest = measured.mean().item(), measured.max().item()
    return replace(accuracy, usual_steepness=usual, largest_steepness=largest)


def _covers(accuracy: ErrorModel, scores: SolveResult, true: Tensor) -> bool:
    """Whether all but one per cent of the bars are no smaller than the true error: a scale has a
    limit, at which they may be."""
    bars = accuracy.estimate(scores) + ErrorModel().rounding_error(scores.log_prob)
    return (bars >= true).double().mean().item() >= 0.99


def _hard(values: Tensor) -> Tensor:
    """What few of the rows, which stand along the last axis, exceed; without end where more are
    lost."""
    return values.nan_to_num(nan=torch.inf).quantile(HARD, dim=-1, interpolation="higher")


def _fitted(
    accuracy: ErrorModel, multiple: float, scores: SolveResult, true: Tensor
) -> ErrorModel:
    """The accuracy with a floor of a multiple of the median estimate, and `MARGIN` times the scale
    that covers all but one per cent of the true errors."""
    sound = accuracy.estimate(scores).nan_to_num(nan=torch.nan, posinf=torch.nan)
    floor = min(multiple * sound.nanmedian().nan_to_num().item(), HIGHEST_FLOOR)
    accuracy = replace(accuracy, floor=floor)
    # Where a grid solves a field exactly, two roundings would make a ratio of any size.
    rounding = ErrorModel().rounding_error(scores.log_prob)
    ratio = ((true - rounding).clamp(min=0) / (accuracy.estimate(scores) + rounding)).nan_to_num(
        nan=1.0
    )
    scale = MARGIN * ratio.quantile(0.99).item()
    return replace(accuracy, bar_scale=min(max(scale, 1e-3), 100.0))
