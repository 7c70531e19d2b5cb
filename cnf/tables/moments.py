"""Tables whose rows were observed at several times, which one column contains."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cnf.rows import FEWEST_ROWS
from cnf.tables.cells import place as place_of
from cnf.tables.column_types.time import Moment
from cnf.tables.columns import Column
from cnf.tables.formats import TableError, shown
from cnf.tables.inference import infer
from cnf.tables.recognition import recognized
from cnf.tables.schema import Schema


def with_moments(schema: Schema, series: pd.Series, place: int) -> Schema:
    """The schema of the other columns of a table, with the column of times at an index.

    Raises:
        TableError: for columns that are not continuous, cells that are not times, fewer than two
            times, or too few rows at one time.
    """
    fixed = next((c for c in schema.columns if c.type.modeled and not _moves(c)), None)
    if fixed is not None:
        raise TableError(
            f"time: a flow through time needs continuous columns; {fixed.name!r} is"
            f" {fixed.describe()}: leave it out, or declare it real"
        )
    if series.nunique() < 2:
        raise TableError(
            f"column {shown(str(series.name))}: expected rows at two times at least; found"
            f" {series.nunique()}"
        )
    column = moment_column(series)
    times, counts = np.unique(column.numbers(series), return_counts=True)
    if counts.min() < FEWEST_ROWS:
        when = column.type.show(times[counts.argmin()], column)
        raise TableError(
            f"column {shown(column.name)}: expected at least {FEWEST_ROWS} rows at every time; found"
            f" {counts.min()} at {when}: leave them out, or round the times"
        )
    columns = list(schema.columns)
    columns.insert(place, column)
    return Schema(tuple(columns))


def _moves(column: Column) -> bool:
    """Whether a column is continuous, so that rows can move along it."""
    return column.role == "modeled" and column.plain and column.type.circle(column) is None


def moment_column(series: pd.Series) -> Column:
    """The column of the times of rows: dates and moments, or numbers, from the first to the last.

    Raises:
        TableError: for missing cells, or cells of another type.
    """
    cells = recognized(series).cells
    if cells.isna().any():
        raise TableError(
            f"{place_of(series, int(cells.isna().argmax()))}: expected the time of the row, found a"
            " missing cell; fill it in, or leave the row out"
        )
    return infer(series, Moment.name, "context")


def ends_of(column: Column, series: pd.Series) -> tuple[float, float]:
    """The first and the last time, as numbers."""
    times = column.numbers(series)
    return float(times.min()), float(times.max())
