"""The methods of `TableFlow` for its numeric columns alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from cnf.flows import CNF
from cnf.flows.present_columns import flow_of_present
from cnf.rows import Cells, Rows
from cnf.tables.columns import Column
from cnf.tables.dataframes import Given
from cnf.tables.discrete import DiscreteModel
from cnf.tables.imputation import excluded_states
from cnf.tables.numeric_view import NumericView, chosen_states, in_words, most_numbers
from cnf.tables.schema import Schema


class NumericMethods(ABC):
    """The numeric columns as one flow, and the rows that hold them."""

    schema: Schema
    numeric_places: list[int]
    flow: CNF | None
    discrete: DiscreteModel | None

    @property
    @abstractmethod
    def numeric_columns(self) -> list[Column]:
        """The modeled columns with numbers."""

    @abstractmethod
    def encode(self, table: pd.DataFrame) -> tuple[Cells, Tensor]:
        """The modeled cells of a data frame, and its context."""

    @abstractmethod
    def present(self, states: Tensor) -> Tensor:
        """Which numeric cells hold an ordinary number."""

    @abstractmethod
    def conditions(self, states: Tensor, context: Tensor) -> Tensor | None:
        """The context of `flow` for states and context."""

    @abstractmethod
    def drawn_context(self, given: Given | None, rows: int) -> Tensor:
        """The context of rows to be drawn."""

    def numeric(
        self,
        given: Given | None = None,
        levels: Mapping[str, Any] | None = None,
        *,
        present: Tensor | None = None,
        seed: int = 0,
    ) -> NumericView:
        """The numeric columns given all others, as one flow with its context, for plots and reports.

        Categories in `levels` are fixed. The others, and the atoms or missing cells of columns that
        are not present, are drawn from the model given these, and `NumericView.given` records them.

        Args:
            given: the context, as a mapping or a frame of one row.
            levels: the chosen level of categorical columns, by name.
            present: which numeric columns hold an ordinary number (numeric,); None means all.
            seed: seed of the drawn states.

        Raises:
            TableError: for a context or a level that does not match the columns.
            ValueError: for a model without numeric columns.
        """
        if self.flow is None:
            raise ValueError("the model has no numeric columns; draw its marginals")
        columns, context = self.numeric_columns, self.drawn_context(given, 1)
        present = torch.ones(len(columns), dtype=torch.bool) if present is None else present.cpu()
        states, known = chosen_states(self.schema, levels or {}, present)
        states, known = states.to(context.device), known.to(context.device)
        if self.discrete is not None:
            extra = context.to(self.discrete.dtype)
            generator = torch.Generator(context.device).manual_seed(seed)
            excluded = excluded_states(self.schema.modeled)
            for place in compress(self.numeric_places, ~present):
                excluded[place] = 0  # an ordinary number
            states = self.discrete.sample(
                states, extra, known, generator=generator, excluded=excluded
            )
        conditions = self.conditions(states, context)
        words = in_words(self.schema.modeled, states[0].tolist(), known[0].tolist())
        names = [column.name for column in compress(columns, present)]
        row = None if conditions is None else conditions[0]
        return NumericView(flow_of_present(self.flow, conditions), names, row, words)

    def most_numbers(self, table: pd.DataFrame, wanted: Sequence[str] = ()) -> Tensor:
        """The mask of the numeric columns (numeric,) that many rows of a frame hold together: of all such
        sets, the one with the most numbers in all rows that hold exactly these.

        Args:
            table: the rows.
            wanted: names of numeric columns that it must contain if some row holds them together.

        Raises:
            TableError: as in `log_prob`.
        """
        cells, _ = self.encode(table)
        names = [column.name for column in self.numeric_columns]
        known = (cells.states >= 0).all(1)
        return most_numbers(
            self.present(cells.states[known]), [names.index(name) for name in wanted]
        )

    def numeric_rows(self, table: pd.DataFrame, present: Tensor | None = None) -> Rows:
        """The rows of a frame that hold an ordinary number exactly in the given numeric columns, in the units
        of the table, with the flow's context of each.

        Args:
            table: the rows.
            present: mask of the numeric columns (numeric,); None means all.

        Raises:
            TableError: as in `log_prob`.
        """
        cells, context = self.encode(table)
        known = (cells.states >= 0).all(1) & context.isfinite().all(1)
        found = self.present(cells.states)
        present = torch.ones_like(found[0]) if present is None else present.to(found.device)
        rows = (known & (found == present).all(1)).nonzero().squeeze(1)
        conditions = self.conditions(cells.states[rows], context[rows])
        return Rows(cells.values[rows][:, present], conditions)
