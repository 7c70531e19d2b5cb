"""What keeps scoring cheap: penalties weigh as much as it takes to keep evaluations within a budget."""

from __future__ import annotations

import copy

import torch

from cnf.flows import CNF
from cnf.flows.calibration import calibration_rows
from cnf.training.data import Rows

# Of the pilot rows.
ROWS = 128
# What is aimed at, as part of the budget, at the beginning of a phase and at its end: a field sharpens as the
# rate falls, and other rows than these may take more.
AIM_FIRST, AIM_LAST = 0.65, 0.87
# The share begins with the first as soon as evaluations are above the aim; without need it is nothing, and
# penalties are not computed. It goes with this power of evaluations over the aim, within a factor at every
# look.
FIRST, POWER, WEAKER, STRONGER = 0.03, 4, 0.7, 3.0
# What an evaluation beyond the budget counts for, in nats of held-out likelihood.
COST = 0.02


class Steering:
    """The share of the regularisers' weights that counts, and what evaluations beyond the budget count for.

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
    def look(self, flow: CNF, done: float) -> float:
        """Move the share by the evaluations that a flow would take, and say what those beyond the budget
        count for, in nats. A solver that is given takes what it takes.

        Args:
            flow: as it would be kept.
            done: share of the phase that is over.
        """
        if self.budget is None or "solver" not in flow.automatic:
            return 0.0
        x, context = self.rows.x, self.rows.context
        finished = copy.copy(flow).calibrate(x, self.tolerance, context=context)
        nfe = finished.evaluate(x, context).nfe.double().mean().item()
        aim = (AIM_FIRST + (AIM_LAST - AIM_FIRST) * done) * self.budget
        factor = min(max((nfe / aim) ** POWER, WEAKER), STRONGER)
        self.share = min(self.share * factor, 1.0)
        if self.share < FIRST:
            self.share = FIRST if factor > 1 else 0.0
        return COST * max(nfe - self.budget, 0.0)
