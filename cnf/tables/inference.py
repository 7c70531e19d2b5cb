"""The type of a column, inferred from its cells.

text, booleans                         categorical
few whole numbers, each frequent       categorical
other whole numbers                    integer
multiples of 0.1 … 0.0001, repeating   integer times that step; one cell in a thousand may lie
                                       beside, and counts as the nearest multiple
other numbers                          positive or bounded (0 to 1, 0 to 100) where the logarithm or
                                       the logit is clearly nearer to a Gaussian, else real

A value with 3 % of a continuous column is an atom. So is such an end of an integer column, and the
frequent values of one that is heaped (see `cnf.tables.column_types.heaping`).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from cnf.tables.cells import is_numeric, numbers
from cnf.tables.column_types.categorical import categorical_column
from cnf.tables.column_types.continuous import continuous_column
from cnf.tables.column_types.integer import dtype_of_numbers, integer_column
from cnf.tables.column_types.numeric import MOST_STEPS, Numbers, is_atom
from cnf.tables.columns import Column, Role, declared_type
from cnf.tables.formats import TableError, shown

# Whole numbers are categories where so few differ, each with this share and number of the rows.
FEW_VALUES, FREQUENT, FREQUENT_ROWS = 12, 0.02, 10
# The finest step that is looked for is 10 to this power.
DECIMALS = 4
# Real numbers repeat by chance. On a grid that matters, each value occurs five times or more.
REPEATED = 0.2
# Share of the cells that may lie beside the grid.
BESIDE = 1e-3


def infer(series: pd.Series, kind: str | None = None, role: Role = "modeled") -> Column:
    """The column that a series of a data frame is.

    Args:
        series: its cells.
        kind: its type if the user declares one, with parameters: "real", "bounded:0:1".
        role: "modeled" or "context".

    Raises:
        TableError: for cells that do not fit the type, or a column that cannot be modeled.

    Example:
        >>> infer(pd.Series(["a", "b", None], name="group")).describe()
        'categorical, 2 levels: a, b, with missing cells'
    """
    name = str(series.name)
    declared = declared_type(kind, name) if kind else None
    if (declared is None or declared[0].modeled) and series.isna().all():
        raise TableError(f"column {shown(name)}: every cell is missing; ignore the column")
    if declared is not None:
        return declared[0].declare(series, declared[1], role)
    if not is_numeric(series):
        return categorical_column(series, role)
    return _numeric_column(series, Numbers.of(numbers(series), name, role))


def _numeric_column(series: pd.Series, cells: Numbers) -> Column:
    distinct, counts = np.unique(cells.values, return_counts=True)
    rows, step = len(cells.values), decimal_step(distinct, counts)
    fewest = max(FREQUENT * rows, FREQUENT_ROWS)
    if step == 1 and len(distinct) <= FEW_VALUES and counts.min() >= fewest:
        return categorical_column(series, cells.role)
    if step is not None:
        return integer_column(cells, step, dtype_of_numbers(series))
    return continuous_column(cells, tuple(distinct[is_atom(counts, rows)].tolist()))


def decimal_step(distinct: np.ndarray, counts: np.ndarray) -> float | None:
    """1 or the power of ten that the values are multiples of.

    None for real numbers, and for numbers so large that neighboring multiples are one number.

    >>> once = np.array([50, 50])
    >>> decimal_step(np.array([0.25, 0.5]), once), decimal_step(np.array([0.1234567, 0.5]), once)
    (0.01, None)
    """
    rows = counts.sum()
    repeats = len(distinct) <= REPEATED * rows
    for decimals in range(DECIMALS + 1):
        scaled = distinct * 10.0**decimals
        largest = np.abs(scaled).max()
        if largest > MOST_STEPS:
            return None
        # What rounding leaves of zero counts as zero, but not where all numbers are as small.
        rounding = 8 * np.finfo(float).eps * np.maximum(np.abs(scaled), min(largest, 1.0))
        beside = np.abs(scaled - np.round(scaled)) > rounding
        if counts[beside].sum() <= (BESIDE * rows if repeats else 0):
            return 10.0**-decimals if decimals == 0 or repeats else None
    return None
