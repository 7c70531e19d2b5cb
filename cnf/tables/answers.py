"""Answers to questions about the columns of a typed table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cnf.flows.questions.answers import Answers, Score
from cnf.flows.questions.constraints import ColumnMaps
from cnf.flows.questions.noise import Noise
from cnf.rows import Cells
from cnf.tables.imputation import Imputation
from cnf.transforms.marginals import MarginalTransform


@dataclass(frozen=True)
class TableAnswers(Answers):
    """The answers of a `TableFlow` with discrete states, computed by its imputer.

    Attributes:
        model: the `TableFlow`.
        imputation: its imputer with the parts that it uses.
    """

    model: Any
    imputation: Imputation

    @property
    def numeric(self) -> tuple[int, ...]:
        """Indices of the numeric columns."""
        return tuple(self.model.numeric_places)

    @property
    def columns(self) -> int:
        """Number of columns."""
        return len(self.model.sizes)

    @property
    def steps(self) -> Tensor:
        """Widths of the cells of integer columns, zero for the others."""
        steps = [column.step or 0.0 for column in self.model.numeric_columns]
        return torch.tensor(steps, dtype=torch.float64, device=self.model.device)

    @property
    def marginals(self) -> ColumnMaps:
        """The marginal of each numeric column."""
        return self.imputation.maps or MarginalTransform([])

    def joint(self, cells: Cells, context: Tensor | None) -> Score:
        """log p(states, numbers | context), the density of an integer cell at its number."""
        assert context is not None, "a table with states has features of its context"
        model = self.model
        log_prob = torch.zeros(len(cells), dtype=torch.float64, device=cells.states.device)
        if model.discrete is not None:
            extra = context.to(model.discrete.dtype)
            log_prob = model.discrete.log_prob(cells.states, extra).double()
        if model.flow is None:
            return _certain(log_prob)
        found = model.flow.evaluate(cells.values, model.conditions(cells.states, context))
        return Score(log_prob + found.log_prob, found.error, found.nfe, found.ok)

    def amortized(
        self, cells: Cells, free: Tensor, given: Tensor, context: Tensor | None
    ) -> Score:
        """log q(free columns | given columns, context)."""
        assert context is not None, "a table with states has features of its context"
        observed, imputer = self.imputation.known(cells, given), self.imputation.imputer
        states = cells.states.where(free | given, -1)
        extra = imputer.extra(observed, context).to(imputer.discrete.dtype)
        log_states = imputer.discrete.log_prob(states, extra, given).double()
        if imputer.flow is None:
            return _certain(log_states)
        y, log_slope = self.marginals.by_cell(cells.values)
        z, condition, log_det = self.imputation.coordinates(y, states, context, observed)
        found = imputer.flow.evaluate(z, condition)
        log_det = log_det + log_slope.where(self.imputation.free(states, observed), 0.0).sum(1)
        return Score(log_states + found.log_prob + log_det, found.error, found.nfe, found.ok)

    def complete(
        self, cells: Cells, free: Tensor, given: Tensor, context: Tensor | None, noise: Noise
    ) -> tuple[Cells, Tensor]:
        """The rows with their free columns drawn from q, and log q of the draws."""
        assert context is not None, "a table with states has features of its context"
        observed, imputer = self.imputation.known(cells, given), self.imputation.imputer
        extra = imputer.extra(observed, context).to(imputer.discrete.dtype)
        states, log_states = imputer.discrete.complete(
            cells.states, free, given, extra, noise.states
        )
        for longitude, latitude in self.imputation.pairs:
            drawn = free[:, latitude]
            states[:, latitude] = states[:, longitude].where(drawn, states[:, latitude])
        if imputer.flow is None:
            return Cells(cells.values, states.where(free | given, -1)), log_states
        values, log_numbers = self.imputation.numbers(
            cells.values, states, context, observed, noise.base
        )
        return Cells(values, states), log_states + log_numbers

    def paths(
        self, cells: Cells, free: Tensor, given: Tensor, context: Tensor | None,
        z: Tensor, t: Tensor | Sequence[float],
    ) -> Tensor:  # fmt: skip
        """Raise an error, since a row with states has no path."""
        raise ValueError("trajectory: expected a table of numbers alone; this one has states")


def _certain(log_prob: Tensor) -> Score:
    nothing = torch.zeros_like(log_prob)
    return Score(log_prob, nothing, nothing.long(), log_prob.isfinite())
