"""Films of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cnf import plotting
from cnf.cli.options import Kind
from cnf.cli.plot_context import PRINCIPAL, PlotContext
from cnf.cli.progress import bar
from cnf.plotting.arrays import centers, on_grid

ENDINGS = (".gif", ".mp4")
TIMES = 25
CELLS, ARROWS = 64, 18  # a side of the density's map and of the field
DOTS = 1000


@dataclass(frozen=True)
class AnimationOptions:
    """How many frames, how many a second, and how many inches, of 100 dots, a side."""

    frames: int = 48
    frame_rate: int = 20
    inches: float = 4.0


def animate_density(scene: PlotContext, output: Path, options: AnimationOptions) -> None:
    """The density and particles on their way."""
    with bar("density") as watch:
        maps = []
        for k, t in enumerate(moments().tolist()):
            maps.append(plotting.density_grid(scene.log_prob(t), scene.limits, resolution=CELLS))
            watch((k + 1) / TIMES)
    film(scene, output, options, maps=np.stack(maps))


def animate_field(scene: PlotContext, output: Path, options: AnimationOptions) -> None:
    """Particles on their way, and the velocity that carries them."""
    x, y = centers(scene.limits, ARROWS)
    fields = [on_grid(scene.velocity(t), x, y, "velocity", width=(2,)) for t in moments().tolist()]
    film(scene, output, options, fields=np.stack(fields))


def animate_trajectories(scene: PlotContext, output: Path, options: AnimationOptions) -> None:
    """Particles on their way."""
    film(scene, output, options)


def moments() -> Tensor:
    """The times between which a film is interpolated."""
    return torch.linspace(0, 1, TIMES)


def film(
    scene: PlotContext,
    output: Path,
    options: AnimationOptions,
    *,
    maps: np.ndarray | None = None,
    fields: np.ndarray | None = None,
) -> None:
    """Particles, over maps of the density and with the field if there are any."""
    path = scene.path(moments(), DOTS)
    if scene.axes == PRINCIPAL:
        plane, names = plotting.principal_axes(path, names=scene.columns)
        limits = None
    else:
        plane, names, limits = path[..., scene.axes], scene.names, scene.limits
    with bar("film") as watch:
        plotting.flow_animation(
            plane,
            moments(),
            output,
            limits=limits,
            density_frames=maps,
            field_frames=fields,
            frames=options.frames,
            frame_rate=options.frame_rate,
            size=(options.inches, options.inches),
            names=names,
            progress=lambda done, frames: watch(done / frames),
        )


FILMS: dict[Kind, Callable[[PlotContext, Path, AnimationOptions], None]] = {
    Kind.density: animate_density,
    Kind.trajectories: animate_trajectories,
    Kind.field: animate_field,
}
