"""What keeps likelihood training honest: the nodes of its grid, and what the solver's error
costs."""

from __future__ import annotations

import torch
from torch import Tensor

from cnf.flows import CNF
from cnf.flows.calibration import METHOD, spread_evenly
from cnf.flows.scoring import SolveResult
from cnf.ode import Grid
from cnf.training.validation import exact

# Within this, in nats a row and column, should what training sees, whose nodes are moved, agree
# with the grid itself with every step halved, at the start of a phase and at its end: errors that
# are small beside what is still to be learnt, of which many columns have more, cost less than a
# finer grid.
HONEST_FIRST, HONEST_LAST = 0.006, 0.001
# Where they agree within this part of it, a step fewer will do.
AMPLE = 0.3
# Where they disagree by more than this, the field exploits the solver. At the start of a phase
# less than what is honest: the error weighs more then, and only later is the grid made finer.
CHEATED = 0.005
MORE_STEPS, FEWEST_STEPS, MOST_STEPS = 3, 6, 128
# Where they disagree by more than this on the largest grid, the solver has lost the field for
# good.
LOST_BEYOND = 0.5
MOST_WEIGHT = 1e3


class StepController:
    """The grid of likelihood training, and the weight of the solver's error beside the objective.

    Args:
        flow: the flow in training.
        y: pilot rows in model coordinates (rows, dim), on which the solver is judged.
        context: of these rows.
        steps: of the grid, to start with.
        error_weight: to start with.
        generator: moves the nodes.
    """

    def __init__(
        self,
        flow: CNF,
        y: Tensor,
        context: Tensor | None,
        *,
        steps: int,
        error_weight: float,
        generator: torch.Generator,
    ) -> None:
        self.flow, self.y, self.context, self.generator = flow, y, context, generator
        self.grid = Grid.uniform(steps, METHOD)
        self.error_weight = error_weight

    def training_grid(self) -> Grid:
        """The grid of one update, its nodes moved."""
        return self.grid.jittered(self.generator)

    @torch.no_grad()
    def update(self, done: float) -> bool:
        """Place the grid anew, hold the solver's true error on pilot rows as a constraint, and say
        whether the solver can still follow the field.

        The grid has as many steps as it takes for what training sees to agree with the grid that
        has halved
        steps and no node moved: moved steps are longer in places. Where the two disagree by much,
        the weight of the error in the objective rises with them, and falls otherwise.

        Args:
            done: part of the phase that is over.
        """
        # Probes of an estimate would differ between two solves and pass for errors of the solver.

        def score(grid: Grid) -> SolveResult:
            return exact(self.flow, solver=grid).solve_log_prob(self.y, self.context)

        off = score(self.training_grid()).log_prob - score(self.grid.refined()).log_prob
        gap = off.abs().mean().item() / self.flow.dim
        cheated = not gap <= CHEATED
        self.error_weight = min(
            max(self.error_weight * (2 if cheated else 1 / 1.1), 1.0), MOST_WEIGHT
        )
        self.grid = spread_evenly(score, steps_after(self.grid.steps, gap, done))
        return self.grid.steps < MOST_STEPS or gap < LOST_BEYOND


def steps_after(steps: int, gap: float, done: float) -> int:
    """Steps of the next grid, where one of so many is off by `gap` nats a column in this part of a
    phase.

    Example:
        >>> steps_after(10, 0.001, 0.0), steps_after(10, 0.001, 1.0), steps_after(10, 0.1, 0.0)
        (9, 10, 13)
    """
    honest = HONEST_FIRST + (HONEST_LAST - HONEST_FIRST) * min(done, 1.0)
    if gap <= honest:
        steps -= gap < AMPLE * honest
    else:
        steps += 1 if gap <= CHEATED else MORE_STEPS
    return min(max(steps, FEWEST_STEPS), MOST_STEPS)
