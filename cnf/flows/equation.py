"""The equation of a flow, and its solves in model coordinates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise

import torch
from torch import Tensor

from cnf.fields import FieldAt, VelocityField
from cnf.flows.divergence import AUTO, Hutchinson, choose_divergence
from cnf.flows.scoring import chunk_size
from cnf.functional import recorded, transformed
from cnf.inputs import Numbers, as_tensor, brief
from cnf.ode import Gradient, Solution, Solver, System, SystemAt, tensor_like

Times = tuple[float, ...]
# Evaluations of the field, summed over rows, whose graph is kept: some hundreds of megabytes in a
# wide one.
GRAPH = 32_768


@dataclass(frozen=True)
class FlowEquation:
    """dx/dt = v(t, x), with the divergence as a quadrature if requested.

    Attributes:
        field: v.
        divergence: how tr ∂v/∂x is computed; None: the velocity alone.
        training: whether "auto" may estimate the divergence.
        generator: source of the probes of an estimate.
        extend: adds rates to the system, to be integrated along.
    """

    field: VelocityField
    divergence: Hutchinson | str | None = None
    training: bool = False
    generator: torch.Generator | None = None
    extend: Callable[[System], System] | None = None

    @property
    def plain(self) -> bool:
        """Whether a solve is the same every time, for all that it is made of."""
        usual = self.divergence in (None, AUTO)
        return usual and self.generator is None and self.extend is None

    def system(self, x: Tensor, condition: Tensor | None) -> System:
        """The system for rows x (rows, dim) and their context in model coordinates; probes are
        drawn here, once for the solve."""
        bound = self.field.bind(condition)
        if self.divergence is None:
            return System(
                lambda times: [SystemAt(at.velocity) for at in bound.at(times)], bound.tensors
            )
        divergence = choose_divergence(
            bound, self.divergence, x, self.generator, training=self.training
        )

        def rates(at: FieldAt, x: Tensor) -> tuple[Tensor, Tensor]:
            v, d = divergence(at, x)
            return v, d[..., None]

        def system_at(times: Tensor) -> list[SystemAt]:
            return [SystemAt(at.velocity, partial(rates, at)) for at in bound.at(times)]

        system = System(system_at, bound.tensors)
        return system if self.extend is None else self.extend(system)


def solve(
    equation: FlowEquation,
    x: Tensor,
    condition: Tensor | None,
    times: Times,
    solver: Solver,
    gradient: Gradient,
    *,
    estimate: bool,
    compiled: Solver | None,
) -> Solution:
    """States and quadratures at the times, by the compiled program for a full chunk of rows on the
    compiled solver."""
    # Other spans, numbers of rows or grids would want programs of their own, each of which takes
    # minutes.
    fits = solver == compiled and sorted(times) == [0.0, 1.0] and len(x) == chunk_size(x)
    program = fits and equation.plain and not recorded()
    run = compiled_solve() if program else solve_equation
    return run(equation, x, condition, times, solver, gradient, estimate=estimate)


def solve_equation(
    equation: FlowEquation,
    x: Tensor,
    condition: Tensor | None,
    times: Times,
    solver: Solver,
    gradient: Gradient,
    *,
    estimate: bool,
) -> Solution:
    """States and quadratures at the times, by the part of the solver that they span."""
    part = solver.between(times[0], times[-1])
    return part.solve(
        equation.system(x, condition),
        x,
        tensor_like(times, x),
        gradient=gradient,
        estimate=estimate,
    )


@cache
def compiled_solve() -> Callable[..., Solution]:
    """`solve_equation`, compiled for the shapes and the grid that it meets, when it meets them."""
    return torch.compile(solve_equation, dynamic=False)


def usual_gradient(solver: Solver, rows: int, passes: Callable[[], int]) -> Gradient:
    """The default gradient for a number of rows; `passes` is the number of field evaluations for a
    divergence.

    On a grid the discrete adjoint is direct backpropagation to rounding. If the graph is small,
    keeping it takes a quarter less time than evaluating it again."""
    usual = solver.gradients[0]
    if transformed():
        return "direct"
    if usual != "discrete" or solver.nfe is None or not torch.is_grad_enabled():
        return usual
    evaluations = rows * solver.nfe
    small = evaluations <= GRAPH and evaluations * passes() <= GRAPH
    return "direct" if small else usual


def increasing_times(t: Numbers | Sequence[float]) -> list[float]:
    """The times as numbers.

    Raises:
        ValueError: if they do not increase within [0, 1].
    """
    given = as_tensor(t, name="t").double()
    times = given.flatten().tolist()
    increasing = given.dim() == 1 and all(a < b for a, b in pairwise(times))
    if not times or not increasing or not 0 <= times[0] <= times[-1] <= 1:
        raise ValueError(f"t: expected increasing times in [0, 1]; got {brief(given.tolist())}")
    return times
