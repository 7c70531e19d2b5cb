"""What keeps scoring cheap: penalties weigh as much as it takes to keep evaluations within a budget."""

from __future__ import annotations

import copy

import torch

from cnf.flows import CNF
from cnf.flows.calibration import calibration_rows
from cnf.training.data import Rows

# Of the pilot rows.
ROWS = 128
# Parts of the budget between which the share rises, from FIRST to the whole, by the same factor for every
# evaluation. Below, it is nothing, and penalties are not computed. The whole is there before the budget is:
# other rows may take more than these, and fields go on to turn steeper.
LOW, HIGH, FIRST = 0.7, 0.9, 0.0075
# What an evaluation beyond the HIGH part of the budget counts for, in nats of held-out likelihood.
COST = 0.1


class Steering:
    """The share of the regularisers' weights that counts, and what too many evaluations count for.

    Args:
        pilot: rows of which some are used to calibrate the flow and to count its evaluations.
        budget: evaluations a row; None leaves the share at 1.
        tolerance: of the finished flow's error bars, in nats.
    """

    def __init__(self, pilot: Rows, budget: int | None, tolerance: float) -> None:
        self.rows = pilot.take(calibration_rows(pilot.x, ROWS))
        self.budget, self.tolerance = budget, tolerance
        self.share = 1.0 if budget is None else 0.0

    @torch.no_grad()
    def look(self, flow: CNF) -> float:
        """Set the share by the evaluations that a flow would take, and say what too many of them count
        for, in nats. A solver that is given takes what it takes."""
        if self.budget is None or "solver" not in flow.automatic:
            return 0.0
        x, context = self.rows.x, self.rows.context
        finished = copy.copy(flow).calibrate(x, self.tolerance, context=context)
        nfe = finished.evaluate(x, context).nfe.double().mean().item()
        height = (nfe / self.budget - LOW) / (HIGH - LOW)
        self.share = FIRST ** (1 - min(height, 1.0)) if height > 0 else 0.0
        return COST * max(nfe - HIGH * self.budget, 0.0)
