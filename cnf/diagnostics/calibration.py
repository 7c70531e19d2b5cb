"""Calibration: ranks of rows among samples under the same context, uniform for a calibrated
flow."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cnf.diagnostics.fitting import ranks
from cnf.flows import CNF
from cnf.rows import Rows, evenly_spaced

MOST_ROWS, SAMPLES = 4000, 4000
# A row with a context needs samples of its own.
MOST_CONDITIONED_ROWS, SAMPLES_EACH = 400, 100
SEED = 0


class CalibrationRanks(NamedTuple):
    """Ranks between 0 and 1.

    Attributes:
        columns: rank of each column's value among samples, the probability integral transform
            (rows, dim).
        density: share of samples with a higher density than the row (rows,): the probability of
            the smallest highest-density region that holds the row.
    """

    columns: Tensor
    density: Tensor


@torch.no_grad()
def calibration_ranks(flow: CNF, rows: Rows, log_prob: Tensor | None = None) -> CalibrationRanks:
    """The ranks of evenly spaced rows among samples under the same context.

    Args:
        flow: in float64 and eval mode, so that columns far from zero keep their digits.
        rows: in the units of the data, with their context; at most 4,000 are used, or 400 with a
            context.
        log_prob: of all rows (rows,), where it is known; NaN counts as zero density.
    """
    conditioned = rows.context is not None
    most, count = (MOST_CONDITIONED_ROWS, SAMPLES_EACH) if conditioned else (MOST_ROWS, SAMPLES)
    places = evenly_spaced(rows.x, most)
    chosen = rows.take(places)
    known = flow.evaluate(rows.x, rows.context).log_prob if log_prob is None else log_prob
    found = known[places].nan_to_num(nan=-torch.inf)
    generator = torch.Generator(flow.device).manual_seed(SEED)
    samples, density = flow.sample_and_log_prob((count,), chosen.context, generator=generator)
    if not conditioned:
        samples, density = samples[:, None], density[:, None]
    columns = [ranks(x, drawn) for x, drawn in zip(chosen.x.T, samples.unbind(-1))]
    density_ranks = 1 - ranks(found, density)
    return CalibrationRanks(torch.stack(columns, 1), density_ranks)
