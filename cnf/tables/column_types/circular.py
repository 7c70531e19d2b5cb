"""Periodic columns: angles, and longitude with latitude."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cnf.inputs import brief
from cnf.tables.column_types.numeric import Numbers, NumericType, is_atom, parameter_numbers
from cnf.tables.columns import OUTSIDE, Circle, Column, Encoded, Role, register_column_type
from cnf.tables.formats import TableError, shown

# Column names that identify the latitude and the longitude.
LATITUDE = re.compile(r"^(lat|dec)|latitude|declination", re.IGNORECASE)
LONGITUDE = re.compile(r"^(lon|lng|ra$)|longitude|right.?ascension", re.IGNORECASE)
# Names of columns that may be angles, with the period of their values.
USUAL = (
    (re.compile(r"^(hour|hr)s?$|hour.?of.?day", re.IGNORECASE), 24.0),
    (re.compile(r"^(month|mo)$", re.IGNORECASE), 12.0),
    (re.compile(r"wind.?dir|direction|bearing|heading|azimuth|aspect|^(wd|lon|ra)$", re.I), 360.0),
)


@register_column_type
class Angle(NumericType):
    """Numbers on a circle; integers have probabilities, and their grid is periodic.

    Cells are reduced to [start, start + period). The start is 0, minus half a period if cells are
    negative, or the first step if integers run up to the period, as months do.
    """

    name, usage = "angle", ("angle:PERIOD",)

    def declare(self, series: pd.Series, parameters: Sequence[str], role: Role) -> Column:
        """A column of these cells; the parameter is the period, such as 360, 24 or 2pi."""
        name = str(series.name)
        if len(parameters) != 1:
            raise self.misused(name, parameters)
        period = _period(name, parameters[0])
        cells = Numbers.of(self.read(series), name, role)
        step = _step(cells.values, period)
        start = _start(cells.values, period, step)
        beyond = int(((cells.values < start) | (cells.values > start + period)).sum())
        atoms: tuple[float, ...] = ()
        if step is None:
            distinct, counts = np.unique(_wrapped(cells.values, start, period), return_counts=True)
            atoms = tuple(distinct[is_atom(counts, len(cells.values))].tolist())
        circle = (period, start, float(beyond))
        return cells.column(self.name, parameters=circle, step=step, atoms=atoms)

    def validate(self, column: Column) -> None:
        """Check that an angle has a positive period, a start and a count, and no bounds."""
        known = column.parameters
        if len(known) != 3 or not all(type(number) in (int, float) for number in known):
            raise ValueError("expected a period, a start and the count of wrapped cells")
        if not (float(known[0]) > 0 and all(math.isfinite(float(number)) for number in known)):
            raise ValueError(f"expected a period above zero; got {known[0]}")
        if column.lower is not None or column.upper is not None or column.levels:
            raise ValueError("expected no bounds and no levels of an angle")

    def circle(self, column: Column) -> Circle:
        """Period and start."""
        period, start, _ = column.parameters
        return Circle(float(period), float(start))

    def numbers(self, series: pd.Series, column: Column) -> np.ndarray:
        """Cells in [start, start + period), NaN where missing."""
        values, circle = super().numbers(series, column), self.circle(column)
        with np.errstate(invalid="ignore"):
            wrapped = _wrapped(values, circle.start, circle.period)
        return np.where(np.isinf(values), values, wrapped)

    def write(self, values: np.ndarray, column: Column) -> pd.Series:
        """Cells in [start, start + period); values that rounding moved to its end are wrapped."""
        circle = self.circle(column)
        return super().write(_wrapped(values, circle.start, circle.period), column)

    def details(self, column: Column) -> list[str]:
        """The period, the step, and the number of wrapped cells."""
        period, start, beyond = column.parameters
        step = [] if column.step is None else [f"multiples of {column.step:g}"]
        wrapped = [f"{beyond:g} cells wrapped"] if beyond else []
        return [f"period {period:g} from {start:g}", *step, *wrapped]


@register_column_type
class Sphere(NumericType):
    """Longitude or latitude, in degrees, of points on a sphere; the two columns name each other."""

    name, usage = "sphere", ("sphere (of two columns: lon,lat=sphere)",)

    def declare(self, series: pd.Series, parameters: Sequence[str], role: Role) -> Column:
        """The longitude or the latitude, as the parameters say, with the other column's name."""
        name = str(series.name)
        if len(parameters) < 2:
            raise TableError(
                f"type of {shown(name)}: a sphere is two columns, longitude and latitude in degrees:"
                " lon,lat=sphere"
            )
        cells = Numbers.of(self.read(series), name, role)
        which, other = parameters[0], ":".join(parameters[1:])
        start = 0.0 if cells.values.min() >= 0 and cells.values.max() > 180 else -180.0
        if which == "latitude":
            bad = np.abs(cells.values) > 90
            cells.require(~bad, "latitudes from -90 to 90 (is the other column the latitude?)")
        return cells.column(self.name, parameters=(which, other, start))

    def validate(self, column: Column) -> None:
        """Check that a column has a side, the other column, and the start of longitudes."""
        known = column.parameters
        sound = len(known) == 3 and known[0] in ("longitude", "latitude")
        if not sound or not isinstance(known[1], str) or type(known[2]) not in (int, float):
            raise ValueError("expected longitude or latitude, the other column and a start")
        super().validate(column)

    def partner(self, column: Column) -> str | None:
        """The name of the latitude of a longitude."""
        return str(column.parameters[1]) if column.parameters[0] == "longitude" else None

    def circle(self, column: Column) -> Circle | None:
        """Of a longitude."""
        start = float(column.parameters[2])
        return Circle(360.0, start) if column.parameters[0] == "longitude" else None

    def line(self, column: Column) -> None:
        """None, since coordinates on a sphere have no order."""

    def encode(self, series: pd.Series, column: Column) -> Encoded:
        """Numbers and states; latitudes beyond a pole are outside."""
        values, states = super().encode(series, column)
        assert values is not None, "a numeric column has numbers"
        beyond = (column.parameters[0] == "latitude") & (np.abs(values) > 90) & (states == 0)
        return values, np.where(beyond, OUTSIDE, states)

    def write(self, values: np.ndarray, column: Column) -> pd.Series:
        """Longitudes within the period of the table; drawn values may lie outside it."""
        circle = self.circle(column)
        if circle is not None:
            turn = _wrapped(values, circle.start, circle.period)
            inside = (values >= circle.start) & (values <= circle.start + circle.period)
            values = np.where(inside, values, turn)
        return super().write(values, column)

    def details(self, column: Column) -> list[str]:
        """The side and the other column."""
        side, other, _ = column.parameters
        return [f"{side} beside {shown(str(other))}, log p per unit area"]


