"""The parts of a typed table's density, and the scores of rows by them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from cnf.fields.masked import MaskedField
from cnf.flows import CNF, Evaluation, NormalBase
from cnf.tables.discrete import DiscreteModel
from cnf.tables.features import ContextFeatures, StateFeatures
from cnf.tables.quadrature import cell_rule
from cnf.tables.schema import Cells, Schema
from cnf.transforms import Affine
from cnf.transforms.marginals import MarginalTransform
from cnf.transforms.whitening import Whitening

# Solves of one row and another point of its cell go together, in parts of about this many.
AT_ONCE = 2**16
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Coordinates:
    """Rows as the flow over the numbers takes them.

    Attributes:
        z: (rows, numeric)
        conditions: the flow's context, mask and features (rows, numeric + features).
        ladj: log |det ∂z/∂x| over the present cells (rows,).
    """

    z: Tensor
    conditions: Tensor
    ladj: Tensor


class TableDensity(nn.Module):
    """The parts of a `TableFlow`, and the scores of rows by them; see there."""

    def __init__(
        self, schema: Schema, *, hidden: tuple[int, int] = (128, 128), frequency: float = 1.0
    ) -> None:
        super().__init__()
        self.schema = schema
        self.hidden = tuple(hidden)
        self.frequency = frequency
        self.numeric = [i for i, column in enumerate(schema.modeled) if column.numeric]
        numbers = [schema.modeled[i] for i in self.numeric]
        self.sizes = [column.n_states for column in schema.modeled]
        self.context_features = ContextFeatures(schema.context)
        self.discrete = DiscreteModel(self.sizes, self.context_features.width)
        self.state_features = StateFeatures(schema.modeled)
        self.marginals = MarginalTransform([column.support for column in numbers])
        self.rule = cell_rule(numbers)
        dim, features = len(numbers), self.state_features.width + self.context_features.width
        self.whitening = Whitening(dim, features)
        self.flow = _flow(dim, features, self.hidden, frequency) if dim else None
        self.metadata: dict[str, Any] = {}

    @property
    def dtype(self) -> torch.dtype:
        """Of the arithmetic."""
        return self._tensor.dtype

    @property
    def device(self) -> torch.device:
        """Where the arithmetic is done."""
        return self._tensor.device

    @property
    def _tensor(self) -> Tensor:
        return self.discrete.network[0].weight

    def encode(self, table: pd.DataFrame) -> tuple[Cells, Tensor]:
        """The modeled cells of a data frame, and the features of its context (rows, width).

        Raises:
            TableError: for a column that is not there, or a cell that its column cannot hold.
        """
        device = self.device
        cells = self.schema.encode(table, self.schema.modeled)
        given = self.schema.encode(table, self.schema.context)
        cells, given = (part.to(device) for part in (cells, given))
        return cells, self.context_features(given)

    def present(self, states: Tensor) -> Tensor:
        """Which numeric cells hold a plain number (rows, numeric)."""
        return states[:, self.numeric] == 0

    def features(self, states: Tensor, context: Tensor) -> Tensor:
        """What the numbers are conditioned on (rows, features), in float64."""
        return torch.cat((self.state_features(states), context), 1)

    def coordinates(self, cells: Cells, context: Tensor) -> Coordinates:
        """The numbers of some rows in the coordinates of the flow."""
        present = self.present(cells.states)
        features = self.features(cells.states, context)
        y, log_slope = self.marginals.by_cell(cells.values)
        z, log_det = self.whitening.whiten(y.where(present, 0.0), present, features)
        ladj = log_slope.where(present, 0.0).sum(1) + log_det
        return Coordinates(z, torch.cat((present.to(z.dtype), features), 1), ladj)

    def log_prob(self, table: pd.DataFrame) -> Tensor:
        """Log-probability (rows,) of every row of a data frame, its columns found by name.

        In nats: a density in the units of the table for real numbers, a probability for integers,
        categories, atoms and missing cells. NaN where a cell, modeled or of the context, is
        missing in a column that never had a missing cell.

        Raises:
            TableError: for a column that is not there, or a cell that its column cannot hold.
        """
        return self.evaluate(table).log_prob

    def evaluate(self, table: pd.DataFrame) -> Evaluation:
        """`log_prob` with a bar of the error of solver and cells, NFE and a verdict."""
        return self.evaluate_cells(*self.encode(table))

    @torch.no_grad()
    def evaluate_cells(self, cells: Cells, context: Tensor) -> Evaluation:
        """`evaluate` for encoded rows and the features of their context (rows, width)."""
        known = (cells.states >= 0).all(1) & context.isfinite().all(1)
        rows = known.nonzero().squeeze(1)
        log_prob = torch.full((len(cells),), torch.nan, dtype=torch.float64, device=rows.device)
        error, nfe = log_prob.clone(), torch.zeros_like(log_prob, dtype=torch.long)
        ok = torch.zeros_like(known)
        order = self._sorted_by_pattern(cells.states, rows)
        for part in order.split(max(1, AT_ONCE // len(self.rule.weights))):
            found = self._evaluate(cells.take(part), context[part])
            log_prob[part], error[part], nfe[part], ok[part] = found
        return Evaluation(log_prob, error, nfe, ok)

    def _sorted_by_pattern(self, states: Tensor, rows: Tensor) -> Tensor:
        """Rows in an order that keeps those of one pattern together."""
        if not len(rows) or not self.numeric:
            return rows
        group = torch.unique(self.present(states[rows]), dim=0, return_inverse=True)[1]
        return rows[group.argsort(stable=True)]

    def _evaluate(self, cells: Cells, context: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        log_states = self.discrete.log_prob(cells.states, context.to(self.dtype)).double()
        if self.flow is None:
            zero = torch.zeros_like(log_states)
            return log_states, zero, zero.long(), log_states.isfinite()
        points = len(self.rule.weights)
        offsets = self.rule.offsets.to(cells.values)[:, None]
        spread = Cells((cells.values + offsets).flatten(0, 1), cells.states.repeat(points, 1))
        at = self.coordinates(spread, context.repeat(points, 1))
        found = self.flow.evaluate(at.z, at.conditions)
        absent = (at.conditions[:, : len(self.numeric)] == 0).sum(1)
        # The base counts every column; what it says of absent ones, at zero, is taken back.
        log_density = found.log_prob.double() + at.ladj + HALF_LOG_2PI * absent
        log_mean, error = self.rule.log_mean(log_density.unflatten(0, (points, -1)))
        log_mass = log_mean + self._log_steps(cells.states)
        solver_error, ok = (
            found.error.unflatten(0, (points, -1)),
            found.ok.unflatten(0, (points, -1)),
        )
        log_prob = log_states + log_mass
        return (
            log_prob,
            solver_error.mean(0) + error,
            found.nfe.unflatten(0, (points, -1)).sum(0),
            ok.all(0),
        )

    def _log_steps(self, states: Tensor) -> Tensor:
        """The logarithm of the width of each row's integer cells (rows,)."""
        steps = [self.schema.modeled[i].step or 1.0 for i in self.numeric]
        logs = torch.tensor(steps, dtype=torch.float64, device=states.device).log()
        return (self.present(states) * logs).sum(1)


def _flow(dim: int, features: int, hidden: tuple[int, int], frequency: float) -> CNF:
    """The flow over the numbers: its maps stand before it, so that only its grid is left to
    place."""
    flow = CNF(
        dim,
        context_dim=dim + features,
        field=MaskedField(dim, hidden, context_dim=dim + features, frequency=frequency),
        base=NormalBase(dim),
        preprocess=Affine.identity(dim),
    )
    flow.automatic = {"solver"}
    return flow
