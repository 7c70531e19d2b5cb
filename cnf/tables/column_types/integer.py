"""Columns on a grid: integers, or multiples of a step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from cnf.tables.column_types.heaping import heaped_values
from cnf.tables.column_types.numeric import (
    MOST_STEPS,
    ROUNDING,
    Numbers,
    NumericType,
    is_atom,
    parameter_numbers,
)
from cnf.tables.columns import Column, Role, register_column_type
from cnf.tables.formats import TableError, shown

# An end value is an atom if it has this many times the rows of any other value.
ATOM_LEAD = 3.0
# A column has a bound at its last value if that has this fraction and this number of rows.
END_SHARE, END_ROWS = 0.01, 5


@register_column_type
class Integer(NumericType):
    """Multiples of a step. The probability of a cell is the integral of the density over the
    step."""

    name = "integer"
    usage = ("integer", "integer:STEP")
    on_grid = True

    def declare(self, series: pd.Series, parameters: Sequence[str], role: Role) -> Column:
        """A column of multiples of one, or of the step in the parameter."""
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
        return integer_column(cells, step)

    def details(self, column: Column) -> list[str]:
        """The step and the ends."""
        width = column.step or 1.0
        half = width / 2
        step = [] if width == 1 else [f"multiples of {width:.12g}"]
        first = [] if column.lower is None else [f"from {column.lower + half:.12g}"]
        last = [] if column.upper is None else [f"to {column.upper - half:.12g}"]
        return [*step, *first, *last]


def integer_column(cells: Numbers, step: float, *, ends: bool = True) -> Column:
    """A grid of multiples of a step. An end with far more rows than any other value, and heaped
    values, are atoms.

    Args:
        cells: cells of the column.
        step: distance of neighbors on the grid.
        ends: whether the first and last values may be bounds of the column; then, nonnegative numbers
            are counts, which cannot be negative.
    """
    rows = len(cells.values)
    distinct, repeats = np.unique(np.round(cells.values / step), return_counts=True)
    heavy_ends = [end for end in (0, -1) if ends and _is_heavy_end(repeats, end, rows)]
    lower, upper = _ends(distinct, repeats, heavy_ends) if ends else (None, None)
    atoms = np.zeros(len(distinct), dtype=bool)
    if cells.role == "modeled":
        rest = np.delete(np.arange(len(distinct)), heavy_ends)
        atoms[rest] = heaped_values(distinct[rest], repeats[rest])
    atoms[heavy_ends] = True
    return cells.column(
        "integer",
        lower=None if lower is None else float(lower * step),
        upper=None if upper is None else float(upper * step),
        step=step,
        atoms=tuple((distinct[atoms] * step).tolist()),
    )


def _is_heavy_end(counts: np.ndarray, end: int, rows: int) -> bool:
    others = np.delete(counts, end)
    lead = len(others) > 2 and counts[end] >= ATOM_LEAD * others.max()
    return bool(lead and is_atom(counts[end], rows))


def _ends(
    distinct: np.ndarray, counts: np.ndarray, heavy: Sequence[int]
) -> tuple[float | None, float | None]:
    """The ends of the density: half a step inside an end value that is an atom, and half a step outside a
    frequent one."""
    fewest = max(END_SHARE * counts.sum(), END_ROWS)
    lower = distinct[0] - 0.5 if counts[0] >= fewest else None
    upper = distinct[-1] + 0.5 if counts[-1] >= fewest else None
    if lower is None and 0 <= distinct[0] < np.ptp(distinct) / 2:
        lower = -0.5  # counts are not negative
    return (
        distinct[0] + 0.5 if 0 in heavy else lower,
        distinct[-1] - 0.5 if -1 in heavy else upper,
    )
