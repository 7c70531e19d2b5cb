"""Control of the solver during training: its grid, and the weight of its error."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cnf.flows import CNF
from cnf.flows.calibration import METHOD, spread_evenly
from cnf.flows.error_model import SolveResult
from cnf.ode import Grid, Solver
from cnf.training.validation import exact

# Largest difference, in nats per row and column, between the perturbed training grid and the grid of
# half the step size, at the start and at the end of a phase. An error that is small compared with what
# remains to be learned costs less than a finer grid, and more columns have more to learn.
ACCURATE_FIRST, ACCURATE_LAST = 0.006, 0.001
# Below this fraction of that difference, one step fewer suffices.
AMPLE = 0.3
# Above this difference the field exploits the solver. At the start of a phase, the limit is stricter
# than that of accuracy: first the error gets more weight, and only then is the grid refined.
EXPLOITED = 0.005
MORE_STEPS, FEWEST_TRAINING_STEPS, MOST_TRAINING_STEPS = 3, 6, 128
# Above this difference on the largest grid, the solver can no longer solve the field.
LOST_GAP = 0.5
ERROR_WEIGHT_RISE, ERROR_WEIGHT_FALL = 2.0, 1 / 1.1
LEAST_ERROR_WEIGHT, MOST_ERROR_WEIGHT = 1.0, 1e3


class StepController:
    """The grid for training through a solver, and the weight of its error in the loss.

    Args:
        log_prob: log-densities (rows,) of pilot rows, solved on a grid.
        place: function from a number of steps to a grid; a grid is any solver with fixed steps.
        dim: columns of a row.
        grid: the initial grid.
        error_weight: the initial weight.
        generator: perturbs the nodes.
    """

    def __init__(
        self,
        log_prob: Callable[[Solver], Tensor],
        place: Callable[[int], Solver],
        *,
        dim: int,
        grid: Solver,
        error_weight: float = LEAST_ERROR_WEIGHT,
        generator: torch.Generator,
    ) -> None:
        self.log_prob, self.place, self.dim = log_prob, place, dim
        self.grid, self.error_weight, self.generator = grid, error_weight, generator

    @classmethod
    def of_flow(
        cls,
        flow: CNF,
        y: Tensor,
        context: Tensor | None,
        *,
        steps: int,
        error_weight: float,
        generator: torch.Generator,
    ) -> StepController:
        """The controller of a flow for pilot rows y (rows, dim) in model coordinates, with their
        context."""

        def solve(grid: Solver) -> SolveResult:
            # The probes of an estimate would differ between two solves and pass for errors.
            return exact(flow, solver=grid).solve_log_prob(y, context)

        return cls(
            lambda grid: solve(grid).log_prob,
            partial(spread_evenly, solve),
            dim=flow.dim,
            grid=Grid.uniform(steps, METHOD),
            error_weight=error_weight,
            generator=generator,
        )

    def training_grid(self) -> Solver:
        """The grid of one training step, with randomly perturbed nodes."""
        return self.grid.jittered(self.generator)

    @torch.no_grad()
    def update(self, done: float) -> bool:
        """Adapt the grid, and return whether the solver can still solve the field.

        The grid has enough steps for the perturbed grids of training to agree with the unperturbed
        grid of half the step size. The weight of the error increases if the two differ by much,
        and decreases otherwise.

        Args:
            done: finished fraction of the phase.
        """
        off = self.log_prob(self.training_grid()) - self.log_prob(self.grid.refined())
        gap = off.abs().mean().item() / self.dim
        factor = ERROR_WEIGHT_FALL if gap <= EXPLOITED else ERROR_WEIGHT_RISE
        weight = max(self.error_weight * factor, LEAST_ERROR_WEIGHT)
        self.error_weight = min(weight, MOST_ERROR_WEIGHT)
        self.grid = self.place(steps_after(self.grid.steps, gap, done))
        return self.grid.steps < MOST_TRAINING_STEPS or gap < LOST_GAP

    def state_dict(self) -> dict[str, Any]:
        """Grid and weight."""
        return {"grid": self.grid.config(), "error_weight": self.error_weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to a state."""
        self.grid = self.grid.from_config(state["grid"])
        self.error_weight = state["error_weight"]


def steps_after(steps: int, gap: float, done: float) -> int:
    """Steps of the next grid, if a grid of `steps` steps differs by `gap` nats per column at a fraction
    of a phase.

    Example:
        >>> steps_after(10, 0.001, 0.0), steps_after(10, 0.001, 1.0), steps_after(10, 0.1, 0.0)
        (9, 10, 13)
    """
    accurate = ACCURATE_FIRST + (ACCURATE_LAST - ACCURATE_FIRST) * min(done, 1.0)
    if gap <= accurate:
        steps -= gap < AMPLE * accurate
    else:
        steps += 1 if gap <= EXPLOITED else MORE_STEPS
    return min(max(steps, FEWEST_TRAINING_STEPS), MOST_TRAINING_STEPS)
