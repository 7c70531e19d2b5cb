"""The options of the solves of a bound flow."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cnf.flows.divergence import Hutchinson
from cnf.flows.error_model import ErrorModel
from cnf.inputs import brief, require_generator
from cnf.ode import Gradient, Solver


@dataclass(frozen=True)
class SolveOptions:
    """Options of the solves of a `BoundFlow`; None means the option of the flow.

    Attributes:
        solver: the solver.
        divergence: "auto", "exact" or a `Hutchinson`.
        error_model: of the error bounds.
        tolerance: of the error bounds, in place of that of the error model, nats.
        gradient: "direct", "discrete" or "adjoint".
        generator: source of all randomness.
    """

    solver: Solver | None = None
    divergence: Hutchinson | str | None = None
    error_model: ErrorModel | None = None
    tolerance: float | None = None
    gradient: Gradient | None = None
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.solver, Solver | None):
            raise TypeError(f"solver: expected a Solver; got {brief(self.solver)}")
        require_generator(self.generator)
