"""What the pictures of a model are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cnf import plotting
from cnf.cli.model import Model
from cnf.cli.options import Color, Kind
from cnf.cli.reporting import held_out
from cnf.flows import CNF
from cnf.rows import Rows
from cnf.tables import Column, TableFlow
from cnf.tables.numeric_view import NumericView

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
        model: the model and its file.
        view: the numeric columns given everything else; None for a picture without a flow.
        given: the context that holds, or None.
        data: rows of a table to draw too, or None.
        axes: places of the two numeric columns that are shown, or "principal".
        color: of trajectories.
        sweep: name, lowest and highest value of the context column that is swept, or None.
        judges: rows with their context that the model was not fitted to, or None.
    """

    model: Model
    view: NumericView | None
    given: pd.DataFrame | None
    table: pd.DataFrame | None
    axes: tuple[int, ...] | str
    color: Color = Color.time
    sweep: tuple[str, float, float] | None = None
    judges: Rows | None = None

    @property
    def file(self) -> Path:
        """The model's file."""
        return self.model.path

    @property
    def table_flow(self) -> TableFlow:
        """The model."""
        return self.model.table_flow

    @property
    def flow(self) -> CNF:
        """The flow over the numeric columns."""
        return self.table_flow.flow

    @property
    def numeric(self) -> list[Column]:
        """The numeric columns."""
        return self.table_flow.numeric_columns

    @property
    def columns(self) -> list[str]:
        """Names of the numeric columns."""
        return [column.name for column in self.numeric]

    @property
    def context(self) -> Tensor | None:
        """The context of the flow that holds, (context_dim,)."""
        return None if self.view is None else self.view.context

    @cached_property
    def data(self) -> Tensor | None:
        """Rows of the table that hold every number (rows, dim)."""
        return None if self.table is None else self.table_flow.numeric_rows(self.table).x

    @cached_property
    def tables(self) -> list[pd.DataFrame]:
        """The data, if there are rows, and samples, always the same."""
        generator = torch.Generator().manual_seed(0)
        drawn = self.table_flow.sample(ROWS, self.given, generator=generator)
        return [drawn] if self.table is None else [self.table, drawn]

    @property
    def names(self) -> list[str]:
        """Of the two columns shown."""
        return [self.columns[i] for i in self.axes]

    @cached_property
    def quantiles(self) -> Tensor:
        """Of the training rows, or of samples where the file has none: 0.5, 50 and 99.5 %, (3,
        dim)."""
        known = self.table_flow.metadata.quantiles
        if known is None:
            levels = torch.tensor([0.005, 0.5, 0.995], dtype=torch.float64)
            return self.samples(ROWS).double().quantile(levels, 0)
        table = torch.tensor(
            [known["columns"][name] for name in self.columns], dtype=torch.float64
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
        return self.flow.sample((rows,), self.context, generator=torch.Generator().manual_seed(0))

    def embedded(self, points: Tensor) -> Tensor:
        """Points (n, 2) of the plane as rows (n, dim); columns that are not shown are at their
        median."""
        rows = self.quantiles[1].repeat(len(points), 1)
        rows[:, self.axes] = points.double()
        return rows

    def log_prob(self, t: float = 1.0) -> Callable[[Tensor], Tensor]:
        """The log-density of points of the plane at a time, for flows of two columns."""
        return lambda points: self.flow.log_prob(self.embedded(points), self.context, t=t)

    def velocity(self, t: float) -> Callable[[Tensor], Tensor]:
        """The velocity (n, 2) of points of the plane (n, 2) at a time."""
        return lambda points: self.flow.velocity(t, self.embedded(points), self.context)[
            :, self.axes
        ]

    def path(self, times: Tensor, particles: int) -> Tensor:
        """Particles (time, n, dim) on their way to the rows of the data, or from base points."""
        return self.path_and_log_prob(times, particles)[0]

    def path_and_log_prob(self, times: Tensor, particles: int) -> tuple[Tensor, Tensor]:
        """The particles (time, n, dim) of `path`, and the log-density where they are, (time,
        n)."""
        flow = self.flow
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
    if kind in WITHOUT_CONTEXT:
        judges = None if data is None else held_out(model, data)[0]
        places = () if kind is Kind.history else chosen_axes(model, kind, axes)
        return PlotContext(model, None, None, None, places, judges=judges)
    places = chosen_axes(model, kind, axes)
    held = given
    if swept is not None:
        held = ",".join(filter(None, (given, f"{quoted(swept[0])}={swept[1]}")))
    context = model.given(held)
    view = None if model.table_flow.flow is None else model.table_flow.numeric(context)
    return PlotContext(model, view, context, rows_of(model, data), places, color, swept)


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


def rows_of(model: Model, data: str | None) -> pd.DataFrame | None:
    """Rows of a file or a toy, as many as a picture can hold, typed as those of the model."""
    if data is None:
        return None
    table, schema = model.table(data), model.table_flow.schema
    places = np.linspace(0, len(table) - 1, min(ROWS, len(table))).round().astype(int)
    columns = (*schema.modeled, *schema.context)
    table = table.iloc[places]
    return schema.decode(schema.encode(table, columns), columns)


def chosen_axes(model: Model, kind: Kind, names: tuple[str, ...]) -> tuple[int, ...] | str:
    """The places of the columns to show, checked against what the kind of picture needs."""
    columns = [column.name for column in model.table_flow.numeric_columns]
    dim = len(columns)
    if not columns and kind is not Kind.marginals:
        raise ValueError(f"{model.path}: {kind.value} is of numbers; the model has none")
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
