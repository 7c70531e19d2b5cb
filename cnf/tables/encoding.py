"""Cells as numbers and symbols, and back: see `cnf.tables.columns.Column`."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cnf.tables.cells import levels, numbers, place
from cnf.tables.columns import MOST_STEPS, Column
from cnf.tables.formats import TableError, listed, shown
from cnf.tables.heaps import compact, expand_compacted


def encode(series: pd.Series, column: Column) -> tuple[np.ndarray | None, np.ndarray]:
    """Values (rows,), or None for categories, and symbols (rows,)."""
    if column.kind == "categorical":
        return None, _encode_levels(series, column)
    values = numbers(series)
    missing = np.isnan(values)
    if column.kind == "integer":
        values = (
            np.round(values / column.step) * column.step
        )  # what lies between counts as the nearest
    symbols = np.zeros(len(values), dtype=np.int64)
    for i, atom in enumerate(column.atoms):
        symbols[values == atom] = i + 1
    symbols[missing] = column.symbols - 1 if column.missing else -1
    _require_support(series, values, symbols == 0, column)
    return np.where(symbols == 0, compact(values, column), 0.0), symbols


def _encode_levels(series: pd.Series, column: Column) -> np.ndarray:
    places = {level: i for i, level in enumerate(column.levels)}
    places[None] = len(column.levels) if column.missing else -1
    cells = levels(series)
    spelled = (
        cells if isinstance(column.levels[0], str) else [_as_level(cell, column) for cell in cells]
    )
    symbols = [places.get(cell, -2) for cell in spelled]
    if -2 in symbols:
        row = symbols.index(-2)
        raise TableError(
            f"{place(series, row)}: unseen category {shown(str(cells[row]))}; expected one of "
            f"{listed([str(level) for level in column.levels])}"
        )
    return np.array(symbols, dtype=np.int64)


def _as_level(cell: object, column: Column) -> object:
    """Text that spells a level which is a number or a boolean, as that level."""
    if not isinstance(cell, str):
        return cell
    words = {str(level).lower(): level for level in column.levels if isinstance(level, bool)}
    if words or "_" in cell:  # Python reads 2014_01 as a number; in a table it is a label
        return words.get(cell.strip().lower(), cell)
    try:
        return float(cell)  # as a key, 1.0 is 1
    except ValueError:
        return cell


def _require_support(
    series: pd.Series, values: np.ndarray, dense: np.ndarray, column: Column
) -> None:
    below = dense & (values <= column.lower) if column.bounded_below else np.zeros_like(dense)
    above = dense & (values >= column.upper) if column.bounded_above else np.zeros_like(dense)
    outside = (below | above).nonzero()[0]
    if len(outside):
        raise TableError(
            f"{place(series, outside[0])}: {values[outside[0]]:g} is outside what the column holds "
            f"({column.describe()}); correct the cell"
        )


def decode(values: np.ndarray | None, symbols: np.ndarray, column: Column) -> pd.Series:
    """The cells that `encode` would turn into these values and symbols, with the dtype of the
    column."""
    missing = symbols == (column.symbols - 1 if column.missing else -1)
    missing |= symbols == -1
    if column.kind == "categorical":
        return _decode_levels(symbols, missing, column)
    exact = np.array([0.0, *column.atoms, 0.0])  # the last for missing cells
    dense = _in_range(values, column.closed)
    if column.kind == "integer":
        dense = expand_compacted(np.round(dense / column.step), column) * column.step
    numbers = np.where(symbols == 0, dense, exact[symbols])
    if column.kind == "integer" and column.step < 1:
        numbers = np.round(numbers, 10)  # 0.29 rather than 29 · 0.01, which is another number
    numbers = np.where(missing, np.nan, numbers)
    if column.dtype == "int64":
        return pd.Series(numbers).astype("Int64" if missing.any() else "int64")
    return pd.Series(numbers)


def _in_range(values: np.ndarray, column: Column) -> np.ndarray:
    """Values just inside the support where rounding put them on its end; integers on their last
    steps."""
    inside = 0.5 * column.step if column.kind == "integer" else 0.0
    if column.kind == "integer":
        values = np.clip(values, -MOST_STEPS * column.step, MOST_STEPS * column.step)
    if column.bounded_below:
        values = np.maximum(values, np.nextafter(column.lower + inside, np.inf))
    if column.bounded_above:
        values = np.minimum(values, np.nextafter(column.upper - inside, -np.inf))
    return values


def _decode_levels(symbols: np.ndarray, missing: np.ndarray, column: Column) -> pd.Series:
    cells = np.empty(len(symbols), dtype=object)
    table = np.empty(len(column.levels), dtype=object)
    table[:] = column.levels
    cells[~missing] = table[symbols[~missing]]
    series = pd.Series(cells, dtype=object)
    if column.dtype == "category":
        return series.astype(pd.CategoricalDtype(list(column.levels)))
    if missing.any() and column.dtype == "bool":
        return series.astype("boolean")
    if missing.any():
        return series.astype("str") if column.dtype == "str" else series
    return series.astype(column.dtype)
