"""Columns that follow exactly from others."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from cnf.tables.cells import levels
from cnf.tables.columns import Column
from cnf.tables.formats import listed, shown

MOST_ROWS = 20_000
# If the smallest eigenvalue of a correlation matrix is below this limit, its columns are linearly
# dependent.
DEPENDENT = 1e-9
SHARES = 1e-3  # smallest entry of a dependent column, relative to the null vector's largest entry


def dependent_columns(
    columns: Sequence[Column], table: pd.DataFrame
) -> tuple[list[str], str] | None:
    """The names of columns that depend on each other exactly, with an explanation; None if there
    are none."""
    return (
        _equal_categories(columns, table) or _linear(columns, table) or _one_order(columns, table)
    )


def _linear(columns: Sequence[Column], table: pd.DataFrame) -> tuple[list[str], str] | None:
    """Equal columns, or columns of which one is a linear combination of the others and the context."""
    rows = _moving_numbers(columns, table)
    role = {column.name: column.role for column in columns}
    names = [name for name in rows if role[name] == "modeled"]
    given = [name for name in rows if role[name] == "context"]
    if not names or len(names) + len(given) < 2:
        return None
    values, context = _standardized(rows[names]), _standardized(rows[given])
    values -= context @ (np.linalg.pinv(context) @ values)  # what the context determines
    eigenvalues, vectors = np.linalg.eigh(values.T @ values / len(values))
    if eigenvalues[0] > DEPENDENT:
        return None
    for a, b in itertools.combinations(names, 2):
        if (rows[a] == rows[b]).all():
            return [a, b], f"columns {shown(a)} and {shown(b)} are equal"
    share = np.abs(vectors[:, 0]) / np.abs(vectors[:, 0]).max()
    found = [name for name, part in zip(names, share) if part > SHARES]
    how = (
        f"follow from the context {listed(given)} and from each other"
        if given
        else "are dependent, one is a linear combination of the others"
    )
    return found, f"columns {listed(found)} {how}"


def _moving_numbers(columns: Sequence[Column], table: pd.DataFrame) -> pd.DataFrame:
    """The numeric columns that vary, at some of the rows that are complete; none if there are too few
    such rows to tell."""
    numeric = [column for column in columns if column.numeric]
    cells = {column.name: column.numbers(table[column.name]) for column in numeric}
    rows = pd.DataFrame(cells).replace([np.inf, -np.inf], np.nan).dropna()
    if len(rows) <= len(numeric) + 1:
        return pd.DataFrame()
    rows = rows.iloc[np.linspace(0, len(rows) - 1, min(MOST_ROWS, len(rows))).astype(int)]
    return rows.loc[:, [np.ptp(rows[name]) > 0 for name in rows]]


def _standardized(rows: pd.DataFrame) -> np.ndarray:
    """Columns (rows, columns) of mean zero and variance one."""
    values = rows.to_numpy()
    values = values / np.abs(values).max(0, initial=0)  # otherwise the square of 1e-170 underflows
    return (values - values.mean(0)) / values.std(0)


def _equal_categories(
    columns: Sequence[Column], table: pd.DataFrame
) -> tuple[list[str], str] | None:
    """Two columns whose categories correspond one to one."""
    codes: dict[bytes, str] = {}
    for column in columns:
        if column.role != "modeled" or len(column.levels) < 2:
            continue
        # Levels are numbered in the order of their first row, so that columns that differ only in the
        # names of their levels are equal.
        order = pd.factorize(levels(table[column.name]))[0].tobytes()
        if order in codes:
            names = [codes[order], column.name]
            return names, f"the categories of columns {listed(names)} correspond one to one"
        codes[order] = column.name
    return None


def _one_order(columns: Sequence[Column], table: pd.DataFrame) -> tuple[list[str], str] | None:
    """Two columns whose numbers correspond one to one and increase or decrease together, such as a number
    and its logarithm or square; the second one is modeled."""
    seen: dict[bytes, Column] = {}
    for column in sorted(columns, key=lambda column: column.role == "modeled"):
        if not column.numeric:
            continue
        ranks = _ranks(column.numbers(table[column.name]))
        other = seen.setdefault(ranks, column)
        if other is not column and column.role == "modeled":
            names = [other.name, column.name]
            return names, f"columns {listed(names)} rise and fall together, one to one"
    return None


def _ranks(values: np.ndarray) -> bytes:
    """The rank of every number among the distinct ones (rows,), from the end at which the rank of the first
    row is smaller; missing ones come last."""
    distinct, ranks = np.unique(values, return_inverse=True)
    present = ~np.isnan(values)
    top = np.count_nonzero(~np.isnan(distinct)) - 1
    turned = np.where(present, top - ranks, ranks)
    return min(ranks.tobytes(), turned.tobytes())
