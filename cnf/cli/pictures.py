"""`cnf plot`: pictures and films of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from cnf import plotting
from cnf.cli.data import read_data
from cnf.cli.model import Model, as_tensor, load_model
from cnf.cli.options import Kind
from cnf.cli.output import require_writable, writing
from cnf.plotting.style import DATA, styled

ROWS = 5000  # of a table, and of samples
PARTICLES = 200  # whose ways are drawn
DOTS = 1000  # of a film, and over a field
FILM_ENDINGS = (".gif", ".mp4")
FILM_TIMES = 25
FILM_RESOLUTION = 100
PLANAR = (Kind.density, Kind.samples, Kind.trajectories, Kind.field)


@dataclass(frozen=True)
class Scene:
    """What pictures are made of.

    Attributes:
        model: the flow and its names.
        context: (context_dim,), or None.
        data: rows of a table (rows, dim) to draw too, or None.
        axes: places of the two columns that are shown.
    """

    model: Model
    context: Tensor | None
    data: Tensor | None
    axes: tuple[int, ...]

    @property
    def names(self) -> list[str]:
        """Of the two columns shown."""
        return [self.model.columns[i] for i in self.axes]

    @cached_property
    def quantiles(self) -> Tensor:
        """Of the training rows, or of samples where the file has none: 0.5, 50 and 99.5 %, (3, dim)."""
        known = self.model.flow.metadata.get("quantiles")
        if known is None:
            levels = torch.tensor([0.005, 0.5, 0.995], dtype=torch.float64)
            return self.samples(ROWS).double().quantile(levels, 0)
        table = torch.tensor([known["columns"][name] for name in self.model.columns], dtype=torch.float64)
        return table.T[[known["levels"].index(level) for level in (0.005, 0.5, 0.995)]]

    @property
    def limits(self) -> tuple[tuple[float, float], ...]:
        """Of the two columns shown."""
        return plotting.limits(self.quantiles[[0, 2]][:, self.axes], quantiles=(0, 1))

    def samples(self, rows: int) -> Tensor:
        """Rows of the model (rows, dim), always the same."""
        return self.model.flow.sample((rows,), self.context, generator=torch.Generator().manual_seed(0))

    def embedded(self, points: Tensor) -> Tensor:
        """Points (n, 2) of the plane as rows (n, dim); columns that are not shown are at their median."""
        rows = self.quantiles[1].repeat(len(points), 1)
        rows[:, self.axes] = points.double()
        return rows

    def log_prob(self, t: float = 1.0) -> Callable[[Tensor], Tensor]:
        """The log-density of points of the plane at a time, for flows of two columns."""
        return lambda points: self.model.flow.log_prob(self.embedded(points), self.context, t=t)

    def path(self, times: Tensor, particles: int) -> Tensor:
        """Particles (time, n, dim) on their way to the rows of the data, or from base points."""
        flow = self.model.flow
        if self.data is not None:
            return flow.trajectory(some(self.data, particles), times, self.context, reverse=True)
        generator = torch.Generator().manual_seed(0)
        return flow.trajectory(flow.base.sample((particles,), flow.like, generator), times, self.context)


@torch.no_grad()
def plot_model(
    path: Path, kind: Kind, output: Path, *, data: str | None, axes: tuple[str, ...], given: str | None
) -> None:
    """Draw a picture of the model, or a film if the output is a gif or mp4.

    Raises:
        ValueError: for a model, table, context or output that cannot be used, and for a picture that a flow
            of so many columns does not have.
    """
    model = load_model(path)
    model.flow.double()  # columns may be far from zero, where float32 cannot tell rows apart
    require_writable(output, path, data)
    context = None if kind is Kind.history else model.given(given)
    scene = Scene(model, context, rows_of(model, data), chosen_axes(model, kind, axes))
    if output.suffix.lower() in FILM_ENDINGS:
        if kind not in FILMS:
            raise ValueError(
                f"{output}: {kind.value} is no film: give a name that ends in .png, .svg or .pdf"
            )
        with writing(output):
            FILMS[kind](scene, output)
    else:
        page = PICTURES[kind](scene)
        with writing(output):
            plotting.save(page, output)


def rows_of(model: Model, data: str | None) -> Tensor | None:
    """The rows of a table, so many as a picture can hold."""
    if data is None:
        return None
    return some(as_tensor(read_data(data, columns=model.columns), model.columns, torch.device("cpu")), ROWS)


def some(rows: Tensor, most: int) -> Tensor:
    """At most so many rows, spread evenly over all."""
    return rows[torch.linspace(0, len(rows) - 1, min(most, len(rows))).round().long()]


def chosen_axes(model: Model, kind: Kind, names: tuple[str, ...]) -> tuple[int, ...]:
    """The places of the columns to show, checked against what the kind of picture needs."""
    columns, dim = model.columns, model.flow.dim
    if kind is Kind.density and dim != 2:
        raise ValueError(
            f"{model.path}: a density is drawn for 2 columns, the model has {dim}; draw marginals or samples"
        )
    if kind in PLANAR and dim < 2:
        raise ValueError(f"{model.path}: {kind.value} needs 2 columns, the model has 1; draw marginals")
    chosen = names or tuple(columns[:2])
    if names and (len(names) != 2 or not set(names) <= set(columns)):
        raise ValueError(f"--axes: expected two of {', '.join(columns)}; got {', '.join(names)}")
    return tuple(columns.index(name) for name in chosen)


@styled
def draw_density(scene: Scene) -> Figure:
    """The density, beside the data if there are rows."""
    page, axes = plotting.figure(1, 1 if scene.data is None else 2)
    if scene.data is not None:
        plotting.samples(
            scene.data[:, scene.axes], ax=axes[0, 0], limits=scene.limits, colour=DATA, names=scene.names
        )
        axes[0, 0].set_title("data")
        axes[0, 1].set_title("model")
    plotting.density(scene.log_prob(), scene.limits, ax=axes[0, -1], names=scene.names)
    return page


def draw_samples(scene: Scene) -> Figure:
    """Samples, over the data if there are rows."""
    over = None if scene.data is None else scene.data[:, scene.axes]
    points = scene.samples(ROWS)[:, scene.axes]
    return plotting.samples(points, over=over, limits=scene.limits, names=scene.names).figure


def draw_trajectories(scene: Scene) -> Figure:
    """The ways of particles."""
    times = torch.linspace(0, 1, 33)
    path = scene.path(times, PARTICLES)
    return plotting.trajectories(
        path, times=times, columns=scene.axes, names=scene.model.columns, bar="time"
    ).figure


def draw_field(scene: Scene) -> Figure:
    """The velocity at the start, half-way and at the end; with data, where their rows are at that time."""
    times = torch.tensor([0.0, 0.5, 1.0])
    page, axes = plotting.figure(1, len(times))
    rows = None if scene.data is None else scene.path(times, DOTS)[..., scene.axes]
    for i, (ax, t) in enumerate(zip(axes[0], times.tolist())):
        if rows is not None:
            plotting.samples(rows[i], ax=ax, limits=scene.limits, colour=DATA, names=scene.names)
        plotting.field(scene_velocity(scene, t), scene.limits, ax=ax, names=scene.names)
        ax.set_title(f"t = {t:g}")
    return page


def scene_velocity(scene: Scene, t: float) -> Callable[[Tensor], Tensor]:
    """The velocity (n, 2) of points of the plane (n, 2) at a time."""
    flow = scene.model.flow
    return lambda points: flow.velocity(t, scene.embedded(points), scene.context)[:, scene.axes]


def draw_marginals(scene: Scene) -> Figure:
    """Every column of samples, over the data if there are rows."""
    drawn = scene.samples(ROWS)
    tables = (drawn,) if scene.data is None else (scene.data, drawn)
    return plotting.marginals(*tables, names=scene.model.columns)[0].figure


def draw_history(scene: Scene) -> Figure:
    """The course of the training."""
    known = scene.model.flow.metadata.get("history")
    if known is None:
        raise ValueError(f"{scene.model.path}: the model has no history; `cnf fit` writes models that do")
    return plotting.history(known["records"])[0].figure


def film_density(scene: Scene, output: Path) -> None:
    """The density and particles on their way."""
    times = torch.linspace(0, 1, FILM_TIMES)
    maps = [
        plotting.density_grid(scene.log_prob(t), scene.limits, resolution=FILM_RESOLUTION)
        for t in times.tolist()
    ]
    film(scene, times, output, np.stack(maps))


def film_trajectories(scene: Scene, output: Path) -> None:
    """Particles on their way."""
    film(scene, torch.linspace(0, 1, FILM_TIMES), output, None)


def film(scene: Scene, times: Tensor, output: Path, maps: np.ndarray | None) -> None:
    """Particles at `times`, over maps of the density if there are any."""
    path = scene.path(times, DOTS)[..., scene.axes]
    plotting.flow_film(path, times, output, limits=scene.limits, density_frames=maps, names=scene.names)


PICTURES: dict[Kind, Callable[[Scene], Figure]] = {
    Kind.density: draw_density,
    Kind.samples: draw_samples,
    Kind.trajectories: draw_trajectories,
    Kind.field: draw_field,
    Kind.marginals: draw_marginals,
    Kind.history: draw_history,
}
FILMS: dict[Kind, Callable[[Scene, Path], None]] = {
    Kind.density: film_density,
    Kind.trajectories: film_trajectories,
}
