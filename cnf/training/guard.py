"""What keeps likelihood training honest: the nodes of its grid, and what the solver's error costs."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from cnf.flows import CNF
from cnf.flows.calibration import METHOD, spread_evenly
from cnf.flows.scoring import Scores
from cnf.ode import Grid

# The grid is honest while it and the same with every step halved agree within this, in nats a row.
HONEST_WITHIN = 0.02
MORE_STEPS, MOST_STEPS = 3, 128
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
    def look(self) -> bool:
        """Place the grid anew, hold the solver's true error on pilot rows as a constraint, and say whether
        the solver can still follow the field.

        Where the grid and the same grid with halved steps disagree, the weight of the error in the objective
        and the number of steps rise; where they agree, the weight falls again.
        """
        # Probes of an estimate would differ between two solves and pass for errors of the solver.
        plain = copy.copy(self.flow)
        plain.divergence = "auto"

        def score(grid: Grid) -> Scores:
            return plain.score(self.y, self.context, grid)

        gap = (score(self.grid).log_prob - score(self.grid.refined()).log_prob).abs().mean()
        steps = self.grid.steps
        if gap < HONEST_WITHIN:
            self.error_weight = max(self.error_weight / 1.1, 1.0)
        else:
            self.error_weight = min(self.error_weight * 2, MOST_WEIGHT)
            steps = min(steps + MORE_STEPS, MOST_STEPS)
        self.grid = spread_evenly(score, steps)
        return steps < MOST_STEPS or bool(gap < LOST_BEYOND)
