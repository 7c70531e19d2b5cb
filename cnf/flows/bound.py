"""A flow bound to a context and to the options of its solves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from cnf.flows.divergence import AUTO, Hutchinson
from cnf.flows.equation import FlowEquation, increasing_times, solve, usual_gradient
from cnf.flows.error_model import ErrorModel, SolveResult
from cnf.flows.given import Given, present
from cnf.flows.scoring import (
    Evaluation,
    chunk_size,
    evaluate_once,
    evaluate_rows,
    warn_of_unsolved,
)
from cnf.flows.solve_options import SolveOptions
from cnf.inputs import (
    Numbers,
    as_shape,
    as_tensor,
    joint_shape,
    require_columns,
    require_context,
)
from cnf.ode import Gradient, Solver, System
from cnf.precision import outside_autocast


@dataclass(frozen=True, eq=False)
class BoundFlow:
    """p(x | context) with the options of its solves; what `CNF.bind` returns.

    It has no parameters of its own: a change of the flow's weights also changes the bound flow.

    Attributes:
        flow: a `CNF`.
        context: (*batch, context_dim), in the units of the data, or None.
        options: of its solves.
    """

    flow: Any
    context: Tensor | None = field(default=None, repr=False)
    options: SolveOptions = field(default_factory=SolveOptions)

    @property
    def device(self) -> torch.device:
        """Of the flow."""
        return self.flow.device

    @property
    def solver(self) -> Solver:
        """What solves."""
        return self.options.solver or self.flow.solver

    @property
    def divergence(self) -> Hutchinson | str:
        """How the divergence is computed."""
        return self.options.divergence or self.flow.divergence

    @property
    def error_model(self) -> ErrorModel:
        """How estimates of the error become bounds."""
        model = self.options.error_model or self.flow.error_model
        tolerance = self.options.tolerance
        return model if tolerance is None else replace(model, tolerance=tolerance)

    def log_prob(self, x: Numbers, *, t: float = 1.0) -> Tensor:
        """Log-density (*batch,) of x (*batch, dim); see `CNF.log_prob`."""
        x = as_tensor(x, self.device)
        asked = self.options.tolerance is not None
        found = self._evaluate(x, t, verified=asked or not self._training)
        finite = x.isfinite().all(-1)
        if self.context is not None:
            finite = finite & self.context.isfinite().all(-1)
        warn_of_unsolved(found, finite)
        return found.log_prob

    def evaluate(self, x: Numbers, *, t: float = 1.0) -> Evaluation:
        """`log_prob` with error bounds; see `CNF.evaluate`."""
        return self._evaluate(as_tensor(x, self.device), t, verified=True)

    @property
    def _training(self) -> bool:
        """Whether a graph is recorded in train mode."""
        return self.flow.training and torch.is_grad_enabled()

    @outside_autocast
    def _evaluate(self, x: Tensor, t: float, *, verified: bool) -> Evaluation:
        """Scores with their bounds, those above the tolerance solved again where they are to be
        verified."""
        if not 0 <= t <= 1:
            raise ValueError(f"t: expected a time in [0, 1]; got {t}")
        rows, given, shape = self.rows(x)
        y, ladj = self.flow.preprocess(rows, given.context, given.mask)
        # Of a solver that takes another's place, the estimates of the other say nothing.
        solver = self.solver.for_gradient(self.options.gradient, t, 0.0)

        def one_solve(y: Tensor, condition: Tensor | None, solver: Solver) -> SolveResult:
            gradient = self._gradient(solver, len(rows), given.condition)
            one = replace(self.options, solver=solver, gradient=gradient)
            return replace(self, options=one).solve_log_prob(y, condition, t=t)

        plain = self._density_equation().plain
        score = partial(evaluate_rows, repeatable=plain) if verified else evaluate_once
        found = score(one_solve, y.to(self.flow.dtype), given.condition, solver, self.error_model)
        dtype = torch.promote_types(x.dtype, self.flow.dtype)  # half precision would lose digits
        parts = (found.log_prob.to(dtype) + ladj.to(dtype), found.error, found.nfe, found.ok)
        return Evaluation(*(part.reshape(shape) for part in parts))

    @outside_autocast
    def solve_log_prob(
        self,
        y: Tensor,
        condition: Tensor | None = None,
        *,
        t: float = 1.0,
        extend: Callable[[System], System] | None = None,
    ) -> SolveResult:
        """Log-density of rows and their context in model coordinates from one solve; see
        `CNF.solve_log_prob`."""
        base, steepness = self.flow.base, cache(self.flow.base.steepness)  # asked often
        far = y.new_zeros(y.shape[:1]) if condition is None else condition.detach().norm(dim=-1)
        if t == 0:
            none, extra = y.new_zeros(1, len(y)), y.new_zeros(len(y), 0)
            return SolveResult(base.log_prob(y), none, none, 0, extra, y.detach(), far, steepness)
        gradient = self._gradient(self.solver, y.shape[0], condition)
        solution = solve(
            self._density_equation(extend), y, condition, (t, 0.0), self.solver, gradient,
            estimate=True, compiled=self.flow.compiled,
        )  # fmt: skip
        log_prob = base.log_prob(solution.x[-1]) + solution.q[-1, ..., 0]
        errors = solution.x_error.flip(0), solution.q_error[..., 0].flip(0)
        # The solve runs from the data to the base, and integrals change sign with its direction.
        extra, ends = -solution.q[-1, ..., 1:], solution.x[-1].detach()
        return SolveResult(log_prob, *errors, solution.nfe, extra, ends, far, steepness)

    def sample(
        self, shape: int | Sequence[int] = (), *, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Draws (*shape, *batch, dim), in the units of the data; see `CNF.sample`."""
        with torch.no_grad():
            return self.rsample(shape, dtype=dtype)

    @outside_autocast
    def rsample(
        self, shape: int | Sequence[int] = (), *, dtype: torch.dtype | None = None
    ) -> Tensor:
        """`sample`, as a differentiable function of context and parameters."""
        z, given, batch = self._draw_base(shape)
        equation = FlowEquation(self.flow.field)
        y = self._integrate(z, given.condition, (0.0, 1.0), equation, self.solver)[0][-1]
        y = y if dtype is None else y.to(dtype)
        return self._to_data(y, given).reshape(*batch, self.flow.dim)

    @outside_autocast
    def sample_and_log_prob(self, shape: int | Sequence[int] = ()) -> tuple[Tensor, Tensor]:
        """Draws (*shape, *batch, dim) and their log-densities (*shape, *batch) from one solve."""
        z, given, batch = self._draw_base(shape)
        equation = self._density_equation()
        states, q = self._integrate(z, given.condition, (0.0, 1.0), equation, self.solver)
        x, log_prob = self._carried(z, states[-1], q[-1], given)
        return x.reshape(*batch, self.flow.dim), log_prob.reshape(batch)

    @outside_autocast
    def sample_base(self, shape: int | Sequence[int] = ()) -> Tensor:
        """Start points of samples (*shape, *batch, dim), in the units of the data."""
        z, given, batch = self._draw_base(shape)
        return self._to_data(z, given).reshape(*batch, self.flow.dim)

    @outside_autocast
    def trajectory(
        self, x: Numbers, t: Tensor | Sequence[float], *, reverse: bool = False
    ) -> Tensor:
        """Paths of particles (time, *batch, dim); see `CNF.trajectory`."""
        times = increasing_times(t)
        rows, given, shape = self.rows(x)
        ends = self.flow.preprocess(rows, given.context, given.mask)[0]
        span = [1.0, *reversed(times)] if reverse else [0.0, *times]
        path, _ = self._path(ends, given, span, FlowEquation(self.flow.field))
        path = path[-len(times) :].flip(0) if reverse else path[-len(times) :]
        return self._to_data(path, given).reshape(len(times), *shape, self.flow.dim)

    @outside_autocast
    def trajectory_and_log_prob(
        self, x: Numbers, t: Tensor | Sequence[float]
    ) -> tuple[Tensor, Tensor]:
        """Paths of particles (time, *batch, dim) and the log-density where they are, (time,
        *batch)."""
        times = increasing_times(t)
        rows, given, shape = self.rows(x)
        z = self.flow.preprocess(rows, given.context, given.mask)[0].to(self.flow.dtype)
        path, q = self._path(z, given, [0.0, *times], self._density_equation())
        count = len(times)
        x, log_prob = self._carried(z, path[-count:], q[-count:], given)
        return x.reshape(count, *shape, self.flow.dim), log_prob.reshape(count, *shape)

    @outside_autocast
    def velocity(self, t: float, x: Numbers) -> Tensor:
        """Velocity dx/dt (*batch, dim) at points x (*batch, dim), in the units of the data."""
        rows, given, shape = self.rows(x)
        y = self.flow.preprocess(rows, given.context, given.mask)[0].to(self.flow.dtype)
        v = self.flow.field.bind(given.condition).velocity(
            torch.tensor(t, dtype=y.dtype, device=y.device), y
        )
        v = self.flow.preprocess.pushforward(v, y, given.context, given.mask)
        return v.reshape(*shape, self.flow.dim)

    def rows(self, x: Numbers) -> tuple[Tensor, Given, torch.Size]:
        """x (rows, dim), the context of its rows, and their original batch shape."""
        dim, context = self.flow.dim, self.context
        x = as_tensor(x, self.device)
        require_columns("x", x, dim)
        batch = () if context is None else context.shape[:-1]
        shape = joint_shape(x.shape[:-1], batch)
        return x.expand(*shape, dim).reshape(-1, dim), self._given(shape), shape

    def _given(self, shape: Sequence[int]) -> Given:
        """What the rows of a batch are given; refuses a context that is missing, or not wanted."""
        columns, context = self.flow.context_dim, self.context
        require_context(context, columns)
        if context is None or columns == 0:
            return Given()
        context, condition = (
            part.expand(*shape, -1).reshape(-1, columns)
            for part in (context, self.flow.condition(context))
        )
        return Given(context, self.flow.field.mask(context), condition)

    def _draw_base(self, shape: int | Sequence[int]) -> tuple[Tensor, Given, tuple[int, ...]]:
        """Base points (rows, dim) of a sample and what they are given, and its batch shape."""
        flow = self.flow
        batch = (*as_shape(shape), *(() if self.context is None else self.context.shape[:-1]))
        given = self._given(batch)
        generator = self.options.generator
        z = flow.base.sample(batch, generator, dtype=flow.dtype, device=flow.device)
        return present(z.reshape(-1, flow.base.dim), given.mask), given, batch

    def _to_data(self, y: Tensor, given: Given) -> Tensor:
        return self.flow.preprocess.inverse(y, given.context, given.mask)

    def _carried(self, z: Tensor, y: Tensor, q: Tensor, given: Given) -> tuple[Tensor, Tensor]:
        """Points y (…, rows, dim) that base points z (rows, dim) came to, in the units of the data,
        and the log-densities there (…, rows), from the integrals q (…, rows, 1) of the
        divergence."""
        x = self._to_data(y, given)
        ladj = self.flow.preprocess(x, given.context, given.mask)[1].to(x.dtype)
        return x, self.flow.base.log_prob(z) - q[..., 0] + ladj

    def _density_equation(self, extend: Callable[[System], System] | None = None) -> FlowEquation:
        generator = self.options.generator
        return FlowEquation(self.flow.field, self.divergence, self._training, generator, extend)

    def _path(
        self, start: Tensor, given: Given, span: list[float], equation: FlowEquation
    ) -> tuple[Tensor, Tensor]:
        """States (time, rows, dim) and quadratures (time, rows, 1) at the times of the span, whose
        first, the start, may occur twice.

        The flow's grid is placed for densities. With its steps halved, paths are reversible too."""
        start = start.to(self.flow.dtype)
        span = span if span[0] != span[1] else span[1:]
        if len(span) == 1:
            return start[None], start.new_zeros(1, len(start), 1)
        solver = self.options.solver or self.flow.solver.refined()
        return self._integrate(start, given.condition, span, equation, solver)

    def _integrate(
        self,
        z: Tensor,
        condition: Tensor | None,
        times: Sequence[float],
        equation: FlowEquation,
        solver: Solver,
    ) -> tuple[Tensor, Tensor]:
        """States (time, rows, dim) and quadratures (time, rows, rates), chunk by chunk."""
        if len(z) == 0:
            return z.new_zeros(len(times), 0, self.flow.base.dim), z.new_zeros(len(times), 0, 1)
        gradient = self._gradient(solver, len(z), condition)
        size = chunk_size(z)
        parts = zip(z.split(size), repeat(None) if condition is None else condition.split(size))
        solutions = [
            solve(
                equation, rows, there, tuple(times), solver, gradient,
                estimate=False, compiled=self.flow.compiled,
            )
            for rows, there in parts
        ]  # fmt: skip
        states, q = (torch.cat(part, 1) for part in zip(*((s.x, s.q) for s in solutions)))
        return states, q

    def _gradient(self, solver: Solver, rows: int, condition: Tensor | None) -> Gradient:
        """The gradient that was asked for, else the usual one for so many rows."""
        if self.options.gradient is not None:
            return self.options.gradient

        def traces() -> int:
            """Passes of the field that a divergence takes."""
            closed = self.divergence == AUTO and self.flow.field.bind(condition).closed_form
            return 1 if closed else self.flow.base.dim

        return usual_gradient(solver, rows, traces)
