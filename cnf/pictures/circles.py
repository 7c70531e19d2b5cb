"""Pictures of angles and of places on a sphere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnf import plotting
from cnf.pictures.animations import DOTS, AnimationOptions, times
from cnf.pictures.context import PlotContext, TableRows


def draw_rose(context: PlotContext) -> Figure:
    """Every angle of the samples, over the data if there are any."""
    return roses(context.rows)[0].figure


def roses(rows: TableRows, axes: Sequence[Axes] | None = None) -> np.ndarray:
    """The axes of a rose for each column of angles."""
    places = list(rows.turns)
    return plotting.rose(
        *(table[:, places] for table in rows.tables),
        turns=list(rows.turns.values()),
        names=[rows.names[place] for place in places],
        axes=axes,
    )


def draw_map(context: PlotContext) -> Figure:
    """The density of a longitude and a latitude, all other columns at their median, under the data
    if there are any."""
    page, ax = plotting.sphere_figure()
    plotting.sphere_map(
        context.log_prob(),
        points=None if context.data is None else context.data[:, context.places],
        ax=ax,
        normalize=context.flow.dim > 2,
        title=_held(context),
    )
    return page


def animate_globe(context: PlotContext, options: AnimationOptions) -> None:
    """Particles on a globe that turns."""
    path = context.path(times(), DOTS).numpy(force=True)
    plotting.globe_animation(
        path[..., context.places],
        times(),
        options.output,
        frames=options.frames,
        frame_rate=options.frame_rate,
        size=(options.inches, options.inches),
        title=context.model.given,
        callback=lambda done, frames: options.callback(done / frames),
    )


def _held(context: PlotContext) -> str:
    """The other columns and their medians, in words."""
    others = [
        f"{name} = {value:.4g}"
        for place, (name, value) in enumerate(zip(context.columns, context.quantiles[1].tolist()))
        if place not in context.places
    ]
    return ", ".join(others) and f"at the median: {', '.join(others)}"
