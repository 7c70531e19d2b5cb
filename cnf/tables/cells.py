"""Columns of data frames as plain arrays: numbers with NaN, or levels with None."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cnf.rows import LARGEST
from cnf.tables.formats import TableError, shown


def place(series: pd.Series, row: int) -> str:
    """Where the cell in a row (by position) stands, for messages."""
    return f"{series.index.name or 'row'} {series.index[row]}, column {shown(str(series.name))}"


def is_numeric(series: pd.Series) -> bool:
    """Whether the cells are numbers; booleans are not."""
    return pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series)


def numbers(series: pd.Series, *, finite: bool = True) -> np.ndarray:
    """Cells as float64, NaN where missing.

    Raises:
        TableError: for a cell that is no number or, unless `finite` is false, infinite, naming it.
    """
    if not is_numeric(series):
        series = _parsed(series)
    values = series.to_numpy(dtype=np.float64, na_value=np.nan)
    infinite = np.isinf(values).nonzero()[0]
    if finite and len(infinite):
        raise TableError(
            f"{place(series, infinite[0])}: expected a finite number, found an infinity; correct the cell"
        )
    return values


def require_workable(series: pd.Series) -> None:
    """Refuse numbers so large that nothing can be computed from them.

    Raises:
        TableError: naming the first of them.
    """
    if is_numeric(series):
        large = (np.abs(numbers(series)) > LARGEST).nonzero()[0]
        if len(large):
            raise TableError(
                f"{place(series, large[0])}: expected numbers within ±{LARGEST:.0e}, found"
                f" {series.iloc[large[0]]:g}; correct the cell, or give the column another unit"
            )


def _parsed(series: pd.Series) -> pd.Series:
    """Numbers out of booleans or text."""
    if pd.api.types.is_bool_dtype(series):
        return series.astype("Float64")
    parsed = pd.to_numeric(series.astype(object), errors="coerce")
    bad = (parsed.isna() & series.notna()).to_numpy().nonzero()[0]
    if len(bad):
        raise TableError(
            f"{place(series, bad[0])}: expected a number, found {shown(str(series.iloc[bad[0]]))}; "
            "correct the cell, or declare the column categorical"
        )
    return parsed


def levels(series: pd.Series) -> np.ndarray:
    """Cells as str, bool, int or float objects, None where missing; whole numbers are ints."""
    if is_numeric(series):
        values = numbers(series)
        return np.array(
            [None if np.isnan(v) else int(v) if v == int(v) else v for v in values.tolist()],
            object,
        )
    found = np.empty(len(series), object)
    for row, value in enumerate(series.astype(object)):
        found[row] = None if pd.api.types.is_scalar(value) and pd.isna(value) else value
        if not isinstance(found[row], str | bool | np.bool_ | int | float | type(None)):
            raise TableError(
                f"{place(series, row)}: expected text, a number or a boolean, found "
                f"{type(value).__name__}; convert or ignore the column"
            )
    return np.array([bool(v) if isinstance(v, np.bool_) else v for v in found], object)


def as_text(cells: pd.Series) -> pd.Series:
    """Cells as text, a missing one as pandas has it in such a column; before pandas 3, which has
    a type of text, str(None) would be a word."""
    text = cells.astype("str")
    return (
        text
        if text.isna().sum() == cells.isna().sum()
        else text.astype(object).where(cells.notna(), None)
    )


def dtype_of(series: pd.Series) -> str:
    """How samples of the column are typed."""
    if isinstance(series.dtype, pd.CategoricalDtype):
        return "category"
    if pd.api.types.is_bool_dtype(series):
        return "bool"
    if not is_numeric(series):
        return "str"
    return "int64" if pd.api.types.is_integer_dtype(series) else "float64"
