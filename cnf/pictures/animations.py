"""Animations of a model: particles from the base to the data and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cnf import plotting
from cnf.pictures.context import PRINCIPAL, PlotContext
from cnf.plotting.arrays import centers, on_grid

TIMES = 25  # between which frames are interpolated
CELLS, ARROWS = 64, 18  # a side of the map of the density, and of the grid of the field
DOTS = 1000


@dataclass(frozen=True)
class AnimationOptions:
    """The output and the options of an animation.

    Attributes:
        output: a file that ends in .gif or .mp4.
        frames: how many.
        frame_rate: frames a second.
        inches: side length of a frame, at 100 dots per inch.
        callback: is called with the finished share of the density maps and of the frames.
    """

    output: Path = Path("animation.gif")
    frames: int = 48
    frame_rate: int = 20
    inches: float = 4.0
    callback: Callable[[float], None] = lambda done: None


def animate_density(context: PlotContext, options: AnimationOptions) -> None:
    """Particles over the density at each time."""
    maps = []
    for k, t in enumerate(times().tolist()):
        maps.append(plotting.density_grid(context.log_prob(t), context.limits, resolution=CELLS))
        options.callback((k + 1) / TIMES)
    animate(context, options, maps=np.stack(maps))


def animate_field(context: PlotContext, options: AnimationOptions) -> None:
    """Particles and the velocity at each time."""
    x, y = centers(context.limits, ARROWS)
    fields = [on_grid(context.velocity(t), x, y, "velocity", width=(2,)) for t in times().tolist()]
    animate(context, options, fields=np.stack(fields))


def animate_trajectories(context: PlotContext, options: AnimationOptions) -> None:
    """Particles alone."""
    animate(context, options)


def times() -> Tensor:
    """The times at which the flow is evaluated."""
    return torch.linspace(0, 1, TIMES)


def animate(
    context: PlotContext,
    options: AnimationOptions,
    *,
    maps: np.ndarray | None = None,
    fields: np.ndarray | None = None,
) -> None:
    """Particles, over maps of the density and with arrows of the field if there are any."""
    path = context.path(times(), DOTS)
    if context.axes == PRINCIPAL:
        plane, names = plotting.principal_axes(path, names=context.columns)
        limits = None
    else:
        plane = context.visible_path(path)[..., context.places]
        names, limits = context.names, context.limits
    plotting.flow_animation(
        plane,
        times(),
        options.output,
        limits=limits,
        density_frames=maps,
        field_frames=fields,
        frames=options.frames,
        frame_rate=options.frame_rate,
        size=(options.inches, options.inches),
        names=names,
        title=context.model.given,
        callback=lambda done, frames: options.callback(done / frames),
    )
