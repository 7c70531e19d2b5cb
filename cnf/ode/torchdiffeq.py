"""The solvers of torchdiffeq, with an error norm for each row and a limit on evaluations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import lazy_loader
import torch
from torch import Tensor

from cnf.functional import transformed
from cnf.ode.solver import Solver
from cnf.ode.system import Gradient, Solution, SolverError, System, check_gradient, no_rates
from cnf.registry import register

# Imported for the first solve: with scipy, that takes most of a second, and grids need neither.
torchdiffeq = lazy_loader.load("torchdiffeq")
FIXED_STEP = (
    "euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams", "implicit_adams", "fixed_adams",
)  # fmt: skip
# All of its methods but scipy_solver, which leaves the graph, the device and the cap on evaluations behind.
TORCHDIFFEQ_METHODS = ("dopri8", "dopri5", "bosh3", "fehlberg2", "adaptive_heun", *FIXED_STEP)
# Evaluations of an easy solve.
EASY = 500


@register
@dataclass(frozen=True)
class Torchdiffeq(Solver):
    """A solver of torchdiffeq (Chen et al. 2018), by name.

    The error of an adaptive step is the root mean square over each row's own entries, and the worst
    row counts: torchdiffeq's own norm averages over the batch, in which many easy rows hide a
    difficult one. Steps end at the requested times, because torchdiffeq's interpolation between
    steps has a lower order than the steps.

    Args:
        method: any name torchdiffeq knows, such as "dopri5", "dopri8", "bosh3", "rk4", "euler".
        rtol: relative tolerance of a step.
        atol: absolute tolerance of a step.
        step_size: length of a step, for fixed-step methods, which need it.
        max_evaluations: a solve that needs more raises SolverError.

    Raises:
        ValueError: for an unknown method, a missing or unexpected step size, or invalid numbers.

    Example:
        >>> Torchdiffeq("rk4", step_size=0.1).method
        'rk4'
    """

    method: str = "dopri5"
    rtol: float = 1e-5
    atol: float = 1e-5
    step_size: float | None = None
    max_evaluations: int = 10_000
    gradients: ClassVar[tuple[Gradient, ...]] = ("adjoint", "direct")

    def __post_init__(self) -> None:
        if self.method not in TORCHDIFFEQ_METHODS:
            raise ValueError(
                f"method: expected one of {', '.join(TORCHDIFFEQ_METHODS)}; got {self.method!r}"
            )
        if not (self.rtol >= 0 and self.atol >= 0 and self.max_evaluations >= 1):
            raise ValueError(
                f"expected rtol, atol >= 0 and max_evaluations >= 1; got {self.rtol}, {self.atol} and"
                f" {self.max_evaluations}"
            )
        if (self.method in FIXED_STEP) != (self.step_size is not None):
            rule = "needs" if self.method in FIXED_STEP else "chooses its own steps and takes no"
            raise ValueError(f"{self.method} {rule} step_size; got step_size={self.step_size}")
        if self.step_size is not None and not self.step_size > 0:
            raise ValueError(f"step_size: expected a positive length; got {self.step_size}")

    def second_opinion(self) -> Torchdiffeq:
        """Steps of half the length, or ten times the tolerances of a step."""
        if self.step_size is None:
            return replace(self, rtol=10 * self.rtol, atol=10 * self.atol)
        cap = 2 * self.max_evaluations
        return replace(self, step_size=self.step_size / 2, max_evaluations=cap)

    def impatient(self) -> Torchdiffeq:
        """The solver with a tenth of its limit, but at least the evaluations of an easy solve."""
        cap = max(self.max_evaluations // 10, min(self.max_evaluations, EASY))
        return replace(self, max_evaluations=cap)

    def solve(
        self,
        system: System,
        x: Tensor,
        t: Tensor,
        *,
        gradient: Gradient = "adjoint",
        estimate: bool = False,
    ) -> Solution:
        """States of `system` at the times t (time,), which are increasing or decreasing, from x at
        t[0].

        Args:
            system: velocity and rates.
            x: state at t[0], (*batch, dim).
            t: times, which may require a gradient.
            gradient: "adjoint" solves the continuous adjoint equation backwards, in memory that
                does not depend on the number of steps, with the seminorm of Kidger et al. 2021;
                "direct" keeps the graph of every step.

        Raises:
            SolverError: if the step underflows or `max_evaluations` is not enough.
            ValueError: for an unknown gradient, or "discrete", which needs the fixed steps of a
                Grid.
        """
        check_gradient(gradient)
        if transformed():
            raise ValueError(
                "solver: torch.func transforms the solves of a Grid, not those of torchdiffeq; got"
                f" {self}: bind another, flow.bind(solver=cnf.Grid.uniform(40))"
            )
        self._check_steps(abs((t[-1] - t[0]).item()))
        if gradient == "discrete":
            raise ValueError(
                "gradient='discrete' needs a Grid; use 'adjoint' or 'direct' with torchdiffeq"
            )
        derivative = _Counted(system, self.max_evaluations)
        start = (x, x.new_zeros(derivative.rates_shape(t[0], x)))
        try:
            states, quadratures = self._call(derivative, start, t, gradient)
        except AssertionError as failure:  # how torchdiffeq reports a step that shrank to nothing
            raise SolverError(f"{self.method} could not finish the solve: {failure}") from failure
        x_error, q_error = x.new_zeros((0, *x.shape[:-1])), quadratures[:0]
        return Solution(states, quadratures, x_error, q_error, derivative.count)

    def _check_steps(self, span: float) -> None:
        """Refuse steps so short that their times alone would fill the memory."""
        if self.step_size is not None and not span < self.max_evaluations * self.step_size:
            raise SolverError(
                f"steps of {self.step_size:g} need more than max_evaluations={self.max_evaluations}"
            )

    def _call(self, derivative: _Counted, start: tuple, t: Tensor, gradient: Gradient) -> tuple:
        fixed = {"step_size": self.step_size, "interp": "cubic"}
        adaptive = {"norm": _row_norm, "step_t": t.detach()}
        options: dict = adaptive if self.step_size is None else fixed
        settings = {
            "rtol": self.rtol,
            "atol": self.atol,
            "method": self.method,
            "options": options,
        }
        if gradient == "direct" or not torch.is_grad_enabled():
            return torchdiffeq.odeint(derivative, start, t, **settings)
        backwards = {**options, "norm": "seminorm"} if self.step_size is None else options
        # torchdiffeq cannot take a tensor without entries.
        tensors = tuple(
            part for part in derivative.system.tensors if part.requires_grad and part.numel()
        )
        solution = torchdiffeq.odeint_adjoint(
            derivative, start, t, **settings, adjoint_params=tensors, adjoint_options=backwards
        )
        return _DifferentiableOnce.apply(*solution)


class _DifferentiableOnce(torch.autograd.Function):
    """The identity. The adjoint's gradient has no graph: differentiated again it would pass for
    zero."""

    @staticmethod
    def forward(ctx: Any, *parts: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.view_as(part) for part in parts)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "gradient='adjoint' can be differentiated only once; for second derivatives"
                " (create_graph=True), use gradient='direct'"
            )
        return cotangents


class _Counted:
    """The derivative of (x, q) as torchdiffeq wants it, counting its evaluations up to a cap."""

    def __init__(self, system: System, cap: int) -> None:
        self.system = system
        self.cap = cap
        self.count = 0

    def rates_shape(self, t: Tensor, x: Tensor) -> torch.Size:
        """Shape of the quadratures; without any, nothing need be evaluated to know it."""
        moment = self.system.at(t[None])[0]
        if moment.velocity_and_rates is None:
            return no_rates(x).shape
        with torch.no_grad():
            return moment.velocity_and_rates(x)[1].shape

    def __call__(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        self.count += 1
        if self.count > self.cap:
            raise SolverError(
                f"the solve needs more than max_evaluations={self.cap}; loosen rtol and atol"
            )
        return self.system.at(t[None])[0].evaluate(state[0])


def _row_norm(state: tuple[Tensor, Tensor]) -> Tensor:
    """Root mean square over the entries of a row, worst row and worst part of the state."""
    worst = [_worst_row(part) for part in state if part.numel()]
    return torch.stack(worst).max() if worst else state[0].new_zeros(())


def _worst_row(part: Tensor) -> Tensor:
    return part.abs().pow(2).mean(-1).sqrt().max()
