"""A column of a table: its type, its support, its atoms, and whether cells may be missing."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd

from cnf.plugins import Registry
from cnf.tables.formats import TableError, shown
from cnf.tables.recognition import is_text, without
from cnf.tables.spelling import Spelling

Role = Literal["modeled", "context"]
Level = str | int | float | bool
Support = tuple[float | None, float | None]
Encoded = tuple[np.ndarray | None, np.ndarray]
# States of invalid cells: missing in a column that had no missing cells, a number outside the support,
# and an unseen category.
NO_STATE, OUTSIDE, UNSEEN = -1, -2, -3
# Largest number of atoms and levels that a description names.
FEW_SHOWN = 6


@dataclass(frozen=True)
class Column:
    """One column and the possible values of its cells.

    A cell is in one of `n_states` discrete states. The state of a category is the index of its
    level. A numeric cell is an ordinary number (state 0), one of the atoms (1, 2, …) or, last,
    missing.

    Attributes:
        name: as in the table.
        kind: name of its `ColumnType`: real, positive, bounded, integer, categorical, ignored, or
            one of your own.
        role: "context" if the density is conditioned on the column.
        lower: end of the support, None for −∞; that of an integer is half a step below its smallest
            value.
        upper: other end, None for ∞.
        step: width of the cells of a column on a grid, None for a continuous column.
        levels: the categories of a column without numbers.
        atoms: values that have a probability of their own.
        missing: whether cells may be missing.
        dtype: how the table and its samples store the cells: the name of the dtype in pandas, or
            "category", "ordered", "date", "time", "decimal:2".
        parameters: further numbers or words that the type needs.
        places: decimals of the cells of a continuous column, and of sampled ones; None for any.
        categories: all categories of a categorical dtype, in order, if some are not levels.
        spelling: the text format of numbers or times.
        missing_words: cells that count as missing.
        reason: why the column is not modeled.

    Raises:
        ValueError: for inconsistent attributes.

    Example:
        >>> Column("age", "integer", lower=-0.5, step=1.0, dtype="int64").describe()
        'integer, from 0'
    """

    name: str
    kind: str
    role: Role = "modeled"
    lower: float | None = None
    upper: float | None = None
    step: float | None = None
    levels: tuple[Level, ...] = ()
    atoms: tuple[float, ...] = ()
    missing: bool = False
    dtype: str = "float64"
    parameters: tuple[Level, ...] = ()
    places: int | None = None
    categories: tuple[Level, ...] = ()
    spelling: Spelling | None = None
    missing_words: tuple[str, ...] = ()
    reason: str = ""

    def __post_init__(self) -> None:
        if self.role not in get_args(Role):
            raise ValueError(f"column {self.name!r}: unknown role {self.role!r}")
        numbers = [self.lower, self.upper, self.step, *self.atoms]
        if not all(number is None or math.isfinite(number) for number in numbers):
            raise ValueError(
                f"column {self.name!r}: expected finite bounds, step and atoms; got {numbers}"
            )
        if self.lower is not None and self.upper is not None and not self.lower < self.upper:
            raise ValueError(
                f"column {self.name!r}: expected lower < upper; got {self.lower}, {self.upper}"
            )
        if self.step is not None and not self.step > 0:
            raise ValueError(f"column {self.name!r}: expected a step above zero; got {self.step}")
        if len(set(self.levels)) < len(self.levels):
            raise ValueError(f"column {self.name!r}: expected distinct levels; got {self.levels}")
        try:
            self.type.validate(self)
        except ValueError as error:
            raise ValueError(f"column {self.name!r}: {error}") from error

    @property
    def type(self) -> ColumnType:
        """The type of its cells."""
        return TYPES[self.kind]

    @property
    def numeric(self) -> bool:
        """Whether its cells are numbers."""
        return self.type.numeric

    @property
    def heaped_values(self) -> tuple[float, ...]:
        """The atoms of a column on a grid that lie inside its support, increasing."""
        low = -math.inf if self.lower is None else self.lower
        high = math.inf if self.upper is None else self.upper
        on_grid = self.step is not None
        return tuple(sorted(atom for atom in self.atoms if on_grid and low < atom < high))

    @property
    def support(self) -> Support:
        """The ends of the support of its density, None for no end.

        The grid of a heaped column is compacted: its upper end decreases by one step for every
        heaped value.
        """
        if self.upper is None or self.step is None:
            return self.lower, self.upper
        return self.lower, self.upper - len(self.heaped_values) * self.step

    @property
    def n_states(self) -> int:
        """The number of discrete states of a cell."""
        return (len(self.levels) or 1 + len(self.atoms)) + self.missing

    @property
    def missing_state(self) -> int:
        """The state of a missing cell; `NO_STATE` if no cell may be missing."""
        return self.n_states - 1 if self.missing else NO_STATE

    @property
    def plain(self) -> bool:
        """Whether it is continuous without atoms or missing cells."""
        return self.numeric and self.step is None and self.n_states == 1

    def encode(self, series: pd.Series) -> Encoded:
        """Numbers (rows,), or None for a column without numbers, and states (rows,).

        A number outside the support has the state `OUTSIDE`, a category that is not a level has
        `UNSEEN`, and a missing cell of a column that had none in training has `NO_STATE`.

        Raises:
            TableError: for an invalid cell.
        """
        return self.type.encode(self._without_words(series), self)

    def decode(self, values: np.ndarray | None, states: np.ndarray) -> pd.Series:
        """The cells that `encode` maps to these values and states, with the dtype `dtype`."""
        return self.type.decode(values, states, self)

    def numbers(self, series: pd.Series) -> np.ndarray:
        """Cells as numbers (rows,), NaN where missing; a category is the index of its level."""
        return self.type.numbers(self._without_words(series), self)

    def read(self, series: pd.Series) -> pd.Series:
        """Cells as numbers or times, if they are stored as text."""
        return self.spelling.read(series) if self.spelling and is_text(series) else series

    def _without_words(self, series: pd.Series) -> pd.Series:
        return without(series, self.missing_words) if self.missing_words else series

    def describe(self) -> str:
        """The column in words."""
        parts = [self.kind, *self.type.details(self)]
        if self.spelling is not None and not self.spelling.bare:
            parts.append(self.spelling.describe())
        if self.atoms:
            parts.append(f"often exactly {self._atoms()}")
        if self.missing:
            parts.append(" or ".join(("with missing cells", *map(shown, self.missing_words))))
        return ", ".join(parts) + (" (context)" if self.role == "context" else "")

    def _atoms(self) -> str:
        few = [self.type.show(atom, self) for atom in self.atoms[:FEW_SHOWN]]
        more = len(self.atoms) - len(few)
        others = f"one of {more} other values" if more > 1 else "one other value"
        return f"{', '.join(few)} or {others}" if more else " or ".join(few)


class Circle(NamedTuple):
    """The circle on which the numbers of a periodic column lie.

    Attributes:
        period: the length of one turn.
        start: the first number of a turn.
    """

    period: float
    start: float


class ColumnType(ABC):
    """A column type: how cells are read, modeled, written and described.

    A type is one object without state; the properties of a column are in its `Column`. To add a
    type, derive from this class, or from `cnf.tables.NumericType` for cells that are numbers, and
    apply `register_column_type`. Import the file before the type is named or a model with such a
    column is loaded.

    Attributes:
        name: its name in `--type`, in `kinds` and in model files.
        usage: the forms of its declaration, with parameters: ("bounded:LOW:HIGH",).
        numeric: whether a cell holds a number with a density.
        modeled: whether its columns are part of a model.
        reads_text: whether csv cells reach `declare` and `encode` as text.
        ticks_as_cells: whether plots label its axes with cells, such as dates, not with numbers.
    """

    name: ClassVar[str]
    usage: ClassVar[tuple[str, ...]]
    numeric: ClassVar[bool] = False
    modeled: ClassVar[bool] = True
    reads_text: ClassVar[bool] = False
    ticks_as_cells: ClassVar[bool] = False

    @abstractmethod
    def declare(self, series: pd.Series, parameters: Sequence[str], role: Role) -> Column:
        """The column of this type for a series, as the user declared it.

        Args:
            series: its cells.
            parameters: the words after the name: ["0", "1"] of "bounded:0:1".
            role: "modeled" or "context".

        Raises:
            TableError: for cells or parameters that do not fit.
        """

    @abstractmethod
    def encode(self, series: pd.Series, column: Column) -> Encoded:
        """See `Column.encode`."""

    @abstractmethod
    def decode(self, values: np.ndarray | None, states: np.ndarray, column: Column) -> pd.Series:
        """See `Column.decode`."""

    def numbers(self, series: pd.Series, column: Column) -> np.ndarray:
        """See `Column.numbers`."""
        _, states = self.encode(series, column)
        return np.where((states < 0) | (states == column.missing_state), np.nan, states)

    def validate(self, column: Column) -> None:
        """Raise an error for a column whose properties do not match this type.

        Raises:
            ValueError: saying what was expected.
        """
        if self.numeric and column.levels:
            raise ValueError(f"expected no levels of a column that is {self.name}")
        if not self.numeric and column.step is not None:
            raise ValueError(f"expected no step of a column that is {self.name}")

    def between(self, series: pd.Series, column: Column) -> np.ndarray:
        """Which cells (rows,) lie between two values of the column and are rounded by `encode`."""
        return np.zeros(len(series), dtype=bool)

    def circle(self, column: Column) -> Circle | None:
        """The circle on which the numbers of the column lie; None for a line."""
        return None

    def line(self, column: Column) -> tuple[str, float] | None:
        """The line of the numbers of the column, and the position of their zero on it; numbers on
        the same line can be compared. None for states and angles."""
        return None

    def partner(self, column: Column) -> str | None:
        """The latitude of a column that is the longitude of a sphere; None for any other."""
        return None

    def details(self, column: Column) -> list[str]:
        """The text that a description adds to the name of the type."""
        return []

    def reads_cells(self, column: Column) -> bool:
        """Whether `encode` needs the cells of a file as they are stored, not as numbers."""
        return self.reads_text or column.spelling is not None or bool(column.missing_words)

    def repeated(self, column: Column, rows: int) -> pd.Series | None:
        """Cells of samples in a column that is not modeled; None if samples lack the column."""
        return None

    def show(self, value: float, column: Column) -> str:
        """A number of a column as text.

        >>> TYPES["integer"].show(20240131.0, Column("a", "integer", step=1.0))
        '20240131'
        """
        return f"{value:.12g}"

    def misused(self, name: str, parameters: Sequence[str]) -> TableError:
        """The error for a type that is not written as in `usage`."""
        return unknown_type(name, ":".join([self.name, *parameters]))


TYPES: Registry[ColumnType] = Registry("type of column")
"""The registered types, in the order in which help and messages name them."""


def register_column_type(cls: type[ColumnType]) -> type[ColumnType]:
    """Register a type by its name; a class decorator."""
    TYPES.add(cls())
    return cls


def type_usage() -> str:
    """All forms of the types, for help and messages.

    >>> type_usage()[:41]
    'real, positive, bounded:LOW:HIGH, integer'
    """
    *ways, last = [way for known in TYPES for way in known.usage]
    return f"{', '.join(ways)} or {last}"


def unknown_type(name: str, kind: str) -> TableError:
    """The error for a declaration that names no type."""
    return TableError(f"type of {shown(name)}: expected {type_usage()}, got {shown(kind)}")
