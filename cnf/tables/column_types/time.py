"""Dates, times of day, moments and durations, as integer multiples of their resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pandas as pd

from cnf.tables.cells import numbers, place
from cnf.tables.column_types.integer import integer_column
from cnf.tables.column_types.numeric import MOST_STEPS, Numbers, NumericType
from cnf.tables.columns import Column, Role, register_column_type
from cnf.tables.formats import TableError, shown
from cnf.tables.recognition import is_text, recognized
from cnf.tables.storage import plain_cells, stored

# Resolutions by their names in numpy, the coarsest first, with their words for users.
UNITS = {
    "Y": "years", "M": "months", "D": "days", "h": "hours", "m": "minutes", "s": "seconds",
    "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds",
}  # fmt: skip
CALENDAR = ("Y", "M", "D")
# Values in place of a time zone in the parameters of a column of durations, and of times of day, which
# lie between two midnights.
DURATION, CLOCK = "duration", "clock"
# Displayed decimals of a moment that is a number.
SHOWN_PLACES = 9
# Range of years of Python's dates, and of nanoseconds in 64 bits.
YEARS, YEARS_OF_NANOSECONDS = ("0001", "9999"), ("1678", "2262")


@register_column_type
class Time(NumericType):
    """Dates, times of day, moments and durations. A cell has a probability, the integral of the density
    over the resolution of the column, such as a day or a minute.

    The parameters of a column are its resolution, its origin in this unit, and its time zone, or
    "duration" or "clock".
    """

    name = "time"
    usage: ClassVar[tuple[str, ...]] = ("time", "time:clock")
    on_grid = True
    ticks_as_cells = True

    def declare(self, series: pd.Series, parameters: Sequence[str], role: Role) -> Column:
        """A column of times or durations in steps of the coarsest unit that represents them all."""
        if parameters not in ([], [CLOCK]):
            raise self.misused(str(series.name), parameters)
        cells = plain_cells(series)
        _require_times(cells, str(series.name))
        return _column(cells, role, clock=bool(parameters))

    def read(self, series: pd.Series) -> np.ndarray:
        """Cells as nanoseconds; `numbers` are in the unit of the column."""
        return _counted(plain_cells(series), "ns", 0)

    def numbers(self, series: pd.Series, column: Column) -> np.ndarray:
        """Cells in units of the resolution, NaN where missing."""
        unit, origin, _ = _parameters(column)
        return _counted(_times(series, column), unit, origin)

    def between(self, series: pd.Series, column: Column) -> np.ndarray:
        """Mask of the cells (rows,) that lie between two multiples of the resolution."""
        if column.step is None:
            return np.zeros(len(series), dtype=bool)
        times = _times(series, column).to_numpy()
        return ~np.isnat(times) & ~_whole(times, _parameters(column)[0])

    def write(self, values: np.ndarray, column: Column) -> pd.Series:
        """Times or durations from numbers, in the storage and format of the table."""
        unit, origin, zone = _parameters(column)
        missing = np.isnan(values)
        steps = np.where(missing, 0, np.round(values)).astype(np.int64) + origin
        if zone in (DURATION, CLOCK):
            cells = pd.Series(steps.astype(f"timedelta64[{unit}]"))
        else:
            cells = pd.Series(_within(steps.astype(f"datetime64[{unit}]"), column.dtype))
            if zone:
                counted = zone if unit in CALENDAR else "UTC"
                moments = cells.dt.tz_localize(
                    counted, ambiguous=True, nonexistent="shift_forward"
                )
                cells = moments.dt.tz_convert(zone)
        cells = cells.mask(missing)
        if column.spelling is not None:
            cells = column.spelling.write(cells)
        return stored(cells, column.dtype)

    def details(self, column: Column) -> list[str]:
        """The resolution, the time zone, the bounds and the spelling."""
        unit, _, zone = _parameters(column)
        what = {DURATION: "durations in ", CLOCK: "of day in "}.get(zone, "in ") + UNITS[unit]
        ends = [
            f"{word} {self.show(end + shift, column)}"
            for word, end, shift in (("from", column.lower, 0.5), ("to", column.upper, -0.5))
            if end is not None
        ]
        known = [zone] if zone not in ("", DURATION, CLOCK) else []
        return [what, *known, *ends]

    def line(self, column: Column) -> tuple[str, float] | None:
        """The line of its resolution and time zone."""
        unit, origin, zone = _parameters(column)
        return f"{unit} {zone}", float(origin)

    def reads_cells(self, column: Column) -> bool:
        """True, since no file stores times as numbers."""
        return True

    def show(self, value: float, column: Column) -> str:
        """A number of the column as a cell."""
        return str(self.write(np.array([value]), column).iloc[0]).removesuffix(" 00:00:00")


@register_column_type
class Moment(Time):
    """The observation time of a row: a date, a moment or a number between the first and the last time,
    inclusive. It has no density.

    The parameters of a column are those of times; a column of numbers has none.
    """

    name = "moment"
    usage = ("moment",)
    on_grid = False

    def declare(self, series: pd.Series, parameters: Sequence[str], role: Role) -> Column:
        """A column of times or numbers, bounded by the first and the last of them."""
        if parameters:
            raise self.misused(str(series.name), parameters)
        column = Column(str(series.name), self.name, role)
        if is_time(cells := plain_cells(series)):
            timed = _column(cells, role, clock=False)
            column = replace(timed, kind=self.name, step=None, atoms=(), missing=False)
        found = column.numbers(series)
        low, high = np.nextafter(found.min(), -np.inf), np.nextafter(found.max(), np.inf)
        return replace(column, lower=float(low), upper=float(high))

    def numbers(self, series: pd.Series, column: Column) -> np.ndarray:
        """Cells as numbers; infinite for an invalid cell."""
        if column.parameters:
            return super().numbers(series, column)
        return numbers(column.read(series), finite=False)

    def line(self, column: Column) -> tuple[str, float] | None:
        """The line of times, or of all numbers."""
        return super().line(column) if column.parameters else NumericType.line(self, column)

    def details(self, column: Column) -> list[str]:
        """The first and the last time."""
        return [
            f"from {self.show(column.lower or 0.0, column)}",
            f"to {self.show(column.upper or 0.0, column)}",
        ]

    def show(self, value: float, column: Column) -> str:
        """A number of the column as a cell."""
        if column.parameters:
            return super().show(value, column)
        return f"{round(value, SHOWN_PLACES) + 0.0:.12g}"  # + 0.0 avoids −0


def is_time(series: pd.Series) -> bool:
    """Whether cells are times or durations.

    >>> is_time(pd.Series(pd.to_datetime(["2020-01-01"]))), is_time(pd.Series([1]))
    (True, False)
    """
    types = pd.api.types
    return types.is_datetime64_any_dtype(series) or types.is_timedelta64_dtype(series)


def _require_times(cells: pd.Series, name: str) -> None:
    """Raise an error for cells that are not times; it names the first one."""
    if is_time(cells):
        return
    first = cells.notna().to_numpy().nonzero()[0][0]
    raise TableError(
        f"{place(cells.rename(name), first)}: expected a date, a time or a duration, found"
        f" {shown(str(cells.iloc[first]))}; correct the cell, or give the column another type"
    )


def _column(cells: pd.Series, role: Role, *, clock: bool) -> Column:
    name, duration = str(cells.name), pd.api.types.is_timedelta64_dtype(cells)
    zone = DURATION if duration else str(getattr(cells.dt, "tz", None) or "")
    unit = next(unit for unit in UNITS if _holds(_local(cells, unit, zone), unit))
    local, origin = _local(cells, unit, zone), 0
    if np.nanmax(np.abs(_counted(local, unit, 0))) >= MOST_STEPS:
        origin = int(local.min().to_numpy().astype(f"datetime64[{unit}]").astype(np.int64))
    numbers = Numbers.of(_counted(local, unit, origin), name, role)
    column = integer_column(numbers, 1.0, ends=duration and not clock)
    if clock:
        steps_a_day = int(_counted(pd.Series(pd.to_timedelta(["1D"])), unit, 0)[0])
        column = replace(column, lower=-0.5, upper=steps_a_day - 0.5)
    return replace(column, kind=Time.name, parameters=(unit, origin, CLOCK if clock else zone))


def _parameters(column: Column) -> tuple[str, int, str]:
    unit, origin, zone = column.parameters
    return str(unit), int(origin), str(zone)


def _times(series: pd.Series, column: Column) -> pd.Series:
    """Cells as times without a zone, or durations, NaT where missing."""
    cells = plain_cells(column.read(series))
    cells = recognized(cells).cells if is_text(cells) else cells
    if cells.isna().all():
        return pd.Series(np.full(len(cells), "NaT", dtype="datetime64[ns]"))
    _require_times(cells, column.name)
    unit, _, zone = _parameters(column)
    return _local(cells, unit, zone)


def _local(cells: pd.Series, unit: str, zone: str) -> pd.Series:
    """Times without a zone: days and longer units begin at midnight of the zone, hours are those of
    UTC."""
    if getattr(cells.dt, "tz", None) is not None:
        known = zone if zone not in ("", DURATION, CLOCK) and unit in CALENDAR else "UTC"
        return cells.dt.tz_convert(known).dt.tz_localize(None)
    return cells


def _holds(cells: pd.Series, unit: str) -> bool:
    """Whether times or durations are multiples of a unit."""
    values = cells.dropna().to_numpy()
    if values.dtype.kind == "m" and unit in CALENDAR[:2]:
        return False
    return unit == "ns" or bool(_whole(values, unit).all())


def _whole(values: np.ndarray, unit: str) -> np.ndarray:
    """Mask of the times or durations that are multiples of a unit."""
    found: np.ndarray = values.astype(f"{values.dtype.name.split('[')[0]}[{unit}]") == values
    return found


def _counted(cells: pd.Series, unit: str, origin: int) -> np.ndarray:
    """Times or durations in a unit, relative to an origin, as float64; NaN where missing."""
    values = cells.to_numpy()
    kind = "timedelta64" if values.dtype.kind == "m" else "datetime64"
    steps = values.astype(f"{kind}[{unit}]").astype(np.int64) - origin
    return np.where(np.isnat(values), np.nan, steps)


def _within(values: np.ndarray, dtype: str) -> np.ndarray:
    """Times clipped to the years that their storage can represent."""
    first, last = YEARS_OF_NANOSECONDS if "[ns" in dtype else YEARS
    held = np.clip(
        values, np.datetime64(first).astype(values.dtype), np.datetime64(last).astype(values.dtype)
    )
    return held.astype("datetime64[ns]" if "[ns" in dtype else "datetime64[us]")
