"""Release 0.1 took start points of paths in model coordinates."""

from __future__ import annotations

import math
import warnings

import torch

from cnf.flows.bound import BoundFlow
from cnf.functional import transformed
from cnf.inputs import Numbers, as_tensor

# Odds at which points are taken for model coordinates: fewer than one set of right ones in so many
# are warned of.
ODDS = 1e4


@torch.no_grad()
def warn_of_model_coordinates(bound: BoundFlow, x: Numbers) -> None:
    """Warn where points x (*batch, dim) are likelier as draws of the base in model coordinates than
    in the units of the data: so 0.1 had them."""
    if transformed() or not bound.flow.preprocess.geometry.flat:  # 0.1 knew planes only
        return
    rows, given, _ = bound.rows(as_tensor(x))
    y, ladj = bound.flow.preprocess(rows, given.context, given.mask)
    base, dtype = bound.flow.base, bound.flow.dtype
    ratio = base.log_prob(rows.to(dtype)) - base.log_prob(y.to(dtype)) - ladj
    if ratio.sum() > math.log(ODDS):
        warnings.warn(
            "trajectory: the start points look like model coordinates, which release 0.1 took; they"
            " are now in the units of the data, as flow.sample_base draws them",
            DeprecationWarning,
            stacklevel=4,
        )
