"""Columns of data frames as plain arrays: numbers with NaN, or levels with None."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cnf.rows import LARGEST
from cnf.tables.formats import TableError, shown
from cnf.tables.storage import as_float64, plain_cells


def place(series: pd.Series, row: int) -> str:
    """The position of a cell in a row (by position), for messages."""
    return f"{series.index.name or 'row'} {series.index[row]}, column {shown(str(series.name))}"


def is_numeric(series: pd.Series) -> bool:
    """Whether the cells are real numbers; booleans are not."""
    types = pd.api.types
    odd = types.is_bool_dtype(series) or types.is_complex_dtype(series)
    return types.is_numeric_dtype(series) and not odd


def numbers(series: pd.Series, *, finite: bool = True) -> np.ndarray:
    """Cells as float64, NaN where missing.

    Raises:
        TableError: for a cell that is not a number, or is infinite unless `finite` is false; names it.
    """
    series = plain_cells(series)
    if not is_numeric(series):
        series = _parsed(series)
    values = _doubles(series)
    infinite = np.isinf(values).nonzero()[0]
    if finite and len(infinite):
        raise TableError(
            f"{place(series, infinite[0])}: expected a finite number, found an infinity; correct the cell"
        )
    return values


def require_workable(series: pd.Series) -> None:
    """Raise an error for numbers that are too large for computations.

    Raises:
        TableError: naming the first of them.
    """
    series = plain_cells(series)
    if is_numeric(series):
        values = np.abs(numbers(series, finite=False))
        large = (np.isfinite(values) & (values > LARGEST)).nonzero()[0]
        if len(large):
            raise TableError(
                f"{place(series, large[0])}: expected numbers within ±{LARGEST:.0e}, found"
                f" {series.iloc[large[0]]:g}; correct the cell, or give the column another unit"
            )


def _parsed(series: pd.Series) -> pd.Series:
    """Numbers from booleans or text."""
    if pd.api.types.is_bool_dtype(series):
        return series.astype("Float64")
    parsed = pd.to_numeric(series.astype(object), errors="coerce")
    if pd.api.types.is_complex_dtype(parsed):
        parsed = pd.Series(np.nan, series.index)
    bad = (parsed.isna() & series.notna()).to_numpy().nonzero()[0]
    if len(bad):
        raise TableError(
            f"{place(series, bad[0])}: expected a number, found {shown(str(series.iloc[bad[0]]))}; "
            "correct the cell, or declare the column categorical"
        )
    # pandas before release 3 may be off in the last digit of text.
    exact = [
        float(cell) if isinstance(cell, str) else number for cell, number in zip(series, parsed)
    ]
    return pd.Series(exact, series.index, dtype=parsed.dtype)


def _doubles(series: pd.Series) -> np.ndarray:
    """Numbers as float64; 32-bit numbers are converted by their decimals."""
    if str(series.dtype).lower() in ("float16", "float32"):
        return as_float64(series.to_numpy(dtype=str(series.dtype).lower(), na_value=np.nan))
    return series.to_numpy(dtype=np.float64, na_value=np.nan)


def levels(series: pd.Series) -> np.ndarray:
    """Cells as str, bool, int or float objects, None where missing; whole numbers become int."""
    series = plain_cells(series)
    if is_numeric(series):
        values = numbers(series)
        return np.array(
            [None if np.isnan(v) else int(v) if v == int(v) else v for v in values.tolist()],
            object,
        )
    if pd.api.types.infer_dtype(series, skipna=True) == "string":
        texts = series.astype(object).to_numpy(copy=True)
        texts[series.isna().to_numpy()] = None
        return texts
    found = np.empty(len(series), object)
    for row, value in enumerate(series.astype(object)):
        found[row] = None if pd.api.types.is_scalar(value) and pd.isna(value) else value
        if not isinstance(found[row], str | bool | np.bool_ | int | float | type(None)):
            raise TableError(
                f"{place(series, row)}: expected text, a number or a boolean, found "
                f"{type(value).__name__}; convert or ignore the column"
            )
    return np.array([bool(v) if isinstance(v, np.bool_) else v for v in found], object)
