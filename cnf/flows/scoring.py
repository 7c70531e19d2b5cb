"""Scoring row by row: chunks, error bars, finer grids for hard rows, and rows that cannot be
solved."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cnf.functional import transformed
from cnf.ode import Grid, Solver, SolverError

# Rows that go through a solve together: few enough for a processor's cache and allocator (with
# four times as many, layers of 192 take twice as long a row), and enough to keep an accelerator
# busy.
CHUNK, ACCELERATOR_CHUNK = 1024, 65_536
# Rows whose bar is above the tolerance go again on finer grids: a level takes RISE times the steps
# of the one below. A bar says which level will do, with some headroom; it is not believed beyond
# so many at once.
RISE, HEADROOM, MOST_LEVELS_AT_ONCE = 2**0.5, 1.05, 4
# A row goes again so many times at most, and no grid that it goes to takes more evaluations than
# this.
RETRIES, MOST_EVALUATIONS = 6, 10_000
# Where an adaptive solver cannot finish a chunk, rows are taken apart until so many solves have
# failed, each by an impatient solver.
PATIENCE = 30
DIFFICULTY_STEPS = 16
# Power of the step in the error of a solve by "adams"; the estimate of "dopri5" falls with the
# fourth, so that its rows may need one look more.
GLOBAL_ORDER = 5
# Units of the last place that a solve loses where nobody has measured it.
USUAL_ROUNDING = 8.0


class SolveResult(NamedTuple):
    """From one solve.

    Attributes:
        log_prob: log-densities (rows,).
        x_error: estimate of each step's error in the state (steps, rows).
        q_error: the same in the integral of the divergence.
        nfe: evaluations a row.
        extra: integrals of the rates beside the divergence, from the base to the data (rows,
            rates).

    Steps are in the order of time, from the base to the data, although scoring solves the other
    way.
    """

    log_prob: Tensor
    x_error: Tensor
    q_error: Tensor
    nfe: int
    extra: Tensor

    @property
    def step_error(self) -> Tensor:
        """Both estimates together (steps, rows)."""
        return self.x_error + self.q_error


@dataclass(frozen=True)
class Evaluation:
    """What `CNF.evaluate` returns, row by row.

    Attributes:
        log_prob: log-density in the units of the data (*batch,), nats; NaN where it could not be
            computed.
        error: bar of the solver's error in log_prob (*batch,), nats.
        nfe: velocity evaluations spent on the row (*batch,).
        ok: whether the row is finite and its bar, but for rounding, is within the tolerance
            (*batch,).
    """

    log_prob: Tensor
    error: Tensor
    nfe: Tensor
    ok: Tensor


@dataclass(frozen=True)
class ErrorModel:
    """How errors are judged.

    Attributes:
        tolerance: of a row's bar, in nats.
        bar_scale: the bar per unit of raw estimate.
        quadrature_weight: of the estimate of the quadrature beside that of the state.
        floor: raw estimate that every row is given beside its own.
        rounding: what a solve's arithmetic may lose, in units of the last place of log_prob.
    """

    tolerance: float = 1e-3
    bar_scale: float = 1.0
    quadrature_weight: float = 1.0
    floor: float = 0.0
    rounding: float = USUAL_ROUNDING

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ErrorModel:
        """The model that a file describes.

        Raises:
            ValueError: for numbers without a meaning.
        """
        if not all(type(value) in (int, float) for value in config.values()):
            raise ValueError(f"error_model: expected numbers; got {config}")
        model = cls(**config)
        if not (model.tolerance > 0 and min(model.bar_scale, model.floor, model.rounding) >= 0):
            raise ValueError(
                "error_model: expected a tolerance above zero, bars and rounding of at least zero;"
                f" got {config}"
            )
        return model

    def estimate(self, scores: SolveResult) -> Tensor:
        """The error of each row's log-density (rows,), in nats, but for rounding."""
        own = (scores.x_error + self.quadrature_weight * scores.q_error).sum(0)
        return self.bar_scale * (self.floor + own)

    def for_refined_grid(self, factor: float) -> ErrorModel:
        """The same for a grid of `factor` times the steps."""
        return replace(self, floor=self.floor / factor**GLOBAL_ORDER)

    def rounding_error(self, log_prob: Tensor) -> Tensor:
        """What rounding may add to the error of log_prob (rows,), in nats."""
        return (
            self.rounding * torch.finfo(log_prob.dtype).eps * log_prob.detach().abs().clamp(min=1)
        )

    def limit(self, dtype: torch.dtype) -> float:
        """What a row is solved again above: the tolerance, or the rounding in estimates
        themselves, which no finer grid takes away."""
        return max(self.tolerance, USUAL_ROUNDING * self.bar_scale * torch.finfo(dtype).eps)


