"""What a report is about: a flow, the rows it is judged by, and their names."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cnf.flows import CNF
from cnf.plotting.arrays import column_names
from cnf.rows import Rows

SEED = 0  # of all that is drawn at random: the same model and rows give the same page


@dataclass(frozen=True)
class ReportData:
    """A flow and the rows that its report is drawn from.

    Attributes:
        flow: in float64, in which columns far from zero are told apart.
        rows: to judge by; the flow should not have been fitted to them.
        train: rows that the flow was fitted to and baselines learn from; None where they are not
            at hand.
        names: of the columns, with their units.
    """

    flow: CNF
    rows: Rows
    train: Rows | None
    names: list[str]

    @property
    def dim(self) -> int:
        """Columns of x."""
        return self.flow.dim

    @cached_property
    def log_prob(self) -> Tensor:
        """Of the rows, (rows,); the page itself says how many could not be scored."""
        with torch.no_grad():
            return self.flow.evaluate(self.rows.x, self.rows.context).log_prob

    def context_of(self, count: int) -> Tensor | None:
        """Context for so many draws: that of rows spread evenly over all, again and again."""
        if self.rows.context is None:
            return None
        return self.rows.context[evenly(len(self.rows), count)]

    def samples(self, count: int) -> Tensor:
        """Draws of the flow (count, dim), under the context of the rows if there is one."""
        shape = (count,) if self.rows.context is None else ()
        generator = torch.Generator(self.flow.device).manual_seed(SEED)
        return self.flow.sample(shape, self.context_of(count), generator=generator)

    def base_points(self, count: int) -> Tensor:
        """Particles at t = 0, (count, dim)."""
        generator = torch.Generator(self.flow.device).manual_seed(SEED)
        return self.flow.sample_base((count,), generator)


def evenly(rows: int, count: int) -> Tensor:
    """Places of `count` rows, spread evenly over all; rows come again where there are fewer.

    >>> evenly(5, 3), evenly(2, 4)
    (tensor([0, 2, 4]), tensor([0, 0, 1, 1]))
    """
    return torch.linspace(0, rows - 1, count).round().long()


def report_data(
    flow: CNF, rows: Rows, train: Rows | None, names: Sequence[str] | None
) -> ReportData:
    """A subject whose flow is a copy, ready to be scored, and whose columns have names.

    Raises:
        ValueError: for another number of columns or names than the flow has, or no rows.
    """
    if rows.x.dim() != 2 or rows.x.shape[1] != flow.dim or not len(rows):
        raise ValueError(f"rows: expected shape (rows, {flow.dim}), got {tuple(rows.x.shape)}")
    known = flow.metadata.get("columns") if names is None else names
    units = flow.metadata.get("units", {})
    named = [
        f"{name} ({units[name]})" if units.get(name) else name
        for name in column_names(known, flow.dim)
    ]
    return ReportData(copy.deepcopy(flow).double().eval(), rows, train, named)
