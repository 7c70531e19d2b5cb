"""Answers to questions about the columns of a flow."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cnf.flows.questions.constraints import ColumnMaps
from cnf.flows.questions.coordinates import Coordinates
from cnf.flows.questions.noise import Noise
from cnf.rows import Cells


class Score(NamedTuple):
    """Log-densities of rows (rows,), bounds of the solver's error, evaluations and verdicts."""

    log_prob: Tensor
    error: Tensor
    nfe: Tensor
    ok: Tensor


class Answers(ABC):
    """A joint density and a conditional one, over rows of cells.

    A number is treated as a point: the density of an integer cell is that at its number.
    """

    @property
    @abstractmethod
    def numeric(self) -> tuple[int, ...]:
        """Indices of the numeric columns among all columns."""

    @property
    @abstractmethod
    def columns(self) -> int:
        """Number of columns."""

    @property
    @abstractmethod
    def steps(self) -> Tensor:
        """Widths of the cells of integer columns, zero for the others (numeric,)."""

    @property
    @abstractmethod
    def marginals(self) -> ColumnMaps:
        """The marginal of each numeric column."""

    @abstractmethod
    def joint(self, cells: Cells, context: Tensor | None) -> Score:
        """log p(all columns | context)."""

    @abstractmethod
    def amortized(
        self, cells: Cells, free: Tensor, given: Tensor, context: Tensor | None
    ) -> Score:
        """log q(free columns | given columns, context) for columns of each row (rows, columns)."""

    @abstractmethod
    def complete(
        self, cells: Cells, free: Tensor, given: Tensor, context: Tensor | None, noise: Noise
    ) -> tuple[Cells, Tensor]:
        """The rows with their free columns drawn from q, and log q of what was drawn (rows,)."""

    @abstractmethod
    def paths(
        self, cells: Cells, free: Tensor, given: Tensor, context: Tensor | None,
        z: Tensor, t: Tensor | Sequence[float],
    ) -> Tensor:  # fmt: skip
        """Paths (time, rows, numeric) of the free numbers from base points z (rows, numeric)."""


@dataclass(frozen=True)
class MixtureAnswers(Answers):
    """The answers of a `CNF` and a mixture fitted to its rows; every state is 0, a number.

    Attributes:
        flow: the `CNF`.
        coordinates: in which the mixture is standard normal.
    """

    flow: Any
    coordinates: Coordinates

    @property
    def numeric(self) -> tuple[int, ...]:
        """All columns."""
        return tuple(range(self.columns))

    @property
    def columns(self) -> int:
        """How many there are."""
        return int(self.flow.dim)

    @property
    def steps(self) -> Tensor:
        """Zero: no column is on a grid."""
        return torch.zeros(self.columns, dtype=torch.float64, device=self.flow.device)

    @property
    def marginals(self) -> ColumnMaps:
        """Each column by itself."""
        return self.coordinates.marginals

    def joint(self, cells: Cells, context: Tensor | None) -> Score:
        """log p(all columns | context)."""
        found = self.flow.evaluate(cells.values, context)
        return Score(found.log_prob, found.error, found.nfe, found.ok)

    def amortized(
        self, cells: Cells, free: Tensor, given: Tensor, context: Tensor | None
    ) -> Score:
        """log q(free columns | given columns, context)."""
        condition = self.condition(cells, free, given, context)
        z, ladj = self.coordinates.normalize(cells.values.where(free, 0.0), condition)
        return self._carried(z, ladj, condition)

    def complete(
        self, cells: Cells, free: Tensor, given: Tensor, context: Tensor | None, noise: Noise
    ) -> tuple[Cells, Tensor]:
        """The rows with their free columns drawn from q, and log q of what was drawn."""
        condition = self.condition(cells, free, given, context)
        base = noise.base.where(condition[:, : noise.base.shape[1]] != 0, 0.0)
        z, log_prob = self._drawn(base, condition)
        values = self.coordinates.numbers(z, condition)
        ladj = self.coordinates.normalize(values, condition)[1]
        drawn = Cells(values.where(free, cells.values), cells.states.masked_fill(free, 0))
        return drawn, log_prob.double() + ladj

    def paths(
        self, cells: Cells, free: Tensor, given: Tensor, context: Tensor | None,
        z: Tensor, t: Tensor | Sequence[float],
    ) -> Tensor:  # fmt: skip
        """Paths (time, rows, columns) of the free columns from base points z (rows, columns)."""
        condition = self.condition(cells, free, given, context)
        steps = self._path(z, t, condition)
        return torch.stack([self.coordinates.numbers(step, condition) for step in steps])

    def condition(
        self, cells: Cells, free: Tensor, given: Tensor, context: Tensor | None
    ) -> Tensor:
        """The condition for a choice of columns and given values; see `Coordinates.condition`."""
        features = cells.values[:, :0] if context is None else self.flow.condition(context)
        return self.coordinates.condition(cells.values, free, given, features)

    def _carried(self, z: Tensor, ladj: Tensor, condition: Tensor) -> Score:
        nothing = torch.zeros_like(ladj)
        return Score(normal(z) + ladj, nothing, nothing.long(), ladj.isfinite())

    def _drawn(self, z: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        return z, normal(z)

    def _path(self, z: Tensor, t: Tensor | Sequence[float], condition: Tensor) -> Tensor:
        return z.expand(len(t), *z.shape)


@dataclass(frozen=True)
class FlowAnswers(MixtureAnswers):
    """The answers of a `CNF` and the flow of its `SubsetFlow`.

    Attributes:
        subsets: the flow over z given the condition.
    """

    subsets: Any

    def _carried(self, z: Tensor, ladj: Tensor, condition: Tensor) -> Score:
        found = self.subsets.evaluate(z, condition)
        return Score(found.log_prob + ladj, found.error, found.nfe, found.ok)

    def _drawn(self, z: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        path, log_prob = self.subsets.trajectory_and_log_prob(z, [1.0], condition)
        return path[0], log_prob[0]

    def _path(self, z: Tensor, t: Tensor | Sequence[float], condition: Tensor) -> Tensor:
        path: Tensor = self.subsets.trajectory(z, t, condition)
        return path


def normal(z: Tensor) -> Tensor:
    """The standard normal log-density (rows,)."""
    return -0.5 * z.square().sum(1) - 0.5 * z.shape[1] * math.log(2 * math.pi)
