"""Scoring row by row: chunks, error bounds, finer grids for difficult rows, and rows that cannot
be solved."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cnf.flows.error_model import GLOBAL_ORDER, ErrorModel, SolveResult
from cnf.functional import transformed
from cnf.ode import Grid, Solver, SolverError
from cnf.rows import in_blocks

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


class UnsolvedWarning(UserWarning):
    """Warns of finite rows that could not be solved."""


@dataclass(frozen=True)
class Evaluation:
    """What `CNF.evaluate` returns, row by row.

    Attributes:
        log_prob: log-density in the units of the data (*batch,), nats; NaN where it could not be
            computed.
        error: bound of the solver's error in log_prob (*batch,), nats.
        nfe: velocity evaluations spent on the row (*batch,).
        ok: whether the row is finite and its bound, without rounding, is within the tolerance
            (*batch,).
    """

    log_prob: Tensor
    error: Tensor
    nfe: Tensor
    ok: Tensor

    @classmethod
    def of_mixture(cls, found: Sequence[Evaluation]) -> Evaluation:
        """The evaluation of p(x) = (1/K) Σₖ pₖ(x) from those of its members.

        The error of the logarithm of a mean is at most the largest error of the logarithms.
        """
        log_prob = torch.stack([one.log_prob for one in found]).logsumexp(0)
        return cls(
            log_prob - math.log(len(found)),
            torch.stack([one.error for one in found]).amax(0),
            torch.stack([one.nfe for one in found]).sum(0),
            torch.stack([one.ok for one in found]).all(0),
        )


Score = Callable[[Tensor, Tensor | None, Solver], SolveResult]


def evaluate_rows(
    score: Score,
    rows: Tensor,
    context: Tensor | None,
    solver: Solver,
    error_model: ErrorModel,
    *,
    repeatable: bool = False,
) -> Evaluation:
    """Evaluate rows (n, dim) with context (n, context_dim), each on its own path, in bounded
    memory; where `score` draws nothing at random it is `repeatable`, and a row's evaluation the same
    bit for bit whichever others there are."""
    scorer = _Scorer(score, rows, context, error_model, repeatable)
    return scorer.evaluate(solver, scorer.with_bars if solver.estimates_error else scorer.twice)


def evaluate_once(
    score: Score, rows: Tensor, context: Tensor | None, solver: Solver, error_model: ErrorModel
) -> Evaluation:
    """The same by one solve, which training differentiates. No row is re-solved on a finer grid,
    and bounds are NaN if the solver estimates no error."""
    scorer = _Scorer(score, rows, context, error_model)
    return scorer.evaluate(solver, scorer.first_look if solver.estimates_error else scorer.plain)


def warn_of_unsolved(found: Evaluation, finite: Tensor) -> None:
    """Warn the caller's caller of finite rows without a log-density."""
    if transformed():  # numbers cannot be counted
        return
    unsolved = int((found.log_prob.isnan() & finite).sum())
    if unsolved:
        warnings.warn(
            f"{unsolved} of {found.ok.numel()} rows could not be solved and are NaN;"
            " `evaluate` says which",
            UnsolvedWarning,
            stacklevel=4,
        )


def chunk_size(rows: Tensor) -> int:
    """The number of rows (n, …) that are solved together."""
    return CHUNK if rows.device.type == "cpu" else ACCELERATOR_CHUNK


@dataclass(frozen=True)
class _Scorer:
    """Rows (n, dim) with their context, what scores them, and how errors are judged."""

    score: Score
    rows: Tensor
    context: Tensor | None
    error_model: ErrorModel
    repeatable: bool = False

    def evaluate(
        self, solver: Solver, solved: Callable[[Tensor, Solver], Evaluation]
    ) -> Evaluation:
        """All rows, by what solves those that are finite."""
        finite = self.rows.isfinite().all(-1)
        if self.context is not None:
            finite = finite & self.context.isfinite().all(-1)
        if transformed():
            return self._together(finite, solver)
        places, blank = finite.nonzero().squeeze(-1), _unsolved(self.rows)
        if len(places) == 0:
            return blank
        result = _scatter(blank, places, solved(places, solver))
        # An overflow is no answer either, whatever sign it ended with.
        return replace(
            result, log_prob=result.log_prob.where(result.log_prob.isfinite(), torch.nan)
        )

    def _together(self, finite: Tensor, solver: Solver) -> Evaluation:
        """All rows from one solve: under `torch.func`, which of them need a second look may decide
        no shape."""
        context = None if self.context is None else self.context.where(finite[:, None], 0.0)
        scorer = replace(self, rows=self.rows.where(finite[:, None], 0.0), context=context)
        solved = scorer.first_look if solver.estimates_error else scorer._solve_twice
        found = solved(torch.arange(len(self.rows), device=self.rows.device), solver)
        sound = finite & found.log_prob.isfinite()
        return Evaluation(
            found.log_prob.where(sound, torch.nan),
            found.error.where(sound, torch.nan),
            found.nfe,
            found.ok & sound,
        )

    def first_look(self, places: Tensor, grid: Solver) -> Evaluation:
        """Score the rows at `places` on the grid, with their error bounds."""
        return self._judged(places, grid, self.error_model)[0]

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
        """For solvers without an estimate: the bound is the difference from a second solve with
        another accuracy."""
        return self._in_chunks(places, solver, self._solve_twice)

    def plain(self, places: Tensor, solver: Solver) -> Evaluation:
        """For the same solvers, without the second solve and the bound."""
        return self._in_chunks(places, solver, self._solve_once)

    def _in_chunks(
        self, places: Tensor, solver: Solver, solved: Callable[[Tensor, Solver], Evaluation]
    ) -> Evaluation:
        parts = []
        for part in places.split(chunk_size(places)):
            try:
                parts.append(solved(part, solver))
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
        judged = [self._judged_part(part, grid, error_model) for part in parts]
        return _concatenate([found for found, _ in judged]), torch.cat(
            [more for _, more in judged]
        )

    def _judged_part(
        self, places: Tensor, grid: Solver, error_model: ErrorModel
    ) -> tuple[Evaluation, Tensor]:
        whole = in_blocks(places) if self.repeatable else places
        found, excess = _judge(self._on(whole, grid), error_model)
        first = Evaluation(*(part[: len(places)] for part in vars(found).values()))
        return first, excess[: len(places)]

    def _solve_once(self, places: Tensor, solver: Solver) -> Evaluation:
        scores = self._on(places, solver)
        nfe = torch.full_like(scores.log_prob, scores.nfe, dtype=torch.long)
        unknown = torch.full_like(scores.log_prob, torch.nan)
        return Evaluation(scores.log_prob, unknown, nfe, scores.log_prob.isfinite())

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
    """The number of refinement levels, at least one, for rows whose bounds are `excess` times the
    tolerance.

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
