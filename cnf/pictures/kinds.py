"""The registry of plot kinds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Literal, TypeAlias

from cnf.plugins import Registry

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cnf.pictures.animations import AnimationOptions
    from cnf.pictures.context import PlotContext

Draw: TypeAlias = "Callable[[PlotContext], Figure]"
Animate: TypeAlias = "Callable[[PlotContext, AnimationOptions], None]"


@dataclass(frozen=True)
class PlotKind:
    """One plot kind, and its requirements.

    Attributes:
        name: its name in `cnf plot MODEL`.
        help: one line for `cnf plot --help`.
        draw: a function from a `PlotContext` to a figure, or its import path, "module:function".
        animate: the same for an animation, a function of a context and `AnimationOptions`; None
            for a kind without an animation.
        axes: "all" columns; a "pair" of them; the "plane" of a flow of exactly two columns; a
            "sphere", longitude and latitude; the columns of "angles".
        context: the context of the flow: "fixed" by --given, "swept" over a range, that of the
            "rows" of --data, the "time" of one flow through time, or "none".
        data: whether it needs rows (--data).
        particles: whether it draws paths of particles, for which --color and --axes principal
            apply.
        table: whether it draws rows of the whole table, including categories, and needs no flow.

    Example:
        >>> from matplotlib.figure import Figure
        >>> PlotKind("blank", "an empty page", draw=lambda context: Figure()).axes
        'all'
    """

    name: str
    help: str
    draw: Draw | str
    animate: Animate | str | None = None
    axes: Literal["all", "pair", "plane", "sphere", "angles"] = "all"
    context: Literal["fixed", "swept", "rows", "time", "none"] = "fixed"
    data: bool = False
    particles: bool = False
    table: bool = False

    @property
    def drawing(self) -> Draw:
        """The function that draws the plot; it is imported here."""
        return resolve_name(self.draw) if isinstance(self.draw, str) else self.draw

    @property
    def animation(self) -> Animate | None:
        """The function that draws the animation; it is imported here."""
        return resolve_name(self.animate) if isinstance(self.animate, str) else self.animate


PLANAR, COLUMNS = "cnf.pictures.planar", "cnf.pictures.columns"
COMPUTATION, ANIMATIONS = "cnf.pictures.computation", "cnf.pictures.animations"
CIRCLES = "cnf.pictures.circles"

KINDS: Registry[PlotKind] = Registry(
    "kind of picture",
    [
        PlotKind(
            "density",
            "the density of a flow of two columns, and the data",
            f"{PLANAR}:draw_density",
            animate=f"{ANIMATIONS}:animate_density",
            axes="plane",
        ),
        PlotKind(
            "contours",
            "the boundaries of its highest-density regions, over the data",
            f"{PLANAR}:draw_contours",
            axes="plane",
        ),
        PlotKind(
            "evolution",
            "its density at six times, from the base to the data",
            f"{PLANAR}:draw_evolution",
            axes="plane",
        ),
        PlotKind(
            "times",
            "for a model of cnf fit --time: its density at five times, and paths between them",
            "cnf.pictures.moments:draw_times",
            axes="plane",
            context="time",
        ),
        PlotKind(
            "samples",
            "samples in two columns, over the data",
            f"{PLANAR}:draw_samples",
            axes="pair",
            table=True,
        ),
        PlotKind(
            "trajectories",
            "paths of particles in two columns, or in their principal plane",
            f"{PLANAR}:draw_trajectories",
            animate=f"{ANIMATIONS}:animate_trajectories",
            axes="pair",
            particles=True,
        ),
        PlotKind(
            "field",
            "the velocity at three times as arrows, the other columns at their median",
            f"{PLANAR}:draw_field",
            animate=f"{ANIMATIONS}:animate_field",
            axes="pair",
        ),
        PlotKind(
            "streamlines",
            "the same as streamlines",
            f"{PLANAR}:draw_streamlines",
            axes="pair",
        ),
        PlotKind(
            "marginals",
            "histograms of every column, data and samples",
            f"{COLUMNS}:draw_marginals",
            table=True,
        ),
        PlotKind(
            "pairs",
            "every pair of columns: data below the diagonal, samples above it",
            f"{COLUMNS}:draw_pairs",
            table=True,
        ),
        PlotKind(
            "rose",
            "angles around a circle, data and samples",
            f"{CIRCLES}:draw_rose",
            axes="angles",
            table=True,
        ),
        PlotKind(
            "map",
            "the density of a longitude and latitude in an equal-area projection",
            f"{CIRCLES}:draw_map",
            animate=f"{CIRCLES}:animate_globe",
            axes="sphere",
        ),
        PlotKind(
            "slices",
            "the log-density along every column, through five rows",
            f"{COLUMNS}:draw_slices",
        ),
        PlotKind(
            "conditional",
            "the density of two columns given the others, at three rows",
            f"{PLANAR}:draw_conditional",
            axes="pair",
        ),
        PlotKind(
            "what-if",
            "quantiles of every column against a context column, --sweep",
            f"{COLUMNS}:draw_what_if",
            context="swept",
        ),
        PlotKind(
            "calibration",
            "coverage of highest-density regions and ranks of the rows of --data",
            f"{COLUMNS}:draw_calibration",
            context="rows",
            data=True,
        ),
        PlotKind(
            "steps",
            "lengths and errors of the solver's steps",
            f"{COMPUTATION}:draw_steps",
        ),
        PlotKind(
            "history",
            "the progress of the training",
            f"{COMPUTATION}:draw_history",
            context="none",
            table=True,
        ),
    ],
)
