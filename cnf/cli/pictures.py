"""`cnf plot`: pictures and films of a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from matplotlib.figure import Figure

from cnf import plotting
from cnf.cli.animations import ENDINGS, FILMS, AnimationOptions
from cnf.cli.model import load_model
from cnf.cli.options import Color, Kind
from cnf.cli.output import require_writable, writing
from cnf.cli.plot_context import PlotContext, plot_context, some
from cnf.cli.table_pictures import column_codes, name_levels
from cnf.plotting.style import DATA, styled
from cnf.report.calibration import ranks
from cnf.report.data import report_data

PARTICLES = 200  # whose ways are drawn
DOTS = 1000  # over a field
EVOLUTION = 80  # cells a side of each of its maps
JUDGES = 1000  # rows that steps and their errors are shown for
SWEPT, DRAWS = 41, 2000  # values of a context, and draws under each


@torch.no_grad()
def plot_model(
    path: Path,
    kind: Kind,
    output: Path,
    *,
    data: str | None = None,
    axes: tuple[str, ...] = (),
    given: str | None = None,
    sweep: str | None = None,
    color: Color = Color.time,
    film: AnimationOptions | None = None,
) -> None:
    """Draw a picture of the model, or a film if the output is a gif or mp4.

    Raises:
        ValueError: for a model, table, context or output that cannot be used, and for a picture
            that a flow of so many columns does not have.
    """
    model = load_model(path)
    require_writable(output, path, data)
    moving = output.suffix.lower() in ENDINGS
    if moving and kind not in FILMS:
        raise ValueError(
            f"{output}: {kind.value} is no film: give a name that ends in .png, .svg or .pdf"
        )
    require_options_of(kind, sweep, color, moving=moving)
    model.table_flow.double()  # float32 cannot tell rows of columns far from zero apart
    scene = plot_context(model, kind, data, axes, given, sweep, color)
    if moving:
        with writing(output):
            FILMS[kind](scene, output, film or AnimationOptions())
    else:
        page = PICTURES[kind](scene)
        with writing(output):
            plotting.save(page, output)


def require_options_of(kind: Kind, sweep: str | None, color: Color, *, moving: bool) -> None:
    """Raise a ValueError for a sweep or colors that a picture or film of this kind would leave
    unheeded."""
    if sweep is not None and kind is not Kind.what_if:
        raise ValueError(f"--sweep: {kind.value} has one context: give it by --given")
    if color is not Color.time and (moving or kind is not Kind.trajectories):
        what = f"a film of {kind.value}" if moving else kind.value
        raise ValueError(f"--colour: is for pictures of trajectories; {what} has its own colors")


@styled
def draw_density(scene: PlotContext) -> Figure:
    """The density, beside the data if there are rows."""
    page, axes = plotting.figure(1, 1 if scene.data is None else 2)
    if scene.data is not None:
        plotting.samples(
            scene.data[:, scene.axes],
            ax=axes[0, 0],
            limits=scene.limits,
            color=DATA,
            names=scene.names,
        )
        axes[0, 0].set_title("data")
        axes[0, 1].set_title("model")
    plotting.density(scene.log_prob(), scene.limits, ax=axes[0, -1], names=scene.names)
    return page


def draw_samples(scene: PlotContext) -> Figure:
    """Samples, over the data if there are rows; those with a missing cell are left out."""
    chosen = [scene.numeric[i] for i in scene.axes]
    tables = [column_codes(table, chosen) for table in scene.tables]
    tables = [rows[np.isfinite(rows).all(1)] for rows in tables]
    over = tables[0] if len(tables) > 1 else None
    return plotting.samples(tables[-1], over=over, limits=scene.limits, names=scene.names).figure


def draw_contours(scene: PlotContext) -> Figure:
    """The edges of highest-density regions, under the data if there are rows."""
    ax = plotting.density(scene.log_prob(), scene.limits, kind="contours", names=scene.names)
    if scene.data is not None:
        rows = scene.data[:, scene.axes]
        plotting.samples(rows, ax=ax, limits=scene.limits, color=DATA, size=1.5, names=scene.names)
    return ax.figure


def draw_evolution(scene: PlotContext) -> Figure:
    """The density at a row of times."""
    times = torch.linspace(0, 1, 6).tolist()
    return plotting.density_history(
        scene.log_prob, times, scene.limits, resolution=EVOLUTION, names=scene.names
    )[0].figure


def draw_trajectories(scene: PlotContext) -> Figure:
    """The ways of particles."""
    times = torch.linspace(0, 1, 33)
    path, log_prob = scene.path_and_log_prob(times, PARTICLES)
    colored = scene.color is Color.log_density
    return plotting.trajectories(
        path,
        times=times,
        columns=scene.axes,
        names=scene.columns,
        color=log_prob if colored else "time",
        bar="log-density (nats)" if colored else "time",
    ).figure


def draw_field(scene: PlotContext) -> Figure:
    """The velocity by arrows."""
    return field_at_times(scene, "arrows")


def draw_streamlines(scene: PlotContext) -> Figure:
    """The velocity by streamlines."""
    return field_at_times(scene, "streamlines")


def field_at_times(scene: PlotContext, kind: Literal["arrows", "streamlines"]) -> Figure:
    """The velocity at the start, half-way and at the end; with data, where their rows are at that
    time."""
    times = torch.tensor([0.0, 0.5, 1.0])
    page, axes = plotting.figure(1, len(times))
    rows = None if scene.data is None else scene.path(times, DOTS)[..., scene.axes]
    for i, (ax, t) in enumerate(zip(axes[0], times.tolist())):
        if rows is not None:
            plotting.samples(rows[i], ax=ax, limits=scene.limits, color=DATA, names=scene.names)
        plotting.field(scene.velocity(t), scene.limits, ax=ax, kind=kind, names=scene.names)
        ax.set_title(f"t = {t:g}")
    return page


def draw_marginals(scene: PlotContext) -> Figure:
    """Every column of samples, categories among them, over the data if there are rows."""
    columns = scene.table_flow.schema.modeled
    tables = [column_codes(table, columns) for table in scene.tables]
    axes = plotting.marginals(*tables, names=[column.name for column in columns])
    for ax, column in zip(axes, columns):
        name_levels(ax, column)
    return axes[0].figure


def draw_pairs(scene: PlotContext) -> Figure:
    """Numeric columns in pairs: samples, or the data below and samples above; rows with a missing
    cell among them are left out."""
    chosen = scene.numeric
    tables = [column_codes(table, chosen) for table in scene.tables]
    tables = [rows[np.isfinite(rows).all(1)] for rows in tables]
    return plotting.pairs(*tables, names=[column.name for column in chosen])[0, 0].figure


def draw_slices(scene: PlotContext) -> Figure:
    """The log-density along every column, through five rows."""
    flow = scene.flow
    return plotting.slices(
        lambda rows: flow.log_prob(rows, scene.context),
        scene.typical(5),
        scene.all_limits,
        names=scene.columns,
    )[0].figure


@styled
def draw_conditional(scene: PlotContext) -> Figure:
    """Two columns given the others, as these are in three rows."""
    flow = scene.flow
    others = [i for i in range(flow.dim) if i not in scene.axes]
    points = scene.typical(3, others[0]) if others else scene.typical(1)
    page, axes = plotting.figure(1, len(points))
    for ax, point in zip(axes[0], points):
        plotting.conditional(
            lambda rows: flow.log_prob(rows, scene.context),
            point,
            scene.limits,
            columns=scene.axes,
            ax=ax,
            names=scene.columns,
        )
    return page


def draw_what_if(scene: PlotContext) -> Figure:
    """How columns answer to a context that is swept, the rest of it held."""
    name, low, high = scene.sweep
    values = torch.linspace(low, high, SWEPT, dtype=torch.float64)
    views = [scene.table_flow.numeric(scene.given.assign(**{name: v})) for v in values.tolist()]
    context = torch.stack([view.context for view in views])
    drawn = scene.flow.sample((DRAWS,), context, generator=torch.Generator().manual_seed(0))
    return plotting.what_if(values, drawn.transpose(0, 1), context=name, names=scene.columns)[
        0
    ].figure


@styled
def draw_calibration(scene: PlotContext) -> Figure:
    """Coverage of highest-density regions, and the ranks of every column."""
    found = ranks(report_data(scene.flow, scene.judges, None, scene.columns))
    across = min(scene.flow.dim + 1, 4)
    page, grid = plotting.figure(-(-(scene.flow.dim + 1) // across), across, panel=(2.0, 1.9))
    first, *others = grid.ravel()
    plotting.calibration(found.density, ax=first)
    plotting.pit(found.columns, names=scene.columns, axes=others[: scene.flow.dim])
    for ax in others[scene.flow.dim :]:
        page.delaxes(ax)
    return page


def draw_steps(scene: PlotContext) -> Figure:
    """Lengths of steps, and the error that rows make in each."""
    flow = scene.flow
    if not flow.solver.estimates_error:
        raise ValueError(
            f"{scene.file}: steps are drawn for a flow with a calibrated grid; calibrate it"
        )
    rows = some(scene.samples(JUDGES) if scene.data is None else scene.data, JUDGES)
    context = None if scene.context is None else scene.context.expand(len(rows), -1)
    inner, held, _ = flow.to_model_coordinates(rows, context)
    found = flow.solve_log_prob(inner, held)
    made = found.x_error + flow.error_model.quadrature_weight * found.q_error
    # Scoring solves from the data to the base, and pictures run from the base to the data.
    times = 1 - torch.tensor(flow.solver.between(1.0, 0.0).step_times, dtype=torch.float64).flip(0)
    moves = times.diff() > 0  # a time that stands twice makes a step without length
    errors = (made * flow.error_model.bar_scale)[moves]
    return plotting.steps(torch.cat([times[:-1][moves], times[-1:]]), errors)[0].figure


def draw_history(scene: PlotContext) -> Figure:
    """The course of the training."""
    known = scene.table_flow.metadata.history
    if known is None:
        raise ValueError(
            f"{scene.file}: the model has no history; `cnf fit` writes models that do"
        )
    return plotting.history(known["records"])[0].figure


PICTURES: dict[Kind, Callable[[PlotContext], Figure]] = {
    Kind.density: draw_density,
    Kind.contours: draw_contours,
    Kind.evolution: draw_evolution,
    Kind.samples: draw_samples,
    Kind.trajectories: draw_trajectories,
    Kind.field: draw_field,
    Kind.streamlines: draw_streamlines,
    Kind.marginals: draw_marginals,
    Kind.pairs: draw_pairs,
    Kind.slices: draw_slices,
    Kind.conditional: draw_conditional,
    Kind.what_if: draw_what_if,
    Kind.calibration: draw_calibration,
    Kind.steps: draw_steps,
    Kind.history: draw_history,
}
