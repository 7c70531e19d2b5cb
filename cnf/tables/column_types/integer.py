"""Columns on a grid: whole numbers, or multiples of a step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from cnf.tables.cells import dtype_of, is_numeric
from cnf.tables.column_types.heaping import heaped_values
from cnf.tables.column_types.numeric import (
    MOST_STEPS,
    Numbers,
    NumericType,
    is_atom,
    parameter_numbers,
)
from cnf.tables.columns import Column, Role, register_column_type
from cnf.tables.formats import TableError, shown

# A value at an end is an atom if it has so many times the rows of any other.
ATOM_LEAD = 3.0
# A column ends where its last value has this share of the rows, and so many rows.
END_SHARE, END_ROWS = 0.01, 5
# What a declared step may leave of a cell, in steps.
ROUNDING = 1e-6


@register_column_type
class Integer(NumericType):
    """Multiples of a step. A cell has a probability: the density integrated over the step."""

    name = "integer"
    usage = ("integer", "integer:STEP")
    on_grid = True

    def declare(self, series: pd.Series, parameters: Sequence[str], role: Role) -> Column:
        """A column of multiples of one, or of the step that the parameter names."""
        name = str(series.name)
        cells = Numbers.of(self.read(series), name, role)
        if len(parameters) > 1:
            raise TableError(f"type of {shown(name)}: expected one step, got {len(parameters)}")
        (step,) = parameter_numbers(name, parameters) or [1.0]
        if not (math.isfinite(step) and step > 0):
            raise TableError(f"type of {shown(name)}: expected a step above zero, got {step:g}")
        steps = cells.values / step
        fits = (np.abs(steps - np.round(steps)) < ROUNDING) & (np.abs(steps) <= MOST_STEPS)
        cells.require(fits, f"multiples of {step:g}, at most 2^53 of them")
        whole = step == 1 and not cells.missing
        return integer_column(cells, step, "int64" if whole else dtype_of_numbers(series))

    def details(self, column: Column) -> list[str]:
        """The step and the ends."""
        width = column.step or 1.0
        half = width / 2
        step = [] if width == 1 else [f"times {width:g}"]
        first = [] if column.lower is None else [f"from {column.lower + half:g}"]
        last = [] if column.upper is None else [f"to {column.upper - half:g}"]
        return [*step, *first, *last]


def dtype_of_numbers(series: pd.Series) -> str:
    """The type of sampled cells of a column that is taken as numbers."""
    return dtype_of(series) if is_numeric(series) else "float64"


def integer_column(cells: Numbers, step: float, dtype: str) -> Column:
    """A grid of multiples of a step. An end that holds far more rows than any other value, and
    heaped values, are atoms."""
    rows = len(cells.values)
    distinct, counts = np.unique(np.round(cells.values / step), return_counts=True)
    heavy_ends = [end for end in (0, -1) if _is_heavy_end(counts, end, rows)]
    lower = distinct[0] + 0.5 if 0 in heavy_ends else _end(distinct, counts, 0, rows)
    upper = distinct[-1] - 0.5 if -1 in heavy_ends else _end(distinct, counts, -1, rows)
    if lower is None and 0 <= distinct[0] < np.ptp(distinct) / 2:
        lower = -0.5  # counts are not negative
    atoms = np.zeros(len(distinct), dtype=bool)
    if cells.role == "modeled":
        rest = np.delete(np.arange(len(distinct)), heavy_ends)
        atoms[rest] = heaped_values(distinct[rest], counts[rest])
    atoms[heavy_ends] = True
    return cells.column(
        "integer",
        lower=None if lower is None else float(lower * step),
        upper=None if upper is None else float(upper * step),
        step=step,
        atoms=tuple((distinct[atoms] * step).tolist()),
        dtype=dtype,
    )


def _is_heavy_end(counts: np.ndarray, end: int, rows: int) -> bool:
    others = np.delete(counts, end)
    lead = len(others) > 2 and counts[end] >= ATOM_LEAD * others.max()
    return bool(lead and is_atom(counts[end], rows))


def _end(distinct: np.ndarray, counts: np.ndarray, end: int, rows: int) -> float | None:
    """Half a step outside the first or last value, where that is frequent enough to be the end."""
    if counts[end] < max(END_SHARE * rows, END_ROWS):
        return None
    return distinct[end] + (0.5 if end else -0.5)
