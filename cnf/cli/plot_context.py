"""What the pictures of a model are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cnf import plotting
from cnf.cli.data import read_data
from cnf.cli.model import Model, as_tensor
from cnf.cli.options import Color, Kind
from cnf.cli.reporting import rows_to_judge_by
from cnf.rows import Rows

ROWS = 5000  # of a table, and of samples
PLANE = (Kind.density, Kind.contours, Kind.evolution)  # of two columns alone
PLANAR = (
    *PLANE,
    Kind.samples,
    Kind.trajectories,
    Kind.field,
    Kind.streamlines,
    Kind.pairs,
    Kind.conditional,
)
WITHOUT_CONTEXT = (Kind.history, Kind.calibration)  # of no context, or of the rows' own
PRINCIPAL = "principal"  # axes


@dataclass(frozen=True)
class PlotContext:
    """What pictures are made of.

    Attributes:
        model: the flow and its names.
        context: (context_dim,), or None.
        data: rows of a table (rows, dim) to draw too, or None.
        axes: places of the two columns that are shown, or "principal".
        color: of trajectories.
        sweep: name, lowest and highest value of the context column that is swept, or None.
        judges: rows with their context that the model was not fitted to, or None.
    """

    model: Model
    context: Tensor | None
    data: Tensor | None
    axes: tuple[int, ...] | str
    color: Color = Color.time
    sweep: tuple[str, float, float] | None = None
    judges: Rows | None = None

    @property
    def names(self) -> list[str]:
        """Of the two columns shown."""
        return [self.model.columns[i] for i in self.axes]

    @cached_property
    def quantiles(self) -> Tensor:
        """Of the training rows, or of samples where the file has none: 0.5, 50 and 99.5 %, (3,
        dim)."""
        known = self.model.flow.metadata.get("quantiles")
        if known is None:
            levels = torch.tensor([0.005, 0.5, 0.995], dtype=torch.float64)
            return self.samples(ROWS).double().quantile(levels, 0)
        table = torch.tensor(
            [known["columns"][name] for name in self.model.columns], dtype=torch.float64
        )
        return table.T[[known["levels"].index(level) for level in (0.005, 0.5, 0.995)]]

    @property
    def limits(self) -> tuple[tuple[float, float], ...]:
        """Of the two columns shown."""
        return tuple(self.all_limits[i] for i in self.axes)

    @cached_property
    def all_limits(self) -> tuple[tuple[float, float], ...]:
        """Of every column."""
        return plotting.limits(self.quantiles[[0, 2]], quantiles=(0, 1))

    def typical(self, count: int, column: int = 0) -> Tensor:
        """Rows (count, dim) of the table, or of the model, at even ranks of a column from low to
        high."""
        rows = self.samples(ROWS) if self.data is None else self.data
        ranks = (torch.arange(count) + 0.5) / count * len(rows)
        return rows[rows[:, column].argsort()[ranks.long()]]

    def samples(self, rows: int) -> Tensor:
        """Rows of the model (rows, dim), always the same."""
        return self.model.flow.sample(
            (rows,), self.context, generator=torch.Generator().manual_seed(0)
        )

    def embedded(self, points: Tensor) -> Tensor:
        """Points (n, 2) of the plane as rows (n, dim); columns that are not shown are at their
        median."""
        rows = self.quantiles[1].repeat(len(points), 1)
        rows[:, self.axes] = points.double()
        return rows

    def log_prob(self, t: float = 1.0) -> Callable[[Tensor], Tensor]:
        """The log-density of points of the plane at a time, for flows of two columns."""
        return lambda points: self.model.flow.log_prob(self.embedded(points), self.context, t=t)

    def velocity(self, t: float) -> Callable[[Tensor], Tensor]:
        """The velocity (n, 2) of points of the plane (n, 2) at a time."""
        return lambda points: self.model.flow.velocity(t, self.embedded(points), self.context)[
            :, self.axes
        ]

    def path(self, times: Tensor, particles: int) -> Tensor:
        """Particles (time, n, dim) on their way to the rows of the data, or from base points."""
        return self.path_and_log_prob(times, particles)[0]

    def path_and_log_prob(self, times: Tensor, particles: int) -> tuple[Tensor, Tensor]:
        """The particles (time, n, dim) of `path`, and the log-density where they are, (time,
        n)."""
        flow = self.model.flow
        if self.data is None:
            start = flow.sample_base((particles,), torch.Generator().manual_seed(0))
        else:
            ends = some(self.data, particles)
            start = flow.trajectory(ends, [0.0], self.context, reverse=True)[0]
            start = flow.to_model_coordinates(start, self.context)[0]
        return flow.trajectory_and_log_prob(start, times, self.context)


def some(rows: Tensor, most: int) -> Tensor:
    """At most so many rows, spread evenly over all."""
    return rows[torch.linspace(0, len(rows) - 1, min(most, len(rows))).round().long()]


def plot_context(
    model: Model,
    kind: Kind,
    data: str | None,
    axes: tuple[str, ...],
    given: str | None,
    sweep: str | None,
    color: Color,
) -> PlotContext:
    """What the picture is made of, checked against what its kind needs."""
    swept = swept_context(model, kind, sweep)
    if kind is Kind.calibration and data is None:
        raise ValueError("calibration: expected rows to judge by: --data DATA")
    places = chosen_axes(model, kind, axes)
    if kind in WITHOUT_CONTEXT:
        judges = None if data is None else rows_to_judge_by(model, data)[0]
        return PlotContext(model, None, None, places, judges=judges)
    held = (
        given
        if swept is None
        else ",".join(filter(None, (given, f"{quoted(swept[0])}={swept[1]}")))
    )
    return PlotContext(model, model.given(held), rows_of(model, data), places, color, swept)


def quoted(name: str) -> str:
    """A name as --given spells it."""
    return f'"{name}"' if "," in name else name


def swept_context(model: Model, kind: Kind, sweep: str | None) -> tuple[str, float, float] | None:
    """The column that --sweep names, and its range.

    Raises:
        ValueError: if it is missing, of no context column, or no range.
    """
    if kind is not Kind.what_if:
        return None
    if not model.context:
        raise ValueError(f"{model.path}: what-if needs a context to sweep, the model has none")
    name, _, span = (sweep or "").rpartition("=")
    try:
        low, high = (float(end) for end in span.split(":"))
        if name not in model.context or not -float("inf") < low < high < float("inf"):
            raise ValueError
    except ValueError:
        wanted = f'--sweep "{model.context[0]}=LOW:HIGH"'
        raise ValueError(
            f"{model.path}: expected {wanted}, for one of its context; got {sweep!r}"
        ) from None
    return name, low, high


def rows_of(model: Model, data: str | None) -> Tensor | None:
    """The rows of a table, so many as a picture can hold."""
    if data is None:
        return None
    return some(
        as_tensor(read_data(data, columns=model.columns), model.columns, torch.device("cpu")), ROWS
    )


def chosen_axes(model: Model, kind: Kind, names: tuple[str, ...]) -> tuple[int, ...] | str:
    """The places of the columns to show, checked against what the kind of picture needs."""
    columns, dim = model.columns, model.flow.dim
    if kind in PLANE and dim != 2:
        raise ValueError(
            f"{model.path}: {kind.value} is drawn for 2 columns, the model has {dim}; draw conditional"
        )
    if kind in PLANAR and dim < 2:
        raise ValueError(
            f"{model.path}: {kind.value} needs 2 columns, the model has 1; draw marginals"
        )
    if names == (PRINCIPAL,) and kind is Kind.trajectories:
        return PRINCIPAL
    chosen = names or tuple(columns[:2])
    if names and (len(names) != 2 or not set(names) <= set(columns)):
        raise ValueError(f"--axes: expected two of {', '.join(columns)}; got {', '.join(names)}")
    return tuple(columns.index(name) for name in chosen)
