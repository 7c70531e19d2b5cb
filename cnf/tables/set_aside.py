"""Columns that a model leaves out (constants, counters, identifiers, free text), and the reasons."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd

from cnf.tables.cells import is_numeric
from cnf.tables.column_types.categorical import MOST_LEVELS
from cnf.tables.column_types.time import is_time
from cnf.tables.columns import TYPES, Column, Role
from cnf.tables.formats import TableError, shown
from cnf.tables.recognition import is_text, recognized
from cnf.tables.storage import plain_cells, storage_of

# With fewer rows, a counter or all-different cells may occur by chance.
FEWEST_COUNTED = 10
# In a smaller table, whole numbers may all differ by chance; 100 draws out of 200 do once in 10¹³.
FEWEST_NUMBERED = 100
# The rows of a part of a table have at least this fraction of the numbers that counted all of them.
NUMBERED = 0.5
# Text is free if more than this fraction of its cells differ.
FREE = 0.5
# The square of a smaller spread underflows.
SMALLEST_SPREAD = 1e-150
# Names of integer columns that identify rows.
IDENTIFIER = re.compile(
    r"(?i:(?:.*[\s_.-])?(?:id|key|uuid|guid|index|rownames?|serial))|.*[a-z](?:Id|ID)|Unnamed: \d+"
)


def set_aside(series: pd.Series, role: Role) -> Column | None:
    """A column description if nothing can be learned from a series; None otherwise.

    Args:
        series: its cells.
        role: "context" for a column that the user conditions on; it may count or identify rows.

    >>> set_aside(pd.Series(["x"] * 20, name="a"), "modeled").describe()
    'constant, x'
    >>> set_aside(pd.Series([f"p{i}" for i in range(20)], name="a"), "modeled").describe()
    'ignored, an identifier: every cell is different'
    """
    constant = _constant(series)
    if constant is not None:
        return replace(constant, role=role)
    reason = _empty(series) or (_reason(series) if role == "modeled" else "")
    if not reason:
        return None
    return Column(str(series.name), "ignored", role, dtype=storage_of(series), reason=reason)


def refuse_set_aside(column: Column) -> None:
    """Raise the error for a column that would be set aside, if that is not allowed."""
    raise TableError(
        f"column {shown(column.name)}: {column.describe()}; leave the column out with --ignore,"
        " or declare its type"
    )


def _constant(series: pd.Series) -> Column | None:
    """The column of a series whose cells are all equal, if a schema can represent their value."""
    if series.isna().any() or not _comparable(series):
        return None
    if len(series) < 2 or not (series.iloc[1:] == series.iloc[0]).all():
        return None
    cells = plain_cells(series.iloc[:1])
    if not (is_numeric(cells) or is_text(cells) or pd.api.types.is_bool_dtype(cells)):
        return Column(str(series.name), "ignored", reason=f"every cell is {cells.iloc[0]}")
    return TYPES["constant"].declare(series, [], "modeled")


def _comparable(series: pd.Series) -> bool:
    """Whether cells are single values."""
    return bool(series.map(pd.api.types.is_scalar).all()) if series.dtype == object else True


def _empty(series: pd.Series) -> str:
    return "every cell is missing" if series.isna().all() else ""


def _reason(series: pd.Series) -> str:
    """The reason why a column cannot be learned, as text; "" if it can."""
    if odd := _unknown_type(series):
        return f"holds cells of the type {odd}"
    if is_row_counter(series):
        return "it is a row counter"
    if numbers_rows(series):
        return "it numbers the rows of a table that was shuffled or split"
    present = series[series.notna()]
    if is_numeric(series) and (odd := _odd_scale(present)):
        return odd
    different = present.nunique()
    if different == 1 and is_time(plain_cells(present)):
        return f"every cell that is not missing is {present.iloc[0]}"
    if _is_identifier(present, different):
        return "an identifier: every cell is different"
    if not (is_text(series) and recognized(series).spelling is None):
        return ""
    if different == len(present) >= FEWEST_COUNTED:
        return "an identifier: every cell is different"
    if different > max(FREE * len(present), 1) and len(present) >= FEWEST_COUNTED:
        return f"free text: {different:,} different cells in {len(present):,} rows"
    if different > MOST_LEVELS:
        return f"{different:,} categories, at most {MOST_LEVELS:,} can be learned"
    return ""


def _odd_scale(present: pd.Series) -> str:
    """The reason why numbers are too large, or too close to each other, for a density; "" if none."""
    spread = np.ptp(present.to_numpy(dtype=np.float64))
    if spread == 0 and present.nunique() > 1:
        return "whole numbers beyond 2^53, too large for a density"
    if 0 < spread < SMALLEST_SPREAD:
        return f"numbers that differ by less than {SMALLEST_SPREAD:g}; give it another unit"
    return ""


def _unknown_type(series: pd.Series) -> str:
    """The type of cells that are not numbers, times, booleans or text; "" if there are none."""
    if pd.api.types.is_complex_dtype(series):
        return "complex"
    cells = plain_cells(series)
    if cells.dtype != object:
        return ""
    known = (str, bool, np.bool_, int, float)
    odd = [cell for cell in cells[cells.notna()] if not isinstance(cell, known)]
    return type(odd[0]).__name__ if odd else ""


def _is_identifier(present: pd.Series, different: int) -> bool:
    """Whether the column holds distinct integers and has the name of an identifier."""
    numeric = is_numeric(present) and different == len(present) >= FEWEST_COUNTED
    if not (numeric and IDENTIFIER.fullmatch(str(present.name))):
        return False
    return bool((present % 1 == 0).all())


def is_row_counter(series: pd.Series) -> bool:
    """Whether a column counts the rows: integers that increase by one in every row.

    >>> is_row_counter(pd.Series(range(100))), is_row_counter(pd.Series(range(0, 200, 2)))
    (True, False)
    """
    if not is_numeric(series) or len(series) < FEWEST_COUNTED or series.isna().any():
        return False
    values = series.to_numpy(dtype=np.float64)
    return bool(values[0] in (0, 1) and np.array_equal(values, values[0] + np.arange(len(values))))


def numbers_rows(series: pd.Series) -> bool:
    """Whether a column counted the rows of a table before it was shuffled or split: many different
    whole numbers from 0 on, which fill most of their range.

    >>> numbers_rows(pd.Series(range(200))[::-1]), numbers_rows(pd.Series(range(0, 2000, 10)))
    (True, False)
    """
    if not is_numeric(series) or len(series) < FEWEST_NUMBERED or series.isna().any():
        return False
    values = series.to_numpy(dtype=np.float64)
    whole = values.min() >= 0 and len(values) > NUMBERED * values.max() and (values % 1 == 0).all()
    return bool(whole and len(np.unique(values)) == len(values))
