"""The methods of `TableFlow` besides its density."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cnf.fields import ThroughTime
from cnf.flows import CNF, Evaluation
from cnf.flows.source_base import SourceBase
from cnf.inputs import as_count, require_generator
from cnf.rows import Cells
from cnf.tables.columns import UNSEEN
from cnf.tables.context import complete
from cnf.tables.dataframes import Given, rows_of
from cnf.tables.explaining import Callback, Explanation, Reference, silent
from cnf.tables.formats import TableError, shown
from cnf.tables.imputation import Imputation
from cnf.tables.numeric_methods import NumericMethods
from cnf.tables.orders import broken_orders
from cnf.tables.questions import TableDensity, posterior, table_density
from cnf.tables.scoring import Unseen, reasons
from cnf.tables.told import ToldTable


class TableMethods(NumericMethods, ToldTable):
    """Methods for numeric columns alone, any columns given any others, unusual rows, missing
    cells, and transport to another table."""

    @property
    @abstractmethod
    def plain(self) -> bool:
        """Whether all columns are continuous and the flow takes the numbers of the context."""

    @property
    def time(self) -> str | None:
        """The column with the times of the rows, for a model of one flow through time."""
        moving = self.flow is not None and isinstance(self.flow.field, ThroughTime)
        return self.schema.context[0].name if moving else None

    @property
    @abstractmethod
    def imputation(self) -> Imputation:
        """The imputer with the parts of the model that it uses."""

    @abstractmethod
    def evaluate(self, table: pd.DataFrame, *, unseen: Unseen = "other") -> Evaluation:
        """Scores of the rows of a frame."""

    @property
    @abstractmethod
    def amortized(self) -> bool:
        """Whether a conditional network was fitted in addition to the joint density."""

    def with_columns(self, table: Any) -> pd.DataFrame:
        """Rows as a frame.

        Raises:
            TableError: for rows of some of the modeled columns and no other, which `marginal` can score.
        """
        table, schema = rows_of(table, "table"), self.schema
        held = [column.name for column in schema.modeled if column.name in table]
        context = [column.name for column in schema.context if column.name in table]
        lacking = [column.name for column in schema.modeled if column.name not in table]
        alone = len(held) + len(context) == len(table.columns)
        if held and lacking and alone and (self.plain or self.amortized):
            raise TableError(
                f"table: no column {shown(lacking[0])}; to score these columns alone, use"
                f" model.marginal({held})"
            )
        return table

    def reasons(self, table: pd.DataFrame, *, unseen: Unseen = "other") -> list[str]:
        """The reason why each row of a frame has no ordinary score, from its first invalid cell; "" for a
        row with a score.

        Raises:
            TableError: for an unknown column.
        """
        table = rows_of(table, "table")
        return reasons(self.schema, table, self.evaluate(table, unseen=unseen))

    def in_order(self, table: pd.DataFrame) -> np.ndarray:
        """Mask (rows,) of the rows of a frame that satisfy the orders between columns that hold in the
        training rows.

        Raises:
            TableError: for a frame that lacks a column of an order.
            ValueError: for a model without recorded orders, such as one of release 0.1.
        """
        table = rows_of(table, "table")
        if self.metadata.orders is None:
            raise ValueError("the model has no record of orders between columns; fit it again")
        broken = broken_orders(self.schema, self.metadata.orders, table)
        return ~np.logical_or.reduce(broken, axis=0)

    def marginal(self, columns: Sequence[str]) -> TableDensity:
        """p(columns), the other modeled columns integrated out.

        Its `log_prob`, `evaluate` and `sample` take and return frames of these columns. It is
        amortized if the model was fitted with `any_subset=True`; `.exact()` uses importance
        sampling from the joint density, and is the only mode for a plain table without the
        network.

        Raises:
            TableError: for an unknown column.
            ValueError: for a table with states whose model has no conditional network.
        """
        return table_density(self).marginal(columns)

    def conditional(self, given: Given) -> TableDensity:
        """p(the other columns | given); see `marginal`.

        Args:
            given: name -> a value, a list of levels, or a range (low, high) with None for no end;
                or a frame, which conditions row by row; its missing cells are unknown.

        Raises:
            TableError: for an unknown column, or a value that is invalid for it.
            ValueError: as in `marginal`.
        """
        return table_density(self).conditional(given)

    def posterior(
        self,
        table: pd.DataFrame,
        column: str,
        grid: Any,
        *,
        errors: Mapping[str, str] | None = None,
        draws: int = 64,
        seed: int = 0,
    ) -> np.ndarray:
        """p(column | the other columns of a row) on a grid (points,), for each row of a table (rows,
        points), normalized on the grid.

        Args:
            table: rows with some of the other columns.
            column: a numeric column.
            grid: values of the column.
            errors: columns of the table with the standard errors of others, by name: {"u": "u_err"}. The
                posterior is then averaged over draws of the values within their errors.
            draws: number of draws for each row.
            seed: seed of the draws.

        Raises:
            TableError: for an unknown column, or a value that is invalid for it.
            ValueError: as in `marginal`.
        """
        return posterior(self, rows_of(table, "table"), column, grid, errors or {}, draws, seed)

    def _sample_given(
        self, rows: int, given: Given, generator: torch.Generator | None
    ) -> pd.DataFrame:
        """Rows with some modeled columns given."""
        density = table_density(self).conditional(given)
        held = len(density.question.given)
        if held not in (1, rows):
            raise TableError(f"given: expected 1 or {rows} rows; found {held}")
        return density.draw(rows // held, generator=generator)

    def explain(
        self, table: pd.DataFrame, reference: pd.DataFrame, *, callback: Callback = silent
    ) -> Explanation:
        """Which column makes each row unusual, and how unusual the row is compared with reference
        rows.

        The surprise of a cell is −log p(cell | the other cells of its row). Conformal p-values
        need reference rows that the model was not fitted to.

        Args:
            table: the rows.
            reference: ordinary rows.
            callback: called with the finished fraction, such as `print`.

        Raises:
            ValueError: as in `marginal`.
        """
        known, rows = rows_of(reference, "reference"), rows_of(table, "table")
        found = Reference.of(self, known, callback=lambda done: callback(done / 2))
        return found.explain(self, rows, callback=lambda done: callback((1 + done) / 2))

    @torch.no_grad()
    def impute(
        self, table: pd.DataFrame, n: int = 1, *, generator: torch.Generator | None = None
    ) -> list[pd.DataFrame]:
        """n copies of the table, in each of which the missing cells are drawn given the observed cells of
        their row.

        One conditional model handles all patterns of observed cells: the `Imputer`, or for a plain
        table the network of `any_subset=True`; without it, draws of a plain table are exact. A
        drawn cell is always a value. A category that was not in training stays, and the other cells
        are drawn as if it were missing. Columns are in the order of the schema.

        Args:
            table: rows with the columns of the schema; cells may be missing in any modeled column.
            n: number of completed tables.
            generator: source of all randomness.

        Raises:
            ValueError: if the model of a typed table was fitted without an imputer.
            TableError: for an unknown column, or a number outside the support of its column.
        """
        require_generator(generator)
        n, table = as_count("n", n, 0), rows_of(table, "table")
        if self.plain:
            return table_density(self).completed(table, n, generator=generator)
        imputation = self.imputation
        unseen = self._unseen(table)
        known = table.mask(unseen.reindex(columns=table.columns, fill_value=False))
        self.schema.encode(known, self.schema.modeled)  # raises for numbers outside the support
        cells, context = self.encode(known)
        context = complete(context)
        drawn = (imputation.complete(cells, context, generator) for _ in range(n))
        frames = [self.schema.rows(cells).set_index(table.index) for cells in drawn]
        new = unseen.columns[unseen.any()]
        kept = {name: table[name].astype(object) for name in new}
        return [
            frame.assign(**{name: kept[name].where(unseen[name], frame[name]) for name in new})
            for frame in frames
        ]

    def _unseen(self, table: pd.DataFrame) -> pd.DataFrame:
        """Mask of the modeled cells with an unseen category (rows, columns)."""
        names = [column.name for column in self.schema.modeled]
        states = self.encode(table)[0].states.cpu().numpy()
        return pd.DataFrame(states == UNSEEN, index=table.index, columns=names)

    @torch.no_grad()
    def transport(self, table: pd.DataFrame, *, reverse: bool = False) -> pd.DataFrame:
        """The rows to which the model transports rows of its source, as a frame; with `reverse`, rows of
        its table are transported to the source.

        Raises:
            TableError: for an unknown column, or a cell that is not a number.
            ValueError: for a model that was not fitted with `source=`.
        """
        table = rows_of(table, "table")
        moved = self._moving.transport(self._numbers(table), reverse=reverse)
        states = torch.zeros_like(moved, dtype=torch.long)
        return self.schema.rows(Cells(moved, states)).set_index(table.index)

    def log_density_ratio(self, table: pd.DataFrame) -> tuple[Tensor, Tensor]:
        """log p₁ − log p₀ of the rows of a frame, between the table and its source, and an error bound,
        each (rows,), in nats.

        Raises:
            TableError: for an unknown column, or a cell that is not a number.
            ValueError: for a model that was not fitted with `source=`.
        """
        return self._moving.log_density_ratio(self._numbers(table))

    @property
    def _moving(self) -> CNF:
        """The flow of a model whose base is the density of a source."""
        if self.flow is None or self.time or not isinstance(self.flow.base, SourceBase):
            raise ValueError(
                "the model starts from no table: fit it with source=, or cnf fit --source"
            )
        return self.flow

    def _numbers(self, table: pd.DataFrame) -> Tensor:
        """The rows of a plain table (rows, columns), without missing cells."""
        return complete(self.encode(table)[0].values)
