"""What keeps likelihood training honest: the nodes of its grid, and what the solver's error costs."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from cnf.flows import CNF
from cnf.flows.calibration import METHOD, spread_evenly
from cnf.flows.scoring import Scores
from cnf.ode import Grid

# The grid and the same with every step halved should agree within this, in nats a row, at the start of a
# phase and at its end: errors that are small beside what is still to be learnt cost less than a finer grid.
HONEST_FIRST, HONEST_LAST = 0.012, 0.002
# Where they agree within this part of it, a step fewer will do.
AMPLE = 0.3
# Where they disagree by more than this, the field exploits the solver.
CHEATED = 0.02
MORE_STEPS, FEWEST_STEPS, MOST_STEPS = 3, 6, 128
# Where they disagree by more than this on the largest grid, the solver has lost the field for good.
LOST_BEYOND = 1.0
MOST_WEIGHT = 1e3


class Guard:
    """The grid of likelihood training, and the weight of the solver's error beside the objective.

    Args:
        flow: the flow in training.
        y: pilot rows in model coordinates (rows, dim), on which the solver is judged.
        context: of these rows.
        steps: of the grid, to start with.
        error_weight: to start with.
    """

    def __init__(
        self, flow: CNF, y: Tensor, context: Tensor | None, *, steps: int, error_weight: float
    ) -> None:
        self.flow, self.y, self.context = flow, y, context
        self.grid = Grid.uniform(steps, METHOD)
        self.error_weight = error_weight

    @torch.no_grad()
    def look(self, done: float) -> bool:
        """Place the grid anew, hold the solver's true error on pilot rows as a constraint, and say whether
        the solver can still follow the field.

        The grid has as many steps as it takes to agree with the same grid with halved steps. Where the two
        disagree by much, the weight of the error in the objective rises with them, and falls otherwise.

        Args:
            done: part of the phase that is over.
        """
        # Probes of an estimate would differ between two solves and pass for errors of the solver.
        plain = copy.copy(self.flow)
        plain.divergence = "auto"

        def score(grid: Grid) -> Scores:
            return plain.score(self.y, self.context, grid)

        gap = (score(self.grid).log_prob - score(self.grid.refined()).log_prob).abs().mean().item()
        cheated = not gap <= CHEATED
        self.error_weight = min(max(self.error_weight * (2 if cheated else 1 / 1.1), 1.0), MOST_WEIGHT)
        self.grid = spread_evenly(score, steps_after(self.grid.steps, gap, done))
        return self.grid.steps < MOST_STEPS or gap < LOST_BEYOND


def steps_after(steps: int, gap: float, done: float) -> int:
    """Steps of the next grid, where one of so many is off by `gap` nats in this part of a phase.

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
