"""Pictures in a plane of two columns."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from matplotlib.figure import Figure

from cnf import plotting
from cnf.pictures.context import PlotContext
from cnf.pictures.visible import visible_log_prob
from cnf.plotting.style import DATA, styled

PARTICLES = 200  # whose paths are drawn
DOTS = 1000  # data rows under a velocity field
EVOLUTION = 80  # cells a side of each map


@styled
def draw_density(context: PlotContext) -> Figure:
    """The density, beside the data if there are any."""
    page, axes = plotting.figure(1, 1 if context.data is None else 2)
    if context.data is not None:
        plotting.samples(
            context.data[:, context.places],
            ax=axes[0, 0],
            limits=context.limits,
            color=DATA,
            names=context.names,
        )
        axes[0, 0].set_title("data")
        axes[0, 1].set_title("model")
    plotting.density(context.log_prob(), context.limits, ax=axes[0, -1], names=context.names)
    return page


def draw_samples(context: PlotContext) -> Figure:
    """Samples, over the data if there are any; rows with a missing cell are left out."""
    rows = context.rows
    places = [rows.names.index(name) for name in context.names]
    tables = [complete(part[:, places]) for part in rows.tables]
    page, axes = plotting.figure()
    plotting.samples(
        tables[-1],
        ax=axes[0, 0],
        over=tables[0] if len(tables) > 1 else None,
        limits=context.limits,
        names=context.names,
    )
    return page


def complete(rows: np.ndarray) -> np.ndarray:
    """The rows (n, columns) without a missing cell."""
    return rows[np.isfinite(rows).all(1)]


def draw_contours(context: PlotContext) -> Figure:
    """Boundaries of highest-density regions, under the data if there are any."""
    page, axes = plotting.figure()
    ax = axes[0, 0]
    plotting.density(
        context.log_prob(), context.limits, kind="contours", ax=ax, names=context.names
    )
    if context.data is not None:
        plotting.samples(
            context.data[:, context.places],
            ax=ax,
            limits=context.limits,
            color=DATA,
            size=1.5,
            names=context.names,
        )
    return page


def draw_evolution(context: PlotContext) -> Figure:
    """The density at six times."""
    times = torch.linspace(0, 1, 6).tolist()
    return plotting.density_history(
        context.log_prob, times, context.limits, resolution=EVOLUTION, names=context.names
    )[0].figure


def draw_trajectories(context: PlotContext) -> Figure:
    """Paths of particles."""
    times = torch.linspace(0, 1, 33)
    path, log_prob = context.path_and_log_prob(times, PARTICLES)
    by_density = context.color == "log-density"
    page, axes = plotting.figure()
    plotting.trajectories(
        context.visible_path(path),
        ax=axes[0, 0],
        times=times,
        columns=context.axes,
        names=context.columns,
        color=log_prob if by_density else "time",
        bar="log-density (nats)" if by_density else "time",
    )
    return page


def draw_field(context: PlotContext) -> Figure:
    """The velocity by arrows."""
    return field_at_times(context, "arrows")


def draw_streamlines(context: PlotContext) -> Figure:
    """The velocity by streamlines."""
    return field_at_times(context, "streamlines")


def field_at_times(context: PlotContext, kind: Literal["arrows", "streamlines"]) -> Figure:
    """The velocity at t = 0, ½ and 1, over the rows of the data as they are at each time."""
    times = torch.tensor([0.0, 0.5, 1.0])
    page, axes = plotting.figure(1, len(times))
    rows = None if context.data is None else context.path(times, DOTS)[..., context.places]
    for i, (ax, t) in enumerate(zip(axes[0], times.tolist())):
        if rows is not None:
            plotting.samples(
                rows[i], ax=ax, limits=context.limits, color=DATA, names=context.names
            )
        plotting.field(context.velocity(t), context.limits, ax=ax, kind=kind, names=context.names)
        ax.set_title(f"t = {t:g}")
    return page


@styled
def draw_conditional(context: PlotContext) -> Figure:
    """Two columns given the others, which are held as in three rows."""
    flow = context.flow
    others = [i for i in range(flow.dim) if i not in context.places]
    points = context.typical(3, others[0]) if others else context.typical(1)
    page, axes = plotting.figure(1, len(points))
    for ax, point in zip(axes[0], points):
        plotting.conditional(
            lambda rows: visible_log_prob(flow, rows, context.context),
            point,
            context.limits,
            columns=context.pair,
            ax=ax,
            names=context.columns,
        )
    return page
