"""The data of a report: a flow, evaluation rows, and the names of its columns."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from cnf.diagnostics import CheckResult
from cnf.flows import CNF, SnapshotFlow
from cnf.pictures.context import ROWS, TableRows
from cnf.plotting.arrays import column_names
from cnf.rows import Rows, evenly_spaced

SEED = 0  # of everything random: the same model and rows give the same page


class OddRow(NamedTuple):
    """A row and the column that makes it odd.

    Attributes:
        row: its label.
        column: the column whose cell is the most surprising given the others.
        cell: its content.
        surprise: −log p(cell | the others), nats.
        p_value: the share of the rows that are at most as likely.
    """

    row: str
    column: str
    cell: str
    surprise: float
    p_value: float


@dataclass(frozen=True)
class ReportData:
    """A flow and the rows that its report is drawn from.

    Attributes:
        flow: in float64, so that columns far from zero keep their digits.
        rows: held-out rows, with their context, in the units of the flow.
        train: training rows of the flow, to which baselines are fitted; None if unavailable.
        names: of the columns, with their units.
        source: where the rows are from, in words.
        whole: rows of all columns of the table, if some are not numeric.
        odd: the most unusual rows, for a model that can explain them.
        show_time: function that formats a time, for one flow through time; None for any other
            flow.
        calculator: the form that scores a row, as markup; empty for none.
        claims: results of the checks of whole rows; None where the flow is all there is to check.
        learned: a statement about rows that the model was trained on; empty if all are new to it.
    """

    flow: CNF
    rows: Rows
    train: Rows | None
    names: list[str]
    source: str = ""
    whole: TableRows | None = None
    odd: Sequence[OddRow] = ()
    show_time: Callable[[float], str] | None = None
    calculator: str = ""
    claims: Sequence[CheckResult] | None = None
    learned: str = ""

    @property
    def dim(self) -> int:
        """Number of columns."""
        return self.flow.dim

    @cached_property
    def log_prob(self) -> Tensor:
        """Log-density of the rows (rows,); NaN for those that could not be scored."""
        with torch.no_grad():
            return self.flow.evaluate(self.rows.x, self.rows.context).log_prob

    @cached_property
    def table(self) -> TableRows:
        """Rows of all columns, data and samples, for histograms and scatter plots."""
        if self.whole is not None:
            return self.whole
        data = self.rows.x[:: max(1, len(self.rows) // ROWS)].double().numpy(force=True)
        samples = self.samples(ROWS).numpy(force=True)
        spheres = self.flow.preprocess.spheres
        paired = {place for pair in spheres for place in pair}
        turns = self.flow.preprocess.turns.items()
        angles = {place: turn for place, turn in turns if place not in paired}
        return TableRows(self.names, [None] * self.dim, data, samples, angles, spheres)

    def context_of(self, count: int) -> Tensor | None:
        """Context (count, context_dim) of evenly spaced rows, repeated if there are fewer."""
        if self.rows.context is None:
            return None
        return self.rows.context[evenly_spaced(self.rows.x, count, repeat=True)]

    def carried_under(self, count: int) -> Tensor | None:
        """The context (count, context_dim) of particles from base to data: that of rows, or the
        last time of one flow through time."""
        if self.show_time is None:
            return self.context_of(count)
        return torch.tensor([[self.span[1]]], dtype=torch.float64).expand(count, 1)

    def clock(self, times: Sequence[float]) -> list[str]:
        """Times in [0, 1] as the page tells them."""
        if self.show_time is None:
            return [f"{t:.2f}" for t in times]
        first, last = self.span
        return [self.show_time(first + t * (last - first)) for t in times]

    def seen(self, places: Tensor | slice) -> list[float] | None:
        """When rows were seen, in [0, 1], of one flow through time; None for any other."""
        if self.show_time is None:
            return None
        assert self.rows.context is not None
        return self.flow.condition(self.rows.context[places])[:, 0].tolist()

    @property
    def span(self) -> tuple[float, float]:
        """The first and the last time of one flow through time."""
        return SnapshotFlow(self.flow).span

    def samples(self, count: int) -> Tensor:
        """Samples (count, dim), under the context of the rows if there is one."""
        shape = (count,) if self.rows.context is None else ()
        generator = torch.Generator(self.flow.device).manual_seed(SEED)
        return self.flow.sample(shape, self.context_of(count), generator=generator)

    def base_points(self, count: int) -> Tensor:
        """Particles at t = 0, (count, dim), under the context that carries them if there is one."""
        shape = (count,) if self.rows.context is None else ()
        generator = torch.Generator(self.flow.device).manual_seed(SEED)
        return self.flow.sample_base(shape, self.carried_under(count), generator=generator)


def report_data(
    flow: CNF,
    rows: Rows,
    train: Rows | None,
    names: Sequence[str] | None,
    source: str = "",
    whole: TableRows | None = None,
    odd: Sequence[OddRow] = (),
    show_time: Callable[[float], str] | None = None,
    calculator: str = "",
    claims: Sequence[CheckResult] | None = None,
    learned: str = "",
) -> ReportData:
    """Check and name the parts of a report; its flow is a copy in float64 and eval mode.

    Raises:
        ValueError: for another number of columns or names than the flow has, or no rows.
    """
    if rows.x.dim() != 2 or rows.x.shape[1] != flow.dim or not len(rows):
        raise ValueError(f"rows: expected shape (rows, {flow.dim}), got {tuple(rows.x.shape)}")
    known = flow.metadata.get("columns") if names is None else names
    named = with_units(column_names(known, flow.dim), flow)
    exact = copy.deepcopy(flow).double().eval()
    return ReportData(
        exact, rows, train, named, source, whole, odd, show_time, calculator, claims, learned
    )


def with_units(names: Sequence[str], flow: CNF) -> list[str]:
    """Names of columns with their units, where the flow knows them."""
    units = flow.metadata.get("units", {})
    return [f"{name} ({units[name]})" if units.get(name) else name for name in names]