Score = Callable[[Tensor, Tensor | None, Solver], SolveResult]


def evaluate_rows(
    score: Score, rows: Tensor, context: Tensor | None, solver: Solver, error_model: ErrorModel
) -> Evaluation:
    """Evaluate rows (n, dim) with context (n, context_dim), each on its own path, in bounded
    memory."""
    finite = rows.isfinite().all(-1)
    if context is not None:
        finite = finite & context.isfinite().all(-1)
    if transformed():
        return _evaluate_together(score, rows, context, finite, solver, error_model)
    places, blank = finite.nonzero().squeeze(-1), _unsolved(rows)
    if len(places) == 0:
        return blank
    scorer = _Scorer(score, rows, context, error_model)
    solved = scorer.with_bars if solver.estimates_error else scorer.twice
    result = _scatter(blank, places, solved(places, solver))
    # An overflow is no answer either, whatever sign it ended with.
    return replace(result, log_prob=result.log_prob.where(result.log_prob.isfinite(), torch.nan))


def _evaluate_together(
    score: Score,
    rows: Tensor,
    context: Tensor | None,
    finite: Tensor,
    solver: Solver,
    error_model: ErrorModel,
) -> Evaluation:
    """The rows from one solve: under `torch.func`, which of them need a second look may decide no
    shape."""
    scorer = _Scorer(
        score,
        rows.where(finite[:, None], 0.0),
        None if context is None else context.where(finite[:, None], 0.0),
        error_model,
    )
    places = torch.arange(len(rows), device=rows.device)
    if solver.estimates_error:
        found, _ = scorer._judged(places, solver, error_model)
    else:
        found = scorer._solve_twice(places, solver)
    sound = finite & found.log_prob.isfinite()
    return Evaluation(
        found.log_prob.where(sound, torch.nan),
        found.error.where(sound, torch.nan),
        found.nfe,
        found.ok & sound,
    )


def chunk_size(rows: Tensor) -> int:
    """How many of the rows (n, …) go through a solve together."""
    return CHUNK if rows.device.type == "cpu" else ACCELERATOR_CHUNK


