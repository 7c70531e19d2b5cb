"""Draws that satisfy a condition, by rejection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from cnf.tables.context import given_by_row
from cnf.tables.dataframes import Given
from cnf.tables.schema import Schema

# Largest number of draws per requested row, and the range of the number of simultaneous draws.
MOST_DRAWS, FEWEST_AT_ONCE, MOST_AT_ONCE = 1_000, 256, 65_536
# For each condition, by its name for the user, a function from a frame to booleans (rows,).
Conditions: TypeAlias = Mapping[str, Callable[[pd.DataFrame], Any]]


def accepted(
    draw: Callable[[int], pd.DataFrame],
    conditions: Conditions,
    rows: int,
) -> pd.DataFrame:
    """The first `rows` draws that satisfy every condition; `attrs["acceptance"]` is the fraction of draws
    that did.

    Args:
        draw: function that draws a number of rows.
        conditions: at least one condition; a missing answer counts as false.
        rows: number of rows.

    Raises:
        ValueError: if a thousand draws per requested row do not suffice.

    Example:
        >>> frame = pd.DataFrame({"x": [1, 2, 3, 4]})
        >>> where = {"where": lambda f: f["x"] > 2}
        >>> kept = accepted(lambda n: frame.loc[frame.index.repeat(n)], where, 5)
        >>> set(kept["x"]) <= {3, 4}, len(kept), kept.attrs["acceptance"]
        (True, 5, 0.5)
    """
    parts: list[pd.DataFrame] = []
    drawn = kept = 0
    while not parts or kept < rows:
        if parts and drawn >= MOST_DRAWS * rows:
            raise _too_few(conditions, rows, kept, drawn)
        rate = max(kept, 1) / max(drawn, 1)
        count = int((rows - kept) / rate) if drawn else rows
        frame = draw(min(max(count, FEWEST_AT_ONCE), MOST_AT_ONCE))
        parts.append(frame[_satisfied(frame, conditions)])
        drawn, kept = drawn + len(frame), kept + len(parts[-1])
    found = pd.concat(parts, ignore_index=True).iloc[:rows]
    found.attrs["acceptance"] = kept / drawn
    return found


def accepted_given(
    sample: Callable[[int, Given | None], pd.DataFrame],
    schema: Schema,
    given: Given | None,
    conditions: Conditions,
    rows: int,
) -> pd.DataFrame:
    """`accepted` draws, with conditions for all rows or for each row."""
    each = given_by_row(schema, given, rows)
    if each is None:
        return accepted(lambda n: sample(n, given), conditions, rows)
    return accepted_by_row(lambda p: sample(len(p), each.iloc[p]), conditions, rows)


def accepted_by_row(
    draw: Callable[[np.ndarray], pd.DataFrame], conditions: Conditions, rows: int
) -> pd.DataFrame:
    """`accepted` draws with different given values for each row.

    Args:
        draw: function that draws one row for each of these indices (n,).
        conditions: see `accepted`.
        rows: number of indices, at least one.
    """
    left, tries, drawn = np.arange(rows), 0, 0
    parts: list[pd.DataFrame] = []
    while len(left):
        if tries >= MOST_DRAWS:
            raise _too_few(conditions, rows, rows - len(left), drawn)
        several = max(1, FEWEST_AT_ONCE // len(left))
        places = np.repeat(left, several)
        frame = draw(places).set_axis(places)
        found = frame[_satisfied(frame, conditions)]
        parts.append(found[~found.index.duplicated()])
        left = np.setdiff1d(left, found.index)
        tries, drawn = tries + several, drawn + len(frame)
    whole = pd.concat(parts).sort_index().reset_index(drop=True)
    whole.attrs["acceptance"] = rows / drawn
    return whole


def _satisfied(frame: pd.DataFrame, conditions: Conditions) -> np.ndarray:
    """Mask of the rows that satisfy every condition (rows,)."""
    wanted = np.ones(len(frame), bool)
    for name, condition in conditions.items():
        answers = pd.Series(condition(frame)).eq(1).fillna(value=False)
        if len(answers) != len(frame):
            raise ValueError(
                f"{name}: expected a boolean for each of {len(frame)} rows; got {len(answers)}"
            )
        wanted &= answers.to_numpy(bool)
    return wanted


def _too_few(conditions: Conditions, rows: int, kept: int, drawn: int) -> ValueError:
    return ValueError(
        f"{' and '.join(conditions)}: expected {rows:,} rows; got {kept:,} in {drawn:,} draws:"
        " request fewer rows, drop the condition, or fit with a larger budget"
    )
