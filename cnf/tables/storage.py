"""How a table stores the cells of a column, and the same storage for cells that a model draws."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

# Words of a `Column.dtype` beside the names that pandas has for its own.
CATEGORY, ORDERED = "category", "ordered"
DATE, CLOCK, DECIMAL = "date", "time", "decimal"
OBJECTS = {"date": DATE, "time": CLOCK, "decimal": DECIMAL}
# Decimal digits that tell all numbers of 32 bits apart, and the largest power of ten that one of 64
# bits holds exactly.
SINGLE_DIGITS, EXACT_POWER = 9, 22


def storage_of(series: pd.Series) -> str:
    """How the cells of a series are stored, as a `Column.dtype`.

    >>> storage_of(pd.Series([1, 2])), storage_of(pd.Series([Decimal("1.50"), None]))
    ('int64', 'decimal:2')
    """
    if isinstance(series.dtype, pd.CategoricalDtype):
        return ORDERED if series.dtype.ordered else CATEGORY
    if series.dtype != object:
        return str(series.dtype)
    word = OBJECTS.get(pd.api.types.infer_dtype(series, skipna=True), "object")
    return f"{DECIMAL}:{_places(series)}" if word == DECIMAL else word


def plain_cells(series: pd.Series) -> pd.Series:
    """The cells as numbers, booleans, times, durations or text, however they are stored.

    Python's own numbers, decimals, booleans, dates and times become columns of those; a time of day
    is the duration since midnight, and a period its first moment.

    >>> plain_cells(pd.Series([Decimal("1.5"), None])).tolist()
    [1.5, nan]
    """
    if isinstance(series.dtype, pd.PeriodDtype):
        return series.dt.to_timestamp()
    if isinstance(series.dtype, pd.ArrowDtype):
        return plain_cells(_from_arrow(series))
    if series.dtype != object:
        return series
    found = pd.api.types.infer_dtype(series, skipna=True)
    convert = CONVERTED.get(found)
    return series if convert is None else convert(series)


def _from_arrow(series: pd.Series) -> pd.Series:
    """A series of an Arrow type as one of numpy's or of objects."""
    cells: pd.Series = pa.chunked_array(pa.array(series)).to_pandas()
    return cells.set_axis(series.index).rename(series.name)


def _since_midnight(series: pd.Series) -> pd.Series:
    """Times of day as durations."""
    return pd.to_timedelta(series.map(lambda cell: cell.isoformat(), na_action="ignore"))


def _numbers(series: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(series, errors="coerce")
    whole = pd.api.types.infer_dtype(series, skipna=True) == "integer"
    return numbers.astype("Int64") if whole and numbers.hasnans else numbers


CONVERTED = {
    **dict.fromkeys(("decimal", "integer", "floating", "mixed-integer-float"), _numbers),
    "boolean": lambda series: series.astype("boolean"),
    **dict.fromkeys(("date", "datetime", "datetime64"), pd.to_datetime),
    **dict.fromkeys(("timedelta", "timedelta64"), pd.to_timedelta),
    "time": _since_midnight,
}


def stored(cells: pd.Series, dtype: str, categories: Sequence[Any] = ()) -> pd.Series:
    """Plain cells stored as the column of a table; where they cannot be, as something near.

    Args:
        cells: numbers, levels, times or durations; what is missing is None, NaN or NaT.
        dtype: as `storage_of` names it.
        categories: all of a categorical column, in order.

    >>> stored(pd.Series([1.0, None]), "int64").dtype, stored(pd.Series([1.5]), "decimal:2")[0]
    (Int64Dtype(), Decimal('1.50'))
    """
    missing = cells.isna()
    if dtype in (CATEGORY, ORDERED):
        return cells.astype(pd.CategoricalDtype(list(categories), ordered=dtype == ORDERED))
    word, _, places = dtype.partition(":")
    if word in OBJECT_CELLS:
        return _objects([OBJECT_CELLS[word](cell, places) for cell in cells[~missing]], missing)
    if dtype == "object":
        return _objects(cells[~missing].tolist(), missing)
    if dtype == "str":
        return as_text(cells)
    if missing.any():
        dtype = NULLABLE.get(dtype, dtype)
    with suppress(TypeError, ValueError):
        return cells.astype(dtype)
    return cells


def _objects(present: list[Any], missing: pd.Series) -> pd.Series:
    """Python objects, None in the cells that are missing."""
    cells = np.full(len(missing), None, dtype=object)
    places = (~missing).to_numpy().nonzero()[0]
    for place, cell in zip(places, present):
        cells[place] = cell
    return pd.Series(cells, index=missing.index, dtype=object)


def _places(series: pd.Series) -> int:
    """The most digits behind the point of decimals."""
    exponents = [cell.as_tuple().exponent for cell in series.dropna()]
    return max([-exponent for exponent in exponents if isinstance(exponent, int)] + [0])


def _time_of_day(cell: pd.Timedelta, _: str) -> datetime.time:
    return (pd.Timestamp(0) + cell).time()


OBJECT_CELLS: dict[str, Any] = {
    DATE: lambda cell, _: cell.date(),
    CLOCK: _time_of_day,
    DECIMAL: lambda cell, places: Decimal(f"{cell:.{places}f}"),
}
# Types without a place for missing cells, and those that have one.
NULLABLE = {"bool": "boolean"} | {
    f"{sign}int{bits}": f"{sign.upper()}Int{bits}"
    for sign in ("", "u")
    for bits in (8, 16, 32, 64)
}


def as_text(cells: pd.Series) -> pd.Series:
    """Cells as text, a missing one as pandas has it in such a column; before pandas 3, which has
    a type of text, str(None) would be a word."""
    text = cells.astype("str")
    if text.isna().sum() == cells.isna().sum():
        return text
    return text.astype(object).where(cells.notna(), None)


def as_whole(cells: pd.Series) -> pd.Series:
    """Whole numbers as such, where 64 bits hold them."""
    with suppress(TypeError, ValueError, OverflowError):
        return cells.astype("Int64" if cells.hasnans else "int64")
    return cells


def as_cells(cells: np.ndarray) -> pd.Series:
    """Levels as a series of the type that they have; a missing one stays missing."""
    return pd.Series(cells, dtype=object).infer_objects()


def as_float64(values: np.ndarray) -> np.ndarray:
    """Numbers in double precision; of fewer bits, those with the shortest decimals.

    0.1 in float32 is 0.1, not 0.10000000149: the same decimals are the same numbers however they
    are stored.

    >>> as_float64(np.array([0.1, 2.5], dtype=np.float32)).tolist()
    [0.1, 2.5]
    """
    wide = np.asarray(values, dtype=np.float64)
    if values.dtype.kind != "f" or values.dtype.itemsize >= 8:
        return wide
    found, left = wide.copy(), np.isfinite(wide) & (wide != 0)
    with np.errstate(all="ignore"):
        exponents = np.where(left, np.floor(np.log10(np.abs(wide))), 0)
        for digits in range(1, SINGLE_DIGITS + 1):
            power = digits - 1 - exponents
            # A whole number times or over a power of ten that is exact: rounded once.
            whole = np.round(wide * 10.0**power)
            short = np.where(power < 0, whole * 10.0**-power, whole / 10.0**power)
            fits = left & (short.astype(values.dtype) == values) & (np.abs(power) <= EXACT_POWER)
            found[fits] = short[fits]
            left &= ~fits
    return found