@dataclass(frozen=True)
class _Scorer:
    """Rows (n, dim) with their context, what scores them, and how errors are judged."""

    score: Score
    rows: Tensor
    context: Tensor | None
    error_model: ErrorModel

    def with_bars(self, places: Tensor, grid: Solver) -> Evaluation:
        """Score the rows at `places` on the grid; those above the tolerance go again, alone, on
        finer grids up to a cap. A tolerance without end asks for no second look."""
        result, excess = self._judged(places, grid, self.error_model)
        if math.isinf(self.error_model.tolerance):
            return result
        levels, looks = _levels(excess), torch.ones_like(result.nfe)
        while len(hard := ((excess > 1) & (looks <= RETRIES)).nonzero().squeeze(-1)):
            level = levels[hard].min().item()
            finer = grid.with_steps(math.ceil(grid.steps * RISE**level))
            if (finer.nfe or 0) > MOST_EVALUATIONS:
                break
            hard = hard[levels[hard] == level]
            there = self.error_model.for_refined_grid(finer.steps / grid.steps)
            again, excess[hard] = self._judged(places[hard], finer, there)
            result = _scatter(result, hard, replace(again, nfe=again.nfe + result.nfe[hard]))
            levels[hard] += _levels(excess[hard])
            looks[hard] += 1
        return result

    def twice(self, places: Tensor, solver: Solver) -> Evaluation:
        """For solvers without an estimate: the bar is the difference to a second solve of another
        accuracy."""
        parts = []
        for part in places.split(chunk_size(places)):
            try:
                parts.append(self._solve_twice(part, solver))
            except SolverError:
                parts.append(self._apart(part, solver.impatient()))
        return _concatenate(parts)

    def _on(self, places: Tensor, solver: Solver) -> SolveResult:
        context = None if self.context is None else self.context[places]
        return self.score(self.rows[places], context, solver)

    def _judged(
        self, places: Tensor, grid: Solver, error_model: ErrorModel
    ) -> tuple[Evaluation, Tensor]:
        parts = places.split(chunk_size(places))
        judged = [_judge(self._on(part, grid), error_model) for part in parts]
        return _concatenate([found for found, _ in judged]), torch.cat(
            [more for _, more in judged]
        )

    def _solve_twice(self, places: Tensor, solver: Solver) -> Evaluation:
        best = self._on(places, solver)
        with torch.no_grad():
            other = self._on(places, solver.second_opinion())
        difference = (best.log_prob - other.log_prob).detach().abs()
        nfe = torch.full_like(difference, best.nfe + other.nfe, dtype=torch.long)
        ok = (difference <= self.error_model.tolerance) & best.log_prob.isfinite()
        error = difference + self.error_model.rounding_error(best.log_prob)
        return Evaluation(best.log_prob, error, nfe, ok)

    def _apart(self, places: Tensor, solver: Solver) -> Evaluation:
        """Find the rows that an adaptive solver cannot finish, so that they do not take the others
        along.

        Groups are halved, the easier half, as a grid sees it, first: when patience ends, what is
        left is what cannot be solved."""
        order = self._difficulty(places).nan_to_num(nan=torch.inf).argsort()
        groups, result, failures = _hard_and_easy(order), _unsolved(self.rows[places]), 0
        while groups and failures < PATIENCE:
            group = groups.pop()
            try:
                result = _scatter(result, group, self._solve_twice(places[group], solver))
            except SolverError:
                failures += 1
                groups += _hard_and_easy(group)
        return result

    @torch.no_grad()
    def _difficulty(self, places: Tensor) -> Tensor:
        """The error of a grid (rows,), or, where an adaptive solver takes its place, how far out a
        row is."""
        try:
            return self._on(places, Grid.uniform(DIFFICULTY_STEPS)).step_error.sum(0)
        except SolverError:
            return self.rows[places].square().sum(-1)


def levels_above(excess: Tensor) -> Tensor:
    """How many levels finer, at least one, the grid has to be for rows whose bars are `excess`
    times the tolerance.

    >>> levels_above(torch.tensor([2.0, 10.0, 100.0, torch.nan]))
    tensor([1., 2., 3., inf])
    """
    wanted = HEADROOM * excess.nan_to_num(nan=torch.inf) ** (1 / GLOBAL_ORDER)
    return (wanted.log() / math.log(RISE)).ceil().clamp(min=1)


def _levels(excess: Tensor) -> Tensor:
    """How many levels an excess is believed to ask for."""
    return levels_above(excess).clamp(max=MOST_LEVELS_AT_ONCE).long()


@torch.no_grad()
def _judge(scores: SolveResult, error_model: ErrorModel) -> tuple[Evaluation, Tensor]:
    """The rows with their bars: the scaled sum of their steps' errors and what rounding may add.
    Beside them the former alone, which a finer grid makes smaller, in multiples of what it is held
    to (rows,)."""
    estimate, sound = error_model.estimate(scores), scores.log_prob.isfinite()
    nfe = torch.full_like(scores.log_prob, scores.nfe, dtype=torch.long)
    ok = (estimate <= error_model.tolerance) & sound
    excess = (estimate / error_model.limit(estimate.dtype)).nan_to_num(nan=torch.inf)
    bars = estimate + error_model.rounding_error(scores.log_prob)
    return Evaluation(scores.log_prob, bars, nfe, ok), excess.where(sound, torch.inf)


def _hard_and_easy(group: Tensor) -> list[Tensor]:
    """The halves of a group in order of difficulty, the harder one first; nothing of a single
    row."""
    return list(reversed(group.tensor_split(2))) if len(group) > 1 else []


def _unsolved(rows: Tensor) -> Evaluation:
    nothing = rows.new_full((len(rows),), torch.nan)
    zero = torch.zeros_like(nothing, dtype=torch.long)
    return Evaluation(nothing, nothing, zero, zero.bool())


def _scatter(into: Evaluation, places: Tensor, values: Evaluation) -> Evaluation:
    pairs = zip(vars(into).values(), vars(values).values())
    return Evaluation(*(whole.index_put((places,), part) for whole, part in pairs))


def _concatenate(parts: list[Evaluation]) -> Evaluation:
    return Evaluation(*map(torch.cat, zip(*(vars(part).values() for part in parts))))
