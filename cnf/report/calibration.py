"""Where rows fall among what the flow draws: uniform ranks are those of a calibrated flow."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cnf.diagnostics.fitting import ranks as among
from cnf.report.data import SEED, ReportData, evenly

MOST_ROWS = 4000
DRAWS = 4000
MOST_CONDITIONED = 400  # rows that have a context each, and draws of their own
DRAWS_EACH = 100


class Ranks(NamedTuple):
    """Ranks between 0 and 1.

    Attributes:
        columns: of a row's columns among those of draws, the probability integral transform (rows,
            dim).
        density: share of draws that are denser than the row (rows,): the smallest highest-density
            region that holds the row has this probability.
    """

    columns: Tensor
    density: Tensor


@torch.no_grad()
def ranks(subject: ReportData) -> Ranks:
    """The ranks of rows, spread evenly over all, among draws under the same context."""
    conditioned = subject.rows.context is not None
    most, draws = (MOST_CONDITIONED, DRAWS_EACH) if conditioned else (MOST_ROWS, DRAWS)
    places = evenly(len(subject.rows), min(most, len(subject.rows)))
    x, log_prob = (
        subject.rows.x[places],
        subject.log_prob[places].nan_to_num(nan=-torch.inf),
    )  # nowhere dense
    context = subject.rows.context[places] if conditioned else None
    generator = torch.Generator(subject.flow.device).manual_seed(SEED)
    drawn, density = subject.flow.sample_and_log_prob((draws,), context, generator=generator)
    if not conditioned:
        drawn, density = drawn[:, None], density[:, None]
    columns = [among(x[:, i], drawn[..., i]) for i in range(subject.dim)]
    return Ranks(torch.stack(columns, 1), 1 - among(log_prob, density))
