"""Grids: solver steps at times that are fixed before the solve."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from cnf.ode.adams import AdamsMethod
from cnf.ode.method import NEAR, Method
from cnf.ode.rungekutta import RungeKuttaMethod
from cnf.ode.solver import Solver
from cnf.ode.system import Gradient, Solution, System, check_gradient
from cnf.ode.tableaux import TABLEAUX
from cnf.ode.torchdiffeq import FIXED_STEP, Torchdiffeq
from cnf.registry import register

# Another method becomes known by its entry here.
METHODS: dict[str, Method] = {
    **{name: RungeKuttaMethod(tableau) for name, tableau in TABLEAUX.items()},
    "adams": AdamsMethod(),
}


@register
@dataclass(frozen=True)
class Grid(Solver):
    """A method with fixed times: the same arithmetic for every row, alone or in a batch.

    The nodes are fractions of the span of a solve: 0 is its first time, 1 its last.

    Args:
        nodes: increasing fractions from 0 to 1.
        method: "euler", "midpoint", "rk4", "dopri5" (the embedded fifth-order pair) or "adams"
            (predictor and corrector of order five, one evaluation a step); the last two estimate
            their error.

    Raises:
        ValueError: for an unknown method or nodes that do not increase from 0 to 1.

    Example:
        >>> Grid.uniform(4).nodes
        (0.0, 0.25, 0.5, 0.75, 1.0)
    """

    nodes: tuple[float, ...]
    method: str = "dopri5"
    gradients: ClassVar[tuple[Gradient, ...]] = ("discrete", "direct", "adjoint")

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(
                f"method of a grid: expected one of {', '.join(METHODS)}; got {self.method!r}"
            )
        ordered = all(a < b for a, b in pairwise(self.nodes))
        if len(self.nodes) < 2 or not ordered or self.nodes[0] != 0 or self.nodes[-1] != 1:
            raise ValueError(
                f"nodes of a grid: expected increasing fractions from 0 to 1; got {self.nodes}"
            )

    @classmethod
    def uniform(cls, steps: int, method: str = "dopri5") -> Grid:
        """`steps` steps of equal length."""
        if steps < 1:
            raise ValueError(f"steps of a grid: expected at least 1; got {steps}")
        return cls((*(k / steps for k in range(steps)), 1.0), method)

    @property
    def estimates_error(self) -> bool:
        """Whether every step has an error estimate."""
        return METHODS[self.method].estimates_error

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.nodes) - 1

    @property
    def step_times(self) -> tuple[float, ...]:
        """The fractions at which the steps of a solve start and end; Adams divides the first node
        interval into smaller steps.

        >>> Grid.uniform(2).step_times, len(Grid.uniform(2, "adams").step_times) > 3
        ((0.0, 0.5, 1.0), True)
        """
        return METHODS[self.method].step_times(self.nodes)

    @property
    def nfe(self) -> int:
        """Velocity evaluations of a solve from end to end."""
        return METHODS[self.method].evaluations(self.nodes)

    def describe(self) -> str:
        """The method and the number of its steps and evaluations."""
        return f"{self.method} on {self.steps} fixed steps, {self.nfe} evaluations a row"

    def refined(self) -> Grid:
        """The grid with every step halved."""
        halves = [(a + b) / 2 for a, b in pairwise(self.nodes)]
        return Grid(tuple(sorted((*self.nodes, *halves))), self.method)

    def second_opinion(self) -> Grid:
        """The grid with every step halved."""
        return self.refined()

    def with_steps(self, steps: int) -> Grid:
        """A grid with this number of steps and the same distribution of nodes."""
        places = [k * self.steps / steps for k in range(1, steps)]
        whole = [(int(place), place - int(place)) for place in places]
        inner = [self.nodes[k] + part * (self.nodes[k + 1] - self.nodes[k]) for k, part in whole]
        return Grid((0.0, *inner, 1.0), self.method)

    def jittered(self, generator: torch.Generator) -> Grid:
        """The grid with every inner node moved at random, by up to half of the way to its
        neighbors.

        A field that is trained on changing nodes cannot adapt to them.
        """
        moves = torch.rand(self.steps - 1, generator=generator, device=generator.device).tolist()
        inner = [
            node
            + (move - 0.5) * ((right if move > 0.5 else node) - (node if move > 0.5 else left))
            for left, node, right, move in zip(self.nodes, self.nodes[1:], self.nodes[2:], moves)
        ]
        return Grid((0.0, *inner, 1.0), self.method)

    def between(self, start: float, end: float) -> Grid:
        """The part of this grid of [0, 1] between `start` and `end`, in either direction."""
        fractions = sorted((node - start) / (end - start) for node in self.nodes)
        return Grid((0.0, *(f for f in fractions if NEAR < f < 1 - NEAR), 1.0), self.method)

    def for_gradient(self, gradient: Gradient | None, start: float, end: float) -> Solver:
        """The equivalent torchdiffeq solver for the continuous adjoint, else the grid itself."""
        if gradient != "adjoint" or start == end:
            return self
        return self.between(start, end).as_torchdiffeq(end - start)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Grid:
        """The grid that `config` described."""
        return cls(**{**config, "nodes": tuple(config["nodes"])})

    def as_torchdiffeq(self, span: float) -> Torchdiffeq:
        """torchdiffeq's method of the same name with the same number of equal steps; dopri5 if
        errors are estimated."""
        if self.method in FIXED_STEP:
            return Torchdiffeq(self.method, step_size=abs(span) / self.steps)
        return Torchdiffeq("dopri5")

    def solve(
        self,
        system: System,
        x: Tensor,
        t: Tensor,
        *,
        gradient: Gradient = "discrete",
        estimate: bool = True,
    ) -> Solution:
        """States of `system` at the times t (time,), which are increasing or decreasing, from x at
        t[0].

        With `gradient="adjoint"` the `as_torchdiffeq` of the grid solves the equation and its
        adjoint. With `estimate=False` the solution has no error estimates, which saves time.

        Raises:
            ValueError: for an unknown gradient.
        """
        check_gradient(gradient)
        if gradient == "adjoint":
            return self.as_torchdiffeq((t[-1] - t[0]).item()).solve(
                system, x, t, gradient="adjoint"
            )
        return METHODS[self.method].solve(
            self.nodes, system, x, t, gradient=gradient, estimate=estimate
        )


# Part of the nodes that is spread uniformly, so that no step grows without bound where no error
# shows.
UNIFORM_SHARE = 0.3


def place(errors: Tensor, nodes: Sequence[float], steps: int, order: float) -> tuple[float, ...]:
    """Nodes of a grid of `steps` steps on which every step makes the same error.

    A step of length h makes the error C(t) hᵖ, so steps of length proportional to C(t)^(−1/p)
    share it evenly (de Boor, "Good approximation by splines with variable knots", 1973).

    Args:
        errors: error of each step of the present grid, (len(nodes) − 1,), positive.
        nodes: the present grid.
        steps: number of steps of the new grid.
        order: p, the power of h in the error of one step.

    Example:
        >>> [round(node, 3) for node in place(torch.tensor([1.0, 32.0]), (0.0, 0.5, 1.0), 2, order=5)]
        [0.0, 0.602, 1.0]
    """
    lengths = [b - a for a, b in pairwise(nodes)]
    shares = (errors.double() / errors.max()) ** (1 / order)
    shares = shares / shares.sum() + UNIFORM_SHARE * shares.new_tensor(lengths)
    cumulative = [0.0, *(shares.cumsum(0) / shares.sum()).tolist()]
    inner = [_invert(cumulative, nodes, lengths, k / steps) for k in range(1, steps)]
    return (0.0, *inner, 1.0)


def _invert(
    cumulative: Sequence[float], nodes: Sequence[float], lengths: Sequence[float], y: float
) -> float:
    """The time at which the piecewise linear `cumulative` reaches y."""
    k = min(bisect_right(cumulative, y) - 1, len(lengths) - 1)
    return nodes[k] + lengths[k] * (y - cumulative[k]) / (cumulative[k + 1] - cumulative[k])
