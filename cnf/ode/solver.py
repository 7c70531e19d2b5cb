"""The interface of solvers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from cnf.ode.system import Gradient, Solution, System
from cnf.registry import arguments


class Solver(ABC):
    """What carries a state through time; one of your own writes `solve` and `second_opinion`.

    A solver is a value: settings, without state. The other members have defaults that are right for
    a solver whose steps depend on the state.

    Attributes:
        gradients: kinds of gradient that `solve` knows, the default first.

    Example:
        >>> from dataclasses import dataclass
        >>> import torch
        >>> from cnf.ode import Grid
        >>> @dataclass(frozen=True)
        ... class Halves(Solver):
        ...     steps: int
        ...     def solve(self, system, x, t, *, gradient="direct", estimate=True):
        ...         return Grid.uniform(self.steps, "midpoint").solve(system, x, t, gradient=gradient)
        ...     def second_opinion(self):
        ...         return Halves(2 * self.steps)
        >>> from cnf.flows import CNF
        >>> CNF(2, solver=Halves(8)).log_prob(torch.zeros(3, 2)).shape
        torch.Size([3])
    """

    gradients: ClassVar[tuple[Gradient, ...]] = ("direct",)
    if TYPE_CHECKING:  # as a property it would be the default of a dataclass's field `steps`

        @property
        def steps(self) -> int:
            """Number of steps, for a solver that estimates its error."""
            raise NotImplementedError

    @property
    def step_times(self) -> tuple[float, ...]:
        """The fractions of a solve at which its steps start and end; () if they depend on the
        state."""
        return ()

    @property
    def nfe(self) -> int | None:
        """Velocity evaluations of a solve over the whole span; None if they depend on the
        state."""
        return None

    @property
    def estimates_error(self) -> bool:
        """Whether solutions come with an estimate of each step's error.

        Such a solver has `steps`, `nfe` and `with_steps` too: rows whose estimate is too large are
        solved again with more steps.
        """
        return False

    @abstractmethod
    def solve(
        self, system: System, x: Tensor, t: Tensor, *, gradient: Gradient, estimate: bool = True
    ) -> Solution:
        """States of `system` at the times t (time,), increasing or decreasing, from x (*batch,
        dim) at t[0]; with `estimate=False` nobody asks for estimates of the error.

        Raises:
            ValueError: for a gradient that the solver does not know.
            SolverError: if the solve cannot be finished.
        """

    def with_steps(self, steps: int) -> Solver:
        """The solver with a number of steps, if it estimates its error."""
        raise NotImplementedError

    @abstractmethod
    def second_opinion(self) -> Solver:
        """A solver with another accuracy: the difference between the two is an error bound."""

    def refined(self) -> Solver:
        """The solver with every step halved; itself, where steps are not given."""
        return self

    def jittered(self, generator: torch.Generator) -> Solver:
        """The solver with its inner nodes moved at random; itself, where steps are not given."""
        return self

    def between(self, start: float, end: float) -> Solver:
        """The solver for a span within [0, 1], of one that is made for all of it."""
        return self

    def for_gradient(self, gradient: Gradient | None, start: float, end: float) -> Solver:
        """The solver from `start` to `end` for this gradient."""
        return self

    def impatient(self) -> Solver:
        """The solver with a smaller cap, for finding the rows that cannot be solved."""
        return self

    def describe(self) -> str:
        """The method, and how its steps are chosen."""
        name = self.config().get("method", type(self).__name__)
        return f"{name}, adaptive" if self.nfe is None else str(name)

    def config(self) -> dict[str, Any]:
        """What rebuilds the solver, ready for JSON: the constructor's arguments."""
        return arguments(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Solver:
        """The solver that `config` described."""
        return cls(**config)