def with_pairs(kinds: Mapping[Any, str]) -> dict[str, str]:
    """Declarations by single columns: {"lon,lat": "sphere"} names the other column for each.

    Names identify longitude and latitude if possible; otherwise, the longitude comes first.

    Raises:
        TableError: for a wrong number of columns, or anything other than a mapping.

    Example:
        >>> with_pairs({"dec,ra": "sphere"})
        {'ra': 'sphere:longitude:dec', 'dec': 'sphere:latitude:ra'}
    """
    if not isinstance(kinds, Mapping):
        raise TableError(f"kinds: expected a mapping of column to type; got {brief(kinds)}")
    found: dict[str, str] = {}
    for names, kind in kinds.items():
        if kind != Sphere.name:
            found[str(names)] = kind
            continue
        several = names if isinstance(names, tuple) else tuple(names.split(","))
        pair = [name.strip() for name in several]
        if len(pair) == 2 and pair[0] != pair[1]:
            swapped = LATITUDE.search(pair[0]) or LONGITUDE.search(pair[1])
            longitude, latitude = reversed(pair) if swapped else pair
            found[longitude] = f"{kind}:longitude:{latitude}"
            found[latitude] = f"{kind}:latitude:{longitude}"
        else:
            found |= dict.fromkeys(pair, kind)  # the type raises an error for it
    return found


def refuse_wrapped(columns: Sequence[Column]) -> None:
    """Raise an error for angles outside one period.

    Raises:
        TableError: with the name of the first such column.
    """
    for column in columns:
        if column.kind == Angle.name and (beyond := int(column.parameters[2])):
            circle = Angle().circle(column)
            raise TableError(
                f"column {shown(column.name)}: expected angles from {circle.start:g} to"
                f" {circle.start + circle.period:g}, found {beyond} beyond; correct the cells"
            )


def possible_angle(column: Column, values: np.ndarray) -> str | None:
    """The declaration suggested by the name and the values of a numeric column, or None.

    >>> possible_angle(Column("hour", "integer", step=1.0), np.arange(24.0))
    'angle:24'
    """
    if column.type.circle(column) is not None or not len(values):
        return None
    low, high = values.min(), values.max()
    for names, period in USUAL:
        if names.search(column.name) and high - low > 0.75 * period:
            inside = (low >= 0 and high <= period) or (abs(low) <= period / 2 >= high)
            return f"angle:{period:g}" if inside else None
    return None


def _period(name: str, text: str) -> float:
    """360, 24, 2pi or pi as a number."""
    word = text.strip().lower().replace("π", "pi").replace("*", "")
    if word.endswith("pi"):
        (factor,) = parameter_numbers(name, [word[:-2] or "1"])
        period = factor * math.pi
    else:
        (period,) = parameter_numbers(name, [word])
    if not (math.isfinite(period) and period > 0):
        raise TableError(f"type of {shown(name)}: expected a period above zero, got {text}")
    return period


def _step(values: np.ndarray, period: float) -> float | None:
    """The largest integer of which all values and the period are multiples; None if there is
    none."""
    if period != round(period) or (values != np.round(values)).any():
        return None
    step = math.gcd(int(period), *np.unique(values % period).astype(int).tolist())
    return float(step) if step < period else None


def _start(values: np.ndarray, period: float, step: float | None) -> float:
    """The first value of a period."""
    low, high = values.min(), values.max()
    if low < 0 and max(-low, high) <= period / 2:
        return -period / 2
    months = step is not None and low >= step and high == period
    return step if months and step is not None else 0.0


def _wrapped(values: np.ndarray, start: float, period: float) -> np.ndarray:
    turned = np.mod(values - start, period)
    return start + np.where(turned >= period, 0.0, turned)
