"""Control of the cost of scoring: the weight of penalties depends on a budget of evaluations."""

from __future__ import annotations

from typing import Any

import torch

from cnf.flows import CNF
from cnf.flows.calibration import calibrated
from cnf.rows import Rows

# The factor of the penalties rises geometrically from FIRST_SHARE to one between these fractions of
# the budget, and further up to MOST_SHARE. Below them, penalties are not computed. The factor is one
# well below the budget, for two reasons: a table takes more evaluations than the pilot rows, and the
# cost of the field rises when the learning rate decreases.
SHARE_STARTS, SHARE_IS_ONE, FIRST_SHARE, MOST_SHARE = 0.6, 0.8, 0.0075, 10.0
# Nats of held-out likelihood that each evaluation above SHARE_IS_ONE of the budget costs.
NATS_AN_EVALUATION = 0.1


class PenaltyController:
    """The factor of the regularizers' weights, and the penalty on evaluations in nats.

    Args:
        pilot: training rows; every other one is used for calibration, and evaluations are counted on
            the rest, because a grid fits its calibration rows best.
        budget: evaluations per row; None keeps the factor at 1.
        tolerance: error bound of the finished flow, in nats.
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
