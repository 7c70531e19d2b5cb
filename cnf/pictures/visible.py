"""The density of a flow for plots."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cnf.flows import CNF

# Nats below the peak at which no picture shows a density: it is white, or off the axis.
DEPTH = 40.0


@torch.no_grad()
def visible_log_prob(flow: CNF, rows: Tensor, context: Tensor | None, t: float = 1.0) -> Tensor:
    """log p of the rows (n,), to the flow's tolerance wherever p is visible relative to its peak.

    Rows far from all data may need a thousand times the solver steps of the others. If one solve
    with its error bound shows that they are not visible, its result is used.

    Example:
        >>> flow = CNF(dim=2, hidden=(4, 4))
        >>> rows = torch.tensor([[0.0, 1.0], [60.0, 0.0]])
        >>> torch.allclose(visible_log_prob(flow, rows, None)[:1], flow.log_prob(rows[:1]))
        True
    """
    first = flow.bind(context, tolerance=math.inf).evaluate(rows, t=t)
    sure = (first.log_prob - first.error).nan_to_num(nan=-torch.inf)
    hidden = first.log_prob + first.error < sure.max() - DEPTH
    again = flow.log_prob(rows[~hidden], context, t=t)
    return first.log_prob.masked_scatter(~hidden, again)
