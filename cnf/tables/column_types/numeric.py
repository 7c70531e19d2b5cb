"""Numeric columns: conversion of cells to numbers and states, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from cnf.rows import LARGEST
from cnf.tables.cells import numbers
from cnf.tables.column_types.heaping import compact, expand_compacted
from cnf.tables.columns import OUTSIDE, Column, ColumnType, Encoded, Role
from cnf.tables.formats import TableError, shown
from cnf.tables.storage import as_whole, stored

# Beyond this number of steps from zero, floating-point numbers cannot represent a grid.
MOST_STEPS = 2.0**53
# Largest deviation of a cell from the grid, in steps.
ROUNDING = 1e-6
# A value of a continuous column is an atom if it has this fraction and this number of the rows.
ATOM_SHARE, ATOM_ROWS = 0.03, 5
# With fewer rows than FEW_ROWS and more values than FEW_VALUES, its number of rows must also exceed the
# USUAL quantile of the values' numbers of rows by the factor FEW_ROWS_LEAD.
FEW_ROWS, FEW_VALUES, FEW_ROWS_LEAD, USUAL = 1_000, 20, 3.0, 0.9


class NumericType(ColumnType):
    """A type whose cells are numbers with a density, atoms or missing.

    The density is that of the number from `numbers`, per unit. A subclass defines a name, a usage
    and `declare`; if its cells are not stored as numbers, also `read` and `write`.

    Attributes:
        on_grid: whether the numbers are multiples of the column's `step`.
    """

    numeric = True
    on_grid: ClassVar[bool] = False

    def validate(self, column: Column) -> None:
        """Check that a column of numbers has no levels, and a step if it is on a grid."""
        super().validate(column)
        if self.on_grid != (column.step is not None):
            wanted = "a step" if self.on_grid else "no step"
            raise ValueError(f"expected {wanted} for a column that is {self.name}")

    def line(self, column: Column) -> tuple[str, float] | None:
        """The line of all numbers."""
        return None if self.circle(column) else ("", 0.0)

    def read(self, series: pd.Series) -> np.ndarray:
        """Cells as float64, NaN where missing."""
        return numbers(series, finite=False)

    def numbers(self, series: pd.Series, column: Column) -> np.ndarray:
        """The cells for `read` after text has been parsed; infinite for a cell in another format, and for
        text that is not a number."""
        cells = column.read(series)
        try:
            values = self.read(cells)
        except TableError:
            values = self.read(self._readable(cells))
        spoilt = np.isnan(values) & series.notna().to_numpy()
        return np.where(spoilt, np.inf, values)

    def _readable(self, cells: pd.Series) -> pd.Series:
        """The cells, with those missing that `read` rejects; equal cells are tried once."""
        numbers = cells.map(lambda cell: isinstance(cell, Real)).to_numpy(bool)
        texts = np.where(numbers, "", cells.map(str).to_numpy())
        _, first, group = np.unique(texts.astype(str), return_index=True, return_inverse=True)
        refused = np.array([self._refuses(cells.iloc[[row]]) for row in first])
        return cells.mask(refused[group.ravel()] & ~numbers)

    def _refuses(self, cell: pd.Series) -> bool:
        try:
            self.read(cell)
        except TableError:
            return True
        return False

    def between(self, series: pd.Series, column: Column) -> np.ndarray:
        """Mask of the cells (rows,) that are not multiples of the step."""
        if column.step is None:
            return super().between(series, column)
        steps = self.numbers(series, column) / column.step
        steps = np.where(np.isfinite(steps), steps, 0.0)
        return np.abs(steps - np.round(steps)) > ROUNDING

    def write(self, values: np.ndarray, column: Column) -> pd.Series:
        """Cells (rows,) from numbers, NaN where missing, in the storage and format of the
        table."""
        cells = pd.Series(values)
        if column.spelling is not None:
            cells = column.spelling.write(cells)
        elif column.step is not None and column.step % 1 == 0:
            cells = as_whole(cells)
        return stored(cells, column.dtype)

    def encode(self, series: pd.Series, column: Column) -> Encoded:
        """Numbers (rows,), zero for a cell without one, and states (rows,)."""
        values = self.numbers(series, column)
        missing = np.isnan(values)
        if column.step is not None:  # other values count as the nearest grid value
            values = np.round(values / column.step) * column.step
        states = np.zeros(len(values), dtype=np.int64)
        for i, atom in enumerate(column.atoms):
            states[values == atom] = i + 1
        states[missing] = column.missing_state
        states[(states == 0) & _outside(values, column)] = OUTSIDE
        held = (states == 0) | (states == OUTSIDE)
        return np.where(held, compact(values, column), 0.0), states

    def decode(self, values: np.ndarray | None, states: np.ndarray, column: Column) -> pd.Series:
        """The cells that `encode` would turn into these values and states."""
        assert values is not None, "a numeric column has numbers"
        missing = (states == column.missing_state) | (states == -1)
        exact = np.array([0.0, *column.atoms, 0.0])  # the last entry is for missing cells
        dense = _inside(values, column)
        if column.step is not None:
            dense = expand_compacted(np.round(dense / column.step), column) * column.step
        elif column.places is not None:
            dense = _on_grid(dense, column)
        cells = np.where(states == 0, dense, exact[states])
        if column.step is not None and column.step < 1:
            cells = np.round(cells, 10)  # 0.29 instead of 29 · 0.01, which differs from it
        return self.write(np.where(missing, np.nan, cells), column)


@dataclass(frozen=True)
class Numbers:
    """The cells of a numeric column, for a declaration.

    Attributes:
        name: name of the column.
        values: the numbers that are present (cells,).
        role: role of the column.
        missing: whether cells are missing.
    """

    name: str
    values: np.ndarray
    role: Role
    missing: bool

    @classmethod
    def of(cls, values: np.ndarray, name: str, role: Role) -> Numbers:
        """The cells with these values, NaN where missing.

        Raises:
            TableError: for a constant column.
        """
        present = ~np.isnan(values)
        if np.isinf(values).any():
            raise TableError(
                f"column {shown(name)}: expected finite numbers, found an infinity; correct the cell"
            )
        if np.ptp(values[present]) == 0:
            raise TableError(
                f"expected columns that vary, found constant {shown(name)}; ignore it"
            )
        return cls(name, values[present], role, bool(not present.all()))

    def column(self, kind: str, **parts: Any) -> Column:
        """A column with these cells."""
        return Column(self.name, kind, self.role, missing=self.missing, **parts)

    def require(self, fits: np.ndarray, wanted: str) -> None:
        """Raise an error for cells that do not match; it names the first one."""
        if not fits.all():
            raise TableError(
                f"column {shown(self.name)}: expected {wanted}, found {self.values[~fits][0]:.12g};"
                " give it another type"
            )


def parameter_numbers(name: str, parameters: Sequence[str]) -> list[float]:
    """The parameters of a declaration as numbers.

    Raises:
        TableError: for a parameter that is not a number.
    """
    found = []
    for text in parameters:
        try:
            found.append(float(text))
        except ValueError:
            raise TableError(
                f"type of {shown(name)}: expected a number, got {shown(text)}"
            ) from None
    return found


def is_atom(counts: np.ndarray, rows: int) -> np.ndarray:
    """Mask of the values that are frequent enough to be atoms."""
    return counts >= max(ATOM_SHARE * rows, ATOM_ROWS)


def atoms_among(counts: np.ndarray, rows: int) -> np.ndarray:
    """The atoms among the values of a continuous column, from their frequencies.

    With few rows and many values, rounded values repeat by chance, so that an atom must be prominent.

    >>> many, one = np.array([9] + [1, 2, 4] * 40), np.array([60] + [1] * 240)
    >>> atoms_among(many, 300).any().item(), atoms_among(one, 300).any().item()
    (False, True)
    """
    frequent = is_atom(counts, rows)
    if rows >= FEW_ROWS or len(counts) <= FEW_VALUES:
        return frequent
    return frequent & (counts >= FEW_ROWS_LEAD * np.quantile(counts, USUAL))


def _outside(values: np.ndarray, column: Column) -> np.ndarray:
    """Mask of the numbers that are infinite, or lie on a bound of the support or outside it."""
    infinite = np.isinf(values)
    below = np.zeros(len(values), bool) if column.lower is None else values <= column.lower
    above = np.zeros(len(values), bool) if column.upper is None else values >= column.upper
    return infinite | below | above


def _on_grid(values: np.ndarray, column: Column) -> np.ndarray:
    """Values rounded to the decimals of a continuous column, but kept inside its support."""
    assert column.places is not None
    grid = 10.0**-column.places
    rounded = np.round(values, column.places)
    if column.lower is not None:
        rounded = np.where(rounded <= column.lower, np.round(column.lower + grid, 12), rounded)
    if column.upper is not None:
        rounded = np.where(rounded >= column.upper, np.round(column.upper - grid, 12), rounded)
    return rounded


def _inside(values: np.ndarray, column: Column) -> np.ndarray:
    """Values moved inside the support if rounding put them on a bound, on a grid to its last steps, and
    limited so that rounding does not overflow."""
    values = np.clip(values.astype(np.float64), -LARGEST, LARGEST)
    margin = 0.0 if column.step is None else 0.5 * column.step
    if column.step is not None:
        values = np.clip(values, -MOST_STEPS * column.step, MOST_STEPS * column.step)
    lower, upper = column.support
    if lower is not None:
        values = np.maximum(values, np.nextafter(lower + margin, np.inf))
    if upper is not None:
        values = np.minimum(values, np.nextafter(upper - margin, -np.inf))
    return values
