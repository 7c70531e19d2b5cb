"""Maximum likelihood through the solver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cnf.flows import CNF
from cnf.ode import Gradient, Solver, SolverError, Torchdiffeq
from cnf.training.batches import in_model_coordinates
from cnf.training.nfe_control import PenaltyController
from cnf.training.objectives import Loss, Objective, Task
from cnf.training.penalties import NO_PENALTIES, Regularizers
from cnf.training.solver_control import StepController

# Training steps between two adaptations of the grid.
CONTROL_EVERY = 25
# Nats per column above the largest loss of a stable window at which training has diverged.
LOST_NATS = 10.0
# The continuous adjoint needs an adaptive solver; training needs no higher accuracy.
ADJOINT_SOLVER = Torchdiffeq("dopri5", rtol=1e-3, atol=1e-3)


@dataclass
class MaximumLikelihood(Objective):
    """The negative log-likelihood of the rows, with a penalty on the solver's error.

    A solver with few steps can be exploited: the field learns to make errors that look like
    likelihood. The grid is therefore adapted as the field changes, its nodes are perturbed at
    every training step, and the estimate of its error is part of the loss.

    Attributes:
        gradient: "discrete", "direct", or "adjoint" for the continuous adjoint.
        solver_steps: steps of the grid at the start of a phase.
        error_weight: weight of the solver's error at the start of a phase.
        regularizers: penalties added to the negative log-likelihood.
        nfe_budget: largest number of evaluations per row for scoring. Penalties are off far below
            it, have their full weights at four fifths of the budget, and up to ten times these
            beyond, where evaluations also count in the selection of weights. With None, penalties
            always have their full weights, and evaluations do not count.
        tolerance: error bound of the finished flow in nats, at which evaluations are counted.
    """

    gradient: Gradient = "discrete"
    solver_steps: int = 12
    error_weight: float = 10.0
    regularizers: Regularizers = NO_PENALTIES
    nfe_budget: int | None = None
    tolerance: float = 1e-3

    name = "likelihood"

    def start(self, task: Task) -> None:
        """Begin a phase on a uniform grid."""
        self.task = task
        self.step = 0
        self.penalties = PenaltyController(task.pilot, self.nfe_budget, self.tolerance)
        pilot = in_model_coordinates(task.flow, task.pilot)
        self.control = StepController.of_flow(
            task.flow, pilot.x, pilot.context,
            steps=self.solver_steps, error_weight=self.error_weight, generator=task.generator,
        )  # fmt: skip

    def loss(self, step: int, progress: float) -> Loss:
        """The loss of a new batch.

        Raises:
            SolverError: if the largest grid cannot solve the field.
        """
        self.step = step
        parts = self.evaluate(self._solver(progress))
        value = parts.nll + self.control.error_weight * parts.solver_error + parts.penalty
        return Loss(value, parts.nll.item())

    def evaluate(self, solver: Solver) -> Likelihood:
        """The parts of the loss of a new batch."""
        task = self.task
        y, context = task.own(*task.batches.draw(task.batch, task.generator))
        return likelihood_loss(
            task.flow, y, context, task.generator,
            solver=solver,
            # "discrete" and "direct" agree to rounding; the flow knows which one is faster.
            gradient=None if self.gradient == "discrete" else self.gradient,
            regularizers=self.regularizers.scaled(self.penalties.share),
        )  # fmt: skip

    def diverged(self, window: Sequence[float], baseline: float) -> bool:
        """Whether all losses of a window are far above the largest of a stable one."""
        return min(window) > baseline + LOST_NATS * self.task.flow.dim

    def selection_penalty(self, flow: CNF) -> float | None:
        """Penalty on evaluations, in nats; None before the first calibration of the grid."""
        return self.penalties.update(flow) if self.step >= CONTROL_EVERY else None

    def state_dict(self) -> dict[str, Any]:
        """The grid and the weights of the penalties."""
        return {
            "step": self.step,
            "penalties": self.penalties.state_dict(),
            "control": self.control.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to a state."""
        self.step = state["step"]
        self.penalties.load_state_dict(state["penalties"])
        self.control.load_state_dict(state["control"])

    def _solver(self, progress: float) -> Solver:
        if self.gradient == "adjoint":
            return ADJOINT_SOLVER
        if self.step % CONTROL_EVERY == 1 and not self.control.update(progress):
            raise SolverError("the solve failed")
        return self.control.training_grid()


@dataclass(frozen=True)
class Likelihood:
    """The parts of the likelihood objective.

    Attributes:
        nll: mean of −log p, in nats, a scalar.
        solver_error: mean of the solver's error estimate, in nats, a scalar.
        penalty: mean of the weighted penalties, a scalar.
    """

    nll: Tensor
    solver_error: Tensor
    penalty: Tensor


def likelihood_loss(
    flow: CNF,
    y: Tensor,
    context: Tensor | None,
    generator: torch.Generator,
    *,
    solver: Solver,
    gradient: Gradient | None = None,
    regularizers: Regularizers = NO_PENALTIES,
) -> Likelihood:
    """Means of −log p(y), of the solver's error estimate and of the penalty, from one solve.

    Args:
        flow: the flow.
        y: rows in model coordinates (rows, dim).
        context: context of the rows, in model coordinates (rows, context_dim).
        generator: generator of the probes.
        solver: the solver of the rows, without re-solves.
        gradient: the gradient of the solve; None means that of the flow.
        regularizers: penalties along the paths.
    """
    extend = partial(regularizers.extend, like=y, generator=generator) if regularizers else None
    scores = flow.solve_log_prob(
        y, context, solver, gradient=gradient, generator=generator, extend=extend
    )
    penalty = scores.extra.sum(-1).mean() if regularizers else scores.log_prob.new_zeros(())
    return Likelihood(-scores.log_prob.mean(), scores.step_error.sum(0).mean(), penalty)
