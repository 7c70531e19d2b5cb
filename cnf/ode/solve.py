"""Solves any ordinary differential equation with any of the solvers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cnf.ode.solver import Solver
from cnf.ode.system import Gradient, Solution, System
from cnf.ode.torchdiffeq import Torchdiffeq


def solve(
    f: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    t: Tensor | Sequence[float],
    *,
    solver: Solver | None = None,
    gradient: Gradient = "direct",
    tensors: Sequence[Tensor] = (),
) -> Solution:
    """Solve dx/dt = f(t, x) from x at t[0] and return the states at all times t.

    Args:
        f: velocity, called with t of shape () and x (*batch, dim).
        x: state at t[0], (*batch, dim).
        t: at least two times, strictly increasing or decreasing; may require a gradient.
        solver: such as `Grid` (fixed steps) or `Torchdiffeq`; the default is Torchdiffeq("dopri5").
        gradient: "direct", "discrete" (Grid only) or "adjoint".
        tensors: tensors that f depends on and that require a gradient; needed by "discrete" and
            "adjoint".

    Raises:
        ValueError: if the times are fewer than two or not monotone.
        SolverError: if the solve cannot be finished.

    Example:
        >>> from cnf.ode import Grid
        >>> end = solve(lambda t, x: -x, torch.ones(1), [0.0, 1.0], solver=Grid.uniform(8)).x[-1]
        >>> round(end.item(), 6)
        0.367879
    """
    times = t if isinstance(t, Tensor) else torch.tensor(t, dtype=x.dtype, device=x.device)
    differences = times.detach().diff()
    if len(times) < 2 or not ((differences > 0).all() or (differences < 0).all()):
        raise ValueError(f"t: expected two or more strictly monotone times; got {times.tolist()}")
    system = System.of(f, tensors=tensors)
    return (solver or Torchdiffeq()).solve(system, x, times, gradient=gradient)
