"""Columns without numbers: categories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from cnf.tables.cells import levels
from cnf.tables.columns import (
    FEW_SHOWN,
    UNSEEN,
    Column,
    ColumnType,
    Encoded,
    Level,
    Role,
    register_column_type,
)
from cnf.tables.formats import TableError, shown
from cnf.tables.storage import as_cells, storage_of, stored

# Largest number of categories that can be learned.
MOST_LEVELS = 1000


@register_column_type
class Categorical(ColumnType):
    """Text, booleans, or numbers that are labels."""

    name = "categorical"
    usage = ("categorical",)
    reads_text = True

    def declare(self, series: pd.Series, parameters: Sequence[str], role: Role) -> Column:
        """A column whose levels are the distinct cells."""
        if parameters:
            raise self.misused(str(series.name), parameters)
        return categorical_column(series, role)

    def validate(self, column: Column) -> None:
        """Check that a categorical column has levels."""
        super().validate(column)
        if not column.levels:
            raise ValueError("a categorical column needs distinct levels")

    def details(self, column: Column) -> list[str]:
        """The levels."""
        few = ", ".join(map(str, column.levels[:FEW_SHOWN]))
        more = ", …" if len(column.levels) > FEW_SHOWN else ""
        return [f"{len(column.levels)} levels: {few}{more}"]

    def encode(self, series: pd.Series, column: Column) -> Encoded:
        """No numbers, and the index of each cell among the levels (rows,)."""
        places: dict[Any, int] = {level: i for i, level in enumerate(column.levels)}
        places[None] = column.missing_state
        cells = levels(series)
        named = isinstance(column.levels[0], str)
        if named:
            # Another table may store these labels as numbers, for example if it has few rows; 2 precedes 02.
            for i, level in sorted(enumerate(column.levels), key=lambda each: len(str(each[1]))):
                places.setdefault(_as_level(level, column), i)
        spelled = cells if named else [_as_level(cell, column) for cell in cells]
        states = [places.get(cell, UNSEEN) for cell in spelled]
        return None, np.array(states, dtype=np.int64)

    def decode(self, values: np.ndarray | None, states: np.ndarray, column: Column) -> pd.Series:
        """The levels at these indices, with the dtype of the column."""
        missing = (states == column.missing_state) | (states == -1)
        cells = np.empty(len(states), dtype=object)
        table = np.empty(len(column.levels), dtype=object)
        table[:] = column.levels
        cells[~missing] = table[states[~missing]]
        return stored(as_cells(cells), column.dtype, column.categories or column.levels)


def categorical_column(series: pd.Series, role: Role) -> Column:
    """A column whose levels are the distinct cells of a series.

    Raises:
        TableError: for too many levels.
    """
    name, cells = str(series.name), levels(series)
    present = [cell for cell in cells if cell is not None]
    found: list[Level]
    categories: tuple[Level, ...] = ()
    if all(isinstance(cell, bool) for cell in present):
        found = [False, True]
    elif isinstance(series.dtype, pd.CategoricalDtype):
        seen, categories = set(present), tuple(series.cat.categories.tolist())
        found = [level for level in categories if level in seen]
    else:
        found = sorted(set(present), key=lambda level: (isinstance(level, str), level))
    if len(found) > MOST_LEVELS:
        raise TableError(
            f"column {shown(name)}: {len(found):,} categories in {len(cells):,} rows; at most"
            f" {MOST_LEVELS:,} can be learned; ignore the column, or group its levels"
        )
    missing = len(present) < len(cells)
    return Column(
        name, "categorical", role, levels=tuple(found), missing=missing,
        categories=() if categories == tuple(found) else categories, dtype=storage_of(series),
    )  # fmt: skip


def _as_level(cell: object, column: Column) -> object:
    """The number or boolean level that a text spells; otherwise the text."""
    if not isinstance(cell, str):
        return cell
    words = {str(level).lower(): level for level in column.levels if isinstance(level, bool)}
    if words or "_" in cell:  # Python reads 2014_01 as a number; in a table it is a label
        return words.get(cell.strip().lower(), cell)
    try:
        return float(cell)  # as a key, 1.0 equals 1
    except ValueError:
        return cell
