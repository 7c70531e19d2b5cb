"""The type of a column, inferred from its cells.

text, booleans                         categorical
few distinct integers, each frequent   categorical
other integers                         integer
multiples of 0.1 … 0.0001, repeating   integer times that step; one cell in a thousand may lie off the
                                       grid, and counts as the nearest multiple
other numbers                          positive or bounded (0 to 1, 0 to 100) if the logarithm or the
                                       logit is clearly closer to a Gaussian, otherwise real
dates, times, durations                time

Numbers and times may be stored as text (see `cnf.tables.recognition`). A value with 3 % of the cells of
a continuous column is an atom; with few rows, it must also be prominent. An end of an integer column
with as many cells is also an atom, and so are the frequent values of a heaped column (see
`cnf.tables.column_types.heaping`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import pandas as pd

from cnf.tables.cells import is_numeric, numbers
from cnf.tables.column_types.categorical import categorical_column
from cnf.tables.column_types.continuous import continuous_column
from cnf.tables.column_types.integer import integer_column
from cnf.tables.column_types.numeric import MOST_STEPS, Numbers, atoms_among
from cnf.tables.column_types.time import CLOCK, Time, is_time
from cnf.tables.columns import Column, Role
from cnf.tables.declarations import declared_type
from cnf.tables.formats import TableError, shown
from cnf.tables.recognition import Recognized, recognized, without
from cnf.tables.spelling import MOST_PLACES
from cnf.tables.storage import storage_of

# Integers are categories if at most this many differ, each with this fraction and number of rows.
FEW_VALUES, FREQUENT, FREQUENT_ROWS = 12, 0.02, 10
# Fewest values besides the atoms in a continuous column.
FEWEST_CONTINUOUS = 2
# The finest step that is tested is 10 to minus this power.
DECIMALS = 4
# Real numbers repeat by chance. On a relevant grid, each value occurs on average five times or more.
REPEATED = 0.2
# If another column is on the same grid, an average of two suffices.
REPEATED_ALIKE = 0.5
# Largest fraction of the cells that may lie off the grid.
BESIDE = 1e-3


def infer(
    series: pd.Series,
    kind: str | None = None,
    role: Role = "modeled",
    missing: Collection[str] | None = None,
) -> Column:
    """The column for a series of a data frame.

    Args:
        series: its cells.
        kind: its type if the user declares one, with parameters: "real", "bounded:0:1".
        role: "modeled" or "context".
        missing: words for missing cells; None recognizes them among numbers.

    Raises:
        TableError: for cells that do not match the type, or a column that cannot be modeled.

    Example:
        >>> infer(pd.Series(["a", "b", None], name="group")).describe()
        'categorical, 2 levels: a, b, with missing cells'
        >>> infer(pd.Series(["$1,000.5", "$20", "$3", "$44.25"], name="price")).describe()
        'positive, spelled $1,234.5'
    """
    name = str(series.name)
    declared = declared_type(kind, name) if kind else None
    if declared is not None and not declared[0].modeled:
        return declared[0].declare(series, declared[1], role)
    found = recognized(series, missing)
    if found.cells.isna().all():
        raise TableError(f"column {shown(name)}: every cell is missing; ignore the column")
    if declared is not None and declared[0].reads_text:
        words = tuple(missing or ())
        return replace(
            declared[0].declare(_as_text(series, missing).cells, declared[1], role),
            missing_words=words,
        )
    if declared is not None:
        return _as_stored(declared[0].declare(found.cells, declared[1], role), series, found)
    names = found.spelling and (_few(found.cells) or found.cells.nunique() == 1)
    found = _as_text(series, missing) if names else found
    return _as_stored(_fitting(found, role), series, found)


def _as_text(series: pd.Series, missing: Collection[str] | None) -> Recognized:
    """Cells as text, even if they look like numbers."""
    words = tuple(missing or ())
    return Recognized(without(series, words) if words else series, None, words)


def _fitting(found: Recognized, role: Role) -> Column:
    """The column with the type that fits the cells."""
    cells = found.cells
    if is_time(cells):
        return Time().declare(cells, [CLOCK] if found.of_day else [], role)
    if not is_numeric(cells):
        return categorical_column(cells, role)
    distinct, counts = _counted(cells)
    whole = decimal_step(distinct, counts) == 1
    if len(distinct) == 1 or (whole and _few(cells)) or _all_frequent(distinct, counts):
        return categorical_column(cells, role)
    return numeric_column(Numbers.of(numbers(cells), str(cells.name), role))


def _all_frequent(distinct: np.ndarray, counts: np.ndarray) -> bool:
    """Whether a continuous column would have no values besides its atoms."""
    frequent = atoms_among(counts, counts.sum())
    off_grid = decimal_step(distinct, counts) is None
    return bool(off_grid and frequent.any() and (~frequent).sum() < FEWEST_CONTINUOUS)


def _counted(cells: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """The distinct cells, and how often each occurs."""
    values = numbers(cells) if is_numeric(cells) else cells.to_numpy()
    return np.unique(values[~pd.isna(values)], return_counts=True)


def _few(cells: pd.Series) -> bool:
    """Whether the cells have so few distinct values, each of them frequent, that they are categories."""
    distinct, counts = _counted(cells)
    fewest = max(FREQUENT * counts.sum(), FREQUENT_ROWS)
    return len(distinct) <= FEW_VALUES and bool(counts.min() >= fewest)


def numeric_column(cells: Numbers) -> Column:
    """A column of integers, of numbers on a grid, or of continuous numbers."""
    distinct, counts = np.unique(cells.values, return_counts=True)
    step = decimal_step(distinct, counts)
    if step is not None:
        return integer_column(cells, step)
    return continuous_column(
        cells, tuple(distinct[atoms_among(counts, len(cells.values))].tolist())
    )


def _as_stored(column: Column, series: pd.Series, found: Recognized) -> Column:
    """The column, with the storage and the spelling of its cells, and the words for missing ones."""
    mixed = found.words and found.spelling is None and series.dtype == object
    dtype = storage_of(found.cells if mixed else series)
    if column.numeric and column.step is None and "int" in dtype.lower():
        dtype = "Float64" if dtype[0].isupper() else "float64"
    return replace(
        column, dtype=dtype, spelling=found.spelling, missing_words=found.words,
        places=_places(column, found),
    )  # fmt: skip


def _places(column: Column, found: Recognized) -> int | None:
    """The decimals of a continuous column; None if there are none or too many. Angles count as they are
    after wrapping: 7 has no decimals, 7 − 2π has many."""
    if not column.numeric or column.step is not None or not is_numeric(found.cells):
        return None
    return decimal_places(np.unique(column.numbers(found.cells.dropna())))


def same_grids(
    columns: tuple[Column, ...], table: pd.DataFrame, kinds: Collection[str]
) -> tuple[Column, ...]:
    """The columns, with those of equal numbers of decimals treated alike: if one is on that grid, so are
    the others whose values repeat.

    Args:
        columns: columns as inferred separately.
        table: table with the cells.
        kinds: names of the columns with a declared type.
    """
    steps = {column.step for column in columns if column.step is not None and column.step < 1}

    def alike(column: Column) -> Column:
        step = None if column.places is None else 10.0**-column.places
        if step not in steps or column.name in kinds or not _repeats(column, table):
            return column
        return infer(table[column.name], f"integer:{step:g}", column.role, column.missing_words)

    return tuple(map(alike, columns))


def _repeats(column: Column, table: pd.DataFrame) -> bool:
    """Whether the values of a continuous column occur several times on average."""
    cells = column.numbers(table[column.name])
    present = cells[~np.isnan(cells)]
    return len(np.unique(present)) <= REPEATED_ALIKE * len(present)


def decimal_places(distinct: np.ndarray) -> int | None:
    """The number of decimals of the values; None for whole numbers and for full precision.

    >>> decimal_places(np.array([0.25, 3.5])), decimal_places(np.array([1 / 3]))
    (2, None)
    """
    for places in range(MOST_PLACES + 1):
        if np.abs(distinct).max() * 10.0**places > MOST_STEPS:
            return None
        if not _beside(distinct, places).any():
            return places or None
    return None


def decimal_step(distinct: np.ndarray, counts: np.ndarray) -> float | None:
    """1, or the power of ten of which the values are multiples.

    None for real numbers, and for numbers so large that neighboring multiples are one number.

    >>> once = np.array([50, 50])
    >>> decimal_step(np.array([0.25, 0.5]), once), decimal_step(np.array([0.1234567, 0.5]), once)
    (0.01, None)
    """
    rows = counts.sum()
    repeats = len(distinct) <= REPEATED * rows
    for decimals in range(DECIMALS + 1):
        if np.abs(distinct).max() * 10.0**decimals > MOST_STEPS:
            return None
        beside = counts[_beside(distinct, decimals)].sum()
        if beside <= (BESIDE * rows if repeats else 0):
            return 10.0**-decimals if decimals == 0 or repeats else None
    return None


def _beside(values: np.ndarray, decimals: int) -> np.ndarray:
    """Mask of the values with more decimals than these."""
    scaled = values * 10.0**decimals
    # A rounding residue near zero counts as zero, unless all numbers are as small.
    rounding = 8 * np.finfo(float).eps * np.maximum(np.abs(scaled), min(np.abs(scaled).max(), 1.0))
    return np.abs(scaled - np.round(scaled)) > rounding
