"""What a picture of a model is drawn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from cnf import plotting
from cnf.flows import CNF
from cnf.pictures.visible import visible_log_prob
from cnf.plotting.circles import broken_at_seams
from cnf.rows import Rows, evenly_spaced

ROWS = 5000  # of a table that are drawn, and of samples
PRINCIPAL: Literal["principal"] = "principal"  # the plane of the first two principal components
INSIDE = (0.005, 0.5, 0.995)  # quantiles: a column is drawn between the outer two

Pair: TypeAlias = "tuple[int, int]"


class NumericModel(Protocol):
    """The density of the numeric columns of a model in their own units, with all else fixed."""

    @property
    def flow(self) -> CNF:
        """The flow over the numeric columns."""

    @property
    def columns(self) -> list[str]:
        """Their names."""

    @property
    def context(self) -> Tensor | None:
        """The fixed context (context_dim,), or None."""

    @property
    def given(self) -> str:
        """The fixed categories as text; empty if there are none."""


@dataclass(frozen=True)
class TableRows:
    """Rows of all columns as numbers: a category is the index of its level, and NaN is a missing
    cell.

    Attributes:
        names: of the columns.
        levels: names of the levels of each column; None for a numeric one.
        data: rows of the data (rows, columns), or None.
        samples: rows of the model (rows, columns).
        turns: start and end of a turn for each column of angles, by its index.
        spheres: indices of each longitude and its latitude.
        formats: the text of a number of a column, such as a date, by the index of the column.
    """

    names: list[str]
    levels: list[list[str] | None]
    data: np.ndarray | None
    samples: np.ndarray
    turns: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    spheres: Sequence[Pair] = ()
    formats: Mapping[int, Callable[[float], str]] = field(default_factory=dict)

    @property
    def tables(self) -> tuple[np.ndarray, ...]:
        """The data, if there are any, and the samples."""
        return (self.samples,) if self.data is None else (self.data, self.samples)


@dataclass(frozen=True)
class Sweep:
    """A context column that varies.

    Attributes:
        name: of the column.
        values: (values,), increasing.
        context: the whole context under each value (values, context_dim).
    """

    name: str
    values: Tensor
    context: Tensor


@dataclass(frozen=True)
class PlotContext:
    """What a picture of a model is drawn from.

    Attributes:
        title: name of the model in messages.
        columns: names of the numeric columns.
        numeric: the flow over them; None for a plot kind that needs no flow.
        metadata: of the model.
        data: rows (rows, dim) of the numeric columns to draw as well, or None.
        axes: indices of the two shown columns, or "principal".
        color: of trajectories, "time" or "log-density".
        sweep: the varying context column, or None.
        held_out: rows with their context that the model was not fitted to, or None.
        whole: function that makes the rows of all columns, numeric or not.
        show_time: function that formats a time, for one flow through time.
    """

    title: str
    columns: list[str]
    numeric: NumericModel | None
    metadata: dict[str, Any] = field(default_factory=dict)
    data: Tensor | None = None
    axes: Pair | Literal["principal"] = (0, 1)
    color: str = "time"
    sweep: Sweep | None = None
    held_out: Rows | None = None
    whole: Callable[[], TableRows] | None = None
    show_time: Callable[[float], str] = str

    @property
    def model(self) -> NumericModel:
        """The flow over the numeric columns, its names and its context."""
        assert self.numeric is not None, "this kind of picture was said to need no flow"
        return self.numeric

    @property
    def flow(self) -> CNF:
        """The flow over the numeric columns."""
        return self.model.flow

    @property
    def context(self) -> Tensor | None:
        """The fixed context."""
        return self.model.context

    @property
    def pair(self) -> Pair:
        """Indices of the two shown columns."""
        assert self.axes != PRINCIPAL, "the principal plane has no columns"
        return self.axes

    @property
    def places(self) -> list[int]:
        """The same as a list, an index of arrays."""
        return list(self.pair)

    @property
    def names(self) -> list[str]:
        """Names of the two shown columns."""
        return [self.columns[i] for i in self.places]

    @cached_property
    def quantiles(self) -> Tensor:
        """Quantiles 0.005, 0.5 and 0.995 of every column (3, dim): of the training rows, or of
        samples if the file lacks them."""
        known = self.metadata.get("quantiles")
        if known is None:
            levels = torch.tensor(INSIDE, dtype=torch.float64)
            return self.samples(ROWS).double().quantile(levels, 0)
        table = torch.tensor(
            [known["columns"][name] for name in self.columns], dtype=torch.float64
        )
        return table.T[[known["levels"].index(level) for level in INSIDE]]

    @property
    def limits(self) -> tuple[tuple[float, float], ...]:
        """The ranges of the two shown columns."""
        return tuple(self.all_limits[i] for i in self.places)

    @cached_property
    def all_limits(self) -> tuple[tuple[float, float], ...]:
        """The range of every column; of an angle it is one turn."""
        limits = dict(enumerate(plotting.limits(self.quantiles[[0, 2]], quantiles=(0, 1))))
        return tuple((limits | self.flow.preprocess.turns).values())

    def typical(self, count: int, column: int = 0) -> Tensor:
        """Rows (count, dim) of the data, or of the model, at evenly spaced ranks of a column."""
        rows = self.samples(ROWS) if self.data is None else self.data
        ranks = (torch.arange(count) + 0.5) / count * len(rows)
        return rows[rows[:, column].argsort()[ranks.long()]]

    def samples(self, rows: int) -> Tensor:
        """Samples (rows, dim) given the fixed context; the same at every call."""
        return self.flow.sample((rows,), self.context, generator=seeded())

    @cached_property
    def rows(self) -> TableRows:
        """Rows of all columns, numeric or not: data and samples."""
        assert self.whole is not None, "a kind of picture of the whole table has its rows"
        return self.whole()

    def embedded(self, points: Tensor) -> Tensor:
        """Points (n, 2) of the plane as rows (n, dim), all other columns at their median."""
        rows = self.quantiles[1].repeat(len(points), 1)
        rows[:, self.places] = points.double()
        return rows

    def log_prob(self, t: float = 1.0) -> Callable[[Tensor], Tensor]:
        """The log-density of points (n, 2) at time t, for a flow of two columns."""
        return lambda points: visible_log_prob(self.flow, self.embedded(points), self.context, t)

    def velocity(self, t: float) -> Callable[[Tensor], Tensor]:
        """The velocity (n, 2) at points (n, 2) of the plane at time t."""

        def velocity(points: Tensor) -> Tensor:
            return self.flow.velocity(t, self.embedded(points), self.context)[:, self.places]

        return velocity

    def path(self, times: Tensor, particles: int) -> Tensor:
        """Particles (time, n, dim): of the data, or else of the base."""
        return self.path_and_log_prob(times, particles)[0]

    def visible_path(self, path: Tensor) -> np.ndarray:
        """A path (time, n, dim) for drawing, with gaps where it crosses the end of a turn."""
        return broken_at_seams(path.numpy(force=True), self.flow.preprocess.turns)

    def path_and_log_prob(self, times: Tensor, particles: int) -> tuple[Tensor, Tensor]:
        """Particles as in `path`, and the log-density at each (time, n)."""
        flow = self.flow
        if self.data is None:
            start = flow.sample_base(particles, self.context, generator=seeded())
        else:
            ends = self.data[evenly_spaced(self.data, particles)]
            start = flow.trajectory(ends, [0.0], self.context, reverse=True)[0]
        return flow.bind(self.context).trajectory_and_log_prob(start, times)


def seeded() -> torch.Generator:
    """A generator with a fixed state, so that the same model gives the same plot."""
    return torch.Generator().manual_seed(0)
