"""Pictures of a flow through time, in the units of its times."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cnf import plotting
from cnf.flows import SnapshotFlow
from cnf.pictures.context import PlotContext, seeded
from cnf.plotting.style import styled

MOMENTS, STATES, PARTICLES = 5, 17, 150
CELLS = 80  # a side of each map


@styled
def draw_times(context: PlotContext) -> Figure:
    """The density at five times, and paths of particles from the first to the last."""
    moving = SnapshotFlow(context.flow)
    times = torch.linspace(*moving.span, STATES, dtype=torch.float64)
    shown = times[:: (STATES - 1) // (MOMENTS - 1)].tolist()
    start = moving.sample(PARTICLES, shown[0], generator=seeded())
    path = moving.trajectory(start, times.tolist(), start=shown[0])
    limits = plotting.limits(path.flatten(0, 1)[:, context.places], quantiles=(0, 1))
    page, axes = plotting.figure(1, MOMENTS + 1, panel=(1.9, 2.1))
    plotting.density_history(
        lambda time: _density(context, time), shown, limits, list(axes[0, :-1]),
        resolution=CELLS, names=context.names,
    )  # fmt: skip
    for ax, time in zip(axes[0], shown):
        ax.set_title(context.show_time(time), parse_math=False)
    plotting.trajectories(
        path, ax=axes[0, -1], times=times, columns=context.pair, names=context.columns
    )
    axes[0, -1].set_title("paths")
    return page


def _density(context: PlotContext, time: float) -> Callable[[Tensor], Tensor]:
    """The log-density of points (n, 2) at a time, by one solve."""
    at = torch.tensor([time], dtype=torch.float64)
    bound = context.flow.bind(at, tolerance=math.inf)
    # The places of two columns are their own inverse.
    return lambda points: bound.log_prob(points[:, context.places])
