"""The storage of the cells of a column in a table, and the same storage for drawn cells."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

# Values of `Column.dtype` in addition to the names of pandas dtypes.
CATEGORY, ORDERED = "category", "ordered"
DATE, CLOCK, DECIMAL = "date", "time", "decimal"
OBJECTS = {"date": DATE, "time": CLOCK, "decimal": DECIMAL}
# Decimal digits that distinguish all 32-bit numbers, and the largest power of ten that a 64-bit number
# represents exactly.
SINGLE_DIGITS, EXACT_POWER = 9, 22


def storage_of(series: pd.Series) -> str:
    """The storage of the cells of a series, as a `Column.dtype`.

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
    """The cells as numbers, booleans, times, durations or text, independent of their storage.

    Python's numbers, decimals, booleans, dates and times become pandas columns. A time of day becomes the
    duration since midnight, and a period its first moment.

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
    """A series of an Arrow type, converted to a numpy type or to objects."""
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
    """Plain cells in the storage of a table's column; if that is not possible, in a similar one.

    Args:
        cells: numbers, levels, times or durations; missing cells are None, NaN or NaT.
        dtype: a result of `storage_of`.
        categories: all categories of a categorical column, in order.

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
    """Python objects, with None in missing cells."""
    cells = np.full(len(missing), None, dtype=object)
    places = (~missing).to_numpy().nonzero()[0]
    for place, cell in zip(places, present):
        cells[place] = cell
    return pd.Series(cells, index=missing.index, dtype=object)


def _places(series: pd.Series) -> int:
    """The largest number of decimals."""
    exponents = [cell.as_tuple().exponent for cell in series.dropna()]
    return max([-exponent for exponent in exponents if isinstance(exponent, int)] + [0])


def _time_of_day(cell: pd.Timedelta, _: str) -> datetime.time:
    return (pd.Timestamp(0) + cell).time()


OBJECT_CELLS: dict[str, Any] = {
    DATE: lambda cell, _: cell.date(),
    CLOCK: _time_of_day,
    DECIMAL: lambda cell, places: Decimal(f"{cell:.{places}f}"),
}
# Types that cannot hold missing cells, and the corresponding types that can.
NULLABLE = {"bool": "boolean"} | {
    f"{sign}int{bits}": f"{sign.upper()}Int{bits}"
    for sign in ("", "u")
    for bits in (8, 16, 32, 64)
}


def as_text(cells: pd.Series) -> pd.Series:
    """Cells as text, with missing cells as in a pandas text column; before pandas 3, which has a text type,
    str(None) would be a word."""
    text = cells.astype("str")
    if text.isna().sum() == cells.isna().sum():
        return text
    return text.astype(object).where(cells.notna(), None)


def as_whole(cells: pd.Series) -> pd.Series:
    """Whole numbers as integers, if 64 bits suffice."""
    with suppress(TypeError, ValueError, OverflowError):
        return cells.astype("Int64" if cells.hasnans else "int64")
    return cells


def as_cells(cells: np.ndarray) -> pd.Series:
    """Levels as a series of their type; a missing level stays missing."""
    return pd.Series(cells, dtype=object).infer_objects()


def as_float64(values: np.ndarray) -> np.ndarray:
    """Numbers in double precision; numbers of fewer bits are converted by their shortest decimals.

    0.1 in float32 becomes 0.1, not 0.10000000149, so that equal decimals are equal numbers in any
    storage.

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
            # An integer times or divided by an exact power of ten is rounded only once.
            whole = np.round(wide * 10.0**power)
            short = np.where(power < 0, whole * 10.0**-power, whole / 10.0**power)
            fits = left & (short.astype(values.dtype) == values) & (np.abs(power) <= EXACT_POWER)
            found[fits] = short[fits]
            left &= ~fits
    return found
