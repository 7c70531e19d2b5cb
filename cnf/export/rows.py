"""The maps before the flow: from rows in the units of a table to inputs of a plain flow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cnf.export.errors import ExportError
from cnf.fields import GatedField, MaskedField
from cnf.flows import CNF
from cnf.tables import Column, TableFlow
from cnf.tables.cell_integrals import TOLERANCE
from cnf.tables.gaussian_cells import GaussianCells, NumberRows, log_widths
from cnf.tables.masked_flow import gaussianizing_maps
from cnf.transforms import Affine, Chain, MarginalTransform, Transform
from cnf.transforms.whitening import bent, straight

# Types of columns whose cells are the numbers that the model is of.
NUMBERS = ("real", "positive", "bounded", "integer")


class ReadRows(nn.Module, ABC):
    """Rows of numbers, and the flow of them, which is conditioned on the context alone.

    Args:
        columns: of the model.

    Attributes:
        flow: whose fields and transforms have no pattern.
    """

    flow: CNF
    lower: Tensor
    upper: Tensor

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        ends = [
            [-torch.inf if c.lower is None else c.lower for c in columns],
            [torch.inf if c.upper is None else c.upper for c in columns],
        ]
        for name, values in zip(("lower", "upper"), ends):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float64))

    def outside(self, x: Tensor) -> Tensor:
        """Which rows (rows,) have a number on an end of a range, or beyond."""
        return ((x <= self.lower) | (x >= self.upper)).any(-1)

    @abstractmethod
    def values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers (rows, columns) as the flow takes them, and which rows it is asked about
        (rows,)."""

    @abstractmethod
    def beside(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What comes to the log-density of the flow (rows,), the error of that (rows,), and whether
        it is small enough (rows,)."""


class PlainRows(ReadRows):
    """Rows of a plain table, whose numbers are not changed."""

    def __init__(self, model: TableFlow) -> None:
        super().__init__(model.schema.modeled)
        assert model.flow is not None, "columns of numbers have a flow"
        self.flow = model.flow

    def values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rows without a missing or infinite number."""
        return x, x.isfinite().all(-1)

    def beside(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Nothing."""
        nothing = torch.zeros_like(values[:, 0])
        return nothing, nothing, nothing == 0


class OrdinaryRows(ReadRows):
    """Rows of a typed table whose cells are all ordinary numbers: none is an atom or missing.

    Such rows have one discrete state, so its log-probability, the mask, and the inputs of the
    field and the Gaussian from them are constants. An integer cell is a number with the
    `GaussianCells` correction; if its error exceeds the tolerance, the cell needs the quadrature
    in torch.
    """

    steps: Tensor
    means: Tensor
    precision: Tensor
    log_state: Tensor

    @torch.no_grad()
    def __init__(self, model: TableFlow) -> None:
        columns = model.schema.modeled
        super().__init__(columns)
        if model.schema.context:
            raise ExportError(
                "context: expected none to export a typed table; fit without --context, or score with"
                " cnf.Scorer"
            )
        if model.integrals.kappa is None:
            raise ExportError(
                "cell_error: expected a model that measured it, as fits since 0.2 do; fit it again"
            )
        self.columns, self.integrals = columns, model.integrals
        states = torch.zeros(1, len(columns), dtype=torch.long)
        nothing = torch.zeros(1, 0, dtype=torch.float64)
        log_state = torch.zeros(1, dtype=torch.float64)
        if model.discrete is not None:
            log_state = model.discrete.log_prob(states, nothing.to(model.discrete.dtype)).double()
        condition = model.conditions(states, nothing)
        assert condition is not None and model.flow is not None, "states condition the flow"
        self.flow, gaussian = _of_one_pattern(model.flow, condition)
        for name, value in (
            ("steps", model.integrals.steps),
            ("means", gaussian.shift),
            ("precision", gaussian.inverse_matrix.T @ gaussian.inverse_matrix),
            ("log_state", log_state),
        ):
            self.register_buffer(name, value)

    def values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Integers as the nearest, those of heaped columns compacted; rows with an atom are left
        out."""
        known, parts = x.isfinite().all(-1), []
        for column, cells in zip(self.columns, x.unbind(1)):
            if column.step is not None:
                cells = (cells / column.step).round() * column.step
            for atom in column.atoms:
                known = known & (cells != atom)
            below = [cells > heap for heap in column.heaped_values]
            parts.append(cells - sum(below, torch.zeros_like(cells)) * (column.step or 0.0))
        return torch.stack(parts, 1), known

    def beside(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The state's log-probability, and the mass of integer cells over the density at their
        centers."""
        correction, errors = self.integrals.from_center(self._cells(values))
        error = errors.sum(1)
        return self.log_state + correction, error, error <= TOLERANCE

    @property
    def marginals(self) -> MarginalTransform:
        """The maps of single columns; not a second name of the module, which tracing refuses."""
        chain = self.flow.preprocess
        assert isinstance(chain, Chain) and isinstance(chain.maps[0], MarginalTransform)
        return chain.maps[0]

    def _cells(self, values: Tensor) -> GaussianCells:
        half = self.steps / 2
        (y, log_slope), (low, _), (high, _) = (
            self.marginals.by_cell(x) for x in (values, values - half, values + half)
        )
        own = self.precision.diagonal()
        mean = y - (y - self.means) @ self.precision / own
        deviation = own.rsqrt().expand_as(y)
        low, high, center = ((part - mean) / deviation for part in (low, high, y))
        rows = NumberRows(values, torch.ones_like(values, dtype=torch.bool), None)
        on_grid, log_step = (half > 0).expand_as(y), log_widths(self.steps).expand_as(y)
        return GaussianCells(
            self.flow, rows, on_grid, low, high, center, log_slope, mean, deviation, log_step
        )


class Bend(Transform):
    """asinh(b z) / b by column, z itself where b is zero, as a step of `Whitening`.

    Args:
        bend: b (dim,).
    """

    bend: Tensor

    def __init__(self, bend: Tensor) -> None:
        super().__init__(len(bend))
        self.register_buffer("bend", bend)

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Bent coordinates (*batch, dim), and log |det| (*batch,)."""
        y, log_slope = bent(x, self.bend)
        return y, log_slope.sum(-1)

    def inverse(
        self, y: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Straight coordinates (*batch, dim)."""
        return straight(y, self.bend)

    def pushforward(
        self, v: Tensor, y: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """dx/dt (*batch, dim) for dy/dt = v at y."""
        return v * torch.cosh(self.bend * y)


def _of_one_pattern(flow: CNF, condition: Tensor) -> tuple[CNF, Affine]:
    """The flow of rows that all have one condition (1, width) and all columns, as a plain one, and
    the Gaussian that it starts from."""
    marginals, whitening = gaussianizing_maps(flow)
    features = condition[:, flow.dim :]
    ((whitener, _),) = whitening.whiteners(
        torch.ones(1, flow.dim, dtype=torch.bool), None, features
    )
    gaussian = Affine(whitening.mean(features)[0], torch.linalg.inv(whitener.matrix))
    field = flow.field
    assert isinstance(field, MaskedField), "the flow of a typed table has a masked field"
    found = CNF(
        flow.dim,
        field=_of_one_condition(field, flow.condition(condition)[0]),
        base=flow.base,
        preprocess=Chain(marginals, gaussian, Bend(whitening.bend)),
        solver=flow.solver,
    )
    found.error_model = flow.error_model
    return found.to(flow.dtype), gaussian


def _of_one_condition(field: MaskedField, condition: Tensor) -> GatedField:
    """The field of rows that all have one condition (width,) and all columns: what the condition
    does to the small network is a shift."""
    first, second = field.hidden
    made = GatedField(
        field.dim, (first, second), first=field.first, modulation=field.modulation
    ).to(condition.dtype)
    times = made.time.features
    weights = field.state_dict()
    whole = weights["inner.weight"]
    weights["inner.weight"] = whole[:, :times]
    weights["inner.bias"] = weights["inner.bias"] + whole[:, times:] @ condition
    made.load_state_dict(weights)
    return made
