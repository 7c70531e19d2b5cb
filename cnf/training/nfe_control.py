"""What keeps scoring cheap: penalties weigh as much as it takes to keep evaluations within a
budget."""

from __future__ import annotations

import torch

from cnf.flows import CNF
from cnf.flows.calibration import calibrated
from cnf.rows import Rows

# Parts of the budget between which the share rises from FIRST to one, by the same factor for every
# evaluation; then it goes on to rise, up to MOST. Below, it is nothing, and penalties are not
# computed. It is one well before the budget is reached: the rows of a table take more than these
# few, and fields turn steeper when the learning rate comes down.
LOW, HIGH, FIRST, MOST = 0.6, 0.8, 0.0075, 10.0
# What an evaluation beyond the HIGH part of the budget counts for, in nats of held-out likelihood.
COST = 0.1


class PenaltyController:
    """The share of the regularizers' weights that counts, and what too many evaluations count for.

    Args:
        pilot: rows; every other one is calibrated on, and evaluations are counted on those
            between, since a grid suits best the rows that it was placed on.
        budget: evaluations a row; None leaves the share at 1.
        tolerance: of the finished flow's error bars, in nats.
    """

    def __init__(self, pilot: Rows, budget: int | None, tolerance: float) -> None:
        places = torch.arange(len(pilot), device=pilot.x.device)
        self.rows, self.counted = pilot.take(places[::2]), pilot.take(places[1::2])
        self.budget, self.tolerance = budget, tolerance
        self.share = 1.0 if budget is None else 0.0

    @torch.no_grad()
    def update(self, flow: CNF) -> float:
        """Set the share by the evaluations that a flow would take, and say what too many of them
        count for, in nats. A solver that is given takes what it takes."""
        if self.budget is None or "solver" not in flow.automatic:
            return 0.0
        solver, error_model = calibrated(flow.bind(self.rows.context), self.rows.x, self.tolerance)
        finished = flow.bind(self.counted.context, solver=solver, error_model=error_model)
        nfe = finished.evaluate(self.counted.x).nfe.double().mean().item()
        height = (nfe / self.budget - LOW) / (HIGH - LOW)
        self.share = min(FIRST ** (1 - height), MOST) if height > 0 else 0.0
        return COST * max(nfe - HIGH * self.budget, 0.0)
