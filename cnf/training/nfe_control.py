"""Control of the cost of scoring: the weight of penalties depends on a budget of evaluations."""

from __future__ import annotations

from typing import Any

import torch

from cnf.flows import CNF
from cnf.flows.calibration import calibrated
from cnf.rows import Rows

# Parts of the budget between which the share of the penalties rises from FIRST_SHARE to one, by the
# same factor for every evaluation; beyond, it goes on to rise, up to MOST_SHARE. Below, penalties
# are not computed. It is one well before the budget is reached: a table takes more evaluations than
# the pilot rows, and fields turn steeper when the learning rate comes down.
SHARE_STARTS, SHARE_IS_ONE, FIRST_SHARE, MOST_SHARE = 0.6, 0.8, 0.0075, 10.0
# Nats of held-out likelihood that an evaluation above SHARE_IS_ONE of the budget counts for.
NATS_AN_EVALUATION = 0.1


class PenaltyController:
    """The factor of the regularizers' weights, and the penalty on evaluations in nats.

    Args:
        pilot: rows; every other row is used for calibration, and evaluations are counted on the
            rest, because a grid fits its calibration rows best.
        budget: evaluations per row; None keeps the factor at 1.
        tolerance: of the finished flow's error bounds, in nats.
    """

    def __init__(self, pilot: Rows, budget: int | None, tolerance: float) -> None:
        places = torch.arange(len(pilot), device=pilot.x.device)
        self.rows, self.counted = pilot.take(places[::2]), pilot.take(places[1::2])
        self.budget, self.tolerance = budget, tolerance
        self.share = 1.0 if budget is None else 0.0

    @torch.no_grad()
    def update(self, flow: CNF) -> float:
        """Set the factor from the evaluations of scoring with `flow`, and return their penalty in
        nats. A custom solver is not changed."""
        if self.budget is None or "solver" not in flow.automatic:
            return 0.0
        solver, error_model = calibrated(flow.bind(self.rows.context), self.rows.x, self.tolerance)
        finished = flow.bind(self.counted.context, solver=solver, error_model=error_model)
        nfe = finished.evaluate(self.counted.x).nfe.double().mean().item()
        height = (nfe / self.budget - SHARE_STARTS) / (SHARE_IS_ONE - SHARE_STARTS)
        self.share = min(FIRST_SHARE ** (1 - height), MOST_SHARE) if height > 0 else 0.0
        return NATS_AN_EVALUATION * max(nfe - SHARE_IS_ONE * self.budget, 0.0)

    def state_dict(self) -> dict[str, Any]:
        """The factor."""
        return {"share": self.share}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to a state."""
        self.share = state["share"]
