"""The density of a typed table: exact states, and one flow over its numbers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from cnf.flows.model_file import write_model
from cnf.flows.serialization import describe
from cnf.tables.density import TableDensity
from cnf.tables.formats import TableError
from cnf.tables.imputation import Imputer, Known
from cnf.tables.schema import Cells, Schema


class TableFlow(TableDensity):
    """The density of a table with typed columns, atoms and missing cells.

    A row is its states s (categories; which cells are atoms, missing or plain numbers) and the
    numbers x
    that are there:

        p(row | context) = p(s | context) · p(x | s, context)

    p(s) is an exact autoregressive product. p(x | s) is one `CNF` conditioned on s, over whichever
    cells hold
    a number: the velocity of the others is zero and their value never enters, so the density is
    normalized for every pattern. Before it, each column goes through its own increasing map
    (`MarginalTransform`) and all through a Gaussian (`Whitening`). An integer cell holds the
    density integrated over the cell, times
    the step: a probability.

    Args:
        schema: what the columns are.
        hidden: widths of the flow's field.
        frequency: scale of the frequencies that the field starts with.

    Example:
        >>> table = pd.DataFrame({"x": torch.randn(60).tolist(), "group": list("aab") * 20})
        >>> model = TableFlow(Schema.infer(table), hidden=(8, 8))
        >>> model.log_prob(table).shape, list(model.sample(5).columns)
        (torch.Size([60]), ['x', 'group'])
    """

    def __init__(
        self, schema: Schema, *, hidden: tuple[int, int] = (128, 128), frequency: float = 1.0
    ) -> None:
        super().__init__(schema, hidden=hidden, frequency=frequency)
        self.imputer: Imputer | None = None

    def with_imputer(self) -> TableFlow:
        """The model itself, with a fresh imputer in it, as `cnf.fit_table` fits it and `impute`
        needs it."""
        context, features = self.context_features.width, self.whitening.slopes.shape[1] - 1
        imputer = Imputer(self.sizes, len(self.numeric), context, features, self.hidden)
        self.imputer = imputer.to(self.device, self.dtype)
        return self

    @torch.no_grad()
    def sample(
        self,
        rows: int,
        given: pd.DataFrame | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> pd.DataFrame:
        """Rows drawn from the model, typed and named as the table's.

        Args:
            rows: how many.
            given: the context of each of them, one row for all or `rows` rows, for a model with
                context columns.
            generator: source of all randomness.

        Raises:
            TableError: for a context that is missing or not wanted, or has another number of rows.
        """
        context = self._context_of(given, rows)
        nothing = torch.zeros(rows, len(self.sizes), dtype=torch.long, device=context.device)
        states = self.discrete.sample(
            nothing, context.to(self.dtype), nothing.bool(), generator=generator
        )
        return self.schema.decode(
            Cells(self._numbers(states, context, generator), states), self.schema.modeled
        )

    def _context_of(self, given: pd.DataFrame | None, rows: int) -> Tensor:
        names = [column.name for column in self.schema.context]
        if given is not None and not names:
            raise TableError("given: expected none: the model has no context columns")
        if given is None:
            given = pd.DataFrame(index=range(rows))
        elif len(given) == 1:
            given = given.loc[given.index.repeat(rows)]
        if missing := [name for name in names if name not in given]:
            raise TableError(
                f"given: expected a value for the context column {missing[0]!r}; found none"
            )
        if len(given) != rows:
            raise TableError(f"given: expected 1 or {rows} rows of context; found {len(given)}")
        cells = self.schema.encode(given, self.schema.context)
        device = self.device
        return _known(self.context_features(cells.to(device)))

    def _numbers(
        self, states: Tensor, context: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Numbers (rows, numeric) drawn for the cells that hold one."""
        if self.flow is None or not len(states):
            return torch.zeros(len(states), len(self.numeric), dtype=torch.float64)
        present, features = self.present(states), self.features(states, context)
        conditions = torch.cat((present.to(features.dtype), features), 1)
        z = self.flow.sample((), conditions, generator=generator).double()
        y = self.whitening.unwhiten(z, torch.zeros_like(z), present, features)
        return self.marginals.inverse(y).where(present, 0.0)

    @torch.no_grad()
    def impute(
        self, table: pd.DataFrame, n: int = 1, *, generator: torch.Generator | None = None
    ) -> list[pd.DataFrame]:
        """The table n times, each with its missing cells drawn given the others of their row.

        By an `Imputer`, one conditional model for all patterns of known cells; what is drawn is a
        value, and never a missing cell. Columns of the table come back in the order of the schema.

        Args:
            table: rows with the columns of the schema; cells may be missing in any modeled column.
            n: how many completed tables.
            generator: source of all randomness.

        Raises:
            ValueError: if the model was fitted without an imputer.
            TableError: for a column that is not there, or a cell that its column cannot hold.
        """
        if self.imputer is None:
            raise ValueError("the model has no imputer: fit it with imputer=True")
        cells, context = self.encode(table)
        known, context = self.known(cells), _known(context)
        frames = [
            self.schema.decode(
                self._completed(cells, known, context, generator), self.schema.modeled
            )
            for _ in range(n)
        ]
        return [frame.set_index(table.index) for frame in frames]

    def known(self, cells: Cells, hidden: Tensor | None = None) -> Known:
        """What is known of some rows: cells neither missing nor in `hidden` (rows, columns)."""
        seen = (cells.states >= 0) & (cells.states != self._missing(cells.states.device))
        if hidden is not None:
            seen = seen & ~hidden
        states = cells.states.where(seen, -1)
        given = states[:, self.numeric] == 0
        return Known(
            states, seen, self.marginals.by_cell(cells.values)[0].where(given, 0.0), given
        )

    def _missing(self, device: torch.device) -> Tensor:
        """The state of a missing cell in each column; −1 where there is none."""
        columns = self.schema.modeled
        return torch.tensor([column.missing_state for column in columns], device=device)

    def _completed(
        self, cells: Cells, known: Known, context: Tensor, generator: torch.Generator | None
    ) -> Cells:
        barred = [
            state if state >= 0 else None for state in self._missing(known.y.device).tolist()
        ]
        states = self.imputer.draw_states(known, context, barred, generator)
        if self.flow is None:
            return Cells(cells.values, states)
        free = (states[:, self.numeric] == 0) & ~known.given
        features = self.features(states, context)
        conditions = self.imputer.conditions(free, features, known)
        z = self.imputer.flow.sample((), conditions, generator=generator).double()
        y = self.whitening.unwhiten(z, known.y, free, features, known.given)
        return Cells(self.marginals.inverse(y).where(free, cells.values), states)

    def save(self, path: str | Path) -> None:
        """Write schema, configuration, weights and metadata to one safetensors file,
        atomically."""
        configuration = {
            "class": "TableFlow",
            "schema": self.schema.as_json(),
            "hidden": self.hidden,
            "frequency": self.frequency,
            "flow": None if self.flow is None else describe(self.flow),
            "imputer": self.imputer is not None,
            "dtype": str(self.dtype).removeprefix("torch."),
            "metadata": self.metadata,
        }
        write_model(path, configuration, self.state_dict())


def _known(context: Tensor) -> Tensor:
    """The features of a context (rows, width), every one of them known."""
    if len(lost := (~context.isfinite().all(1)).nonzero()):
        raise TableError(
            f"context of row {lost[0].item()}: a cell is missing in a column that never had one; fill it in"
        )
    return context
