"""Columns outside the density: constants, and columns that are left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import numpy as np
import pandas as pd

from cnf.tables.cells import levels
from cnf.tables.columns import Column, ColumnType, Encoded, Role, register_column_type
from cnf.tables.formats import TableError, shown
from cnf.tables.storage import as_cells, storage_of, stored


class Unmodeled(ColumnType):
    """A type whose cells are not modeled."""

    modeled = False

    def encode(self, series: pd.Series, column: Column) -> Encoded:
        """Raise an error, since its cells are not modeled."""
        _refuse(column)

    def decode(self, values: np.ndarray | None, states: np.ndarray, column: Column) -> pd.Series:
        """Raise an error, since its cells are not modeled."""
        _refuse(column)


@register_column_type
class Ignored(Unmodeled):
    """A column that is left out, by the user or because nothing can be learned from it."""

    name = "ignored"
    usage = ("ignored",)

    def declare(self, series: pd.Series, parameters: Sequence[str], role: Role) -> Column:
        """A column of this name."""
        if parameters:
            raise self.misused(str(series.name), parameters)
        return Column(str(series.name), self.name, dtype=storage_of(series))

    def details(self, column: Column) -> list[str]:
        """Why it is left out."""
        return [column.reason] if column.reason else []


@register_column_type
class Constant(Unmodeled):
    """A column whose cells are all equal; samples contain the same value."""

    name = "constant"
    usage = ("constant",)

    def declare(self, series: pd.Series, parameters: Sequence[str], role: Role) -> Column:
        """A column of one level.

        Raises:
            TableError: for cells with several values.
        """
        name = str(series.name)
        if parameters:
            raise self.misused(name, parameters)
        if series.nunique(dropna=False) != 1:
            raise TableError(f"column {shown(name)}: expected one value; it has several")
        (level,) = levels(series.iloc[:1])
        return Column(name, self.name, levels=(level,), dtype=storage_of(series))

    def validate(self, column: Column) -> None:
        """Check that a constant column has exactly one value."""
        if len(column.levels) != 1:
            raise ValueError("a constant column needs its one value as level")

    def details(self, column: Column) -> list[str]:
        """The value."""
        return [str(column.levels[0])]

    def repeated(self, column: Column, rows: int) -> pd.Series | None:
        """The constant, repeated for a number of rows."""
        cells = np.full(rows, column.levels[0], dtype=object)
        return stored(as_cells(cells), column.dtype, column.levels)


def _refuse(column: Column) -> NoReturn:
    raise TableError(
        f"column {shown(column.name)} is {column.kind}; the model has no cells for it"
    )
